"""What a person should know of a run first."""

import math
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.evaluations import evaluation, sample
from support.run_folders import make_run, recipe_of

from olmoe_ft.constants import GIB
from olmoe_ft.report.files.run_files import read_run
from olmoe_ft.report.findings.findings import ORDER, findings
from olmoe_ft.report.findings.of_results import SENTENCES

SECTIONS = {"asked", "data", "curves", "experts", "samples", "scores", "planned", "cost", "machine", ""}
FINISHED = {"ended": {"how": "finished", "reason": None, "step": 20, "seconds": 1.0, "energy_joules": None}}


def records(**series):
    """A record every ten steps: `loss=[3, 2]`; names with `__` for `/`."""
    length = max(map(len, series.values()))
    rows = [{"step": 10 * (number + 1)} for number in range(length)]
    for name, values in series.items():
        for row, value in zip(rows, values, strict=False):
            row[name.replace("__", "/")] = value
    return rows


def texts(run, tone=None, section=None):
    found = findings(run)
    assert {one.section for one in found} <= SECTIONS
    assert [ORDER.index(one.tone) for one in found] == sorted(ORDER.index(one.tone) for one in found)
    return [one.text for one in found if tone in (None, one.tone) and section in (None, one.section)]


def probe(folder, experts, chosen):
    """4 layers and 3 tokens."""
    save_file(
        {"experts": np.array(experts), "start": np.zeros((4, 3, chosen), np.int16)},
        folder / "routing_probe.safetensors",
    )


def test_a_good_run_has_good_findings_alone(tmp_path):
    run = make_run(tmp_path / "x", records=records(loss=[5.5, 0.14]), launches=[FINISHED])
    assert (
        texts(run)
        == texts(run, "good")
        == [
            "The run finished after step 20",
            "The loss fell from 5.5 in the first record to 0.14 in the last",
        ]
    )


@pytest.mark.parametrize(
    ("how", "reason", "tone", "text"),
    [
        ("failed", "the loss is nan", "bad", "The run failed after step 20: the loss is nan"),
        (
            "stopped", "SIGTERM", "warn",
            "The run was stopped after step 20: SIGTERM; the same command continues it from its newest checkpoint",
        ),
    ],
)  # fmt: skip
def test_how_it_ended(tmp_path, how, reason, tone, text):
    run = make_run(tmp_path / "x", launches=[{"ended": FINISHED["ended"] | {"how": how, "reason": reason}}])
    assert texts(run) == texts(run, tone) == [text]


def test_a_killed_run_and_its_half_line(tmp_path):
    """The half line is no flaw of its own: a killed run may leave one. A second one is."""
    run = make_run(tmp_path / "x", records=records(loss=[3.0]), launches=[{}])
    file = run.path / "metrics.jsonl"
    file.write_text(file.read_text() + '{"step": 20, "lo')
    [killed] = texts(read_again(run), "bad")
    assert killed.startswith(
        "The run was killed after at least step 10 (last record): it recorded no end, and nobody trains here"
    )
    assert texts(read_again(run), "") == [
        "1 of 2 lines of metrics.jsonl are no records; a launch that is killed leaves one"
    ]
    file.write_text("nonsense\n" + file.read_text())
    assert texts(read_again(run), "warn") == ["2 of 3 lines of metrics.jsonl are no records"]


def read_again(run):
    return read_run(run.path)


def test_numbers_that_are_not_finite(tmp_path):
    """The first places of each, the earliest first."""
    run = make_run(
        tmp_path / "x",
        records=records(loss=[3.0, 2.0, math.nan], grad_norm=[1.0, math.inf, math.nan]),
        launches=[FINISHED],
    )
    assert texts(run, "bad") == [
        "Numbers that are not finite, where they first appear: grad_norm at step 20, loss at step 30"
    ]


def test_a_loss_that_did_not_fall(tmp_path):
    """Of twenty records the mean of the last two counts: (4 + 2) / 2 = 3, as at the start. The last one is below it,
    so the mean is said."""
    run = make_run(tmp_path / "x", records=records(loss__task=[3.0] * 18 + [4.0, 2.0]), launches=[FINISHED])
    assert texts(run, "warn") == ["The task loss did not fall: 3 in the first record, a mean of 3 in the last 2"]


def test_the_loss_of_the_last_record_is_said_where_it_agrees(tmp_path):
    """As on the tile, to four digits. Twenty records: the mean of the last two is (1 + 3.5) / 2 = 2.25, below 3."""
    fell = make_run(tmp_path / "a", records=records(loss__task=[5.49812] + [0.1] * 18 + [0.12774]), launches=[FINISHED])
    assert texts(fell, "good")[1:] == ["The task loss fell from 5.498 in the first record to 0.1277 in the last"]
    odd = make_run(tmp_path / "b", records=records(loss__task=[3.0] + [2.0] * 17 + [1.0, 3.5]), launches=[FINISHED])
    assert texts(odd, "good")[1:] == ["The task loss fell from 3 in the first record to a mean of 2.25 in the last 2"]


def test_a_loss_that_rose_again_is_no_success(tmp_path):
    """It halves every two records, and from the 81st of 100 on it is 1.5 higher. The least mean of ten is that of the
    records 71 to 80."""
    series = [4 * 0.5 ** (number / 2) + (1.5 if number > 80 else 0.0) for number in range(1, 101)]
    run = make_run(tmp_path / "x", records=records(loss__task=series), launches=[FINISHED])
    least = sum(series[70:80]) / 10
    assert texts(run, section="curves") == texts(run, "warn") == [
        f"The task loss was down to {least:.4g} at step 800 and rose to 1.5 at the end (means of 10 records): look at "
        "the gradient norm there, or lower training.learning_rate"
    ]  # fmt: skip


def test_a_loss_that_rose_in_a_short_run(tmp_path):
    run = make_run(tmp_path / "x", records=records(loss=[4.0, 2.0, 1.8, 1.7, 1.6, 3.0, 6.0]), launches=[FINISHED])
    assert texts(run, "warn")[0].startswith("The loss was down to 1.6 at step 50 and rose to 6 at the end:")


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_neither_praised_nor_called_divergence(tmp_path, seed):
    """A hundred values around ln 2 with a spread of 0.0003, as of a DPO run that learns nothing."""
    series = 0.6931 + 0.0003 * np.random.default_rng(seed).normal(size=100)
    run = make_run(tmp_path / "x", records=records(loss=series.tolist()), launches=[FINISHED])
    [found] = texts(run, section="curves")
    assert found.startswith("The loss did not fall") and texts(run, "warn") == [found]


def test_a_slow_fall_beyond_the_noise_is_one(tmp_path):
    """From 2 to 1.5, with a change of 0.05 from record to record."""
    series = [2 - 0.005 * number + 0.025 * (-1) ** number for number in range(100)]
    run = make_run(tmp_path / "x", records=records(loss=series), launches=[FINISHED])
    assert texts(run, "good", "curves") == ["The loss fell from 2.025 in the first record to 1.48 in the last"]


@pytest.mark.parametrize(("last", "rose"), [(2.05, True), (2.03, False)])
def test_an_evaluation_loss_that_rises(tmp_path, last, rose):
    """2% above the minimum of 2 are 2.04."""
    run = make_run(tmp_path / "x", records=records(eval_loss=[3.0, 2.0, last]), launches=[FINISHED])
    found = texts(run, "warn", "curves")
    assert bool(found) == rose
    if rose:
        assert found[0].startswith(
            "The evaluation loss rose from its minimum of 2 at step 20 to 2.05 at step 30: the model may have begun"
        )


@pytest.mark.parametrize(("moved", "lost"), [([0.2, 0.4, 0.9], True), ([0.0, 0.9, 0.9], False)])
def test_updates_that_are_lost(tmp_path, moved, lost):
    """By the median: the first record of a warmup moves little."""
    run = make_run(tmp_path / "x", records=records(optim__moved=moved), launches=[FINISHED])
    assert [text[:24] for text in texts(run, "warn")] == (["Only 40.0% of the weight"] if lost else [])


def test_routers_that_are_ill(tmp_path):
    """With 16 experts of which 4 are chosen: half of ln 16 is 1.39 nats; unrelated routers agree on 25%, and a tenth of
    the way from there to all is 32.5%."""
    ill = records(
        router__dead_experts=[0, 2],
        router__max_violation=[1.0, 3.5],
        router__entropy=[2.5, 1.3],
        router__drift_agreement=[0.9, 0.3],
    )
    run = make_run(tmp_path / "x", recipe_of("tiny/sft-lora"), records=ill, launches=[FINISHED])
    probe(run.path, 16, 4)
    assert texts(run, "warn", "experts") == [
        "2 experts, all layers together, had no token in the newest record",
        "The busiest expert has 4.5 times the mean load of its layer; raise router.load_balancing_coef",
        "The routers' entropy fell from 2.50 to 1.30, of at most 2.77 nats: a token's choices depend on few experts",
        "The routers choose 30% of the experts that they chose at the start; unrelated routers would agree on 25%",
    ]


def test_one_dead_expert(tmp_path):
    run = make_run(tmp_path / "x", records=records(router__dead_experts=[1]), launches=[FINISHED])
    assert texts(run, "warn") == ["1 expert had no token in the newest record"]


def test_routers_that_are_well(tmp_path):
    """At the limits; and an entropy that was low at the start has not fallen."""
    well = records(
        router__dead_experts=[2, 0],
        router__max_violation=[9.0, 3.0],
        router__entropy=[1.2, 1.3],
        router__drift_agreement=[0.1, 0.33],
    )
    run = make_run(tmp_path / "x", recipe_of("tiny/sft-lora"), records=well, launches=[FINISHED])
    probe(run.path, 16, 4)
    assert texts(run, section="experts") == []


def test_routers_that_began_with_random_weights_may_move(tmp_path):
    run = make_run(tmp_path / "x", records=records(router__drift_agreement=[0.3, 0.25]), launches=[FINISHED])
    probe(run.path, 16, 4)
    assert texts(run, section="experts") == []


def test_a_damaged_probe_is_named(tmp_path):
    run = make_run(tmp_path / "x", records=records(router__entropy=[0.1, 0.0]), launches=[FINISHED])
    (run.path / "routing_probe.safetensors").write_bytes(b"\x00" * 20)
    assert texts(run, "warn") == [f"{run.path}/routing_probe.safetensors cannot be read"]


@pytest.mark.parametrize(("peak", "gpu", "beyond"), [(11.5, True, True), (10.9, True, False), (50.0, False, False)])
def test_memory_beyond_the_plan(tmp_path, peak, gpu, beyond):
    """Planned are 10 GiB. What is measured on a CPU is the whole process."""
    run = make_run(
        tmp_path / "x",
        records=records(perf__peak_memory_gib=[1.0, peak]),
        launches=[FINISHED],
        plan={"gpu": gpu, "memory": {"weights": 1, "peak": 10 * GIB}},
    )
    expected = ["Peak memory of a device was 11.5 GiB, 15% above the planned 10.0 GiB"] if beyond else []
    assert texts(run, "warn", "planned") == expected


def test_scores_that_changed_beyond_chance(tmp_path):
    """Ten questions: eight lost, p = 2 / 2^8 = 0.0078; eight gained in the other task. In the third one lost, p = 1. Of
    three tasks the least p counts three times, and the next one is no less: 0.023."""

    def ones(right):
        return [sample(number, task, right=right(task, number)) for task in ("a", "b", "c") for number in range(10)]

    before = evaluation("before", 0, ones(lambda task, number: {"a": True, "b": number > 7, "c": True}[task]))
    after = evaluation("after", 9, ones(lambda task, number: {"a": number > 7, "b": True, "c": number > 0}[task]))
    for one in (before, after):
        one.settings.update(cut_prompts={}, short_outputs={})
    run = make_run(tmp_path / "x", launches=[FINISHED], evaluations=[before, after])
    how = "(adjusted p = 0.023, paired, McNemar's exact test)"
    assert texts(run, "bad") == [f"a: exact_match fell from 100.0% ± 12.5 to 20.0% ± 12.5 {how}"]
    assert texts(run, "good", "scores") == [f"b: exact_match rose from 20.0% ± 12.5 to 100.0% ± 12.5 {how}"]


def test_what_scores_do_not_cover(tmp_path):
    one = evaluation("after", 9, [sample(number) for number in range(4)])
    one.settings.update(cut_prompts={"sums": 2}, short_outputs={})
    one = replace(one, scores=[replace(score, clean_value=1.0, clean_n=3) for score in one.scores])
    run = make_run(tmp_path / "x", launches=[FINISHED], evaluations=[one])
    assert texts(run, "bad") == ["sums: exact_match: 1 of 4 questions are in the training rows"]
    assert texts(run, "warn") == ["sums, after training: 2 prompts lost their start"]


def test_findings_on_the_rows(tmp_path):
    """Held-out questions are summed up, and their sentence by source is not repeated."""
    overlap = {"held-out prompts": {"rows": 3, "kept": 2, "prompts": 1}}
    source = {"path": "a", "rows": 9, "dropped": {"malformed": 1}, "overlaps": overlap}
    sentences = [
        "a: 1 of 9 rows (11.1%) are dropped: malformed",
        "a: 2 of 9 rows (22.2%) contain held-out prompts (1 of 5 were found); set data.decontaminate to leave such out",
    ]
    report = {"rows": 8, "sources": [source, source], "groups": {"held-out prompts": 5}, "findings": sentences}
    run = make_run(tmp_path / "x", launches=[FINISHED], data_report=report)
    assert texts(run, "bad") == ["4 rows that were trained on contain questions of held-out prompts"]
    assert texts(run, "warn") == sentences[:1]


def test_many_findings_on_the_rows_are_not_all_listed(tmp_path):
    report = {"sources": [], "findings": [f"finding {number}" for number in range(SENTENCES + 3)]}
    found = texts(make_run(tmp_path / "x", launches=[FINISHED], data_report=report), "warn")
    assert len(found) == SENTENCES + 1 and found[-1] == "3 more findings on the rows are in data_report.json"


def test_what_was_accepted_and_changed_when_it_continued(tmp_path):
    launches = [
        {"git_revision": "abc-dirty", "changed": [], "accepted": {}},
        {"git_revision": "abc", "changed": ["training.max_steps"], "accepted": {"data": "other rows"}, **FINISHED},
    ]
    run = make_run(tmp_path / "x", launches=launches)
    assert texts(run, "warn") == ["Launch 2 continued although this had changed: data (other rows)"]
    assert texts(run, "") == [
        "Launch 2 continued with another recipe; these keys had changed: training.max_steps",
        "The code had changes that are in no commit, so its git revision alone does not repeat the run",
    ]


def test_files_that_cannot_be_read(tmp_path):
    run = make_run(tmp_path / "x", launches=[FINISHED], data_report={"sources": 3})
    (run.path / "summary.json").write_text("{")
    run = read_again(run)
    assert texts(run, "warn") == [
        f"{run.path}/summary.json cannot be read",
        f"{run.path}/data_report.json cannot be read: sources is not what it should be",
    ]
