"""What a stage runs on."""

import pytest
import torch

from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.training.runtime import check_attention


def test_flex_attention_needs_a_gpu(monkeypatch):
    flex = load_recipe("recipes/tiny/sft.yaml", ["model.attn_implementation=flex_attention"])
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="flex_attention is wrong on some CPUs.*sdpa"):
        check_attention(flex)
    check_attention(load_recipe("recipes/tiny/sft.yaml"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    check_attention(flex)
