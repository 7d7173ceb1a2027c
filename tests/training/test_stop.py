"""Training that is asked to stop: when it is saved, and what does not happen any more."""

from pathlib import Path

import pytest
from support import REPOSITORY
from support.training_cases import Case

from olmoe_ft.recipe import RunError
from olmoe_ft.stopping import Stopped
from olmoe_ft.training import stop
from olmoe_ft.training.stop import stops_at_steps

EVALUATION = f"data.eval=[{{path: {REPOSITORY / 'data/skills/train.jsonl'}, max_rows: 4}}]"


@pytest.fixture
def train(make_trainer, monkeypatch):
    """Train, being asked to stop while `step` is taken."""

    def run(step: int, *overrides: str):
        trainer = make_trainer(Case(), "training.logging_steps=1", *overrides)
        monkeypatch.setattr(stop, "asked", lambda: 15 if trainer.state.global_step >= step else 0)
        saved = []
        save = trainer._save_checkpoint
        trainer._save_checkpoint = lambda *args, **named: (
            saved.append(trainer.state.global_step),
            save(*args, **named),
        )
        with pytest.raises(Stopped) as stopped, stops_at_steps(trainer):
            trainer.train()
        return trainer, saved, str(stopped.value)

    return run


@pytest.mark.parametrize("strategy", ["'no'", "steps", "epoch"])
@pytest.mark.parametrize("step", [1, 2])
def test_it_is_saved_at_the_end_of_the_step_and_not_closed(train, step, strategy):
    """Once, and in the last step as in any other."""
    trainer, saved, sentence = train(step, f"training.save_strategy={strategy}", "training.save_steps=1")
    before = [1] if strategy == "steps" and step == 2 else []
    assert saved == [*before, step]
    checkpoint = Path(trainer.args.output_dir, f"checkpoint-{step}")
    assert (checkpoint / "trainer_state.json").exists()
    assert sentence == (
        f"stopped by SIGTERM in step {step} of 2; {checkpoint} is complete; the same command continues from there"
    )
    assert [record["step"] for record in trainer.state.log_history] == list(range(1, step + 1))
    assert not any("train_runtime" in record for record in trainer.state.log_history)


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_what_is_due_at_the_step_or_at_the_end_of_its_epoch_comes_first(train, strategy):
    """Else the run would differ from one that was not stopped: it is not done when the run goes on."""
    rows = "data.train.0.max_rows=8"  # an epoch is one step
    due = ("training.eval_strategy=" + strategy, "training.eval_steps=1", "training.save_strategy='no'")
    trainer, saved, _ = train(1, EVALUATION, rows, "training.max_steps=9", *due)
    (evaluated,) = [record["step"] for record in trainer.state.log_history if "eval_loss" in record]
    assert saved == [evaluated] == [1]


@pytest.mark.parametrize("asked", [0, 15])
@pytest.mark.parametrize("lost", [None, 1])
@pytest.mark.parametrize("error", [RuntimeError("connection closed"), RunError("the disk is full")])
def test_what_fails_for_want_of_a_rank_says_nothing(make_trainer, monkeypatch, asked, lost, error):
    trainer = make_trainer(Case())
    monkeypatch.setattr(stop, "asked", lambda: asked)
    monkeypatch.setattr(stop, "lost_rank", lambda: lost)
    silent = asked and lost is not None and not isinstance(error, RunError)
    with pytest.raises(SystemExit if silent else type(error)), stops_at_steps(trainer):
        raise error
