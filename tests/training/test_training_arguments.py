"""What a library refuses is one sentence; a process works on one GPU."""

import pytest
import torch

from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.training.arguments import idle_gpus, keep_to_one_gpu, training_arguments
from olmoe_ft.training.run_directory import RunDirectory


def test_all_lines_of_a_reason_are_told(tmp_path, monkeypatch):
    """transformers writes "… but found", and what it found on lines of their own; the rules here are looked past."""
    recipe = load_recipe("recipes/tiny/sft.yaml")
    wrong = recipe.model_copy(
        update={"training": {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "steps"}}
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"^training: .* but found - Evaluation strategy: .* - Save strategy: .*"):
        training_arguments(wrong, RunDirectory(wrong))


def test_a_process_works_on_one_gpu(monkeypatch):
    """As on a machine with eight: transformers counts them all, and would use them by DataParallel."""
    recipe = load_recipe("recipes/tiny/sft.yaml")
    arguments = training_arguments(recipe, RunDirectory(recipe))
    arguments._n_gpu = 8
    assert arguments.train_batch_size == 8 * recipe.training["per_device_train_batch_size"]
    keep_to_one_gpu(arguments)
    assert arguments.train_batch_size == recipe.training["per_device_train_batch_size"]
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 8)
    assert "1 of 8 GPUs here work on this run" in idle_gpus(1) and idle_gpus(8) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_whole_number_is_a_number_for_the_optimizer(tmp_path, monkeypatch, dtype):
    """torch's AdamW refuses betas of 0 and 0.98, "both floats or both Tensors"."""
    recipe = load_recipe("recipes/tiny/sft.yaml", ["training.adam_beta1=0", f"model.dtype={dtype}"])
    monkeypatch.chdir(tmp_path)
    arguments = training_arguments(recipe, RunDirectory(recipe))
    assert (arguments.adam_beta1, type(arguments.adam_beta1)) == (0.0, float)
    assert arguments.bf16 is (dtype == "bfloat16")
