"""KTO's estimate, and with it loss and gradients, is of the rows of a step, however they are computed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import REPOSITORY
from support.training_cases import Case
from torch import Tensor
from transformers import TrainerCallback

from olmoe_ft.training.reference import ReferenceCheck

BY_ROW = ("router.load_balancing_coef=0", "router.z_loss_coef=0")  # the router's loss is of a micro-batch
ROWS = 8
MEANS = ("rewards/", "logps/", "logits/", "entropy")  # of the rows of a record, or of their tokens


class Gradients(TrainerCallback):
    """What each step gives to the optimizer."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.steps = trainer, []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        weights = self.trainer.model.named_parameters()
        self.steps.append({name: one.grad.clone() for name, one in weights if one.grad is not None})


@pytest.fixture
def steps_of(make_trainer) -> Callable[..., tuple[list[float], list[float], list[dict[str, Tensor]]]]:
    """`steps_of(case, "training.seed=3")`: losses, estimates and gradients of each step, with a reference elsewhere."""

    def run(case: Case, *overrides: str, steps: int = 2):
        options = f"training.max_steps={steps}", "training.learning_rate=0.01", "training.optim=sgd"
        trainer = make_trainer(case, *BY_ROW, *options, *overrides)
        if trainer.ref_model is not None:
            trainer.remove_callback(ReferenceCheck)
            with torch.no_grad():
                trainer.ref_model.lm_head.weight.mul_(1.5)
        trainer.model.train()  # as before every step but the first
        gradients = Gradients(trainer)
        trainer.add_callback(gradients)
        trainer.train()
        records = [record for record in trainer.state.log_history if "loss/task" in record]
        assert any(record["kl"] > 0 for record in records), "the estimate counts"
        means = [{name: one[name] for name in one if name.startswith(MEANS)} for one in records]
        return [one["loss/task"] for one in records], [one["kl"] for one in records], gradients.steps, means

    return run


def shaped(rows: int, form: str = "full", checkpointing: str = "none") -> Case:
    return Case("kto", form, checkpointing=checkpointing, rows=rows, micro_batches=ROWS // rows)


def assert_same(found, expected, rtol: float = 1e-4) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-5) and found[1] == pytest.approx(
        expected[1], rel=rtol, abs=1e-5
    )
    for one, other in zip(found[3], expected[3], strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    for one, other in zip(found[2], expected[2], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            largest = other[name].abs().max().item()
            torch.testing.assert_close(one[name], other[name], rtol=rtol, atol=rtol * largest)


@pytest.mark.parametrize("overrides", [
    (),
    ("training.precompute_ref_log_probs=true",),
    ("model.attn_implementation=eager",),
    ("training.dataloader_num_workers=2",),
])  # fmt: skip
@pytest.mark.parametrize("form", ["full", "lora"])
def test_micro_batches_of_any_size(steps_of, form, overrides):
    """Eight rows a step, as one micro-batch, two or four."""
    whole = steps_of(shaped(8, form), *overrides)
    for rows in (4, 2):
        assert_same(steps_of(shaped(rows, form), *overrides, f"name=by-{rows}"), whole)


@pytest.mark.parametrize("noise", [
    ("full", "training.neftune_noise_alpha=5"),
    ("lora", "training.disable_dropout=false", "lora.dropout=0.5", "lora.experts=false", "training.seed=2"),
], ids=["NEFTune", "dropout"])  # fmt: skip
def test_noise_does_not_reach_the_estimate(steps_of, noise):
    """Noise depends on how often it is drawn, so a step's gradients do on its micro-batches; its estimate does not."""
    form, *overrides = noise
    quiet = steps_of(shaped(8, form), *overrides[2:], steps=1)
    for rows in (8, 2):
        losses, estimates, *_ = steps_of(shaped(rows, form), *overrides, f"name=noisy-{rows}", steps=1)
        assert estimates == pytest.approx(quiet[1], rel=1e-5) and losses != pytest.approx(quiet[0], rel=1e-5)


@pytest.mark.parametrize("form", ["full", "lora"])
@pytest.mark.parametrize("checkpointing", ["reentrant", "non_reentrant"])
def test_gradient_checkpointing_changes_nothing(steps_of, form, checkpointing):
    assert_same(steps_of(shaped(4, form, checkpointing), "name=other"), steps_of(shaped(4, form)))


def test_the_last_step_of_an_epoch_has_fewer_rows(steps_of):
    """Of 20 rows eight, eight and four: the loss of four as one micro-batch is that of two, and `drop_last` keeps it.

    Of 21 rows in micro-batches of two, four in a step, the last has one row; its estimate is of all five.
    """
    rows, epochs = "data.train.0.max_rows=20", ("training.max_steps=-1", "training.num_train_epochs=2")
    whole = steps_of(shaped(8), rows, *epochs)
    assert len(whole[0]) == 6
    assert_same(steps_of(shaped(4), rows, *epochs, "name=by-4"), whole)
    assert_same(steps_of(shaped(2), rows, *epochs, "training.dataloader_drop_last=true", "name=by-2"), whole)


def test_an_estimate_in_bf16_is_that_of_fp32(steps_of):
    """Micro-batches round alike, so they differ as little; a bf16 log-probability is right to about 1%."""
    exact = steps_of(shaped(8), steps=1)
    rounded = [
        steps_of(shaped(rows), "model.dtype=bfloat16", "training.optim=null", f"name=bf16-{rows}", steps=1)
        for rows in (8, 2)
    ]
    assert rounded[0][1] == pytest.approx(rounded[1][1], rel=1e-2)
    assert rounded[0][1] == pytest.approx(exact[1], rel=5e-2)


def test_evaluations_between_steps_change_nothing(steps_of):
    """Their estimate is their own, and no random number of training is drawn."""
    noise = "training.disable_dropout=false", "lora.dropout=0.5", "lora.experts=false"
    rows = f"data.eval=[{{path: {REPOSITORY / 'data/skills/judgements.jsonl'}, max_rows: 7}}]"
    evaluated = rows, "training.eval_strategy=steps", "training.eval_steps=1", "training.per_device_eval_batch_size=2"
    without = steps_of(shaped(4, "lora"), *noise, steps=3)
    assert steps_of(shaped(4, "lora"), *noise, *evaluated, "name=evaluated", steps=3)[:2] == without[:2]
