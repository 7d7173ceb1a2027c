"""The router logits of a forward pass that TRL makes, and which of their tokens count."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from olmoe_ft.constants import IGNORED, Tokens


@contextmanager
def record_router_logits(backbone: nn.Module, gradient: bool = True) -> Iterator[list[tuple[Tensor, ...]]]:
    """Ask every forward of the backbone within the block for its router logits, and collect them.

    TRL's trainers call the model through a fused head that returns log-probabilities only. The hooks sit on the whole
    backbone, outside every checkpointed layer, and read an output that carries its gradient: nothing is recomputed
    and nothing is detached.

    Args:
        gradient: whether the forwards that are wanted have a gradient. With LoRA a reference's forward, which has none,
            goes through the same backbone.
    Yields:
        one tuple of (T, E) tensors for each forward, in order.
    """
    recorded: list[tuple[Tensor, ...]] = []

    def ask(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, {**kwargs, "output_router_logits": True} if torch.is_grad_enabled() == gradient else kwargs

    def keep(module: nn.Module, args: tuple, outputs: Any) -> None:
        if torch.is_grad_enabled() == gradient:
            recorded.append(outputs.router_logits)

    handles = [backbone.register_forward_pre_hook(ask, with_kwargs=True), backbone.register_forward_hook(keep)]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def counted_tokens(inputs: dict[str, Any], tokens: Tokens, pad_token_id: int | None) -> Tensor | None:
    """Which tokens of a collated batch count in the router losses, by `router.tokens`.

    Args:
        inputs: what TRL's collators make: `input_ids` (B, S) and `attention_mask` (B, S), or packed rows with
            `position_ids` (1, S); `labels` (SFT) or `completion_mask` (DPO).
    Returns:
        (B·S,), true where a token counts; None where all do.
    """
    if tokens == "all":
        return None
    if tokens == "completion":
        answers = inputs["completion_mask"] if "completion_mask" in inputs else inputs["labels"] != IGNORED
        return answers.flatten().bool()
    if (mask := inputs.get("attention_mask")) is not None:
        return mask.flatten().bool()
    # Packed rows come without a mask. Where they are filled up to a multiple, each filler is a document of one token.
    starts = inputs["position_ids"] == 0
    alone = starts & pad(starts[:, 1:], (0, 1), value=True)
    return ~(alone & (inputs["input_ids"] == pad_token_id)).flatten()
