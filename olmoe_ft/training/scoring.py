"""Log-probabilities of labels and router logits of a batch, packed or padded: `score`, which all of training asks.

Trainers, their reference, its precomputation, the planner and the routers' drift ask through `ScoringOlmoe.forward`:
only a call of the whole network gathers its weights under DDP, DeepSpeed and PEFT. TRL's kernel does the arithmetic.
Two costs of TRL's own fused head are not here: off a GPU it projects every token, prompts too, and it reads padded
batches only.

Shapes: B rows and S positions of a batch as TRL sees it, T tokens of the row that the network sees, N labels, H hidden,
E experts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import maybe_gather_lm_head_ctx

from olmoe_ft.constants import IGNORED
from olmoe_ft.model import OlmoeForCausalLM

TILE = 32768  # logits of a token that are held at once


# of a packed batch, what says where the labels are; the rest is for the network
WHERE = ("places", "scored", "completion_mask")

REPLACED = {"input_ids", "attention_mask", "use_cache"}  # by what a packed batch says itself

FIELDS = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")  # in the order of TRL's kernel


@dataclass
class Scores(ModelOutput):
    """What a network says of the labels of a batch: fields (B, S - 1) under TRL's names, 0 where there is no label."""

    log_probs: Tensor
    entropy: Tensor | None = None
    log_sum_sq_probs: Tensor | None = None
    mean_logits: Tensor | None = None
    is_top1: Tensor | None = None
    label_mask: Tensor | None = None
    """Whether there is a label."""
    router_logits: tuple[Tensor, ...] | None = None
    """(T, E) a layer, pre-softmax, with gradient; where they were asked for."""


class ScoringOlmoe(OlmoeForCausalLM):
    """The network as TRL's trainers call it: with `fused_lm_head=True` it scores labels and makes no logits."""

    fields: tuple[str, ...] = ("log_probs",)
    """Which of `Scores` to compute; a trainer says which its loss and its metrics read."""

    @wraps(OlmoeForCausalLM.forward)  # generate checks its arguments against the signature
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        labels: Tensor | None = None,
        fused_lm_head: bool = False,
        packed: dict[str, Any] | None = None,
        places: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head:  # the logits of all tokens, for which no label is looked up
            return super().forward(input_ids, attention_mask, *args, labels=labels, **kwargs)
        assert labels is not None and not args
        return score(self, labels, packed, places, input_ids=input_ids, attention_mask=attention_mask, **kwargs)


# transformers and PEFT write the name of the class into config.json, from which stock tools load it
ScoringOlmoe.__name__ = OlmoeForCausalLM.__name__


def score(
    network: ScoringOlmoe,
    labels: Tensor,
    packed: dict[str, Any] | None = None,
    places: Tensor | None = None,
    output_router_logits: bool = False,
    **batch: Any,
) -> Scores:
    """Log-probability and what else `network.fields` names of every label.

    Args:
        labels: (B, S), -100 where there is none. That of a token is scored by the token before it.
        packed: the tokens of the batch in one row without padding (`stages/shared_prompts.py`), which the network then
            sees instead of them: `places` (N,) of the labels among the B·(S - 1) next-token targets, `scored` (N,), the
            tokens of the row that predict them, and the network's own arguments.
        places: (N,), as in `packed`, of a batch that is not packed (`LabelPlaces`); None looks them up.
        batch: the network's arguments, such as `input_ids` (B, S) and `attention_mask`.
    """
    targets = labels[:, 1:]  # (B, S - 1)
    if packed is None:
        places = label_places(labels) if places is None else places
        scored = places + places // targets.shape[1]  # (N,) among the B·S tokens
    else:
        places, scored = packed["places"], packed["scored"]
        unknown = {name for name, value in batch.items() if value is not None} - REPLACED
        assert not unknown, f"a packed batch came with {unknown}, which would not be read"
        batch = {name: value for name, value in packed.items() if name not in WHERE}
    batch |= {"use_cache": False, "output_router_logits": output_router_logits}
    outputs = network.base_model(**batch)
    hidden = outputs.last_hidden_state.flatten(0, 1).index_select(0, scored)  # (N, H)
    fields = score_hidden(network, hidden, targets.flatten().index_select(0, places))
    spread = {name: _spread(field, places, targets) for name, field in fields.items()}
    return Scores(**spread, label_mask=targets != IGNORED, router_logits=outputs.router_logits)


def score_hidden(network: ScoringOlmoe, hidden: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The head alone: hidden states (N, H) and the token each is to predict (N,) -> the network's fields, each (N,)."""
    weight = network.lm_head.weight
    tile = min(TILE, network.config.vocab_size)
    with maybe_gather_lm_head_ctx(weight, None):
        # neither a bias (None), a temperature (1.0), a soft cap (None) nor a scale (1.0) of the logits
        fields = ChunkedLogProbFunction.apply(
            hidden, weight, None, targets, 1.0, tile, None, 1.0, tuple(network.fields)
        )
    return {name: field for name, field in zip(FIELDS, fields, strict=True) if field is not None}


def _spread(field: Tensor, places: Tensor, targets: Tensor) -> Tensor:
    """(N,) -> (B, S - 1), zero where there is no label; with a gradient even if there is none at all."""
    return field.new_zeros(targets.numel()).index_copy(0, places, field).view_as(targets)


@dataclass
class LabelPlaces:
    """A collator's batch with `places` (N,), where its labels, if any, are among the B·(S - 1) next-token targets.

    Looked up on a GPU they would make the host wait for all that runs there: at the start of a step, the optimizer.
    """

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collate(examples)
        return batch | {"places": label_places(batch["labels"])} if "labels" in batch else batch


def label_places(labels: Tensor) -> Tensor:
    """labels (B, S), -100 where there is none -> (N,)."""
    return (labels[:, 1:] != IGNORED).flatten().nonzero().flatten()


class Heard:
    """A network whose outputs are kept, since TRL's `compute_loss` returns the loss alone.

    Attributes:
        last: of the last call.
        trained: of those with gradient, in order, which have the router logits too.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model
        self.last: Any = None
        self.trained: list[Any] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        gradient = torch.is_grad_enabled()
        output = self.model(*args, **kwargs, **({"output_router_logits": True} if gradient else {}))
        self.last = output
        if gradient:
            self.trained.append(output)
        return output


def drop_trl_head(model: PreTrainedModel | PeftModel) -> None:
    """Take away the `forward` that TRL's trainers put on an instance, so that the class's own is called.

    Twice is as once. The head that TRL 1.16 puts there (`add_fused_lm_head`) scores padded rows alone.
    """
    network_of(model).__dict__.pop("forward", None)


def network_of(model: PreTrainedModel | PeftModel) -> ScoringOlmoe:
    """The network itself, under adapters where there are any."""
    network = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(network, ScoringOlmoe)
    return network
