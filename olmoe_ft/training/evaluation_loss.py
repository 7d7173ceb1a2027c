"""Evaluation as one mean over all tokens (SFT), pairs (DPO) or rows (KTO), whatever the batch size and the processes.

transformers averages the losses of batches and TRL its metrics: a batch of long rows then counts as much as one of
short rows, and with several processes the rows that fill up the last batch count twice. Here each process takes its own
rows, each once; what TRL computes of one of its batches is weighted by what it is a mean over, and the sums of all
processes are divided once.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer

from olmoe_ft.stages import Stage
from olmoe_ft.training.scoring import Heard

Counts = dict[str, int]  # what a batch has of each unit


class EvaluationBatches(Sampler[list[int]]):
    """The batches of one process: every row is in one batch of one process.

    All processes take as many, since under ZeRO-3 none can run the network alone: one that has no row left takes its
    first batch again, or row 0, and that one is not counted.

    Args:
        rows: of the evaluation, taken in order.
        size: rows of a batch, at most.
        process, processes: which one this is, of how many.
    """

    def __init__(self, rows: int, size: int, process: int, processes: int) -> None:
        size = min(size, math.ceil(rows / processes))
        own = [range(start, min(start + size, rows)) for start in range(process * size, rows, processes * size)]
        self.counted = len(own)
        self.batches = own + [own[0] if own else range(1)] * (math.ceil(rows / (size * processes)) - len(own))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return map(list, self.batches)


class Sums:
    """Sums of one process, by metric and unit. A metric may have parts in several units: then its means are added.

    Args:
        batches: that are to be counted; the rest only fill up.
        expected: metrics that a batch may lack, with their units. Every process has a sum of each, in this order.
    """

    def __init__(self, batches: float, expected: Iterable[tuple[str, str]] = ()) -> None:
        self.left = batches
        self.sums: dict[tuple[str, str], list[float]] = {key: [0.0, 0.0] for key in expected}

    def add(self, values: dict[tuple[str, str], float], counts: Counts) -> None:
        """The means of one batch, each times what it is a mean over."""
        counted, self.left = self.left > 0, self.left - 1
        for key, value in values.items():
            count = counts[key[1]] if counted else 0
            total = self.sums.setdefault(key, [0.0, 0.0])
            if count:
                total[0] += value * count
                total[1] += count

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Over all processes, which all come here; without those that none has measured."""
        totals = torch.tensor([*self.sums.values()], dtype=torch.float64, device=accelerator.device)
        means: dict[str, float] = {}
        for (name, _), (total, count) in zip(self.sums, accelerator.reduce(totals).tolist(), strict=True):
            if count or name == "loss":
                means[name] = means.get(name, 0.0) + (total / count if count else math.nan)
        return means


class EvaluationMixin(Trainer):
    """Comes before a TRL trainer among the bases; the stage says what each metric is a mean over."""

    stage: Stage

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        rows = self._remove_unused_columns(self.eval_dataset if eval_dataset is None else eval_dataset, "evaluation")
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        return DataLoader(
            rows,
            batch_sampler=EvaluationBatches(len(rows), self.args.eval_batch_size, process, processes),
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
            generator=torch.Generator(),  # else it draws from the one that dropout in training draws from
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Leaves the model in the mode it was in: TRL asks it whether a record that comes next is one of training."""
        training = self.model.training
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self.model.train(training)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        assert isinstance(dataloader.batch_sampler, EvaluationBatches)
        metrics = ((name, metric.unit) for name, metric in self.stage.metrics.items())
        self._sums = Sums(dataloader.batch_sampler.counted, metrics)
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        means = self.stage.close(self._sums.means(self.accelerator))
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in means.items()})
        return output

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        heard = Heard(model)
        with _alone(self):
            loss, *rest = super().prediction_step(heard, inputs, *args, **kwargs)
        means = self._metrics["eval"]  # TRL's, one value of each
        values = self.stage.split_loss(self, loss.item(), heard.last, inputs)
        values |= {(name, self._unit(name)): found[-1] for name, found in means.items() if name != "num_tokens"}
        self._sums.add(values, self.stage.counts(inputs))
        for name in [name for name in means if name != "num_tokens"]:  # a count of training, which TRL logs as it is
            del means[name]
        return loss, *rest

    def _unit(self, metric: str) -> str:
        assert metric in self.stage.metrics, f"TRL measures {metric}, of which stage {self.stage.name} says no unit"
        return self.stage.metrics[metric].unit


class _Alone:
    """An accelerator that gathers nothing from other processes."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)

    def gather(self, values: Any) -> Any:
        return values

    gather_for_metrics = gather


@contextmanager
def _alone(trainer: Any) -> Iterator[None]:
    """Within the block the trainer computes TRL's metrics of its own batch."""
    accelerator = trainer.accelerator
    trainer.accelerator = _Alone(accelerator)
    try:
        yield
    finally:
        trainer.accelerator = accelerator
