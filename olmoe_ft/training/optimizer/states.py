"""The optimizer of a run and its states, on weights that need no content: what memory and disk they take."""

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
    """What trains these weights here or under DeepSpeed, after a step; each has a gradient then.

    Raises:
        UserError: the optimizer looks at values, or is not installed, so that it cannot be planned.
    """
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    if need_own_adamw(weights, deepspeed):
        kind, settings = own_adamw(arguments)
        optimizer: torch.optim.Optimizer = kind(weights, **settings)
        optimizer.step()  # makes the states
        return optimizer
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        optimizer = kind(weights, **settings)
        optimizer.step()
    except Exception as error:  # by libraries of all kinds, each with its own
        name = OptimizerNames(arguments.optim).value
        mend = "plan with adamw_torch_fused, whose states are as large or larger"
        raise UserError(f"training.optim: {name} cannot be planned with ({one_line(error)}); {mend}") from None
    return optimizer


def states_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    states = (value for state in optimizer.state.values() for value in state.values())
    return [value for value in states if isinstance(value, Tensor)]
