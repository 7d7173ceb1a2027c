"""Which weights LoRA adapts, as a PEFT configuration (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

from peft import LoraConfig
from peft.tuners.lora import ParamWrapper

from olmoe_ft.model import names
from olmoe_ft.model.experts.peft_bridge import check_wrapper
from olmoe_ft.recipe.schema import Lora

ATTENTION = [*names.ATTENTION_PROJECTIONS]
EXPERTS = [f"{names.EXPERTS}.{stack}" for stack in names.STACKS]  # stacked 3-D weights: PEFT adapts them as parameters


def lora_config(lora: Lora, router_train: str) -> LoraConfig:
    """PEFT's configuration for a recipe's `lora` section and `router.train` policy.

    Args:
        router_train: "frozen" leaves the routers alone, "full" trains and saves them whole beside the adapter,
            "lora" adapts them like the experts.
    Raises:
        RuntimeError: this version of PEFT adapts experts in a way that the network does not know.
    """
    check_wrapper(ParamWrapper)
    parameters = [*(EXPERTS if lora.experts else ()), *([names.ROUTER_WEIGHT] if router_train == "lora" else ())]
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.use_rslora,
        init_lora_weights=lora.init_lora_weights,
        target_modules=ATTENTION if lora.attention else [],
        target_parameters=parameters or None,
        modules_to_save=[names.ROUTER] if router_train == "full" else None,
    )
