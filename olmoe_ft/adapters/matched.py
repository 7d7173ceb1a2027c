"""What an adapter has reached: which kinds of weights, in how many layers, with how many trainable parameters."""

from dataclasses import dataclass

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn

from olmoe_ft.checkpoints.peft_names import plain_name
from olmoe_ft.model.size import parameter_count
from olmoe_ft.recipe import UserError


@dataclass
class Kind:
    """One kind of adapted weight, as the adapter's configuration names it."""

    name: str
    form: str  # "factors", or "whole" for a copy of the module that is trained and saved beside them
    matched: int = 0  # how many of them
    parameters: int = 0  # trainable ones


def adapted_kinds(model: PeftModel) -> list[Kind]:
    """Every kind that the active adapter asks for, with what it matched.

    Raises:
        UserError: a kind matched nothing, or not the same number in every layer.
    """
    config = model.peft_config[model.active_adapter]
    requested = {name: "factors" for name in (*(config.target_modules or ()), *(config.target_parameters or ()))}
    requested |= {name: "whole" for name in config.modules_to_save or ()}
    kinds = {name: Kind(name, form) for name, form in requested.items()}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            # a wrapper of a parameter is in the place of the module with the parameter, or of another wrapper of it
            parameter = getattr(module, "parameter_name", None)
            place = plain_name(name) + (f".{parameter}" if parameter else "")
            factors = [*module.lora_A.parameters(), *module.lora_B.parameters()]
            _count(kinds, place, factors)
        elif isinstance(module, ModulesToSaveWrapper):
            _count(kinds, name, [*module.modules_to_save.parameters()])
    layers = model.config.num_hidden_layers
    wrong = [
        f"lora: {kind.name} matched {kind.matched} of {layers} layers, so the adapter is not what the recipe asks for: "
        "take it out, or name a weight that every layer of the model has"
        for kind in kinds.values()
        if kind.matched != layers
    ]
    if wrong:
        raise UserError(wrong)
    return [kinds[name] for name in sorted(kinds)]


def _count(kinds: dict[str, Kind], place: str, weights: list[nn.Parameter]) -> None:
    kind = next(kind for name, kind in kinds.items() if place == name or place.endswith(f".{name}"))
    kind.matched += 1
    kind.parameters += sum(parameter_count(weight) for weight in weights if weight.requires_grad)
