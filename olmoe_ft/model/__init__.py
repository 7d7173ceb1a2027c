"""The OLMoE network (Muennighoff et al. 2024, https://arxiv.org/abs/2409.02060).

Read in this order: `config`, `norm`, `rope`, `attention`, `router`, `experts`, `grouped`, `decoder`, `cache`, `masks`,
`olmoe`. Around it: `pretrained` and `checkpoint` (initial weights, loading), `generate`, `size`.
"""

from olmoe_ft.model.config import OlmoeConfig
from olmoe_ft.model.olmoe import OlmoeForCausalLM, OlmoeModel

__all__ = ["OlmoeConfig", "OlmoeForCausalLM", "OlmoeModel"]
