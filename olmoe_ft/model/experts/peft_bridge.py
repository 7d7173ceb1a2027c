"""Adapters on expert weights, multiplied instead of folded: LoRA's `y = x W + s (x A) B` (Hu et al. 2021, eq. 3).

PEFT adapts a stacked weight by a wrapper around the experts that owns the factors and puts `W + s B A`, a second copy
of all experts' weights, in the place of W for every forward pass. Here the wrapper lends its factors to the experts for
that time instead, and `grouped.py` multiplies them. PEFT itself is not imported: the network need not know of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from olmoe_ft.model.experts.autograd import OLMOE_GROUPED


def multiply_instead_of_fold(experts: Any) -> None:
    """Prepare what stands in the place of the experts: PEFT's wrappers, one around the other, or the experts alone."""
    while (wrapped := getattr(experts, "base_layer", None)) is not None:
        experts._activate_lora = partial(_lend_factors, experts)
        experts = wrapped


@contextmanager
def _lend_factors(wrapper: Any, active_adapters: Sequence[str]) -> Iterator[None]:
    """In the place of PEFT's `ParamWrapper._activate_lora`, which folds; for the time of a forward pass.

    Several active adapters add up, as in PEFT. Other back ends of the experts read weights alone: for them it folds.
    """
    experts = wrapper.get_base_layer()
    if experts.config._experts_implementation != OLMOE_GROUPED:
        with type(wrapper)._activate_lora(wrapper, active_adapters):
            yield
        return
    adapters = [name for name in active_adapters if name in wrapper.lora_A]
    experts.lent[wrapper.parameter_name] = [wrapper.get_delta_factors(name) for name in adapters]
    try:
        yield
    finally:
        del experts.lent[wrapper.parameter_name]
