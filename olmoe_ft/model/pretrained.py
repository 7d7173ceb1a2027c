"""What both networks share: what transformers must know of them, initial weights, and loading that forgives nothing."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)

from olmoe_ft.model.checkpoint import (
    Problem,
    expert_problems,
    folder_of,
    misshapen,
    refuse,
    refuse_pickles,
    requested_config,
)
from olmoe_ft.model.config import OlmoeConfig
from olmoe_ft.model.experts.layer import OlmoeExperts
from olmoe_ft.model.implementations import OLMOE_GROUPED
from olmoe_ft.model.rope import OlmoeRotaryEmbedding
from olmoe_ft.model.router import OlmoeTopKRouter

# transformers stacks per-expert checkpoints into our 3-D weights on load and splits them on save, by model type. For
# classes outside its own package it does so only where the mapping was registered: this registers its own, unchanged.
register_checkpoint_conversion_mapping("olmoe", get_checkpoint_conversion_mapping("olmoe"), overwrite=True)


class OlmoePreTrainedModel(PreTrainedModel):
    """The base class of `OlmoeModel` and `OlmoeForCausalLM`."""

    config: OlmoeConfig
    config_class = OlmoeConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["OlmoeDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(self, config: OlmoeConfig) -> None:
        config = OlmoeConfig.of(config)
        config.validate()  # its fields may have been set since it was made
        super().__init__(config)

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True  # transformers looks for its decorator in this file's text; ours is in experts/layer.py

    def get_correct_experts_implementation(self, requested_experts: str | None) -> str:
        return super().get_correct_experts_implementation(requested_experts or OLMOE_GROUPED)

    def _grouped_mm_can_dispatch(self) -> bool:
        """transformers' grouped products crash on rows that are no multiple of 16 bytes; ours do not."""
        sizes = self.config.hidden_size, self.config.intermediate_size
        multiple = 16 // torch.get_default_dtype().itemsize
        if any(size % multiple for size in sizes):
            raise ValueError(
                f"experts_implementation='grouped_mm' needs hidden_size and intermediate_size to be multiples of "
                f"{multiple}, and {sizes} are not: use {OLMOE_GROUPED!r}, the default"
            )
        return super()._grouped_mm_can_dispatch()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, OlmoeExperts):
            init.normal_(module.gate_up_proj, mean=0.0, std=std)
            init.normal_(module.down_proj, mean=0.0, std=std)
        elif isinstance(module, OlmoeTopKRouter):
            init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, OlmoeRotaryEmbedding):  # a buffer no checkpoint holds
            init.copy_(module.inv_freq, module.inverse_frequencies()[0])

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *args: Any,
        output_loading_info: bool = False,
        ignore_mismatched_sizes: bool = False,
        use_safetensors: bool | None = None,
        **kwargs: Any,
    ):
        """Load a published (one tensor per expert) or stacked checkpoint; all other arguments are transformers'.

        Args:
            output_loading_info: return (model, info) and leave it to the caller what missing and unexpected tensors,
                which `info` lists, mean.
            ignore_mismatched_sizes: give tensors of another shape fresh random weights.
            use_safetensors: False reads a pickle checkpoint (`pytorch_model.bin`); otherwise only safetensors files
                are read, which cannot run code.
        Raises:
            ValueError: naming each tensor that is missing, unexpected or misshapen.
        """
        name, safe = pretrained_model_name_or_path, use_safetensors is not False
        if safe:
            refuse_pickles(folder_of(name, kwargs))
        try:
            model, info = super().from_pretrained(
                name,
                *args,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they come back with their names
                use_safetensors=safe,
                **kwargs,
            )
        except (RuntimeError, AttributeError):  # experts it could not stack, or stacks beside their own experts
            folder = folder_of(name, kwargs)
            refuse(name, expert_problems(folder, requested_config(folder, kwargs)) if folder else [])
            raise
        problems = [] if ignore_mismatched_sizes else misshapen(sorted(info["mismatched_keys"]))
        if not output_loading_info:
            problems += [Problem(key, "missing") for key in sorted(info["missing_keys"])]
            problems += [Problem(key, "unexpected") for key in sorted(info["unexpected_keys"])]
        if not (output_loading_info or ignore_mismatched_sizes) and (folder := folder_of(name, kwargs)):
            experts = expert_problems(folder, model.config)  # says of each expert what `info` says of its stack
            problems = experts + [problem for problem in problems if not (experts and problem.is_of_experts)]
        refuse(name, problems)
        return (model, info) if output_loading_info else model
