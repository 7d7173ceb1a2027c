"""The KL term of the KTO loss: an estimate from answers to other prompts, of all rows of a step or of an evaluation.

Of rows i with prompt x_i and another row's answer y_j it is max(0, mean of log pi(y_j | x_i) - log pi_ref(y_j | x_i)),
without gradient (Ethayarajh et al. 2024, section 4.1). TRL takes the mean over the micro-batches that the processes
compute at one time, so that the loss would depend on the machine, and in an evaluation on the batch size.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference
from trl.trainer.utils import use_adapter

from olmoe_ft.recipe import UserError
from olmoe_ft.stages.shared_prompts import lay_end_to_end

OTHERS = "KL_"  # what the names of a batch begin with that are about answers to other prompts


def with_answers_to_others(rows: Dataset, **more: Any) -> Dataset:
    """Rows with `KL_completion_ids`, an answer to another prompt.

    Args:
        more: for `Dataset.map`.
    Raises:
        UserError: all rows have the same prompt.
    """
    others = before_with_another(np.array(rows["prompt_hash"]))
    answers = rows.with_format("arrow")["completion_ids"]

    def joined(table: Any, places: list[int]) -> Any:
        return table.append_column("KL_completion_ids", answers.take(others[places]))

    return (
        rows.with_format("arrow")
        .map(joined, with_indices=True, batched=True, desc="Pairing answers with other prompts", **more)
        .with_format(None)
    )


def before_with_another(prompts: np.ndarray) -> np.ndarray:
    """For each row the number of the last one before it that has another prompt; the last row is before the first.

    Args:
        prompts: (rows,), equal numbers for equal prompts.
    Raises:
        UserError: all are equal.
    """
    if (prompts == prompts[:1]).all():
        found = "there is one row" if len(prompts) == 1 else f"all {len(prompts):,} rows have the same prompt"
        raise UserError(
            f"{found}; the loss kto estimates its KL term from answers to other prompts; give rows of several prompts, "
            "or set training.loss_type to apo_zero_unpaired"
        )
    before = np.arange(len(prompts)) - 1
    before[0] = len(prompts) - 1
    while (same := prompts[before] == prompts).any():
        before[same] = before[before[same]]
    return before


@dataclass
class JudgementCollator(DataCollatorForUnpairedPreference):
    """TRL's padded batch, with its rows laid end to end under `packed`, and those with other answers too."""

    end_to_end: bool = True

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        for start in ("", OTHERS) if self.end_to_end else ():
            if f"{start}input_ids" in batch:
                ids, seen, answer = (batch[start + part] for part in ("input_ids", "attention_mask", "completion_mask"))
                batch[f"{start}packed"] = lay_end_to_end(ids, seen, answer, answers=1)
        return batch


class EstimateMixin(Trainer):
    """Comes just before TRL's trainer among the bases: gives its loss one estimate for a step or an evaluation."""

    calculate_KL: bool
    ref_model: Any
    _of_step: Tensor | None = None
    _of_evaluation: Tensor | None = None
    _evaluated: Any = None  # the evaluation's batches, by `EvaluationBatches`

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        batches, items = super().get_batch_samples(*args, **kwargs)
        if self.calculate_KL and batches:
            self._of_step = self._mean_ratio(self.model_wrapped, batches, len(batches))
        return batches, items

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> Any:
        self._evaluated = dataloader
        try:
            return super().evaluation_loop(dataloader, *args, **kwargs)
        finally:
            self._evaluated = self._of_evaluation = None

    def prediction_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        if self.calculate_KL and self._of_evaluation is None:  # not earlier: the loop has now prepared the model
            self._of_evaluation = self._mean_ratio(model, self._evaluated, self._evaluated.batch_sampler.counted)
        return super().prediction_step(model, *args, **kwargs)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Without the answers to other prompts, which have been asked."""
        if self.calculate_KL:
            found = self._of_step if self.model.training else self._of_evaluation
            # before the first step policy and reference are the same
            estimate = torch.zeros((), device=self.args.device) if found is None else found
            self._asked = iter((estimate, torch.zeros_like(estimate)))
            inputs = {name: value for name, value in inputs.items() if not name.startswith(OTHERS)}
            if self.args.precompute_ref_log_probs:
                inputs["ref_KL_logps"] = torch.zeros_like(estimate)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if not self.calculate_KL:  # TRL records 0, which nobody has measured
            self._metrics["train" if self.model.training else "eval"].pop("kl", None)
        return loss

    def _compute_kl_logps(self, model: Any, batch: dict[str, Any]) -> Tensor | None:
        """TRL's loss asks this of the policy, then of the reference, and takes the mean difference."""
        return next(self._asked) if self.calculate_KL else None

    def _mean_ratio(self, model: Any, batches: Iterable[dict[str, Any]], counted: int) -> Tensor:
        """The mean log-ratio of the first `counted` batches of each process, over all processes; a number."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)  # of the ratios, and how many they are
        with self._without_noise():
            for number, batch in enumerate(batches):
                ratios = self._ratios(model, self._prepare_inputs(batch)).double()
                if number < counted:
                    sums += torch.stack([ratios.sum(), ratios.new_tensor(len(ratios))])
        total, rows = self.accelerator.reduce(sums)
        return (total / rows).float()

    @contextmanager
    def _without_noise(self) -> Iterator[None]:
        """Within the block the policy is as in an evaluation, without dropout and NEFTune's noise.

        A run that resumes restores its random numbers only behind `get_batch_samples`, so none may be drawn there.
        """
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)

    @torch.no_grad()
    def _ratios(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """How much likelier the answers to other prompts are than under the reference, (B,)."""
        others = {name: batch[name] for name in batch if name.startswith(OTHERS)}
        if (packed := others.pop(f"{OTHERS}packed", None)) is not None:
            others["packed"] = packed
        with self.compute_loss_context_manager():
            policy = super()._compute_kl_logps(model, others)
            if self.args.precompute_ref_log_probs:
                return policy - batch["ref_KL_logps"]
            with self._reference(model) as reference:
                return policy - super()._compute_kl_logps(reference, others)

    @contextmanager
    def _reference(self, model: Any) -> Iterator[Any]:
        """The reference: a model of its own, or within the block the policy with its adapters off."""
        if self.ref_model is not None:
            yield self.ref_model
            return
        with use_adapter(self.accelerator.unwrap_model(self.model), None):
            yield model
