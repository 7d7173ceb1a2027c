"""Log-probabilities of labels for TRL's trainers, of the labelled tokens alone, whatever row they were computed in.

Shapes: B rows and S positions of a batch as TRL sees it, T tokens of the row that the network sees, N labels, H hidden.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from types import MethodType
from typing import Any

from torch import Tensor
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import FusedCausalLMOutput, maybe_gather_lm_head_ctx

from olmoe_ft.constants import IGNORED
from olmoe_ft.model import OlmoeForCausalLM

TILE = 32768  # logits of a token that are held at once

HEADS = ("places", "scored", "completion_mask")  # of a packed batch, what the network does not take

# what TRL's trainers read, beside log-probabilities for their metrics
SFT_OUTPUTS = ("log_probs", "entropy", "is_top1")
DPO_OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")


@dataclass
class LabelPlaces:
    """A collator's batch with `places` (N,), where its labels stand among the B·(S - 1) next-token targets.

    Looked up on a GPU they would make the host wait for all that runs there: at the start of a step, the optimizer.
    """

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collate(examples)
        return batch | {"places": label_places(batch["labels"])}


def label_places(labels: Tensor) -> Tensor:
    """labels (B, S), -100 where there is none -> (N,)."""
    return (labels[:, 1:] != IGNORED).flatten().nonzero().flatten()


def use_fused_head(network: OlmoeForCausalLM, outputs: Sequence[str]) -> None:
    """Let `network(…, labels=…, fused_lm_head=True)` return what TRL's own fused head does, and no logits.

    TRL's kernel is used, two of its head's costs are not: off a GPU it projects every token, prompts too, and it knows
    padded batches only. Here a batch may bring `packed`, the same tokens in one row without padding
    (`shared_prompts.py`), which is what the network then sees; the results stand where TRL looks for them. A batch
    without it may bring the `places` of its labels.

    Args:
        outputs: the fields to compute, of TRL's `FusedCausalLMOutput`.
    """

    @wraps(type(network).forward)  # generate checks its arguments against the signature
    def forward(
        self: OlmoeForCausalLM,
        *args: Any,
        fused_lm_head: bool = False,
        labels: Tensor | None = None,
        packed: dict[str, Any] | None = None,
        places: Tensor | None = None,
        num_items_in_batch: Any = None,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head:
            return type(self).forward(self, *args, labels=labels, num_items_in_batch=num_items_in_batch, **kwargs)
        assert labels is not None and "shift_labels" not in kwargs
        targets = labels[:, 1:]  # (B, S - 1)
        if packed is None:
            places = label_places(labels) if places is None else places  # (N,) among the B·(S - 1) targets
            scored = places + places // targets.shape[1]  # (N,) among the B·S tokens
        else:
            places, scored = packed["places"], packed["scored"]
            args, kwargs = (), {name: value for name, value in packed.items() if name not in HEADS}
        hidden = self.base_model(*args, **{**kwargs, "use_cache": False}).last_hidden_state  # (B, S, H) or (1, T, H)
        weight = self.lm_head.weight
        with maybe_gather_lm_head_ctx(weight, None):
            fields = ChunkedLogProbFunction.apply(
                hidden.flatten(0, 1).index_select(0, scored),
                weight,
                None,
                targets.flatten().index_select(0, places),
                1.0,
                min(TILE, self.config.vocab_size),
                None,
                1.0,
                tuple(outputs),
            )
        names = "log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1"  # as the kernel orders them
        spread = (None if field is None else _spread(field, places, targets) for field in fields)
        return FusedCausalLMOutput(label_mask=targets != IGNORED, **dict(zip(names, spread, strict=True)))

    network.forward = MethodType(forward, network)


def _spread(field: Tensor, places: Tensor, targets: Tensor) -> Tensor:
    """(N,) -> (B, S - 1), zero where there is no label; with a gradient even if there is none at all."""
    return field.new_zeros(targets.numel()).index_copy(0, places, field).view_as(targets)
