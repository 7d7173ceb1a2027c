"""A thin trainer per stage, and the one function that builds it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from torch import Tensor
from transformers import PreTrainedTokenizerBase, ProgressCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from olmoe_ft.adapters.lora import lora_config
from olmoe_ft.adapters.matched import adapted_kinds
from olmoe_ft.adapters.quantize import quantize_base
from olmoe_ft.checkpoints.base_model import fingerprint
from olmoe_ft.checkpoints.weights import refuse_not_finite
from olmoe_ft.data.mixture import tokens_hash
from olmoe_ft.model import OlmoeForCausalLM
from olmoe_ft.model.finite import not_finite
from olmoe_ft.model.implementations import attention_implementation
from olmoe_ft.model.router import freeze_routers
from olmoe_ft.recipe import Recipe
from olmoe_ft.training.adapter_checks import AdapterChecks
from olmoe_ft.training.by_length import StepsByLengthMixin
from olmoe_ft.training.evaluation_loss import UNITS, Counts, EvaluationMixin
from olmoe_ft.training.finite import Batch, FiniteMixin, everywhere
from olmoe_ft.training.fused_head import DPO_OUTPUTS, SFT_OUTPUTS, LabelPlaces, use_fused_head
from olmoe_ft.training.moving_reference import MovingReferenceMixin
from olmoe_ft.training.optimizer.choice import OptimizerMixin
from olmoe_ft.training.optimizer.moved import MovedCallback
from olmoe_ft.training.packing import pack
from olmoe_ft.training.performance import PerformanceCallback
from olmoe_ft.training.progress import ProgressBar
from olmoe_ft.training.reference import ReferenceCheck
from olmoe_ft.training.router.guard import check_reach
from olmoe_ft.training.router.loss import RouterLossMixin
from olmoe_ft.training.saving import SavingMixin
from olmoe_ft.training.shared_prompts import SharedPromptCollator, why_not_shared
from olmoe_ft.training.universal import UniversalMixin


class OlmoeSFTTrainer(
    FiniteMixin,
    RouterLossMixin,
    EvaluationMixin,
    StepsByLengthMixin,
    OptimizerMixin,
    UniversalMixin,
    SavingMixin,
    SFTTrainer,
):
    """Supervised fine-tuning on assistant turns, plus the router objective."""

    units = UNITS["sft"]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        use_fused_head(self.network, SFT_OUTPUTS)
        self.data_collator: Any = LabelPlaces(self.data_collator)

    def _prepare_dataset(self, dataset: Dataset, tokenizer: Any, args: SFTConfig, packing: bool, *_: Any) -> Dataset:
        """Token ids already, cut to length; packed here only where they were not before (`packing.trainer_rows`).

        TRL's would rewrite every row, under an open collective and beside the file that the rows lie in.
        """
        seed = args.seed if args.shuffle_dataset else None
        if packing and "seq_lengths" not in dataset.column_names:
            assert args.max_length is not None  # the recipe's rules ask for it
            dataset = pack(dataset, args.max_length, args.packing_strategy, seed)
        return dataset if seed is None else dataset.shuffle(seed=seed, keep_in_memory=True)

    def counts_of(self, inputs: dict[str, Tensor]) -> Counts:
        return {"tokens": len(inputs["places"])}

    def split_loss(self, loss: float, outputs: Any, inputs: dict[str, Tensor]) -> dict[tuple[str, str], float]:
        """Beside the loss, which may be smoothed or weighted (`loss_type: dft`), what perplexity is made of."""
        likelihood = -outputs.log_probs.sum().item() / max(1, len(inputs["places"]))
        return super().split_loss(loss, outputs, inputs) | {("negative_log_likelihood", "tokens"): likelihood}

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        likelihood = output.metrics.pop(f"{metric_key_prefix}_negative_log_likelihood")
        output.metrics[f"{metric_key_prefix}_perplexity"] = math.inf if likelihood > 700 else math.exp(likelihood)
        return output


class OlmoeDPOTrainer(
    FiniteMixin,
    RouterLossMixin,
    EvaluationMixin,
    StepsByLengthMixin,
    OptimizerMixin,
    MovingReferenceMixin,
    UniversalMixin,
    SavingMixin,
    DPOTrainer,
):
    """Direct preference optimisation (Rafailov et al. 2023), plus the router objective on the policy's tokens."""

    units = UNITS["dpo"]

    def __init__(self, *, start: str, **kwargs: Any) -> None:
        self.start = start  # the checkpoint of the policy and of its reference
        arguments: DPOConfig = kwargs["args"]
        self.why_not_shared = why_not_shared(attention_implementation(kwargs["model"].config))
        if self.why_not_shared is None:
            collator = SharedPromptCollator(
                pad_token_id=kwargs["processing_class"].pad_token_id,
                max_length=arguments.max_length,
                truncation_mode=arguments.truncation_mode,
            )
            kwargs["data_collator"] = collator
        super().__init__(**kwargs)
        use_fused_head(self.network, (*DPO_OUTPUTS, *(("log_sum_sq_probs",) if arguments.use_weighting else ())))
        if self.ref_model is not None:
            use_fused_head(self.accelerator.unwrap_model(self.ref_model), ("log_probs",))

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset  # token ids already

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Of the padded batch: TRL asks before our head is in place, and its own takes no `packed`."""
        padded = {name: value for name, value in inputs.items() if name != "packed"}
        return super().compute_ref_log_probs(model, padded)

    def counts_of(self, inputs: dict[str, Tensor]) -> Counts:
        chosen, rejected = (int(mask.sum()) for mask in inputs["completion_mask"][:, 1:].chunk(2))
        pairs = len(inputs["completion_mask"]) // 2
        return {
            "pairs": pairs,
            "tokens": chosen + rejected,
            "chosen tokens": chosen,
            "rejected tokens": rejected,
        }

    def split_loss(self, loss: float, outputs: Any, inputs: dict[str, Tensor]) -> dict[tuple[str, str], float]:
        """TRL's `sft` part of a loss is a mean over the tokens of the chosen answers, everything else over pairs."""
        weight = sum(weight for kind, weight in zip(self.loss_types, self.loss_weights, strict=True) if kind == "sft")
        if not weight:
            return super().split_loss(loss, outputs, inputs)
        chosen = inputs["completion_mask"][:, 1:].chunk(2)[0].bool()
        likelihood = -weight * outputs.log_probs.chunk(2)[0][chosen].mean().item()
        return {("loss", "pairs"): loss - likelihood, ("loss", "chosen tokens"): likelihood}

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Kept by TRL in the cache of the data set, for every later run of the same model on the same tokens.

        TRL's own key changes with every training argument and with the adapter's seed, does not change with the length
        that pairs are cut to, and under ZeRO-3 hashes shards. Here it is the start's weights, the tokens (so data,
        template and tokenizer) and what else log-probabilities depend on.
        """
        settings = self.args.max_length, self.args.truncation_mode, self.args.ld_alpha, str(self.model.dtype)
        self._precompute_model_hash = Hasher.hash((fingerprint(self.start), settings))
        tokens = tokens_hash(dataset, ("prompt_ids", "chosen_ids", "rejected_ids"))
        return super()._precompute_ref_logps(
            dataset.select(range(len(dataset)), new_fingerprint=tokens), name, batch_size
        )


OlmoeTrainer = OlmoeSFTTrainer | OlmoeDPOTrainer


def build_trainer(
    recipe: Recipe,
    arguments: SFTConfig | DPOConfig,
    checkpoint: str,
    probe_file: Path,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    evaluation: Dataset | None,
    places_of: Callable[[Batch], list[str]],
) -> OlmoeTrainer:
    """The trainer of a stage, its model loaded from `checkpoint`.

    Full DPO gets a second, frozen copy as reference; with LoRA the reference is the model with its adapters off.

    Args:
        probe_file: where the probe of the routers' drift is kept.
        places_of: where the rows of a batch stand in their sources.
    Raises:
        UserError: the start has weights that are not finite, the adapter does not match the model, or the router
            losses can change no weight that is trained.
    """
    model = _load(recipe, checkpoint)
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
        "places_of": places_of,
    }
    trainer: OlmoeTrainer
    if recipe.stage == "sft":
        trainer = OlmoeSFTTrainer(**common)
    else:
        own_reference = recipe.lora is None and not arguments.precompute_ref_log_probs
        reference = _load(recipe, checkpoint).requires_grad_(False) if own_reference else None
        trainer = OlmoeDPOTrainer(ref_model=reference, start=checkpoint, **common)
    # TRL changes these for training; a saved model keeps what stock transformers expects of it
    config.router_aux_loss_coef, config.use_cache = coefficient, True
    if recipe.model.quantization is not None:
        quantize_base(trainer.model)
    _check(trainer, recipe, checkpoint)
    trainer.remove_callback(ProgressCallback)
    dtype = torch.bfloat16 if arguments.bf16 else model.dtype
    processes = trainer.accelerator.num_processes
    trainer.add_callback(PerformanceCallback(config, trainer.accelerator.device, dtype, processes, trainer.work))
    trainer.add_callback(MovedCallback(trainer))
    trainer.add_callback(ProgressBar())
    return trainer


def _check(trainer: OlmoeTrainer, recipe: Recipe, checkpoint: str) -> None:
    """What can be asked before training is asked here; what only training shows is asked by callbacks."""
    check_reach(trainer.model, recipe.router)
    if recipe.lora is not None:
        adapted_kinds(trainer.model)
        trainer.add_callback(AdapterChecks(trainer, checkpoint))
    if recipe.stage == "dpo":
        trainer.add_callback(ReferenceCheck(trainer))


def _load(recipe: Recipe, checkpoint: str) -> OlmoeForCausalLM:
    model = OlmoeForCausalLM.from_pretrained(
        checkpoint,
        dtype=getattr(torch, recipe.model.dtype),
        attn_implementation=recipe.model.attn_implementation,
    )
    refuse_not_finite(checkpoint, everywhere(not_finite(model)))
    return model
