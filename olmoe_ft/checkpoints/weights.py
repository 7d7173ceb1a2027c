"""Load and write checkpoints: plain ones, adapters on a base, and run directories that hold either."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate.utils import set_module_tensor_to_device
from peft import (
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from peft.tuners.lora import ParamWrapper
from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import align_special_tokens

from olmoe_ft.checkpoints.base_model import base_of
from olmoe_ft.checkpoints.folders import check_weights, is_adapter, load_config, resolve_checkpoint
from olmoe_ft.checkpoints.manifest import write_manifest
from olmoe_ft.checkpoints.peft_names import is_factor, stored_name
from olmoe_ft.model import OlmoeForCausalLM
from olmoe_ft.model.experts.peft_bridge import check_wrapper
from olmoe_ft.model.finite import listed, not_finite
from olmoe_ft.recipe import UserError


def load_whole(path: str, dtype: str = "auto") -> OlmoeForCausalLM:
    """The model in a checkpoint folder, an adapter folded into its base.

    Args:
        dtype: "float32", "bfloat16", or "auto" for the checkpoint's own.
    Raises:
        UserError: it cannot be loaded, or holds NaN or infinity.
    """
    path = resolve_checkpoint(path)
    check_weights(path)
    load_config(path)  # a clear sentence instead of a traceback
    torch_dtype = dtype if dtype == "auto" else getattr(torch, dtype)
    model = OlmoeForCausalLM.from_pretrained(base_of(path) if is_adapter(path) else path, dtype=torch_dtype)
    if is_adapter(path):
        own = model.dtype
        model = attach_adapter(model, path).merge_and_unload().to(own)  # modules saved whole are in fp32
    refuse_not_finite(path, not_finite(model))
    return model


def refuse_not_finite(checkpoint: str, names: list[str]) -> None:
    """Refuse a checkpoint by the names of its tensors that hold NaN or infinity, if there are any.

    Raises:
        UserError: naming the first of them.
    """
    if names:
        raise UserError(
            f"{checkpoint}: {len(names)} of its tensors hold NaN or infinity: {listed(names)}; fetch this checkpoint "
            "again, or start from another"
        )


def attach_adapter(base: OlmoeForCausalLM, path: str) -> PeftModel:
    """An adapter, in fp32 on the CPU, around its base, which may be on the meta device.

    Raises:
        UserError: the adapter's tensors are not those its configuration gives this base.
        RuntimeError: this version of PEFT adapts experts in a way that the network does not know.
    """
    check_wrapper(ParamWrapper)
    config = PeftConfig.from_pretrained(path)
    if getattr(config, "lora_bias", False) and not base.config.attention_bias:
        raise UserError(
            f"{path}: an adapter with lora_bias cannot be folded into a base without biases; train it without lora_bias"
        )
    weights = {name: tensor.float() for name, tensor in load_peft_weights(path, device="cpu").items()}
    try:
        model = get_peft_model(base, config, low_cpu_mem_usage=True)
        set_peft_model_state_dict(model, weights, low_cpu_mem_usage=True)
    except (RuntimeError, ValueError) as error:  # other shapes; weights the base does not have
        lines = str(error).splitlines()
        reason = next((line.strip() for line in lines if "size mismatch" in line), lines[0])
        raise UserError(f"{path}: this adapter does not fit its base {base.name_or_path}: {reason}") from None
    if different := sorted(get_peft_model_state_dict(model).keys() ^ weights.keys()):
        raise UserError(
            f"{path}: this adapter does not fit its base {base.name_or_path}: {len(different)} tensors are missing on "
            f"one side, first {different[0]}"
        )
    for name in [name for name, weight in model.named_parameters() if is_factor(name) and weight.is_meta]:
        # PEFT has sent them where their base is
        stored = stored_name(name)
        stored = stored if stored in weights else stored.removesuffix(".weight")  # DoRA's magnitudes
        set_module_tensor_to_device(model, name, "cpu", weights[stored])
    return model


def save_whole(model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model and tokenizer in the layout stock transformers loads; the folder appears only when it is complete.

    The config never asks for router logits: stock transformers would compute the loss of them in every `generate`. BOS,
    EOS and padding become the tokenizer's, as the trainer makes them.
    """
    align_special_tokens(model, tokenizer)
    model.config.output_router_logits = False
    with whole_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which gets a manifest and becomes `folder` when the block has ended, and is removed where
    it fails.

    It lies beside `folder`, in one with a name that nobody else has.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as aside:
        partial = Path(aside) / folder.name  # with the rights of any folder, which a temporary one has not
        partial.mkdir()
        yield partial
        write_manifest(partial)
        partial.rename(folder)
