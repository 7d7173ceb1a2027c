"""One stage of a recipe from its data to its summary."""

from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from olmoe_ft.adapters.checkpoints import load_whole
from olmoe_ft.data.sources import load_mixture
from olmoe_ft.model import OlmoeForCausalLM
from olmoe_ft.recipe import Recipe
from olmoe_ft.training.answers import Question, load_questions, score
from olmoe_ft.training.report import print_finished, print_start, print_summary
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.runtime import training_arguments, whole_weights
from olmoe_ft.training.start import model_config, stage_tokenizer, starting_checkpoint, write_base
from olmoe_ft.training.tracking import Tracking, TrackingCallback
from olmoe_ft.training.trainers import build_trainer


def run_stage(recipe: Recipe) -> dict[str, Any]:
    """Train one SFT or DPO stage into its run directory, going on from its last checkpoint where it has one.

    Everything that can be wrong with the recipe's files is found before anything is written.

    Returns:
        what stands in `summary.json`; of a run that had finished before, its summary as it is.
    Raises:
        RecipeError: the recipe, its data, its model or the run directory is wrong.
    """
    run = RunDirectory(recipe)
    run.check()
    config = model_config(recipe)
    tokenizer = stage_tokenizer(recipe, config)
    seed = recipe.training.get("seed", 42)
    train = load_mixture(recipe.data.train, recipe.stage, seed)
    evaluation = load_mixture(recipe.data.eval, recipe.stage, seed) if recipe.data.eval else None
    questions = load_questions(recipe.data.answers) if recipe.data.answers else None

    if (summary := run.read_summary()) is not None:
        arguments_free_state = PartialState(cpu=not torch.accelerator.is_available())
        if arguments_free_state.is_main_process:
            print_finished(run, summary)
        return summary

    arguments = training_arguments(recipe, run)
    state = PartialState()
    state.wait_for_everyone()  # all have looked at the run directory before one writes to it
    resume = run.last_checkpoint()
    tracking = None
    if state.is_main_process:
        run.create()
        run.forget_after(resume)
        tracking = Tracking(recipe, run)
        run.record_launch(
            processes=state.num_processes,
            device=str(state.device),
            resumed_from=resume.name if resume else None,
            dataset_fingerprints={"train": train._fingerprint, "rows": len(train)},
        )
    with whole_weights(arguments):
        if state.is_main_process:
            write_base(recipe, run, tokenizer)
        state.wait_for_everyone()
        before = _score(recipe, starting_checkpoint(recipe, run), tokenizer, questions, "before training")
    trainer = build_trainer(recipe, arguments, starting_checkpoint(recipe, run), tokenizer, train, evaluation)
    if tracking is not None:
        trainer.add_callback(TrackingCallback(tracking))
        print_start(recipe, run, trainer, resume)
    result = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    trainer.save_model(str(run.final))
    evaluation_metrics = trainer.evaluate() if evaluation is not None else {}
    state.wait_for_everyone()

    with whole_weights(arguments):
        after = _score(recipe, str(run.final), tokenizer, questions, "after training")
    summary = {
        "name": recipe.name,
        "stage": recipe.stage,
        "steps": trainer.state.global_step,
        "train_loss": result.training_loss,
        "train_seconds": result.metrics["train_runtime"],
        **evaluation_metrics,
        **({"before": before, "after": after} if questions else {}),
    }
    if tracking is not None:
        (run.final / "training_args.bin").unlink(missing_ok=True)  # a pickle nobody needs to load the model
        run.write_summary(summary)
        tracking.finish(summary)
        print_summary(run, summary)
    state.wait_for_everyone()
    return summary


def _score(
    recipe: Recipe,
    checkpoint: str,
    tokenizer: PreTrainedTokenizerBase,
    questions: list[Question] | None,
    label: str,
) -> dict[str, Any] | None:
    """Generate from a checkpoint on disk, so that what is scored is what a user will load."""
    if questions is None:
        return None
    assert recipe.data.answers is not None
    model: OlmoeForCausalLM = load_whole(checkpoint, recipe.model.dtype).to(PartialState().device)
    return score(model, tokenizer, questions, recipe.data.answers, label)
