"""The plan beside what was measured, by hand."""

import pytest
from support.small_runs import small_run

from olmoe_ft.constants import GIB
from olmoe_ft.report.page.blocks import Cell
from olmoe_ft.report.sections.planned import planned

PLAN = {
    "gpu": True,
    "processes": 2,
    "steps": 40,
    "tokens": 4000.0,
    "tokens_per_step": 100.0,
    "padding": 0.2,
    "micro_batch": {"rows": 1, "tokens": 50, "packed": False},
    "memory": {"peak": 4 * GIB},
    "seconds_per_step": 0.5,
    "tokens_per_second": 999.0,
    "checkpoint_bytes": 2 * GIB,
}


def record(step: int, tokens: float, speed: object, padding: object = 0.5, peak: object = 4.0) -> dict:
    return {
        "step": step,
        "num_tokens": tokens,
        "perf/tokens_per_second": speed,
        "perf/padding": padding,
        "perf/peak_memory_gib": peak,
    }


def rows(section) -> dict[str, list[tuple[str, str, str]]]:
    (table,) = section.blocks
    cells = {row[0]: [one if isinstance(one, Cell) else Cell(one) for one in row[1:]] for row in table.rows}
    return {name: [(one.text, one.note, one.tone) for one in found] for name, found in cells.items()}


def test_a_finished_run_beside_its_plan(tmp_path):
    """20 steps of 2,400 tokens at 240 tokens/s: 10 s; then 20 of 2,000 at 100: 20 s. 30 s / 40 steps = 0.75 s, 4,400
    tokens in 30 s: 147 a second, against 100 / 0.5 = 200. 4,400 / 4,000 is 10% more, 110 a step. The places:
    2,400 / (1 - 0.5) + 2,000 / (1 - 0.2) = 7,300, of them 2,900 empty: 39.7%. 5 GiB are a quarter more than 4."""
    records = [record(20, 2400, 240.0, 0.5, 4.0), record(40, 4400, 100.0, 0.2, 5.0)]
    found = rows(planned(small_run(tmp_path, records, plan=PLAN)))
    assert found["steps"] == [("40", "", ""), ("40", "", ""), ("0.0%", "", "")]
    assert found["tokens"] == [("4,000", "", ""), ("4,400", "", ""), ("+10.0%", "", "")]
    assert found["tokens a step"] == [("100", "", ""), ("110", "", ""), ("+10.0%", "", "")]
    assert found["padding"] == [("20.0%", "", ""), ("39.7%", "", ""), ("", "", "")]
    assert found["peak memory of a device"] == [
        ("4.00 GiB", "", ""),
        ("5.00 GiB", "of the first process", ""),
        ("+25.0%", "", "warn"),
    ]
    assert found["seconds a step"] == [("0.5", "", ""), ("0.75", "", ""), ("+50.0%", "", "")]
    assert found["tokens a second"] == [("200", "", ""), ("147", "", ""), ("-26.7%", "", "")]


def test_a_run_that_is_not_at_its_end_is_not_compared_in_all_its_tokens(tmp_path):
    found = rows(planned(small_run(tmp_path, [record(10, 800, 240.0)], plan=PLAN)))
    assert found["steps"][1:] == [("10", "so far", ""), ("", "", "")]
    assert found["tokens"][1:] == [("800", "so far", ""), ("", "", "")]
    assert found["tokens a step"][1:] == [("80", "", ""), ("-20.0%", "", "warn")]


def test_a_cpu_has_no_planned_time_and_another_memory(tmp_path):
    plan = PLAN | {"gpu": False, "seconds_per_step": None, "tokens_per_second": None}
    found = rows(planned(small_run(tmp_path, [record(40, 4000, 100.0)], plan=plan)))
    assert found["seconds a step"] == [("", "no time is planned on CPUs", ""), ("1", "", ""), ("", "", "")]
    planned_peak, measured, off = found["peak memory"]
    assert (planned_peak[0], measured[0], off[0]) == ("4.00 GiB", "4.00 GiB", "")
    assert "not comparable" in measured[1]


def test_room_in_packs_is_not_the_padding_of_records(tmp_path):
    plan = PLAN | {"micro_batch": {"packed": True}}
    found = rows(planned(small_run(tmp_path, [record(40, 4000, 100.0, 0.0)], plan=plan)))
    assert "padding" not in found
    assert found["room left in packs"][0][0] == "20.0%" and found["room left in packs"][1][0] == ""


def test_speed_and_memory_are_those_of_the_newest_launch(tmp_path):
    """It continued from step 20: 20 steps in 1,000 / 100 = 10 s, at most 2 GiB; before it were 20 in 100 s, 9 GiB."""
    records = [record(20, 1000, 10.0, 0.5, 9.0), record(40, 2000, 100.0, 0.5, 2.0)]
    launches = [{"processes": 2}, {"processes": 1, "resumed_from": "checkpoint-20"}]
    section = planned(small_run(tmp_path, records, launches, PLAN))
    found = rows(section)
    assert (found["seconds a step"][1][0], found["peak memory of a device"][1][0]) == ("0.5", "2.00 GiB")
    assert "from step 20 on" in section.lead


def test_the_newest_checkpoint_is_measured_without_its_copy_of_the_records(tmp_path):
    for step, size in ((100, 5), (20, 7)):
        folder = tmp_path / f"checkpoints/checkpoint-{step}/inner"
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(b"0" * size * 2**20)
        (folder.parent / "metrics.jsonl").write_bytes(b"0" * 2**20)
    (tmp_path / "checkpoints/.unfinished").mkdir()
    found = rows(planned(small_run(tmp_path, plan=PLAN | {"checkpoint_bytes": 4 * 2**20})))
    assert found["a checkpoint on the disk"] == [("4.0 MiB", "", ""), ("5.0 MiB", "", ""), ("+25.0%", "", "")]


def test_numbers_that_are_not_finite_are_left_out(tmp_path):
    """The 1,000 tokens of the first record took 10 s; of the others it is not known."""
    records = [
        record(10, 1000, 100.0, 0.5, 3.0),
        record(20, 2000, "NaN", "NaN", "NaN"),
        record(30, "NaN", 5.0, 0.5, 3.5),
    ]
    found = rows(planned(small_run(tmp_path, records, plan=PLAN)))
    assert found["tokens a second"][1][0] == "100"
    assert found["seconds a step"][1][0] == "1"
    assert found["peak memory of a device"][1][0] == "3.50 GiB"


@pytest.mark.parametrize(
    "plan",
    [
        {"steps": 40, "gpu": True, "processes": 1, "checkpoint_bytes": 7},  # as it is while the run trains
        {"steps": "40", "memory": [], "micro_batch": None, "gpu": 1, "tokens": True, "padding": 1e999},
        {},
    ],
)
def test_a_plan_with_less_in_it_is_no_failure(tmp_path, plan):
    section = planned(small_run(tmp_path, [record(40, 4000, 100.0)], plan=plan))
    assert rows(section)["tokens"][1][0] == "4,000"


def test_no_plan_is_no_section(tmp_path):
    assert planned(small_run(tmp_path, [record(40, 4000, 100.0)])) is None
