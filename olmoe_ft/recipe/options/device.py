"""What a recipe needs of the machine it runs on: packages and a GPU. Looks for packages without importing them."""

from importlib.util import find_spec

from olmoe_ft.recipe.errors import UserError
from olmoe_ft.recipe.options.optimizers import package_of
from olmoe_ft.recipe.schema import Recipe
from olmoe_ft.recipe.wording import shown

FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
NO_FLEX = "is wrong on some CPUs, where torch compiles it to other code than it should"
ON_A_GPU = {
    "tf32": "is a kind of arithmetic of GPUs",
    "activation_offloading": "moves activations from a GPU to the host",
}


def check_packages(recipe: Recipe) -> None:
    """Refuse what needs a package that is not installed.

    Raises:
        UserError: with everything that does.
    """
    found: list[str] = []
    optim, attention = recipe.training.get("optim"), recipe.model.attn_implementation
    package, remedy = package_of(optim) if optim is not None else (None, "")
    if package is not None and find_spec(package) is None:
        needs = f"which needs the package {package} that is not installed here"
        found.append(f"training.optim: found {shown(optim)}, {needs}; {remedy}")
    if attention in FLASH and find_spec(FLASH[attention]) is None:
        needs = f"which needs the package {FLASH[attention]} that is not installed here"
        found.append(f"model.attn_implementation: found {shown(attention)}, {needs}; install it, or choose sdpa")
    if found:
        raise UserError(found)


def check_device(recipe: Recipe, gpu: bool, where: str) -> None:
    """Refuse what a machine without a GPU cannot do, or does wrong.

    Flex attention was seen wrong on a CPU without AVX-512, where torch 2.13 compiles it: with a padding mask the first
    tokens were off by as much as they are (tests/model/test_arguments.py).

    Args:
        where: the machine, for the message.
    Raises:
        UserError: with everything of that kind.
    """
    if gpu:
        return
    training, attention = recipe.training, recipe.model.attn_implementation
    found = [
        f"training.{name}: found true on {where}, which has no GPU, and it {reason}; remove it"
        for name, reason in ON_A_GPU.items()
        if training.get(name) is True
    ]
    if attention in FLASH:
        found.append(f"model.attn_implementation: found {shown(attention)} on {where}, which has no GPU; choose sdpa")
    if attention == "flex_attention":
        found.append(
            f"model.attn_implementation: flex_attention {NO_FLEX}, and {where} has no GPU; remove it: sdpa, the "
            "default, keeps documents apart too"
        )
    if found:
        raise UserError(found)
