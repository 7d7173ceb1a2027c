"""How far the routers have moved: on a fixed probe batch, which experts are still chosen as when the run started."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainerCallback

from olmoe_ft.constants import Tokens
from olmoe_ft.objective import agreement
from olmoe_ft.training.files import write_whole
from olmoe_ft.training.router.probe import probe_batch, probed, texts_of
from olmoe_ft.training.router.source_loads import SourceLoads

COST = 0.01  # the probe's part of the work of training, at most; a forward pass is a third of a forward and backward


class RoutingDrift(TrainerCallback):
    """Measures the share of top-k choices that agree with the model the run started from, layer by layer.

    Every process runs the probe, since under ZeRO-3 a forward pass needs all of them; the first one writes the choices
    of the start and of the end to a file of the run, with the experts' loads by data source. Checkpoints hold probe and
    start, so a resumed run goes on with them.

    Args:
        rows: a few of each data source (`rows_by_source`), of which loads are counted at the start and at the end.
    """

    def __init__(
        self, trainer: Trainer, backbone: PreTrainedModel, tokens: Tokens, file: Path, rows: Mapping[str, Dataset]
    ) -> None:
        self.trainer, self.backbone, self.tokens, self.file, self.rows = trainer, backbone, tokens, file, rows
        self.sources: SourceLoads | None = None
        self.tokens_since = 0  # trained by all processes since the last measurement
        self.measured_at = 0  # optimizer step

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.probe = probe_batch(self.trainer, self.tokens)
            self.start = self.choices()
            if self.rows:
                self.sources = SourceLoads.of(self.trainer, self.backbone.config, self.tokens, self.rows)
            self._save()

    def carried(self) -> dict[str, Any]:
        counts = {"tokens_since": self.tokens_since, "measured_at": self.measured_at}
        sources = None if self.sources is None else self.sources.carried()
        return {"probe": self.probe, "start": self.start.short(), "sources": sources, **counts}

    def carry_on(self, kept: dict[str, Any], same_shape: bool) -> None:
        self.probe, self.start = kept["probe"], kept["start"].long()
        self.tokens_since, self.measured_at = kept["tokens_since"], kept["measured_at"]
        if (sources := kept.get("sources")) is not None:  # a checkpoint of an older version has none
            self.sources = SourceLoads(**sources)
        self._save()

    def on_train_end(self, args, state, control, **kwargs):
        choices = self.choices()
        self._save(choices, self.sources and self.sources.now(self.trainer, self.backbone.config))
        if self.measured_at != state.global_step:
            self.trainer.log(self.record(choices))

    def record_if_due(self, tokens: int) -> dict[str, float]:
        """The metrics, or nothing while the probe would cost too much of the training done since the last ones.

        Args:
            tokens: how many tokens all processes have trained on since this was last asked; the same on each.
        """
        self.tokens_since += tokens
        work = 3 * self.tokens_since / self.trainer.accelerator.num_processes
        if self.probe["input_ids"].numel() > COST * work:
            return {}
        self.tokens_since, self.measured_at = 0, self.trainer.state.global_step
        return self.record(self.choices())

    def record(self, choices: Tensor) -> dict[str, float]:
        """The agreement of choices with those of the start, over all layers and layer by layer."""
        layers = agreement(self.start, choices).tolist()
        record = {f"router/drift_agreement/layer_{index:02d}": share for index, share in enumerate(layers)}
        return {"router/drift_agreement": sum(layers) / len(layers)} | record

    def choices(self) -> Tensor:
        """The experts of the probe's tokens that count, (L, T, K), on the CPU."""
        return probed(self.trainer, self.probe, self.backbone.config.num_experts_per_tok)

    def _save(self, end: Tensor | None = None, sources_end: Tensor | None = None) -> None:
        if not self.trainer.accelerator.is_main_process:
            return
        experts = torch.tensor(self.backbone.config.num_experts)
        tensors = {**self.probe, "start": self.start.short(), "experts": experts}
        texts = texts_of(self.probe["input_ids"][self.probe["counted"]], self.trainer.processing_class)
        texts_and_names = {"texts": json.dumps(texts)}  # safetensors' metadata are texts
        tensors |= {} if end is None else {"end": end.short()}
        if self.sources is not None:
            texts_and_names["sources"] = json.dumps(self.sources.names)
            tensors["sources_start"] = self.sources.start
            tensors |= {} if sources_end is None else {"sources_end": sources_end}
        write_whole(self.file, lambda partial: save_file(tensors, partial, metadata=texts_and_names))
