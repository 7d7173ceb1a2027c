"""Load balancing and router z-loss. L layers, T tokens, E experts, K experts per token."""

from collections.abc import Sequence

from torch import Tensor

from olmoe_ft.constants import Scope
from olmoe_ft.objective.routing import Counts, Routing


def load_balancing_loss(
    router_logits: Sequence[Tensor],
    num_experts_per_tok: int,
    token_mask: Tensor | None = None,
    scope: Scope = "layer",
) -> Tensor:
    """`E * sum_e f_e P_e` (Switch Transformer, Fedus et al. 2021, eq. 4-6; OLMoE, eq. 3), averaged over layers.

    `f_e` is the share of the T·K assignments that went to expert e, `P_e` the mean router probability of e. Balanced
    routing gives 1.0, collapse onto the same K experts E / K. Gradient flows through `P_e` only.

    Args:
        router_logits: one (T, E) tensor a layer, pre-softmax, any float dtype; computed in fp32.
        num_experts_per_tok: K.
        token_mask: (T,), 1 for tokens that count. None counts all.
        scope: "layer" balances each layer, as OLMoE was pretrained. "pooled" sums all layers before multiplying:
            transformers' value divided by K, which cannot see layers that collapse onto different experts.
    Returns:
        fp32 scalar; 0 if no token counts.
    Raises:
        ValueError: on an unknown scope, an empty sequence, K outside 1 to E, or a mask of another length than T.
    """
    return balance(Routing.of(router_logits, num_experts_per_tok, token_mask), scope)


def router_z_loss(router_logits: Sequence[Tensor], token_mask: Tensor | None = None) -> Tensor:
    """Mean squared log-partition of the router logits (ST-MoE, Zoph et al. 2022, eq. 5), averaged over layers.

    Args:
        router_logits: one (T, E) tensor a layer, pre-softmax, any float dtype; computed in fp32.
        token_mask: (T,), 1 for tokens that count. None counts all.
    Returns:
        fp32 scalar, >= 0; 0 if no token counts.
    Raises:
        ValueError: if the sequence is empty or the mask's length differs from T.
    """
    return z(Routing.of(router_logits, 1, token_mask))


def balance(routing: Routing, scope: Scope, counts: Counts | None = None) -> Tensor:
    """The formula of `load_balancing_loss`, applied to sums that were computed before.

    Args:
        counts: of the group over which `f_e` is computed, if the sums are only part of it; None uses the sums alone.
            `f_e` over a global batch is Qiu et al. 2025 (https://arxiv.org/abs/2501.11873).
    """
    if scope not in ("layer", "pooled"):
        raise ValueError(f"scope: found {scope!r}; allowed: layer, pooled")
    counts = routing.counts if counts is None else counts
    assignments, probability = counts.assignments, _mean(routing.probabilities, counts)  # (L, E)
    if scope == "pooled":  # as if one router had seen the tokens of all layers
        assignments, probability = assignments.sum(0, keepdim=True), probability.mean(0, keepdim=True)
    share = assignments / assignments.sum(-1, keepdim=True).clamp(min=1)  # f: a token's K choices add up to K
    return share.shape[-1] * (share * probability).sum(-1).mean()


def z(routing: Routing, counts: Counts | None = None) -> Tensor:
    """The formula of `router_z_loss`, applied to sums that were computed before; `counts` as in `balance`."""
    return _mean(routing.squared_log_partition, routing.counts if counts is None else counts).mean()


def _mean(sums: Tensor, counts: Counts) -> Tensor:
    # a process may have less than one token on average; without any token the sums are 0, and so is their mean
    return sums / counts.tokens.clamp(min=1e-6)
