"""Is the gradient of the router losses alive, and what can it move? Asked once, at the first step."""

import re
from collections.abc import Iterator
from types import TracebackType

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from olmoe_ft.model import names
from olmoe_ft.model.size import parameter_count
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.schema import Router

PARTS = {  # how the parts of a layer are called, and the modules of each
    "routers": (names.ROUTER,),
    "attention": (names.ATTENTION,),
    "norms": names.NORMS,
    "experts": (names.EXPERTS,),
}


def moved_weights(model: nn.Module) -> dict[str, int]:
    """What the router losses can move: part of the network -> how many of its trained weights lie before a router.

    A router sees the attention and the norms of its own layer and everything in the layers below; never the experts
    of the last layer, the final norm or the head.
    """
    moved: dict[str, int] = {}
    for part, _, weight in _before_routers(model):
        moved[part] = moved.get(part, 0) + parameter_count(weight)
    return moved


def _before_routers(model: nn.Module) -> Iterator[tuple[str, int, nn.Parameter]]:
    """Trained weights that some router sees: the part of the network, the first layer whose router does, the weight."""
    places = [(re.search(r"\blayers\.(\d+)\.(.*)", name), name, weight) for name, weight in model.named_parameters()]
    layers = 1 + max(int(match[1]) for match, _, _ in places if match)
    for match, name, weight in places:
        if not weight.requires_grad:
            continue
        if match is None:
            if names.EMBEDDING in name:
                yield "embeddings", 0, weight
            continue
        part = next(part for part, modules in PARTS.items() if match[2].startswith(modules))
        first = int(match[1]) + (part == "experts")
        if first < layers:
            yield part, first, weight


def check_reach(model: PreTrainedModel | PeftModel, router: Router) -> None:
    """Refuse a model, ready to train, to which the router losses of its recipe can do nothing.

    Raises:
        UserError: a coefficient is not 0, but no trained weight has an influence on a router, or every token goes to
            all experts; or the routers are to be trained and are not.
    """
    moved = moved_weights(model)
    if router.train != "frozen" and "routers" not in moved:
        raise UserError(f'router.train: found "{router.train}", but no router\'s weight is trained')
    if (coefficients := _coefficients(router)) and not moved:
        raise UserError(
            f"{coefficients}, but no trained weight comes before a router, so the router losses can change nothing: "
            "train more (router.train: full, lora.attention: true) or set both coefficients to 0"
        )
    experts = model.config.num_experts
    if router.load_balancing_coef and model.config.num_experts_per_tok == experts:
        raise UserError(
            f"router.load_balancing_coef is {router.load_balancing_coef}, but every token goes to all {experts} "
            "experts, whose load is balanced whatever the router does; set it to 0"
        )


def reach_of_frozen_routers(model: nn.Module, router: Router) -> str | None:
    """A sentence on what the router losses still move where the routers themselves are frozen; None elsewhere."""
    coefficients = _coefficients(router)
    if router.train != "frozen" or not coefficients:
        return None
    parts = ", ".join(f"{part} ({count:,} weights)" for part, count in moved_weights(model).items())
    return f"the routers are frozen and {coefficients}: the router losses still move what comes before them, {parts}"


class GradientGuard:
    """Within the block, watch whether the gradient of the router losses comes back into each decoder layer.

    The logits that leave each mixture of experts are replaced by a view of themselves, inside whatever checkpoints the
    layer: only the router losses use the view, the routing has used the original. So a logit that was detached on its
    way, in the layer or after it, differs from one that is alive, in a recomputed layer too.
    """

    def __init__(self, model: nn.Module, layers: nn.ModuleList, router: Router) -> None:
        self.layers, self.router = layers, router
        first = min((layer for _, layer, _ in _before_routers(model)), default=len(layers))
        self.missing = set(range(first, len(layers)))  # below, no router sees a trained weight
        self.counted = False  # whether any token counted in the router losses; without one there is no gradient

    def __enter__(self) -> "GradientGuard":
        self.handles = [
            layer.get_submodule("mlp").register_forward_hook(
                lambda module, args, outputs, index=index: self._watch(index, outputs)
            )
            for index, layer in enumerate(self.layers)
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self.handles:
            handle.remove()

    def _watch(self, index: int, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        mixed, router_logits = outputs
        if torch.is_grad_enabled() and router_logits.requires_grad:
            router_logits = router_logits.view_as(router_logits)
            # under reentrant checkpointing a gradient of zeros comes where none does
            router_logits.register_hook(lambda gradient: self.missing.discard(index) if gradient.any() else None)
        return mixed, router_logits

    def check(self) -> None:
        """After the backward passes of a step.

        Raises:
            UserError: a coefficient is not 0, and no gradient came to the router of some layer.
        """
        if not self.missing:
            return
        every = len(self.missing) == len(self.layers)
        layers = "any layer" if every else f"layer {', '.join(map(str, sorted(self.missing)))}"
        raise UserError(
            f"{_coefficients(self.router)}, but in the first step no gradient of the router losses has come to the "
            f"router of {layers}: its logits were detached on the way (by a hook, a no_grad block or a checkpoint that "
            "records them), or the router is so sure of every token that the losses have none. The run stops because "
            "it would train without these losses; correct that or set both coefficients to 0"
        )


def _coefficients(router: Router) -> str:
    given = {"load_balancing_coef": router.load_balancing_coef, "z_loss_coef": router.z_loss_coef}
    return " and ".join(f"router.{name} is {value}" for name, value in given.items() if value)
