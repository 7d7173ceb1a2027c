"""The memory of one training step on one device, from shapes alone.

The network, its adapters, TRL's fused head, the router objective and the optimizer run as they are on fake tensors,
which have a shape and no content, while what is alive is added up. Only what a
kernel takes for itself is not seen.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from olmoe_ft.checkpoints.peft_names import is_factor
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.model.experts.gradient_memory import MAPPED
from olmoe_ft.objective import RouterObjective, Routing
from olmoe_ft.planning.evaluation_memory import evaluation_bytes
from olmoe_ft.planning.live_bytes import LiveBytes
from olmoe_ft.planning.stand_ins import allocate, as_on_a_gpu
from olmoe_ft.planning.step_memory import StepMemory, packed_base, total_bytes
from olmoe_ft.recipe import Recipe
from olmoe_ft.stages import TrainerArguments
from olmoe_ft.training.optimizer.choice import need_own_adamw
from olmoe_ft.training.optimizer.states import optimizer_with_states, states_of
from olmoe_ft.training.optimizer.sums import GradientSums
from olmoe_ft.training.outline import adapted, outline
from olmoe_ft.training.scoring import Scores, ScoringOlmoe, score_hidden


@dataclass(frozen=True)
class Batch:
    """The largest micro-batch of one device."""

    rows: int
    """In DPO: pairs."""
    length: int
    """Tokens of a row, of a pair those of its longer side."""
    packed: bool = False
    laid: int | None = None
    """Tokens of a row where rows are laid end to end, of a pair its prompt once and both answers; None where each
    sequence is padded to `length`."""

    forward_alone: int | None = None
    """Tokens of a row that only an estimate is made of: in KTO a prompt with another's answer. None where none is."""

    @property
    def tokens(self) -> int:
        """Of a row, or of a pair, as the network sees it."""
        return self.length if self.laid is None else self.laid

    def cut(self, length: int, sequences: int) -> "Batch":
        """The same with rows of at most so many tokens.

        Args:
            sequences: of a row.
        """
        laid = None if self.laid is None else min(self.laid, sequences * length)
        alone = None if self.forward_alone is None else min(self.forward_alone, length)
        return replace(self, length=min(self.length, length), laid=laid, forward_alone=alone)


def measure_step(
    recipe: Recipe, config: OlmoeConfig, arguments: TrainerArguments, batch: Batch, gpu: bool
) -> StepMemory:
    """Run a step on fake tensors and add up its memory.

    Args:
        config: the network's.
        arguments: of the trainer, for checkpointing, precision, optimizer and accumulation.
        gpu: whether it is to run on one, where TRL's fused head works in place.
    Raises:
        UserError: the optimizer looks at values, or is not installed, so that it cannot be planned.
    """
    step = _Step(recipe, config, arguments, batch, gpu)
    with FakeTensorMode(), step.live, as_on_a_gpu() if gpu else nullcontext():
        memory = step.memory()
        return memory if recipe.model.quantization is None else packed_base(memory, step.policy)


class _Step:
    """One device's step: its networks are laid out on the meta device, and run on a fake one."""

    def __init__(
        self, recipe: Recipe, config: OlmoeConfig, arguments: TrainerArguments, batch: Batch, gpu: bool
    ) -> None:
        self.recipe, self.config, self.arguments, self.batch, self.gpu = recipe, config, arguments, batch, gpu
        self.live = LiveBytes()
        self.dtype = getattr(torch, recipe.model.dtype)
        self.stage = recipe.kind
        self.network = self._network()
        self.backbone = self.network.base_model
        self.policy = adapted(recipe, self.network)
        own = self.stage.own_reference(recipe.lora, arguments)
        self.reference = self._network().requires_grad_(False) if own else None
        self.trained: list[Tensor] = []

    def memory(self) -> StepMemory:
        for model in (self.policy, self.reference):
            if model is not None:
                allocate(model)
        self.trained = [weight for weight in self.policy.parameters() if weight.requires_grad]
        parameters = list(self.policy.parameters())
        adapters = [value for name, value in self.policy.named_parameters() if is_factor(name)]
        layers = self.backbone.layers
        self._checkpoint(self.arguments.gradient_checkpointing)
        working = self._working(self._forward_and_backward)
        self._checkpoint(not self.arguments.gradient_checkpointing)
        otherwise = self._working(self._forward_and_backward)
        self._checkpoint(self.arguments.gradient_checkpointing)
        head = self._working(self._head)
        under_deepspeed = states_of(optimizer_with_states(self.arguments, self.policy, self.trained, deepspeed=True))
        moments = sum(state.numel() for state in under_deepspeed)
        del under_deepspeed
        states, peak, peak_otherwise = self._whole_steps()
        return StepMemory(
            weights=total_bytes(parameters) - total_bytes(adapters),
            adapters=total_bytes(adapters),
            trained=sum(weight.numel() for weight in self.trained),
            itemsize=self.dtype.itemsize,
            largest_layer=max(total_bytes(layer.parameters()) for layer in layers),
            largest_gradient=max(weight.nbytes for weight in self.trained),
            gradients=total_bytes(self.trained) + 2 * sum(weight.numel() for weight in self._summed_in_fp32()),
            optimizer=total_bytes(states),
            moments=moments,
            reference=total_bytes(self.reference.parameters()) if self.reference else 0,
            working=working,
            working_otherwise=otherwise,
            recomputes=self.arguments.gradient_checkpointing,
            kept=0 if self.gpu else max(total_bytes(filter(_is_kept, layer.parameters())) for layer in layers),
            evaluation=evaluation_bytes(self.recipe, self.config),
            head=head,
            peak=peak,
            peak_otherwise=peak_otherwise,
        )

    def _network(self) -> ScoringOlmoe:
        network = outline(self.recipe, self.config)
        attention = self.recipe.model.attn_implementation
        # flash and flex attention do not run on a fake CPU; SDPA's own kernel keeps as little
        network.set_attn_implementation("sdpa" if attention.startswith("fl") else attention)
        network.fields = self.stage.fields(self.arguments)
        return network.train()

    def _checkpoint(self, on: bool) -> None:
        network = self.policy.get_base_model() if self.recipe.lora else self.policy
        # transformers 5.17 does not know the name that 5.23 prefers
        name = "activation" if hasattr(network, "activation_checkpointing_enable") else "gradient"
        if not on:
            getattr(network, f"{name}_checkpointing_disable")()
            network.disable_input_require_grads()
            return
        getattr(network, f"{name}_checkpointing_enable")(self.arguments.gradient_checkpointing_kwargs)
        if self.recipe.lora:
            network.enable_input_require_grads()

    def _working(self, forward_and_backward: Callable[[], None]) -> int:
        """The most that forward and backward hold beside what was there, no gradient being kept."""

        def let_go(weight: Tensor) -> None:
            weight.grad = None

        hooks = [weight.register_post_accumulate_grad_hook(let_go) for weight in self.trained]
        before = self.live.peak = self.live.now
        forward_and_backward()
        for hook in hooks:
            hook.remove()
        return self.live.peak - before

    def _whole_steps(self) -> tuple[list[Tensor], int, int]:
        """The optimizer's states, and the peaks of steps that find them there: with checkpointing as asked, and not.

        Of a step's micro-batches it is the last.
        """
        optimizer = optimizer_with_states(self.arguments, self.policy, self.trained, deepspeed=False)
        summed = GradientSums(half := self._summed_in_fp32(), last=lambda: True)
        peaks = []
        for checkpointing in (self.arguments.gradient_checkpointing, not self.arguments.gradient_checkpointing):
            self._checkpoint(checkpointing)
            if self.arguments.gradient_accumulation_steps == 1:
                optimizer.zero_grad()  # else a micro-batch finds the gradients of earlier ones
            for weight in half:
                weight.grad = None
                summed.sums[weight] = torch.empty_like(weight, dtype=torch.float32)
            hooks = [] if self.gpu else self._keep_large_gradients()
            self.live.peak = self.live.now
            self._forward_and_backward()
            for hook in hooks:
                hook.remove()
            optimizer.step()
            peaks.append(self.live.peak)
        return states_of(optimizer), peaks[0], peaks[1]

    def _summed_in_fp32(self) -> list[Tensor]:
        """The weights whose gradients of several micro-batches lie in fp32."""
        if self.arguments.gradient_accumulation_steps == 1 or not need_own_adamw(self.trained, deepspeed=False):
            return []
        return [weight for weight in self.trained if weight.dtype == torch.bfloat16]

    def _keep_large_gradients(self) -> list[Any]:
        """What a CPU keeps of freed gradients until the next ones come (`model/experts/gradient_memory.py`)."""
        kept = {
            id(weight): torch.empty_like(weight) for weight in self.trained if weight.grad is None and _is_kept(weight)
        }

        def taken(weight: Tensor) -> None:
            del kept[id(weight)]

        return [weight.register_post_accumulate_grad_hook(taken) for weight in self.trained if id(weight) in kept]

    def _forward_and_backward(self) -> None:
        """What `training_step` does with a batch: task loss by the fused head, router losses, their sum backward."""
        packed, labels = self._inputs(self.batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.arguments.bf16):
            if self.batch.forward_alone is not None:
                self._forward_alone(self.batch.forward_alone)
            scores = self._scores(self.policy, packed, labels, output_router_logits=True)
            task = self.stage.scored_loss(scores.log_probs, self._reference(packed, labels), self.arguments)
            router = self.recipe.router
            objective = RouterObjective(router.load_balancing_coef, router.z_loss_coef, router.scope)
            assert scores.router_logits is not None  # they were asked for
            with torch.set_grad_enabled(bool(objective)):
                mask = torch.ones(packed["input_ids"].numel(), dtype=torch.bool)
                routing = Routing.of(scores.router_logits, self.config.num_experts_per_tok, mask)
            terms = objective.terms(routing)
            loss = objective.total(task, terms) if objective else task
        loss.backward()

    def _head(self) -> None:
        """Log-probabilities of hidden states, behind the last norm, and their gradient."""
        packed, _ = self._inputs(self.batch)
        shape, scored = packed["input_ids"].shape, packed["scored"]
        states = torch.zeros(*shape, self.config.hidden_size, dtype=self.dtype, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.arguments.bf16):
            hidden = self.backbone.norm(states).flatten(0, 1).index_select(0, scored)
            score_hidden(self.network, hidden, scored)["log_probs"].sum().backward()

    def _forward_alone(self, length: int) -> None:
        """The passes of policy and reference that an estimate is made of."""
        inputs = self._inputs(replace(self.batch, length=length, laid=length if self.batch.laid is not None else None))
        with torch.no_grad():
            _ = self._scores(self.policy, *inputs).log_probs, self._reference(*inputs)

    def _inputs(self, batch: Batch) -> tuple[dict[str, Any], Tensor]:
        """What the network sees, and the labels as TRL holds them; every token of an answer is one."""
        sides = len(self.stage.sequences)
        shape = (1, batch.rows * batch.length) if batch.packed else (batch.rows * sides, batch.length)
        labels = torch.zeros(shape, dtype=torch.long)
        network: dict[str, Any]
        if not batch.packed and batch.laid is None:
            network = {"input_ids": labels, "attention_mask": torch.ones_like(labels)}
        else:
            segments = batch.rows * sides
            row = torch.zeros(1, batch.rows * batch.tokens, dtype=torch.long)
            bounds = torch.zeros(segments + 1, dtype=torch.int32)
            network = {"input_ids": row, "position_ids": torch.zeros_like(row)}
            network |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
            network |= {"max_length_q": batch.length, "max_length_k": batch.length}
            if batch.laid is not None and sides > 1:
                network["key_places"] = torch.zeros(segments * batch.length, dtype=torch.long)
        scored = torch.zeros(min(network["input_ids"].numel(), labels[:, 1:].numel()), dtype=torch.long)
        return {**network, "scored": scored, "places": scored}, labels

    def _scores(self, model: Any, packed: dict[str, Any], labels: Tensor, **more: Any) -> Scores:
        return model(input_ids=labels, labels=labels, fused_lm_head=True, packed=packed, **more)

    def _reference(self, packed: dict[str, Any], labels: Tensor) -> Tensor | None:
        """The reference's log-probabilities, computed where every step does."""
        if not self.stage.has_reference:
            return None
        if not self.stage.computes_reference(self.arguments):
            return torch.zeros(labels.shape[0], labels.shape[1] - 1)
        with torch.no_grad(), self.policy.disable_adapter() if self.recipe.lora else nullcontext():
            model = self.reference if self.reference is not None else self.policy
            return self._scores(model, packed, labels).log_probs


def _is_kept(weight: Tensor) -> bool:
    """Whether the memory of a weight's gradient is kept for the next ones, on a CPU."""
    return weight.requires_grad and weight.dim() == 3 and weight.nbytes > MAPPED
