"""A thin trainer per stage, and the one function that builds it."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, ProgressCallback

from olmoe_ft.adapters.lora import lora_config
from olmoe_ft.adapters.matched import adapted_kinds
from olmoe_ft.adapters.quantize import quantize_base
from olmoe_ft.checkpoints.weights import refuse_not_finite
from olmoe_ft.data.mixture import Mixture
from olmoe_ft.model.finite import not_finite
from olmoe_ft.model.router import freeze_routers
from olmoe_ft.recipe import Recipe
from olmoe_ft.stages import STAGES, Stage, TrainerArguments
from olmoe_ft.training.adapter_checks import AdapterChecks
from olmoe_ft.training.batch_rows import BatchRows
from olmoe_ft.training.by_length import StepsByLengthMixin
from olmoe_ft.training.evaluation_loss import EvaluationMixin
from olmoe_ft.training.finite import FiniteMixin, everywhere
from olmoe_ft.training.moving_reference import MovingReferenceMixin
from olmoe_ft.training.optimizer.choice import OptimizerMixin
from olmoe_ft.training.optimizer.moved import MovedCallback
from olmoe_ft.training.performance import PerformanceCallback, flops_per_token
from olmoe_ft.training.progress import ProgressBar
from olmoe_ft.training.recorded_means import RecordedMeansMixin
from olmoe_ft.training.reference import PrecomputedReferenceMixin, ReferenceCheck
from olmoe_ft.training.router.guard import check_reach
from olmoe_ft.training.router.loss import RouterLossMixin
from olmoe_ft.training.router.source_loads import rows_by_source
from olmoe_ft.training.saving import SavingMixin
from olmoe_ft.training.scoring import LabelPlaces, ScoringOlmoe, drop_trl_head
from olmoe_ft.training.universal import UniversalMixin


class OlmoeTrainer(
    FiniteMixin,
    RouterLossMixin,
    EvaluationMixin,
    RecordedMeansMixin,
    StepsByLengthMixin,
    OptimizerMixin,
    UniversalMixin,
    SavingMixin,
):
    """What every stage adds to TRL's trainer of it; comes before that one among the bases (`trainer_class`).

    Args:
        start: the checkpoint of the weights.
    """

    stage: Stage

    def __init__(self, *, start: str, **kwargs: Any) -> None:
        self.start = start  # before the rest: TRL computes a reference's log-probabilities in its `__init__`
        super().__init__(**kwargs)
        self.drop_trl_heads()
        self.network.fields = self.stage.fields(self.args)
        self.data_collator: Any = LabelPlaces(self.data_collator)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Token ids already, cut to length and packed: TRL's would rewrite every row, under an open collective."""
        return dataset

    def drop_trl_heads(self) -> None:
        """Let the networks score by `training/scoring.py`, not by the head that TRL has put on them."""
        for model in (self.model, getattr(self, "ref_model", None)):
            if model is not None:
                drop_trl_head(self.accelerator.unwrap_model(model, keep_torch_compile=False))


@cache
def trainer_class(name: str) -> type[OlmoeTrainer]:
    """The trainer of a stage: `OlmoeTrainer` before TRL's own, and what keeps a reference where the stage has one."""
    stage = STAGES[name]
    reference = (PrecomputedReferenceMixin, MovingReferenceMixin) if stage.has_reference else ()
    bases = (OlmoeTrainer, *reference, *stage.mixins(), getattr(trl, f"{stage.trl}Trainer"))
    return type(f"Olmoe{stage.trl}Trainer", bases, {"stage": stage, "__doc__": f"TRL's trainer for {stage.title}."})


def build_trainer(
    recipe: Recipe,
    arguments: TrainerArguments,
    checkpoint: str,
    probe_file: Path,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    evaluation: Dataset | None,
    mixture: Mixture,
) -> OlmoeTrainer:
    """The trainer of a stage, its model loaded from `checkpoint`.

    A stage with a reference gets a second, frozen copy; with LoRA the reference is the model with its adapters off.

    Args:
        probe_file: where the probe of the routers' drift is kept.
        mixture: what the rows to train on were drawn from.
    Raises:
        UserError: the start has weights that are not finite, the adapter does not match the model, or the router
            losses can change no weight that is trained.
    """
    stage, model = recipe.kind, _load(recipe, checkpoint)
    config = model.config
    config.output_router_logits = False  # saved as true, every `generate` downstream would compute their loss
    coefficient = config.router_aux_loss_coef
    if recipe.router.train == "frozen":
        freeze_routers(model)
    common: dict[str, Any] = {
        "model": model,
        "args": arguments,
        "train_dataset": train,
        "eval_dataset": evaluation,
        "processing_class": tokenizer,
        "peft_config": lora_config(recipe.lora, recipe.router.train) if recipe.lora else None,
        "router": recipe.router,
        "probe_file": probe_file,
        "source_rows": rows_by_source(mixture),
        "places_of": BatchRows(mixture),
        "start": checkpoint,
        "data_collator": stage.collator(arguments, tokenizer, recipe.model.attn_implementation),
    }
    if stage.has_reference:
        own = stage.own_reference(recipe.lora, arguments)
        common["ref_model"] = _load(recipe, checkpoint).requires_grad_(False) if own else None
    trainer = trainer_class(stage.name)(**common)
    # TRL changes these for training; a saved model keeps what stock transformers expects of it
    config.router_aux_loss_coef, config.use_cache = coefficient, True
    if recipe.model.quantization is not None:
        quantize_base(trainer.model)
    _check(trainer, recipe, checkpoint)
    trainer.remove_callback(ProgressCallback)
    dtype = torch.bfloat16 if arguments.bf16 else model.dtype
    processes = trainer.accelerator.num_processes
    flops = flops_per_token(recipe, config, arguments)
    trainer.add_callback(PerformanceCallback(flops, trainer.accelerator.device, dtype, processes, trainer.work))
    trainer.add_callback(MovedCallback(trainer))
    trainer.add_callback(ProgressBar())
    return trainer


def _check(trainer: OlmoeTrainer, recipe: Recipe, checkpoint: str) -> None:
    """What can be asked before training is asked here; what only training shows is asked by callbacks."""
    check_reach(trainer.model, recipe.router)
    if recipe.lora is not None:
        adapted_kinds(trainer.model)
        trainer.add_callback(AdapterChecks(trainer, checkpoint))
    if recipe.kind.has_reference:
        trainer.add_callback(ReferenceCheck(trainer))


def _load(recipe: Recipe, checkpoint: str) -> ScoringOlmoe:
    model = ScoringOlmoe.from_pretrained(
        checkpoint,
        dtype=getattr(torch, recipe.model.dtype),
        attn_implementation=recipe.model.attn_implementation,
    )
    refuse_not_finite(checkpoint, everywhere(not_finite(model)))
    return model
