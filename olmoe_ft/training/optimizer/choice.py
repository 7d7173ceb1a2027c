"""Which optimizer a trainer gets: transformers', or olmoe_ft's own if trained weights exist only in bf16."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from olmoe_ft.training.optimizer.adamw import Bf16AdamW
from olmoe_ft.training.optimizer.sums import GradientSums


def need_own_adamw(weights: Iterable[Tensor], deepspeed: bool) -> bool:
    """Whether some trained weights are in bf16 and have no fp32 copy in DeepSpeed."""
    return not deepspeed and any(weight.dtype == torch.bfloat16 for weight in weights)


def own_adamw(arguments: TrainingArguments) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Class and arguments, as transformers takes them; its parameter groups set the weight decay."""
    betas = arguments.adam_beta1, arguments.adam_beta2
    return Bf16AdamW, {"lr": arguments.learning_rate, "betas": betas, "eps": arguments.adam_epsilon}


class OptimizerMixin:
    """Gives transformers' Trainer the optimizer that loses no updates, and sums micro-batches in fp32 for it."""

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        trainer: Any = self
        trained = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        if trainer.optimizer is None and need_own_adamw(trained, trainer.is_deepspeed_enabled):
            trainer.optimizer_cls_and_kwargs = own_adamw(trainer.args)
            if trainer.args.gradient_accumulation_steps > 1:
                half = [weight for weight in trained if weight.dtype == torch.bfloat16]
                trainer.add_callback(GradientSums(half, lambda: trainer.accelerator.sync_gradients))
        return super().create_optimizer(model)  # type: ignore[misc]
