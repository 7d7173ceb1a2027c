"""Metrics of training as means over all rows or tokens of the steps of a record, whatever the micro-batches.

TRL records the mean of its micro-batches' means: one with a single good answer then counts as much as one with seven,
and where micro-batches hold only good answers or only bad ones the margin is not the difference of what is beside it.
"""

import math
from typing import Any

from olmoe_ft.stages import Stage
from olmoe_ft.training.carried import CarriedMixin
from olmoe_ft.training.evaluation_loss import Sums


class RecordedMeansMixin(CarriedMixin):
    """Comes before a TRL trainer among the bases; the stage says what each metric is a mean over."""

    stage: Stage

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._of_record = self._new_sums()

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self.model.training:
            found = self._metrics["train"]  # TRL's; the last value of each is that of this micro-batch, if it has one
            values = {key: found[key[0]][-1] for key in self._units() if key[0] in found}
            self._of_record.add(values, self.stage.counts(inputs))
        return loss

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        if self.model.training:  # every process comes here
            means = self.stage.close(self._of_record.means(self.accelerator))
            self._metrics["train"].update({name: [mean] for name, mean in means.items()})
            self._of_record = self._new_sums()
        super().log(logs, start_time)

    def carried(self) -> dict[str, Any]:
        return super().carried() | {"of_record": [list(sums) for sums in self._of_record.sums.values()]}

    def carry_on(self, kept: dict[str, Any], same_shape: bool) -> None:
        super().carry_on(kept, same_shape)
        if same_shape and "of_record" in kept:
            self._of_record.sums = dict(zip(self._units(), kept["of_record"], strict=True))

    def _units(self) -> list[tuple[str, str]]:
        """The metrics that TRL records beside the loss, which transformers sums up, with their units."""
        return [(name, metric.unit) for name, metric in self.stage.metrics.items() if name != "loss"]

    def _new_sums(self) -> Sums:
        return Sums(math.inf, self._units())
