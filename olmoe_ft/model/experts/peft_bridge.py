"""Adapters on expert weights, multiplied instead of folded: LoRA's `y = x W + s (x A) B` (Hu et al. 2021, eq. 3).

PEFT adapts a stacked weight by a `lora.ParamWrapper` around the experts. The wrapper owns the factors, and its
`forward` puts `W + s B A`, a second copy of all experts' weights, in the place of W while the experts run: in its
method `_activate_lora`. Here that method of each wrapper is replaced by one that hands the factors to the experts for
that time, and `autograd.py` multiplies them. The rest of the wrapper stays PEFT's, and so do the adapter's files.

`OlmoeSparseMoeBlock.forward` asks for it, whoever attached the adapter. PEFT is not imported: the network works without
it. `_activate_lora` is private, so another PEFT may do without it: that is refused, and never folded silently.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from olmoe_ft.model.implementations import OLMOE_GROUPED, experts_implementation

ALLOWED = "peft>=0.21,<0.22"  # as in pyproject.toml
METHODS = ("_activate_lora", "get_base_layer", "get_delta_factors")  # of a wrapper, which are called or replaced here
ATTRIBUTES = ("lora_A", "parameter_name")  # of a wrapper, which are read here


def multiply_instead_of_fold(experts: Any) -> None:
    """Prepare the wrappers around the experts, one around the other; those that are prepared stay as they are.

    Args:
        experts: what is in the place of the experts: the outermost wrapper.
    Raises:
        RuntimeError: this PEFT's wrappers are not those that are known here.
    """
    while (wrapped := getattr(experts, "base_layer", None)) is not None:
        if "_activate_lora" not in vars(experts):
            _check(experts, METHODS + ATTRIBUTES)
            experts._activate_lora = partial(_hand_over_factors, experts)
        experts = wrapped


def check_wrapper(wrapper_class: type) -> None:
    """Whether PEFT's `lora.ParamWrapper` has the methods that are needed here: to be asked before a model is loaded.

    Raises:
        RuntimeError: it has not.
    """
    _check(wrapper_class, METHODS)


def refuse_folded_weights(experts: Any) -> None:
    """Raise `RuntimeError` where PEFT has folded an adapter into the weights, because it no longer asks the bridge."""
    for name, steps in getattr(experts, "parametrizations", {}).items():
        if any(type(step).__module__.startswith("peft.") for step in steps):
            raise RuntimeError(_refusal(f"folds an adapter into {name}"))


def _check(wrapper: Any, names: Sequence[str]) -> None:
    if missing := [name for name in names if not hasattr(wrapper, name)]:
        raise RuntimeError(_refusal(f"has no {', '.join(missing)} in lora.ParamWrapper"))


def _refusal(found: str) -> str:
    return (
        f"PEFT {version('peft')} {found}, so adapters on experts would be folded into a second copy of all experts' "
        f"weights in every step; allowed: {ALLOWED}; install it with: pip install '{ALLOWED}'"
    )


@contextmanager
def _hand_over_factors(wrapper: Any, active_adapters: Sequence[str]) -> Iterator[None]:
    """In the place of PEFT's `ParamWrapper._activate_lora`, which folds; for the time of a forward pass.

    Several active adapters add up, as in PEFT. Other back ends of the experts read weights alone: for them it folds.
    """
    experts = wrapper.get_base_layer()
    if experts_implementation(experts.config) != OLMOE_GROUPED:
        with type(wrapper)._activate_lora(wrapper, active_adapters):
            yield
        return
    adapters = [name for name in active_adapters if name in wrapper.lora_A]
    experts.low_rank_factors[wrapper.parameter_name] = [wrapper.get_delta_factors(name) for name in adapters]
    try:
        yield
    finally:
        del experts.low_rank_factors[wrapper.parameter_name]
