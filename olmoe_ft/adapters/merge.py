"""Fold an adapter into its base on disk, a layer at a time, into the layout that stock transformers loads.

Shapes: E experts, I intermediate, H hidden.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from accelerate.utils import set_module_tensor_to_device
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.trainer_utils import align_special_tokens
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME

from olmoe_ft.checkpoints.base_model import base_of, local_folder
from olmoe_ft.checkpoints.folders import is_adapter, load_config, resolve_checkpoint
from olmoe_ft.checkpoints.peft_names import is_factor, is_whole_copy, plain_name
from olmoe_ft.checkpoints.weights import attach_adapter, refuse_not_finite, whole_folder
from olmoe_ft.model import OlmoeForCausalLM
from olmoe_ft.model.checkpoint import weight_files
from olmoe_ft.model.experts.layer import stack_published_experts
from olmoe_ft.model.finite import is_finite
from olmoe_ft.model.names import EMBEDDING, EXPERTS, HEAD, PUBLISHED, published_weight
from olmoe_ft.recipe import UserError

LAYER = re.compile(r"model\.layers\.\d+\.")
State = dict[str, Tensor]


def merge(checkpoint: str, tokenizer: PreTrainedTokenizerBase, to: Path, dtype: str = "auto") -> None:
    """Write a checkpoint, an adapter folded into its base, as one safetensors file a layer, one tensor an expert.

    PEFT folds; sums are taken in fp32 and rounded once. In memory there are the adapter and one layer. The folder
    appears only when it is complete. BOS, EOS and padding become the tokenizer's, as after training all weights, so
    that a stock `generate` ends where the adapter learned to.

    Args:
        checkpoint: run directory, checkpoint folder or Hub name, with or without adapter.
        tokenizer: the one of the training, written beside the weights.
        dtype: "float32", "bfloat16", or "auto" for the base's own.
    Raises:
        UserError: base or adapter do not hold the tensors of the network, the adapter belongs to another base, or a
            tensor holds NaN or infinity.
    """
    path = resolve_checkpoint(checkpoint)
    config = load_config(path)
    base = local_folder(base_of(path) if is_adapter(path) else path)
    with torch.device("meta"):
        network = OlmoeForCausalLM(config)
    network.name_or_path = str(base)
    with suppress(OSError):  # no such file: then it is made of config.json, as transformers does
        network.generation_config = GenerationConfig.from_pretrained(base)
    align_special_tokens(network, tokenizer)
    source = BaseWeights(base, network)
    adapted = attach_adapter(network, path) if is_adapter(path) else network
    if config.tie_word_embeddings and any(
        is_factor(name) or is_whole_copy(name)
        for name, _ in adapted.named_parameters()
        if HEAD in name or EMBEDDING in name
    ):
        raise UserError(
            f"{path} adapts embedding or head, which are one tensor in this base, so it cannot be folded; use it as an "
            "adapter, or train without these targets"
        )
    with whole_folder(to) as partial:
        write_config(network, base, partial, write_weights(adapted, source, partial, dtype))
        tokenizer.save_pretrained(partial)


def write_weights(model: OlmoeForCausalLM | PeftModel, base: "BaseWeights", folder: Path, dtype: str) -> torch.dtype:
    """One file a layer and one for the rest, with their index; returns the type the tensors have."""
    index: dict[str, str] = {}
    size = 0
    for number, part in enumerate(track(base.parts, "merging", transient=True), 1):
        state = base.read(part)
        types = {name: tensor.dtype if dtype == "auto" else getattr(torch, dtype) for name, tensor in state.items()}
        folded = fold(model, state) if isinstance(model, PeftModel) else state
        stored = {
            name: tensor.contiguous()
            for stacked in folded
            for name, tensor in published(stacked, folded[stacked].to(types[stacked]))
        }
        refuse_not_finite(f"merging {base.folder}", [name for name, tensor in stored.items() if not is_finite(tensor)])
        file = f"model-{number:05d}-of-{len(base.parts):05d}.safetensors"
        save_file(stored, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(stored, file)
        size += sum(tensor.nbytes for tensor in stored.values())
    whole = {"metadata": {"total_size": size}, "weight_map": index}
    (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(whole, indent=2) + "\n")
    return next(iter(types.values()))


def part_of(name: str) -> str:
    """The layer a tensor belongs to, as the prefix of its name; "" for embeddings, last norm and head."""
    match = LAYER.match(name)
    return match[0] if match else ""


class BaseWeights:
    """The tensors of a checkpoint folder, read when they are asked for, a part of the network at a time."""

    def __init__(self, folder: Path, network: OlmoeForCausalLM) -> None:
        self.folder, self.num_experts = folder, network.config.num_experts
        self.shapes = {name: tensor.shape for name, tensor in network.named_parameters()}  # a tied head is not there
        self.parts = list(dict.fromkeys(part_of(name) for name in self.shapes))

    def read(self, part: str) -> State:
        """The tensors of a part under the network's names, experts stacked.

        Raises:
            UserError: one is missing, unknown or of another shape.
        """
        shapes = {name: shape for name, shape in self.shapes.items() if part_of(name) == part}
        state: State = {}
        for file in weight_files(self.folder):
            with safe_open(file, "pt") as tensors:
                names = [name for name in tensors.keys() if part_of(name) == part]
                state |= {name: tensors.get_tensor(name) for name in names}
        if part:
            try:
                stack_published_experts(self, state, f"{part}{EXPERTS}.")
            except (KeyError, RuntimeError) as error:
                raise UserError(f"{self.folder}: the experts of {part} cannot be read: {error}") from None
        if f"{HEAD}.weight" not in shapes:  # tied to the embedding, and stored beside it by some
            state.pop(f"{HEAD}.weight", None)
        found = {name: tensor.shape for name, tensor in state.items()}
        if wrong := sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name)):
            raise UserError(
                f"{self.folder} does not contain the network of its config.json: {len(wrong)} tensors differ, first "
                f"{wrong[0]}: {_shape(found.get(wrong[0]))} there, {_shape(shapes.get(wrong[0]))} in the network"
            )
        return state


def fold(model: PeftModel, state: State) -> State:
    """The tensors of a part with the adapters of a model, whose base is on the meta device, folded in, in fp32."""
    places = {name: plain_name(name) for name, _ in model.named_parameters() if not is_factor(name)}
    places = {name: plain for name, plain in places.items() if plain in state}
    for name, plain in places.items():
        if not is_whole_copy(name):  # that one is the adapter's own
            set_module_tensor_to_device(model, name, "cpu", state[plain].float())
    owners = {name.rpartition(".")[0] for name in places}
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and any(
            owner == name or owner.startswith(f"{name}.") for owner in owners
        ):
            module.merge()
    weights = dict(model.named_parameters())
    folded = {plain: weights[name].data for name, plain in places.items()}  # a copy that was trained whole comes last
    if missing := sorted(state.keys() - folded.keys()):
        raise UserError(
            f"{missing[0]} is adapted in a way that cannot be folded; merge it with PEFT's merge_and_unload"
        )
    for name in places:
        set_module_tensor_to_device(model, name, "meta")
    return folded


def published(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A tensor under its published name; stacked experts one by one, gate (I, H), up (I, H) and down (H, I)."""
    block, _, stack = name.rpartition(".")
    if stack not in PUBLISHED:
        yield name, tensor
        return
    for expert, matrices in enumerate(tensor):
        parts = matrices.chunk(len(PUBLISHED[stack]))
        for projection, matrix in zip(PUBLISHED[stack], parts, strict=True):
            yield published_weight(block, expert, projection), matrix


def write_config(network: OlmoeForCausalLM, base: Path, folder: Path, dtype: torch.dtype) -> None:
    """The base's own with the network's special tokens; never one that asks for router logits (see `save_whole`)."""
    values = json.loads((base / CONFIG_NAME).read_text())
    values |= {name: getattr(network.config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    values |= {"dtype": str(dtype).removeprefix("torch."), "output_router_logits": False}
    values.pop("torch_dtype", None)
    (folder / CONFIG_NAME).write_text(json.dumps(values, indent=2) + "\n")
    network.generation_config.to_json_file(folder / GENERATION_CONFIG_NAME)


def _shape(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else str(tuple(shape))
