"""Device-hours, tokens and launches by hand; the machine, and the command to repeat the run."""

import pytest
from support.small_runs import small_run

from olmoe_ft.report.amounts import duration, size
from olmoe_ft.report.page.blocks import Cell, Code
from olmoe_ft.report.sections.cost import cost, device_hours, seconds_in_steps, tokens_trained
from olmoe_ft.report.sections.machine import machine


def record(step: int, tokens: object, speed: object) -> dict:
    return {"step": step, "num_tokens": tokens, "perf/tokens_per_second": speed}


def launch(processes: int = 1, resumed_from: str | None = None, **more: object) -> dict:
    return {
        "started": "2026-11-28T08:00:00Z",
        "device": "cuda:0",
        "processes": processes,
        "resumed_from": resumed_from,
        **more,
    }


def end(seconds: float, how: str = "finished", joules: float | None = None, reason: str | None = None) -> dict:
    return {"how": how, "reason": reason, "step": 30, "seconds": seconds, "energy_joules": joules}


def facts(section) -> dict[str, tuple[str, str]]:
    cells = {name: one if isinstance(one, Cell) else Cell(one) for name, one in section.blocks[0].pairs}
    return {name: (one.text, one.note) for name, one in cells.items()}


RECORDS = [record(10, 1000, 100.0), record(20, 2000, 50.0), record(30, 4000, 200.0)]  # 10 s, 20 s, 10 s


def test_a_finished_launch(tmp_path):
    """8 processes for 1,800 s are 4 hours; 4,000 tokens in them, 1,000 an hour; 40 s of 1,800 are 2%; 1.8 MJ are
    0.5 kWh."""
    run = small_run(tmp_path, RECORDS, [launch(8, ended=end(1800.0, joules=1.8e6))])
    assert (tokens_trained(run), seconds_in_steps(run), device_hours(run)) == (4000, 40, 4)
    found = facts(cost(run))
    assert found["GPU-hours"][0] == "4"
    assert found["time in training steps"] == (
        "40.0 s",
        "2% of 30 min 00 s; the rest is loading, evaluation and saving",
    )
    assert (found["tokens trained on"][0], found["tokens per GPU-hour"][0]) == ("4,000", "1,000")
    assert found["energy"][0] == "0.5 kWh"
    assert found["launches"] == ("1", "1 finished")


def test_a_killed_launch_counts_as_its_records_do(tmp_path):
    """The first launch was killed beyond step 20, where the second continued: 30 s of its steps are in the records.
    With the second's 70 s on two processes: 30 + 140 = 170 s."""
    run = small_run(tmp_path, RECORDS, [launch(), launch(2, "checkpoint-20", ended=end(70.0))])
    assert device_hours(run) == pytest.approx(170 / 3600)
    found = facts(cost(run))
    assert found["GPU-hours"][1].startswith("at least: launch 1 has no recorded end")
    assert found["time in training steps"] == ("40.0 s", "")
    assert found["launches"] == ("2", "1 killed, 1 finished")
    table = cost(run).blocks[1]
    assert [row[-1] for row in table.rows] == [Cell("30.0 s", "at least"), Cell("1 min 10 s")]


def test_steps_that_a_later_launch_trained_again_count_once(tmp_path):
    """Launch 2 began at 20 and launch 3 at 10, as a checkpoint was damaged: of 1 remain 10 s, of 2 none, of 3 30 s."""
    three = [launch(), launch(1, "checkpoint-20"), launch(1, "checkpoint-10")]
    run = small_run(tmp_path, RECORDS, three)
    assert [row[-1].text for row in cost(run).blocks[1].rows] == ["10.0 s", "0.0 s", "30.0 s"]
    assert facts(cost(run))["launches"][1] == "2 killed, 1 without an end: killed, or still training"


def test_a_run_of_a_version_that_recorded_no_end(tmp_path):
    """Its summary has the time of training."""
    old = {"processes": 2, "device": "cpu", "resumed_from": None}
    run = small_run(tmp_path, RECORDS, [old], summary={"train_seconds": 50.0, "steps": 30})
    assert device_hours(run) == pytest.approx(100 / 3600)
    found = facts(cost(run))
    assert found["process-hours"] == ("0.0278", "training alone, as the end of its launch was not recorded")
    assert found["time in training steps"][1] == "80% of 50.0 s; the rest is evaluation and saving"
    assert found["energy"][0] == "not recorded"
    assert found["launches"] == ("1", "1 finished")


@pytest.mark.parametrize(
    ("ends", "text", "note"),
    [
        ([end(1.0)], "not reported by this device", ""),
        ([end(1.0, joules=3.6e6), end(1.0, joules=1.8e6)], "1.5 kWh", "of the devices"),
        ([end(1.0, joules=3.6e6), end(1.0)], "1 kWh", "at least: 1 of 2 launches recorded none"),
    ],
)
def test_energy(tmp_path, ends, text, note):
    found = facts(cost(small_run(tmp_path, RECORDS, [launch(ended=one) for one in ends])))["energy"]
    assert found[0] == text and found[1].startswith(note)


def test_how_a_launch_failed_is_in_its_line(tmp_path):
    run = small_run(tmp_path, RECORDS, [launch(ended=end(5.0, "failed", reason="out of memory"))])
    (row,) = cost(run).blocks[1].rows
    assert row == [
        "1",
        "2026-11-28T08:00:00Z",
        "1",
        Cell("0", "the beginning"),
        Cell("failed", "out of memory", "bad"),
        "30",
        Cell("5.0 s"),
    ]


def test_what_stopped_a_launch_is_said_once(tmp_path):
    ends = [end(5.0, "stopped", reason="stopped by SIGTERM")]
    (row, killed, _) = (
        cost(small_run(tmp_path, RECORDS, [*(launch(ended=one) for one in ends), launch(), launch()])).blocks[1].rows
    )
    assert (row[4], killed[4]) == (Cell("stopped", "by SIGTERM"), Cell("killed", "", "warn"))


def test_hours_of_cpus_and_gpus_are_those_of_devices(tmp_path):
    run = small_run(tmp_path, RECORDS, [launch(ended=end(3600.0)), launch(ended=end(3600.0)) | {"device": "cpu"}])
    assert facts(cost(run))["device-hours"][0] == "2"


def test_numbers_that_are_not_finite_are_left_out(tmp_path):
    """The first 1,000 tokens took 10 s. Of the second record the speed is not known, of the third the tokens."""
    run = small_run(tmp_path, [record(10, 1000, 100.0), record(20, 2000, "NaN"), record(30, "NaN", 50.0)])
    assert (tokens_trained(run), seconds_in_steps(run), device_hours(run)) == (2000, 10, None)


@pytest.mark.parametrize(
    "odd", [{}, {"ended": []}, {"ended": {"seconds": "long", "how": 5}, "processes": "two", "resumed_from": 7}]
)
def test_launches_with_less_in_them_are_no_failure(tmp_path, odd):
    run = small_run(tmp_path, RECORDS, [odd, launch(ended=end(36.0))])
    assert device_hours(run) is None
    section = cost(run)
    assert "GPU-hours" not in facts(section) and len(section.blocks[1].rows) == 2
    assert machine(run) is not None


def test_a_run_of_nothing_has_no_cost_and_no_machine(tmp_path):
    run = small_run(tmp_path)
    assert (cost(run), machine(run)) == (None, None)


def test_the_command_is_written_so_that_a_shell_reads_its_words(tmp_path):
    words = ["accelerate", "launch", "-m", "olmoe_ft", "train", "tiny/sft", "name=two words", "tracking.wandb='off'"]
    code = machine(small_run(tmp_path, launches=[launch(command=["old"]), launch(command=words)])).blocks[-1]
    assert isinstance(code, Code)
    assert (
        code.text == """accelerate launch -m olmoe_ft train tiny/sft 'name=two words' 'tracking.wandb='"'"'off'"'"''"""
    )


@pytest.mark.parametrize("command", [None, [], "train", [1]])
def test_a_command_that_was_not_recorded(tmp_path, command):
    code = machine(small_run(tmp_path, launches=[launch(command=command)])).blocks[-1]
    assert "not recorded" in code.title and code.text == f"olmoe-ft train {tmp_path}/recipe.yaml"


def test_the_machine(tmp_path):
    hardware = {
        "system": "Linux 6.1",
        "cpu": "A processor",
        "cores": 96,
        "memory_gib": 503.5,
        "devices": ["NVIDIA H100 80GB HBM3"] * 8,
        "device_memory_gib": 79.1,
    }
    more = {
        "engine": "ZeRO-3",
        "python": "3.12.1",
        "libraries": {"torch": "2.13.0"},
        "precision": {"weights": "bfloat16"},
    }
    run = small_run(tmp_path, launches=[launch(8, machine=hardware, git_revision="0123abc-dirty", **more)])
    computer, precision, libraries, _ = machine(run).blocks
    assert dict(computer.pairs) == {
        "devices": Cell("8 x NVIDIA H100 80GB HBM3", "79.1 GiB each"),
        "processes": "8",
        "engine": "ZeRO-3",
        "processor": Cell("A processor", "96 cores"),
        "memory": "503.5 GiB",
        "system": "Linux 6.1",
        "Python": "3.12.1",
        "git revision": Cell("0123abc", "with changes that are in no commit", "warn"),
    }
    assert (precision.pairs, libraries.pairs) == ([("weights", "bfloat16")], [("torch", "2.13.0")])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (144.0, "2 min 24 s"),
        (3599.6, "1 h 00 min"),
        (11100.0, "3 h 05 min"),
        (7199.0, "2 h 00 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_sizes():
    assert (size(3 * 2**30 / 2), size(12 * 2**20)) == ("1.50 GiB", "12.0 MiB")
