"""What the routers of all layers did with some tokens, as sums over those tokens.

Every router loss and statistic is a formula over these sums. So they are computed once, in one pass over the logits,
and can be added over micro-batches and over ranks before the formula is applied.

Shapes: L layers, T tokens, E experts, K experts per token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Counts:
    """The group of tokens that a router loss is computed over; this process may have only part of it. No gradient.

    Each process divides its sums by the average number of tokens per process. The mean of these values over all
    processes is the mean over the group, so gradients averaged over processes are those of the whole group.
    """

    assignments: Tensor  # (L, E) how many of the group's tokens chose the expert among their K
    tokens: Tensor  # () the number of tokens that this process's sums are divided by


@dataclass(frozen=True)
class Routing:
    """Sums over the tokens that count, one row per layer, all fp32.

    `probabilities` and `squared_log_partition` carry the gradient; the others are counts and diagnostics without one.
    """

    assignments: Tensor  # (L, E) how many tokens chose the expert among their K
    probabilities: Tensor  # (L, E) sum over tokens of the softmax probability
    squared_log_partition: Tensor  # (L,) sum over tokens of logsumexp(logits)^2
    entropy: Tensor  # (L,) sum over tokens of the entropy of the softmax, in nats
    tokens: Tensor  # () how many tokens counted

    @classmethod
    def of(
        cls, router_logits: Sequence[Tensor], num_experts_per_tok: int, token_mask: Tensor | None = None
    ) -> "Routing":
        """Sum over the tokens of every layer.

        Args:
            router_logits: one (T, E) tensor a layer, pre-softmax, any float dtype; computed in fp32.
            num_experts_per_tok: K, how many experts each token is sent to.
            token_mask: (T,), 1 for tokens that count. None counts all.
        Raises:
            ValueError: if there is no layer, K is not in 1 to E, or the mask's length differs from T.
        """
        weight = _token_weights(router_logits, num_experts_per_tok, token_mask)
        layers = [_sum_layer(logits.float(), num_experts_per_tok, weight) for logits in router_logits]
        assignments, probabilities, squares, entropy = map(torch.stack, zip(*layers, strict=True))
        return cls(assignments, probabilities, squares, entropy, weight.sum())

    @property
    def counts(self) -> Counts:
        """These tokens as the whole group."""
        return Counts(self.assignments, self.tokens)

    def tensors(self) -> tuple[Tensor, ...]:
        """The five sums, in the order of `Routing`'s arguments."""
        return self.assignments, self.probabilities, self.squared_log_partition, self.entropy, self.tokens

    def detach(self) -> "Routing":
        return Routing(*(tensor.detach() for tensor in self.tensors()))

    def __add__(self, other: "Routing") -> "Routing":
        return Routing(*(mine + theirs for mine, theirs in zip(self.tensors(), other.tensors(), strict=True)))


def _token_weights(router_logits: Sequence[Tensor], num_experts_per_tok: int, token_mask: Tensor | None) -> Tensor:
    if not router_logits:
        raise ValueError("router_logits: found an empty list; give one (tokens, experts) tensor per layer")
    tokens, experts = router_logits[0].shape
    if not 1 <= num_experts_per_tok <= experts:
        raise ValueError(
            f"num_experts_per_tok: found {num_experts_per_tok}; allowed: 1 to {experts}, the number of experts"
        )
    if token_mask is None:
        return torch.ones(tokens, device=router_logits[0].device)
    if token_mask.shape != (tokens,):
        raise ValueError(
            f"token_mask: found shape {tuple(token_mask.shape)}; allowed: ({tokens},), as the router logits"
        )
    return token_mask.float()


def _sum_layer(logits: Tensor, num_experts_per_tok: int, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    log_partition = logits.logsumexp(dim=-1)  # (T,)
    probabilities = logits.softmax(dim=-1)  # (T, E)
    with torch.no_grad():
        chosen = logits.topk(num_experts_per_tok, dim=-1).indices  # (T, K)
        assignments = logits.new_zeros(logits.shape[-1]).index_add_(
            0, chosen.flatten(), weight.repeat_interleave(num_experts_per_tok)
        )
        # -sum p log p = logsumexp - sum p·logit
        entropy = (log_partition - (probabilities * logits).sum(dim=-1)) @ weight
    return assignments, weight @ probabilities, weight @ log_partition.square(), entropy
