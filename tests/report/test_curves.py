"""Every metric that is one number is in one chart, and its last value there is the one in metrics.jsonl."""

import json
import math
from collections import Counter

import pytest
from support.small_runs import small_run

from olmoe_ft.constants import GIB
from olmoe_ft.report.page.blocks import Curves, Facts, Fold
from olmoe_ft.report.sections.charts_known import TOTALS
from olmoe_ft.report.sections.curves import curves

SFT = {
    "loss": 2.5,
    "grad_norm": 0.5,
    "learning_rate": 1e-4,
    "loss/task": 2.25,
    "router/load_balancing_loss": 1.5,
    "router/z_loss": 7.5,
    "router/loss": 0.25,
    "router/tokens": 33237,
    "router/entropy": 2.75,
    "router/max_violation": 1.375,
    "router/dead_experts": 0,
    "router/load/layer_00": [0.5, 0.5],
    "router/entropy/layer_00": 2.75,
    "router/drift_agreement/layer_00": 0.5,
    "router/drift_agreement": 0.5,
    "entropy": 6.125,
    "mean_token_accuracy": 0.25,
    "num_tokens": 33237.0,
    "epoch": 0.0625,
    "perf/tokens_per_second": 14542.5,
    "perf/padding": 0.125,
    "perf/peak_memory_gib": 0.75,
    "optim/moved": 0.96875,
}
PAIRS = {
    "rewards/chosen": 0.5,
    "rewards/rejected": -4.5,
    "rewards/margins": 5.0,
    "logps/chosen": -1.5,
    "logits/chosen": -3,
    "kl": 0.625,
}
ROWS = {
    "eval_loss": 2.75,
    "eval_runtime": 1.5,
    "eval_mean_token_accuracy": 0.375,
    "eval_other": 3,
    "eval_kl": 0.75,
    "eval_num_tokens": 9,
}
SCORES = {
    "eval/gsm8k/exact_match": 0.25,
    "eval/gsm8k/exact_match_stderr": 0.0625,
    "eval/gsm8k/f1": 0.5,
    "eval/mmlu/acc": 0.5,
}
OTHERS = {"other": 1.5, "mine/a": 1, "mine/b": 2, "deep/er/c": 3}
END = {"train_runtime": 143.5, "total_flos": 24648918859008.0, "train_loss": 0.5, "epoch": 4.0}


def charts(blocks) -> list[Curves]:
    """All of them, those in folds too."""
    found = []
    for block in blocks:
        found += [block] if isinstance(block, Curves) else charts(block.blocks) if isinstance(block, Fold) else []
    return found


def chart(section, name: str) -> Curves:
    (found,) = [one for one in charts(section.blocks) if name in [series.name for series in one.series]]
    return found


def line(section, name: str):
    (found,) = [series for series in chart(section, name).series if series.name == name]
    return found


def records() -> list[dict]:
    kinds = [SFT, SFT | PAIRS, ROWS, SFT | {"loss": "NaN"}, SFT | OTHERS | PAIRS, ROWS, SCORES, SFT, SCORES, END]
    return [
        {"step": step} | {name: value + step / 8 if isinstance(value, float) else value for name, value in kind.items()}
        for step, kind in enumerate(kinds)
    ]


def test_every_number_of_the_records_is_on_the_page_once(tmp_path):
    """Recomputed by json: the newest value of every metric that is one number, but for layers and standard errors."""
    run = small_run(tmp_path, records())
    section = curves(run)
    last: dict[str, tuple[int, float]] = {}
    for text in run.path.joinpath("metrics.jsonl").read_text().splitlines():
        record = json.loads(text)
        step = record.pop("step")
        last |= {name: (step, value) for name, value in record.items() if not isinstance(value, list)}
    named = [series.name for one in charts(section.blocks) for series in one.series]
    wanted = {name for name in last if "/layer_" not in name and not name.endswith("_stderr")} - set(TOTALS)
    assert Counter(named) == dict.fromkeys(wanted, 1)
    for name in wanted:
        series = line(section, name)
        step, value = last[name]
        assert (series.x[-1], series.y[-1]) == (step, pytest.approx(value, rel=1e-5)), name
    fold = section.blocks[-1]
    (totals,) = [block for block in fold.blocks if isinstance(block, Facts)]
    assert totals.pairs == [("train_loss", "1.625"), ("train_runtime", "144.625"), ("total_flos", "2.46489e+13")]


def test_a_number_that_is_not_finite_is_a_gap(tmp_path):
    series = line(curves(small_run(tmp_path, records())), "loss")
    assert (series.x[2], series.y[2]) == (3, None)


def test_what_belongs_together_shares_a_chart(tmp_path):
    section = curves(small_run(tmp_path, records()))
    groups = {one.title: [series.name for series in one.series] for one in charts(section.blocks)}
    assert groups["Loss"] == ["loss", "loss/task", "eval_loss"]
    assert groups["Preference rewards"] == ["rewards/chosen", "rewards/rejected", "rewards/margins"]
    assert groups["Estimate of the KL divergence"] == ["kl", "eval_kl"]
    assert groups["Token accuracy"] == ["mean_token_accuracy", "eval_mean_token_accuracy"]
    assert groups["Tokens so far"] == ["num_tokens", "eval_num_tokens"]
    assert groups["mine"] == ["mine/a", "mine/b"]
    assert groups["deep/er"] == ["deep/er/c"]
    assert groups["other"] == ["other", "eval_other"]
    assert groups["Seconds of an evaluation"] == ["eval_runtime"]
    shown = [block.title for block in section.blocks if isinstance(block, Curves)]
    assert shown[:2] == ["Loss", "Evaluation of gsm8k"]
    assert not {"mine", "Epoch", "Seconds of an evaluation"} & set(shown)  # they are in a fold


def test_evaluations_are_points_and_scores_have_their_errors(tmp_path):
    same = [{"step": step} | SCORES for step in (0, 100)]
    section = curves(small_run(tmp_path, [*records()[:6], *same]))
    assert line(section, "eval_loss").points and not line(section, "loss").points
    first = line(section, "eval/gsm8k/exact_match")
    assert (first.points, first.x, first.y, first.errors) == (True, [0, 100], [0.25, 0.25], [0.0625, 0.0625])
    scores = chart(section, "eval/gsm8k/exact_match")
    assert [series.name for series in scores.series] == ["eval/gsm8k/exact_match", "eval/mmlu/acc"]
    assert not scores.smooth and scores.note
    assert line(section, "eval/mmlu/acc").errors is None
    (fold,) = [block for block in section.blocks if isinstance(block, Fold) and "scores" in block.title]
    assert [one.title for one in fold.blocks] == ["Other metrics of gsm8k"]


def test_scores_that_are_no_shares_do_not_share_an_axis(tmp_path):
    values = {"eval/a/acc": 0.5, "eval/b/perplexity": 0.75, "eval/c/length": 30.0} | {
        f"eval/t{i}/acc": 0.5 for i in range(9)
    }
    section = curves(small_run(tmp_path, [{"step": 5} | values]))
    groups = {one.title: len(one.series) for one in charts(section.blocks)}
    assert groups == {
        "Evaluation scores (1 of 2)": 8,
        "Evaluation scores (2 of 2)": 2,
        "Evaluation of b": 1,
        "Evaluation of c": 1,
    }


def test_what_was_planned_is_a_dashed_line(tmp_path):
    """8,192 tokens a step in 0.5 s are 16,384 tokens/s; 3 GiB; padding as it is."""
    plan = {
        "gpu": True,
        "tokens_per_step": 8192,
        "seconds_per_step": 0.5,
        "tokens_per_second": 20000.0,  # with padding, which the records leave out
        "padding": 0.25,
        "memory": {"peak": 3 * GIB},
        "micro_batch": {"rows": 1, "tokens": 8, "packed": False},
    }
    section = curves(small_run(tmp_path, records(), plan=plan))
    for name, value in {"perf/tokens_per_second": 16384, "perf/padding": 0.25, "perf/peak_memory_gib": 3}.items():
        (dashed,) = [series for series in chart(section, name).series if series.dashed]
        assert (dashed.x, dashed.y) == ([0, 7], [value, value])


def test_what_is_measured_otherwise_has_no_planned_line(tmp_path):
    """On a CPU the memory is that of the whole process; the plan's padding of packs is room that is left in them."""
    plan = {"gpu": False, "padding": 0.25, "memory": {"peak": GIB}, "micro_batch": {"packed": True}}
    section = curves(small_run(tmp_path, records(), plan=plan))
    assert not [series for one in charts(section.blocks) for series in one.series if series.dashed]


def test_one_record_is_points(tmp_path):
    section = curves(small_run(tmp_path, [{"step": 1, "loss": 2.5}]))
    assert line(section, "loss").points
    assert "1 record up to step 1." in section.lead


def test_no_records_are_no_section(tmp_path):
    assert curves(small_run(tmp_path)) is None
    assert curves(small_run(tmp_path, [{"step": 1, "router/load/layer_00": [1, 2]}])) is None


def test_a_long_series_says_that_it_is_thinned(tmp_path):
    section = curves(small_run(tmp_path, [{"step": step, "loss": math.sin(step)} for step in range(1, 2502)]))
    assert len(line(section, "loss").x) <= 2000
    assert "thinned" in section.lead
