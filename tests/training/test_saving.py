"""A run that is stopped goes on as if it had not been: in one process, with records that fall between checkpoints."""

import json

import pytest
import torch
from support import REPOSITORY
from support.training_cases import Case

from olmoe_ft.checkpoints.manifest import damage
from olmoe_ft.recipe import load_recipe
from olmoe_ft.training.recovery import Found, recover
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.tracking import Tracking, TrackingCallback

ROWS = REPOSITORY / "data/skills/train.jsonl"
EVALUATION = f"data.eval=[{{path: {ROWS}, max_rows: 6}}]"
TIMES = ("perf/tokens_per_second", "perf/mfu", "perf/peak_memory_gib", "train_runtime")
USUAL = (
    "training.save_strategy=steps",
    "training.save_steps=2",
    "training.logging_steps=3",
    "training.learning_rate=1e-2",
    "training.max_steps=5",
)
TWO_STEPS_AN_EPOCH = ("data.train.0.max_rows=16",)
CASES = {
    "packed, accumulated": (Case(layout="packed"), ()),
    "bf16 with its remainders": (Case(), ("model.dtype=bfloat16", "training.optim=null")),
    "dpo": (Case(stage="dpo"), ()),
    "a reference that moves": (Case(stage="dpo"), ("training.sync_ref_model=true", "training.ref_model_sync_steps=2")),
    "adapters": (Case(form="lora"), ()),
    "kto, accumulated, with noise, evaluations and a reference that moves": (
        Case(stage="kto"),
        (
            "training.neftune_noise_alpha=5",
            "training.sync_ref_model=true",
            "training.ref_model_sync_steps=2",
            "training.eval_strategy=steps",
            "training.eval_steps=1",
            f"data.eval=[{{path: {ROWS.with_name('judgements.jsonl')}, max_rows: 6}}]",
        ),
    ),
    "kto, adapters with dropout": (
        Case(stage="kto", form="lora"),
        ("training.disable_dropout=false", "lora.dropout=0.5", "lora.experts=false"),
    ),
    "records and evaluation at the end of epochs": (
        Case(),
        (*TWO_STEPS_AN_EPOCH, "training.logging_strategy=epoch", "training.eval_strategy=epoch", EVALUATION),
    ),
    "saved at the end of epochs": (
        Case(),
        (*TWO_STEPS_AN_EPOCH, "training.save_strategy=epoch", "training.logging_strategy=epoch"),
    ),
    "saved when it is the best at the end of an epoch": (
        Case(),
        (
            *TWO_STEPS_AN_EPOCH,
            "training.save_strategy=best",
            "training.metric_for_best_model=loss",
            "training.logging_strategy=epoch",
            "training.eval_strategy=steps",
            "training.eval_steps=2",
            EVALUATION,
        ),
    ),
    "records right behind an evaluation": (
        Case(),
        (
            *TWO_STEPS_AN_EPOCH,
            "training.logging_strategy=epoch",
            "training.eval_strategy=steps",
            "training.eval_steps=1",
            EVALUATION,
        ),
    ),
    "an evaluation is the last that is done": (
        Case(),
        ("training.eval_strategy=steps", "training.eval_steps=5", EVALUATION),
    ),
}


class Killed(BaseException):
    pass


def train(make, case, overrides, resume=None):
    """Records without times, and the weights."""
    trainer = make(case, *USUAL, *overrides)
    run = RunDirectory(load_recipe("recipe.yaml"))
    recover(run, Found(resume, []))
    trainer.beside.append(run.copy_records)
    trainer.add_callback(TrackingCallback(Tracking(run.recipe, run)))
    result = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    for record in records:
        for name in [*TIMES, *(name for name in record if name.endswith(("_per_second", "_runtime")))]:
            record.pop(name, None)
    return records, {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}, result


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("step", [2, 4, 5])
def test_a_run_goes_on_to_the_same_bits_and_records(make_trainer, case, step):
    """Step 2: a record of steps 1 to 3 is due. Step 5: the last one, of which nothing is left to train."""
    parts = CASES[case]
    whole, weights, result = train(make_trainer, *parts)
    checkpoints = RunDirectory(load_recipe("recipe.yaml")).checkpoints
    assert damage(checkpoints.of_step(step)) is None
    for later in (later for later in (4, 5) if later > step):
        checkpoints.of_step(later).rename(f"{later}-of-the-unbroken-run")
    records, again, after = train(make_trainer, *parts, resume=checkpoints.of_step(step))
    assert records == whole
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())
    assert after.training_loss == result.training_loss and after.global_step == 5


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_a_run_that_gets_longer_has_the_rates_of_its_new_schedule(make_trainer, schedule):
    """The next step too: the shorter schedule has ended at 0."""
    overrides = (
        f"training.lr_scheduler_type={schedule}",
        "training.warmup_steps=2",
        "training.logging_steps=1",
        "training.save_steps=3",
    )
    train(make_trainer, Case(), ("training.max_steps=3", *overrides))
    resume = RunDirectory(load_recipe("recipe.yaml")).checkpoints.of_step(3)
    longer, *_ = train(make_trainer, Case(), ("training.max_steps=6", *overrides), resume=resume)
    unbroken, *_ = train(make_trainer, Case(), ("training.max_steps=6", *overrides))
    rates = [[record["learning_rate"] for record in run if "loss" in record] for run in (longer, unbroken)]
    assert rates[0][3:] == rates[1][3:] and min(rates[0][3:5]) > 0


def test_a_checkpoint_that_was_not_named_is_none(make_trainer, monkeypatch):
    """Killed when everything is written but the manifest."""
    trainer = make_trainer(Case(), *USUAL)

    def die(*arguments):
        raise Killed

    monkeypatch.setattr(trainer, "_write_manifest", die)
    with pytest.raises(Killed):
        trainer.train()
    assert trainer.checkpoints.newest_first() == []
    assert (trainer.checkpoints.aside / "checkpoint-2/optimizer.pt").exists()
    trainer = make_trainer(Case(), *USUAL)
    trainer.train()
    assert [folder.name for folder in trainer.checkpoints.newest_first()] == [
        f"checkpoint-{step}" for step in (5, 4, 2)
    ]
    assert not trainer.checkpoints.aside.exists()
