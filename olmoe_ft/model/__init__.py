"""The OLMoE network (Muennighoff et al. 2024, https://arxiv.org/abs/2409.02060).

Read in this order: `config`, `norm`, `rope`, `attention`, `router`, `experts`, `grouped`, `decoder`, `cache`, `masks`,
`olmoe`. Around it: `pretrained` and `checkpoint` (initial weights, loading), `generate`, `size`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olmoe_ft.model.config import OlmoeConfig
    from olmoe_ft.model.olmoe import OlmoeForCausalLM, OlmoeModel

__all__ = ["OlmoeConfig", "OlmoeForCausalLM", "OlmoeModel"]


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: who only names one in an annotation need not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "OlmoeConfig":
        from olmoe_ft.model.config import OlmoeConfig

        return OlmoeConfig
    from olmoe_ft.model import olmoe

    return getattr(olmoe, name)
