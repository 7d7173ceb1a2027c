"""How PEFT names the modules and parameters of a model that it has put adapters around.

A wrapper keeps what it wraps under `base_layer`, or under `original_module` where a copy of the module is trained whole
and kept under `modules_to_save`. The name of an adapter, here `default`, is a part of its parameters' names, but not of
those in its files.
"""

import re

ADAPTER = "default"  # PEFT's name for an adapter that is given none
WRAPPED = "base_layer"
_ADDED = re.compile(rf"^base_model\.model\.|\.{WRAPPED}\b|\.original_module\b|\.modules_to_save\.{ADAPTER}\b")


def plain_name(name: str) -> str:
    """The network's own name for a module or parameter of the base, or for a copy of it that is trained whole."""
    return _ADDED.sub("", name)


def is_factor(name: str) -> bool:
    """Whether a parameter is LoRA's: a factor, or DoRA's magnitude."""
    return ".lora_" in name


def is_b_factor(name: str) -> bool:
    """Whether it is a B, which LoRA's usual initialisation sets to 0."""
    return ".lora_B." in name


def is_whole_copy(name: str) -> bool:
    """Whether a parameter belongs to a copy of a module that is trained and saved whole."""
    return ".modules_to_save." in name


def stored_name(name: str) -> str:
    """A factor's name in the adapter's file, which does not say the adapter's own name."""
    return name.replace(f".{ADAPTER}", "")
