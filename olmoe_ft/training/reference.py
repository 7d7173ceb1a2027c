"""The reference of a stage that has one: its log-probabilities computed ahead, moved, and checked against the start."""

from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import Trainer, TrainerCallback

from olmoe_ft.checkpoints.base_model import fingerprint
from olmoe_ft.checkpoints.peft_names import ADAPTER
from olmoe_ft.data.mixture import tokens_hash
from olmoe_ft.recipe import UserError
from olmoe_ft.stages import Stage

ROWS = 4
EXACT = 1e-6  # of a reward, in fp32, where policy and reference are computed alike
ALIKE = 1e-3  # of a log-probability in bf16, computed alike: should a kernel not repeat itself
# of one computed before, beside other rows and padding, or where A and B are orthogonal and not 0
NEAR = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


class PrecomputedReferenceMixin(Trainer):
    """Log-probabilities of the reference that are computed before training (`training.precompute_ref_log_probs`).

    Attributes:
        start: the checkpoint of the policy and of its reference.
    """

    start: str
    stage: Stage
    drop_trl_heads: Callable[[], None]  # of `OlmoeTrainer`

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Kept by TRL in the cache of the dataset, for every later run of the same model on the same tokens.

        TRL's own key changes with every training argument and with the adapter's seed, does not change with the length
        that rows are cut to, and under ZeRO-3 hashes shards. Here it is the start's weights, the tokens (so data,
        template and tokenizer) and what else log-probabilities depend on.
        """
        self.drop_trl_heads()  # TRL comes here in its `__init__`, when it has just put them there
        settings = *self.stage.reference_settings(self.args), str(self.model.dtype)
        self._precompute_model_hash = Hasher.hash((fingerprint(self.start), settings))
        tokens = tokens_hash(dataset, dataset.column_names)
        return super()._precompute_ref_logps(
            dataset.select(range(len(dataset)), new_fingerprint=tokens), name, batch_size
        )


class ReferenceCheck(TrainerCallback):
    """Before the first step, every reward must be 0: so DPO's loss is ln 2 (Rafailov et al. 2023, eq. 7), KTO's a half
    of the weight (Ethayarajh et al. 2024, eq. 8).

    A reference that is the model before SFT, or another checkpoint, trains towards something else without a sign of it.
    What is asked is TRL's own loss, in evaluation mode, of one row at a time. A resumed run has moved away already; so
    has a policy whose adapter does not begin at zero.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        adapters = getattr(trainer.model, "peft_config", {})
        self.initialisation = adapters[ADAPTER].init_lora_weights if adapters else None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step or self.initialisation is False:
            return
        for index in range(min(ROWS, len(self.trainer.train_dataset))):
            self._check(index)

    def _check(self, index: int) -> None:
        found = self._metrics_of(index)
        for answer in (answer for answer in ("chosen", "rejected") if f"rewards/{answer}" in found):
            reward, allowed = found[f"rewards/{answer}"], self._allowed(found[f"logps/{answer}"])
            if not abs(reward) <= allowed:
                raise UserError(
                    f"the reference is not the model that training starts from: before the first step the reward of "
                    f"the {answer} answer of row {index} is {reward:.3g} instead of 0 (up to {allowed:.1g}). Start "
                    "from the run of the stage before (model.path); if the log-probabilities were kept from before, "
                    "set training.precompute_ref_log_probs to false"
                )

    def _metrics_of(self, index: int) -> dict[str, float]:
        trainer, model = self.trainer, self.trainer.model_wrapped
        inputs = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[index]]))
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), trainer.compute_loss_context_manager():
                trainer.compute_loss(model, inputs)
        finally:
            model.train(training)
        metrics = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
        trainer._metrics["eval"].clear()
        return metrics

    def _allowed(self, log_probability: float) -> float:
        dtype = torch.bfloat16 if self.trainer.args.bf16 else self.trainer.model.dtype
        near = self.trainer.precompute_ref_logps or self.initialisation == "orthogonal"
        if dtype == torch.float32 and not near:
            return EXACT
        share = NEAR[dtype] if near else ALIKE
        return self.trainer.beta * share * max(1.0, abs(log_probability))
