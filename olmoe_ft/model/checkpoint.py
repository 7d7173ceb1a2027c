"""What is wrong with a checkpoint, tensor by tensor.

Shapes: H hidden, I intermediate.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from transformers import PreTrainedConfig
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from olmoe_ft.model.config import SIZES, OlmoeConfig
from olmoe_ft.model.names import DOWN, EXPERTS, GATE_UP, PUBLISHED, STACKS, published_weight

_PROJECTIONS = "|".join(projection for stack in STACKS for projection in PUBLISHED[stack])
PUBLISHED_EXPERT = re.compile(rf"((.*\.|)layers\.\d+\.{re.escape(EXPERTS)})\.\d+\.({_PROJECTIONS})\.weight")
HUB_ARGUMENTS = ("cache_dir", "revision", "subfolder", "token")


def folder_of(name: Any, arguments: dict[str, Any]) -> Path | None:
    """Where the checkpoint's files are: the folder itself, or what the Hub's cache holds under this name, if anything.

    Args:
        name, arguments: as given to `from_pretrained`.
    """
    if name is None or arguments.get("state_dict") is not None:
        return None
    local = Path(name, arguments.get("subfolder", ""))
    if local.is_dir():
        return local
    hub = {key: arguments[key] for key in HUB_ARGUMENTS if arguments.get(key)}
    file = cached_file(name, CONFIG_NAME, local_files_only=True, _raise_exceptions_for_missing_entries=False, **hub)
    return Path(file).parent if file else None


def requested_config(folder: Path, arguments: dict[str, Any]) -> OlmoeConfig:
    """The config of a `from_pretrained` call: the one given, or the folder's, with the sizes given beside it."""
    config = arguments.get("config") or folder
    if isinstance(config, PreTrainedConfig):
        return OlmoeConfig.of(config)
    return OlmoeConfig.from_pretrained(config, **{key: arguments[key] for key in SIZES if key in arguments})


def refuse_pickles(folder: Path | None) -> None:
    """Raise `ValueError` if a folder holds a pickle checkpoint and no safetensors file."""
    pickles = sorted(folder.glob("pytorch_model*.bin")) if folder else []
    if folder and pickles and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} holds only a pickle checkpoint ({pickles[0].name}), which can run code when it is read: "
            f"convert it to safetensors, or pass use_safetensors=False if you trust its source"
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers reads from a folder: the single one, or those of the index."""
    if (folder / SAFE_WEIGHTS_NAME).exists():
        return [folder / SAFE_WEIGHTS_NAME]
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    names = json.loads(index.read_text())["weight_map"].values() if index.exists() else []
    return [file for name in sorted(set(names)) if (file := folder / name).exists()]


class Problem(NamedTuple):
    """What is wrong with one tensor of a checkpoint."""

    tensor: str
    kind: str  # missing, unexpected or misshapen
    shapes: str = ""  # of a misshapen one

    def __str__(self) -> str:
        return f"{self.kind} {self.tensor}{self.shapes}"

    @property
    def is_of_experts(self) -> bool:
        return f".{EXPERTS}." in self.tensor


def expert_problems(folder: Path, config: OlmoeConfig) -> list[Problem]:
    """Name every missing, unexpected and misshapen expert tensor of a published checkpoint, from its headers alone.

    transformers stacks the experts before it compares them with the network: it can then only say that a stack has the
    wrong size, and it leaves out a stack that lies beside its own experts. Layers that the file holds as stacks alone
    are compared by it.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(folder):
        with safe_open(file, "pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
    found = {name: match for name in shapes if (match := PUBLISHED_EXPERT.fullmatch(name))}
    if not found:
        return []
    prefix, published = next(iter(found.values()))[2], {match[1] for match in found.values()}
    blocks = {f"{prefix}layers.{layer}.{EXPERTS}" for layer in range(config.num_hidden_layers)}
    stacks = {name for block in blocks for stack in STACKS if (name := f"{block}.{stack}") in shapes}
    wide, tall = (config.intermediate_size, config.hidden_size), (config.hidden_size, config.intermediate_size)
    expected = {
        published_weight(block, expert, projection): shape
        for block in blocks
        if block in published or f"{block}.{DOWN}" not in stacks
        for expert in range(config.num_experts)
        for stack, shape in ((GATE_UP, wide), (DOWN, tall))  # (I, H) twice, (H, I)
        for projection in PUBLISHED[stack]
    }
    surplus = {name for name in stacks if name.rpartition(".")[0] in published} | (found.keys() - expected.keys())
    return [
        *(Problem(name, "missing") for name in sorted(expected.keys() - found.keys())),
        *(Problem(name, "unexpected") for name in sorted(surplus)),
        *misshapen((name, shapes[name], expected[name]) for name in sorted(found.keys() & expected.keys())),
    ]


def misshapen(triples: Iterable[tuple[str, Iterable[int], Iterable[int]]]) -> list[Problem]:
    """Name the tensors of (name, shape in the checkpoint, shape in the network) whose shapes differ."""
    return [
        Problem(name, "misshapen", f": {tuple(theirs)} in the checkpoint, {tuple(ours)} in the network")
        for name, theirs, ours in triples
        if tuple(theirs) != tuple(ours)
    ]


def refuse(checkpoint: object, problems: list[Problem], shown: int = 20) -> None:
    """Raise `ValueError` with the problems, if there are any."""
    if problems:
        more = [f"and {len(problems) - shown} more"] if len(problems) > shown else []
        lines = "\n  ".join([*map(str, problems[:shown]), *more])
        raise ValueError(
            f"the checkpoint {checkpoint} does not hold this network:\n  {lines}\n"
            f"Check that its config.json belongs to its weights and that every file is there."
        )
