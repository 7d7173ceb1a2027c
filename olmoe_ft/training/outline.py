"""The network that a stage trains, without its weights: names, shapes and types, for what memory and disk it needs."""

from typing import Any

import torch
from peft import get_peft_model

from olmoe_ft.adapters.lora import lora_config
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.router import freeze_routers
from olmoe_ft.recipe import Recipe
from olmoe_ft.training.scoring import ScoringOlmoe


def outline(recipe: Recipe, config: OlmoeConfig) -> ScoringOlmoe:
    """On the meta device; `requires_grad` says what is trained where nothing is adapted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, recipe.model.dtype))
    try:
        with torch.device("meta"):
            network = ScoringOlmoe(config)
    finally:
        torch.set_default_dtype(before)
    if recipe.router.train == "frozen":
        freeze_routers(network)
    return network


def adapted(recipe: Recipe, network: ScoringOlmoe) -> Any:
    """With adapters, as the trainers set them up."""
    if recipe.lora is None:
        return network
    with torch.device("meta"):
        return get_peft_model(network, lora_config(recipe.lora, recipe.router.train))
