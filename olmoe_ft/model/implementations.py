"""Which back end of attention and of the experts a configuration has chosen.

transformers keeps both under private names in the configuration, where `attn_implementation=` and
`experts_implementation=` of a model, and its `set_..._implementation` methods, put them. They are read here alone.
"""

from copy import copy
from typing import TypeVar

from transformers import PreTrainedConfig

Config = TypeVar("Config", bound=PreTrainedConfig)

OLMOE_GROUPED = "olmoe_grouped"  # our own back end of the experts, the default one (`experts/autograd.py`)


def attention_implementation(config: PreTrainedConfig) -> str:
    """The name of the back end of attention: "sdpa", "eager", "flash_attention_2", ..."""
    return config._attn_implementation


def experts_implementation(config: PreTrainedConfig) -> str:
    """The name of the back end of the experts: "olmoe_grouped", "eager", "grouped_mm", ..."""
    return config._experts_implementation


def with_attention(config: Config, implementation: str) -> Config:
    """The configuration with another back end of attention: a copy, or itself where nothing changes."""
    if implementation == attention_implementation(config):
        return config
    config = copy(config)
    config._attn_implementation = implementation
    return config
