"""What a record says of speed: by hand."""

import pytest
import torch
from support.training_cases import Case
from transformers import TrainerCallback

from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.size import matrix_parameters_per_token, training_flops_per_token
from olmoe_ft.training.performance import PerformanceCallback, Work, matrix_rate

TINY = OlmoeConfig.from_json_file("configs/model/olmoe_tiny.json")


def record(batches: list[dict], tokens: int, processes: int = 1) -> tuple[dict, PerformanceCallback]:
    """The second record of a run whose first ended at 100 tokens; two seconds lie between them."""
    work = Work()
    flops = training_flops_per_token(TINY)
    callback = PerformanceCallback(flops, torch.device("cpu"), torch.float32, processes, work)
    callback.tokens, callback.seconds = 100, 2.0
    for batch in batches:
        work.add(batch)
    logs = {"loss": 1.0, "num_tokens": 100 + tokens}
    callback.on_log(None, None, None, logs=logs)
    return logs, callback


def test_padding_is_the_share_of_places_without_a_token():
    """Two batches of 4 x 10 places on each of two processes; 120 of their 160 places hold a token."""
    logs, callback = record([{"input_ids": torch.zeros(4, 10)}] * 2, tokens=120, processes=2)
    assert logs["perf/padding"] == pytest.approx(0.25)
    assert logs["perf/tokens_per_second"] == pytest.approx(60)
    assert logs["perf/mfu"] == pytest.approx(60 * training_flops_per_token(TINY) / callback.rate)
    assert callback.work.places == callback.work.computed == 0


def test_a_shared_prompt_is_no_work_twice():
    """A row of 10 tokens whose segments see 16, the prompt of 6 twice: 10/16 of the padded batch's work, no padding."""
    logs, callback = record([{"input_ids": torch.zeros(1, 10), "key_places": torch.zeros(16)}], tokens=16)
    assert logs["perf/padding"] == 0
    assert logs["perf/mfu"] == pytest.approx(8 * 10 / 16 * training_flops_per_token(TINY) / callback.rate)


@pytest.mark.parametrize(
    ("stage", "overrides"), [("sft", []), ("sft", ["training.packing=true"]), ("dpo", []), ("kto", [])]
)
def test_runs_record_their_padding(make_trainer, stage, overrides):
    """Packs, shared prompts and judged answers have none; rows of different lengths have some."""
    trainer = make_trainer(Case(stage), *overrides)
    found: list[float] = []

    class Look(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            found.extend([logs["perf/padding"]] if "loss" in logs else [])

    trainer.add_callback(Look())
    trainer.train()
    assert len(found) == 2
    assert all(0 < share < 1 for share in found) if stage == "sft" and not overrides else found == [0, 0]


def test_measuring_the_device_draws_no_random_number_of_training():
    """It is done once in a process: the dropout of a pipeline's second stage must not depend on who came first."""
    before = torch.get_rng_state()
    matrix_rate.__wrapped__(torch.device("cpu"), torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("case", "overrides", "passes"),
    [
        (Case("sft"), [], 6),
        (Case("dpo"), [], 6 + 2),  # and the reference
        (Case("kto"), [], 6 + 2 + 2 * 2),  # and for the estimate the policy and the reference
        (Case("kto"), ["training.precompute_ref_log_probs=true"], 6 + 2),
        (Case("kto"), ["training.loss_type=apo_zero_unpaired"], 6 + 2),
    ],
)
def test_passes_without_gradient_are_work_too(make_trainer, case, overrides, passes):
    """A weight is used twice a pass and token, in the backward pass four times."""
    trainer = make_trainer(case, *overrides)
    [callback] = [one for one in trainer.callback_handler.callbacks if isinstance(one, PerformanceCallback)]
    weights = matrix_parameters_per_token(trainer.model.config)
    assert callback.flops_per_token == passes * weights
