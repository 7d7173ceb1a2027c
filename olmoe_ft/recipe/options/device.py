"""What a recipe needs from the machine: packages and a GPU. Looks for packages without importing them."""

from importlib.util import find_spec

from olmoe_ft.recipe.errors import UserError
from olmoe_ft.recipe.options.optimizers import package_of
from olmoe_ft.recipe.schema import Recipe
from olmoe_ft.recipe.wording import shown

FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
NO_FLEX = "gives wrong results on some CPUs, because torch miscompiles it"
ON_A_GPU = {
    "tf32": "is a precision of GPUs",
    "activation_offloading": "moves activations from a GPU to the host",
}


def check_packages(recipe: Recipe) -> None:
    """Refuse options that need a package that is not installed.

    Raises:
        UserError: naming all of them.
    """
    found: list[str] = []
    optim, attention = recipe.training.get("optim"), recipe.model.attn_implementation
    package, remedy = package_of(optim) if optim is not None else (None, "")
    if package is not None and find_spec(package) is None:
        needs = f"which needs the package {package}, which is not installed here"
        found.append(f"training.optim: found {shown(optim)}, {needs}; {remedy}")
    if attention in FLASH and find_spec(FLASH[attention]) is None:
        needs = f"which needs the package {FLASH[attention]}, which is not installed here"
        found.append(f"model.attn_implementation: found {shown(attention)}, {needs}; install it, or choose sdpa")
    if found:
        raise UserError(found)


def check_device(recipe: Recipe, gpu: bool, where: str) -> None:
    """Refuse what a machine without a GPU cannot do, or does wrong.

    Flex attention, compiled by torch 2.13, gave wrong results on a CPU without AVX-512: with a padding mask the error
    of the first tokens was as large as their values (tests/model/test_arguments.py).

    Args:
        where: the machine, for the message.
    Raises:
        UserError: naming all of them.
    """
    if gpu:
        return
    training, attention = recipe.training, recipe.model.attn_implementation
    found = [
        f"training.{name}: found true on {where}, which has no GPU, but it {reason}; remove it"
        for name, reason in ON_A_GPU.items()
        if training.get(name) is True
    ]
    if attention in FLASH:
        found.append(f"model.attn_implementation: found {shown(attention)} on {where}, which has no GPU; choose sdpa")
    if attention == "flex_attention":
        found.append(
            f"model.attn_implementation: flex_attention {NO_FLEX}, and {where} has no GPU; remove it: sdpa, the "
            "default, keeps packed rows apart too"
        )
    if found:
        raise UserError(found)
