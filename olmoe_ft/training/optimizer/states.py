"""The optimizer of a run and its states, on fake weights, to know their memory and disk space."""

from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError
from olmoe_ft.training.optimizer.choice import need_own_adamw, own_adamw


def optimizer_with_states(
    arguments: TrainingArguments, model: Any, weights: list[Tensor], deepspeed: bool
) -> torch.optim.Optimizer:
    """The optimizer of these weights, here or under DeepSpeed, after one step; each weight then has a gradient.

    Raises:
        UserError: the optimizer reads values, or is not installed, so it cannot be planned.
    """
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    if need_own_adamw(weights, deepspeed):
        kind, settings = own_adamw(arguments)
        optimizer: torch.optim.Optimizer = kind(weights, **settings)
        optimizer.step()  # creates the states
        return optimizer
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        optimizer = kind(weights, **settings)
        optimizer.step()
    except Exception as error:  # each library raises its own errors
        name = OptimizerNames(arguments.optim).value
        remedy = "plan with adamw_torch_fused, which has states at least as large"
        raise UserError(
            f"training.optim: found {name}, which cannot be planned ({one_line(error)}); {remedy}"
        ) from None
    return optimizer


def states_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    states = (value for state in optimizer.state.values() for value in state.values())
    return [value for value in states if isinstance(value, Tensor)]
