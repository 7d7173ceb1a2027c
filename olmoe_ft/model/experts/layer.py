"""The experts: E feed-forward networks whose weights are stacked into two 3-D tensors.

Shapes: T tokens, H hidden, I intermediate, E experts, K experts per token.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.integrations import use_experts_implementation
from transformers.integrations.moe import ExpertsInterface

from olmoe_ft.model.config import OlmoeConfig
from olmoe_ft.model.experts.autograd import LowRank, grouped_experts
from olmoe_ft.model.implementations import OLMOE_GROUPED
from olmoe_ft.model.names import GATE_UP, PUBLISHED, published_weight

# beside transformers' own back ends: "grouped_mm", "batched_mm", …
ExpertsInterface.register(OLMOE_GROUPED, grouped_experts)


@use_experts_implementation
class OlmoeExperts(nn.Module):
    """`y_t = sum_k w_tk · down_e(act(gate_e(x_t)) · up_e(x_t))`, e = experts_tk (OLMoE, eq. 1; SwiGLU: Shazeer 2020).

    The `forward` below is the plain loop, one matrix product per expert: easy to read, slow to train. The decorator
    replaces it by the back end named as `experts_implementation` ("olmoe_grouped" by default, see `autograd.py`; or
    one of transformers'); "eager" keeps the loop, the oracle of all back ends.
    """

    def __init__(self, config: OlmoeConfig) -> None:
        super().__init__()
        self.num_experts = config.num_experts
        gate_up_shape = (config.num_experts, 2 * config.intermediate_size, config.hidden_size)
        down_shape = (config.num_experts, config.hidden_size, config.intermediate_size)
        self.gate_up_proj = nn.Parameter(torch.empty(gate_up_shape))  # (E, 2I, H), gate rows first
        self.down_proj = nn.Parameter(torch.empty(down_shape))  # (E, H, I)
        self.low_rank_factors: dict[str, list[LowRank]] = {}  # by weight: those of adapters, while they are active
        self.act_fn = ACT2FN[config.hidden_act] if isinstance(config.hidden_act, str) else config.hidden_act
        self.register_load_state_dict_pre_hook(stack_published_experts)

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """x (T, H), expert indices (T, K), their weights (T, K) -> (T, H)."""
        y = torch.zeros_like(x)
        for expert, (gate_up, down) in enumerate(zip(self.gate_up_proj.unbind(), self.down_proj.unbind(), strict=True)):
            token, slot = torch.where(experts == expert)
            gate, up = F.linear(x[token], gate_up).chunk(2, dim=-1)
            output = F.linear(self.act_fn(gate) * up, down)
            y = y.index_add(0, token, (output * weights[token, slot, None]).to(y.dtype))
        return y


def stack_published_experts(module: Any, state_dict: dict[str, Tensor], prefix: str, *_) -> None:
    """Let `load_state_dict` take the published layout, one tensor per expert and projection, as `from_pretrained` does.

    Trainer resumes through `load_state_dict(strict=False)`, from files in that layout: without this it would leave
    every expert as it was, with no more than a warning. Of the module only `num_experts` is read.
    """

    block = prefix.removesuffix(".")

    def stacked(projection: str) -> Tensor:
        names = [published_weight(block, expert, projection) for expert in range(module.num_experts)]
        return torch.stack([state_dict.pop(name) for name in names])

    if published_weight(block, 0, PUBLISHED[GATE_UP][0]) in state_dict:
        for stack, projections in PUBLISHED.items():  # (E, 2I, H), gate rows first; (E, H, I)
            parts = [stacked(projection) for projection in projections]
            state_dict[f"{prefix}{stack}"] = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
