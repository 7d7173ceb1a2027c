"""The OLMoE network (Muennighoff et al. 2024, https://arxiv.org/abs/2409.02060).

Read in this order: `config`, `norm`, `rope`, `attention`, `router`, `experts/`, `decoder`, `cache`, `attention_plan`,
`attention_backends`, `olmoe`. Around it: `names` (of weights), `implementations` and `keywords` (what a caller may
choose and pass), `pretrained` and `checkpoint` (initial weights, loading), `finite`, `generate`, `size`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olmoe_ft.model.config import OlmoeConfig
    from olmoe_ft.model.olmoe import OlmoeForCausalLM, OlmoeModel

__all__ = ["OlmoeConfig", "OlmoeForCausalLM", "OlmoeModel"]


def __getattr__(name: str) -> Any:
    """Import the classes at their first use: a module that names one in an annotation alone does not load torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "OlmoeConfig":
        from olmoe_ft.model.config import OlmoeConfig

        return OlmoeConfig
    from olmoe_ft.model import olmoe

    return getattr(olmoe, name)
