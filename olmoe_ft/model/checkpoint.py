"""What is wrong with a checkpoint, tensor by tensor.

Shapes: H hidden, I intermediate.
"""

import re
from pathlib import Path

from safetensors import safe_open

from olmoe_ft.model.config import OlmoeConfig

PUBLISHED_EXPERT = re.compile(r"(.*\.|)layers\.(\d+)\.mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight")


def expert_problems(folder: Path, config: OlmoeConfig) -> list[str]:
    """Name every missing, unexpected and misshapen expert tensor of a published checkpoint, from its headers alone.

    transformers stacks the experts before it compares them with the network, and then can only say that a stack has
    the wrong size. Checkpoints whose experts are stacked already have nothing to check here.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
    found = {name: match for name in shapes if (match := PUBLISHED_EXPERT.fullmatch(name))}
    if not found:
        return []
    prefix = next(iter(found.values()))[1]
    wide, tall = (config.intermediate_size, config.hidden_size), (config.hidden_size, config.intermediate_size)
    expected = {
        f"{prefix}layers.{layer}.mlp.experts.{expert}.{projection}_proj.weight": shape
        for layer in range(config.num_hidden_layers)
        for expert in range(config.num_experts)
        for projection, shape in (("gate", wide), ("up", wide), ("down", tall))  # (I, H), (I, H), (H, I)
    }
    return [
        *(f"missing {name}" for name in sorted(expected.keys() - found.keys())),
        *(f"unexpected {name}" for name in sorted(found.keys() - expected.keys())),
        *misshapen((name, shapes[name], expected[name]) for name in sorted(found.keys() & expected.keys())),
    ]


def misshapen(triples) -> list[str]:
    """Name the tensors of (name, shape in the checkpoint, shape in the network) whose shapes differ."""
    return [
        f"misshapen {name}: {tuple(theirs)} in the checkpoint, {tuple(ours)} in the network"
        for name, theirs, ours in triples
        if tuple(theirs) != tuple(ours)
    ]


def refuse(checkpoint: object, problems: list[str], shown: int = 20) -> None:
    """Raise `ValueError` with the problems, if there are any."""
    if problems:
        more = [f"and {len(problems) - shown} more"] if len(problems) > shown else []
        lines = "\n  ".join([*problems[:shown], *more])
        raise ValueError(
            f"the checkpoint {checkpoint} does not hold this network:\n  {lines}\n"
            f"Check that its config.json belongs to its weights and that every file is there."
        )
