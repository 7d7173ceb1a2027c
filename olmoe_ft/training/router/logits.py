"""Which tokens of a batch count in the router losses."""

from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from olmoe_ft.constants import IGNORED, Tokens


def counted_tokens(inputs: dict[str, Any], tokens: Tokens, pad_token_id: int | None) -> Tensor | None:
    """Which tokens of a collated batch count in the router losses, by `router.tokens`.

    Args:
        inputs: what TRL's collators make: `input_ids` (B, S) and `attention_mask` (B, S), or packed rows with
            `position_ids` (1, S); `labels` (SFT) or `completion_mask` (DPO, KTO).
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
