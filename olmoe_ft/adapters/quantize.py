"""A frozen base in 4 bit under its adapters (QLoRA, Dettmers et al. 2023, https://arxiv.org/abs/2305.14314).

NF4 by bitsandbytes, which packs stacked 3-D weights as it does matrices (docs/adapters.md: why not torchao). Attention
gets its `Linear4bit`; a stack of experts is kept packed and unpacked for each product, one stack at a time, forward and
backward. The adapters, the routers, norms, embedding and head stay as they are.

Shapes: E experts.
"""

from importlib.util import find_spec
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from olmoe_ft.checkpoints.peft_names import WRAPPED
from olmoe_ft.model.experts.layer import OlmoeExperts
from olmoe_ft.model.names import ATTENTION_PROJECTIONS, STACKS
from olmoe_ft.recipe import UserError


def check_quantization() -> None:
    """Whether this machine can train on a quantised base.

    Raises:
        UserError: it cannot.
    """
    if not torch.cuda.is_available():
        raise UserError(
            "model.quantization: nf4 needs an NVIDIA GPU, and there is none: a CPU would spend its time unpacking "
            "weights; remove it"
        )
    if find_spec("bitsandbytes") is None:
        raise UserError("model.quantization: nf4 needs bitsandbytes: pip install 'olmoe_ft[quantization]'")
    if is_deepspeed_zero3_enabled():
        raise UserError(
            "model.quantization: nf4 packs whole weights, and ZeRO-3 cuts them up: launch with "
            "configs/accelerate/gpu.yaml or zero2.yaml"
        )


def quantize_base(model: PeftModel) -> None:
    """Pack the frozen weights of attention and experts, in place."""
    for module in list(model.modules()):
        if isinstance(module, OlmoeExperts):
            for name in STACKS:
                weight = getattr(module, name)
                assert not weight.requires_grad, "a trained weight cannot be packed"
                delattr(module, name)
                setattr(module, name, PackedStack(weight.data))
        for name, child in list(module.named_children()):
            if name in ATTENTION_PROJECTIONS and isinstance(child, nn.Linear):
                setattr(module, name, packed_linear(child))
            elif name == WRAPPED and isinstance(module, LoraLayer) and isinstance(child, nn.Linear):
                module.base_layer = packed_linear(child)


class PackedStack(nn.Module):
    """A stack of weights in 4 bit, in the place of the parameter; what reads it calls `dequantize`."""

    packed: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        from bitsandbytes import functional

        packed, self.state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        self.register_buffer("packed", packed, persistent=False)
        self.shape, self.dtype = weight.shape, weight.dtype

    def _apply(self, *args: Any, **kwargs: Any) -> "PackedStack":
        """The scales move with the stack, when DeepSpeed or a trainer moves the model."""
        super()._apply(*args, **kwargs)
        self.state.to(self.packed.device)
        return self

    def outline(self) -> Tensor:
        """(E, out, in), with the dtype and the device of the weight and the memory of one number."""
        return self.packed.new_empty((), dtype=self.dtype).expand(self.shape)

    def dequantize(self) -> Tensor:
        """(E, out, in) in the dtype of the weight that was packed."""
        from bitsandbytes import functional

        return functional.dequantize_4bit(self.packed, self.state)


def packed_linear(linear: nn.Linear) -> Any:
    """The same layer with its weight in 4 bit."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    weight = linear.weight.data
    packed = Linear4bit(
        linear.in_features, linear.out_features, bias=False, compute_dtype=weight.dtype, quant_type="nf4"
    )
    packed.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True)
    packed.bias = linear.bias
    return packed.to(weight.device)
