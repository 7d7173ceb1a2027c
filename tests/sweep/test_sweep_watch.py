"""When a run is stopped, from records made by hand. 16 experts of which 4 work on a token, 4 layers, 1,000 tokens."""

import math

import pytest

from olmoe_ft.stages import STAGES
from olmoe_ft.sweep.records import Records
from olmoe_ft.sweep.watch import Expected, Verdict, Watch

TINY = Expected(experts=16, chosen=4, layers=4, guessing=math.log(300))  # 5.70
PAIRS = Expected(experts=16, chosen=4, layers=4, guessing=None)
HEALTHY = {"router/tokens": 1000, "router/dead_experts": 0, "router/max_violation": 1.0, "router/z_loss": 3.0}


def verdict(records, expected=PAIRS) -> Verdict | None:
    watch = Watch(expected)
    return next((found for record in records if (found := watch.see(record)) is not None), None)


def losses(*values: float, every: int = 10) -> list[dict]:
    return [
        {"step": every * number, "loss": loss, "loss/task": loss, **HEALTHY} for number, loss in enumerate(values, 1)
    ]


def routers(count: int, every: int = 20, **values: float) -> list[dict]:
    named = {f"router/{name}": value for name, value in values.items()}
    return [{**record, **named} for record in losses(*count * [1.0], every=every)]


def test_a_loss_three_times_its_lowest_has_diverged():
    """The median of 5 records is 4.0 at the 3rd high one, record 8; its lowest is 1.0."""
    found = verdict(losses(2.0, 1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 4.0))
    assert found is not None and (found.state, found.step) == ("diverged", 80)
    assert found.reason == "loss 4 at step 80 (median of 5 records), 4.0 times its lowest, 1"


@pytest.mark.parametrize(
    "values",
    [
        (2.0, 1.0, 1.0, 1.0, 1.0, 90.0, 90.0, 1.0, 1.0, 1.0),  # two odd batches
        (2.0, 1.0, 1.0, 1.0, 1.0, 2.9, 2.9, 2.9, 2.9, 2.9),  # below three times
        # as of DPO: 0.02 to 0.08 is four times, and yet only 9% of what was won
        (0.69, 0.02, 0.02, 0.02, 0.02, 0.02, 0.08, 0.08, 0.08, 0.08),
        (6.4, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.4),
        (-1.0, -2.0, -2.0, -2.0, -2.0, -0.1, -0.1, -0.1, -0.1),  # a loss below 0 has no multiples
        (1.0, 90.0, 90.0, 90.0),  # fewer records than the window
    ],
)
def test_what_has_not_diverged(values):
    assert verdict(losses(*values)) is None


def test_a_loss_above_the_first_for_long_has_diverged():
    """Medians from record 5 on are 1.3, which is above 1.2 x 1.0: the 20th of them is that of record 24."""
    assert verdict(losses(1.0, *22 * [1.3])) is None
    found = verdict(losses(1.0, *23 * [1.3]))
    assert found is not None and found.step == 240 and "above the first, 1, for 20 records" in found.reason
    assert verdict(losses(1.0, *60 * [1.15])) is None


def test_a_loss_worse_than_guessing_has_diverged_though_it_falls():
    """A first record in which the loss was lost already: 1.5 x ln 300 = 8.56."""
    falling = losses(90.0, 80.0, 70.0, 60.0, 50.0)
    found = verdict(falling, TINY)
    assert found is not None and found.state == "diverged" and "where a model that guesses has 5.704" in found.reason
    assert verdict(falling, PAIRS) is None
    assert verdict(losses(6.4, 6.4, 6.4, 6.4, 6.4, 6.4), TINY) is None  # random weights


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_a_number_that_is_not_finite_has_diverged_at_once(name):
    found = verdict([*losses(1.0), {"step": 20, name: "NaN"}])
    assert found == Verdict("diverged", f"{name} is nan at step 20", 20)


def test_only_a_likelihood_of_tokens_is_compared_with_guessing():
    assert STAGES["sft"].guessing_loss(300) == pytest.approx(5.704, abs=1e-3)
    assert STAGES["dpo"].guessing_loss(300) is None


def test_router_logits_that_explode():
    found = verdict(routers(5, z_loss=2e5))
    assert found is not None and (found.state, found.step) == ("diverged", 100) and "z-loss" in found.reason
    assert verdict(routers(50, z_loss=5e4)) is None


def test_dead_experts_are_a_collapse_when_they_last():
    """More than a quarter of 4 x 16 = 64 experts, for five records and 50 steps."""
    found = verdict(routers(5, dead_experts=17))
    assert found is not None and (found.state, found.step) == ("collapsed", 100)
    assert found.reason == "27% of all experts are dead at step 100; so since step 20, for 5 records"
    assert verdict(routers(50, dead_experts=16)) is None
    assert verdict(routers(4, dead_experts=17)) is None
    assert verdict(routers(50, every=1, dead_experts=17)) is None  # steps 1 to 50: 49 steps; it may recover
    assert verdict(routers(51, every=1, dead_experts=17)) is not None


def test_one_expert_for_all_tokens_is_a_collapse():
    """Chosen by every token it has a quarter of all assignments, 4 times its share: a violation of 3."""
    found = verdict(routers(6, max_violation=2.8))
    assert found is not None and found.state == "collapsed" and "max violation 2.80 of at most 3.00" in found.reason
    assert verdict(routers(50, max_violation=2.6)) is None


def test_a_collapse_that_ends_is_none():
    assert verdict([*routers(4, dead_experts=64), *losses(1.0), *routers(4, dead_experts=64)]) is None


def test_experts_that_few_tokens_could_reach_are_not_dead():
    """79 tokens are 316 assignments for 16 experts, below 20 each; 80 are enough."""
    assert verdict(routers(9, dead_experts=40, tokens=79)) is None
    assert verdict(routers(9, dead_experts=40, tokens=80)) is not None


def test_evaluations_are_not_judged():
    assert verdict([*losses(1.0), *({"step": 10, "eval_loss": 99.0} for _ in range(30))]) is None


def test_records_are_read_as_they_are_written(tmp_path):
    file = tmp_path / "metrics.jsonl"
    records = Records(file)
    assert records.new() == [] and records.begins == 0
    file.write_text('{"step": 1}\n{"step": 2, "lo')
    assert records.new() == [{"step": 1}] and records.begins == 1
    with file.open("a") as stream:
        stream.write('ss": 3}\nnot JSON\n[1]\n{"step": 3}\n')
    assert records.new() == [{"step": 2, "loss": 3}, {"step": 3}]
    assert records.new() == []


def test_records_that_are_written_anew_are_read_from_their_start(tmp_path):
    """A run that continues from a checkpoint keeps the records up to there: shorter, or another file."""
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n')
    records = Records(file)
    records.new()
    file.write_text('{"step": 1}\n')
    assert records.new() == [{"step": 1}] and records.begins == 2
    other = tmp_path / "other"
    other.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    other.replace(file)
    assert len(records.new()) == 3 and records.begins == 3
