"""How far the routers have moved: on a fixed probe batch, which experts are still chosen as when the run started."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, Trainer, TrainerCallback

from olmoe_ft.constants import IGNORED, Tokens
from olmoe_ft.objective import agreement, chosen_experts
from olmoe_ft.training.files import write_whole
from olmoe_ft.training.router.logits import counted_tokens

ROWS, LENGTH = 16, 128  # the probe: so many rows from all over the training set, cut to so many tokens
INPUTS = ("input_ids", "attention_mask", "position_ids")
COST = 0.01  # the probe's part of the work of training, at most; a forward pass is a third of a forward and backward


class RoutingDrift(TrainerCallback):
    """Measures the share of top-k choices that agree with the model the run started from, layer by layer.

    Every process runs the probe, since under ZeRO-3 a forward pass needs all of them; the first one writes the choices
    of the start and of the end to a file of the run. Checkpoints hold probe and start, so a resumed run goes on
    with them.
    """

    def __init__(self, trainer: Trainer, backbone: PreTrainedModel, tokens: Tokens, file: Path) -> None:
        self.trainer, self.backbone, self.tokens, self.file = trainer, backbone, tokens, file
        self.tokens_since = 0  # trained by all processes since the last measurement
        self.measured_at = 0  # optimizer step

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.probe = probe_batch(self.trainer, self.tokens)
            self.start = self.choices()
            self._save()

    def carried(self) -> dict[str, Any]:
        counts = {"tokens_since": self.tokens_since, "measured_at": self.measured_at}
        return {"probe": self.probe, "start": self.start.short(), **counts}

    def carry_on(self, kept: dict[str, Any], same_shape: bool) -> None:
        self.probe, self.start = kept["probe"], kept["start"].long()
        self.tokens_since, self.measured_at = kept["tokens_since"], kept["measured_at"]
        self._save()

    def on_train_end(self, args, state, control, **kwargs):
        choices = self.choices()
        self._save(choices)
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
        model = self.trainer.model_wrapped
        device = self.trainer.args.device
        inputs = {name: rows.to(device) for name, rows in self.probe.items() if name in INPUTS}
        nothing = torch.full_like(inputs["input_ids"], IGNORED)
        training = model.training
        model.eval()
        # The same way as a training step's, with labels to score: ZeRO-3 loses weights between forward passes that
        # call other modules, and gathers those of adapters on experts only for a forward of the whole model.
        with torch.no_grad(), self.trainer.compute_loss_context_manager():
            scores = model(**inputs, labels=nothing, fused_lm_head=True, output_router_logits=True)
        model.train(training)
        chosen = chosen_experts(scores.router_logits, self.backbone.config.num_experts_per_tok).cpu()
        return chosen[:, self.probe["counted"].flatten()]

    def _save(self, end: Tensor | None = None) -> None:
        if not self.trainer.accelerator.is_main_process:
            return
        experts = torch.tensor(self.backbone.config.num_experts)
        tensors = {**self.probe, "start": self.start.short(), "experts": experts}
        tensors |= {} if end is None else {"end": end.short()}
        write_whole(self.file, lambda partial: save_file(tensors, partial))


def probe_batch(trainer: Trainer, tokens: Tokens) -> dict[str, Tensor]:
    """Rows spread over the training set, as the trainer's collator makes them, each cut to a length.

    Returns:
        `input_ids`, `counted` (whether `router.tokens` counts a token), and `attention_mask` or, of packed rows, which
        have no padding, `position_ids`; all (B, S).
    """
    dataset: Any = trainer.train_dataset
    pad_token_id = trainer.processing_class.pad_token_id
    count = min(ROWS, len(dataset))
    columns: dict[str, list[Tensor]] = {}
    for index in range(count):
        batch = trainer.data_collator([dataset[index * len(dataset) // count]])  # packed: one row; a pair: two
        ids = batch["input_ids"]
        attention = batch.get("attention_mask", torch.ones_like(ids))
        counted = counted_tokens(batch, tokens, pad_token_id)
        counted = attention.bool() if counted is None else counted.view_as(ids) & attention.bool()
        rows = {"input_ids": ids, "attention_mask": attention, "counted": counted}
        rows |= {"position_ids": batch["position_ids"]} if "position_ids" in batch else {}
        for name, values in rows.items():
            columns.setdefault(name, []).extend(values[:, :LENGTH])
    if "position_ids" in columns:  # as in training: without a mask, so none may be longer than another
        shortest = min(map(len, columns["position_ids"]))
        columns = {name: [row[:shortest] for row in rows] for name, rows in columns.items()}
        visible = columns.pop("attention_mask")
    else:
        visible = columns["attention_mask"]
    probe = {
        name: pad_sequence(rows, batch_first=True, padding_value=pad_token_id if name == "input_ids" else 0)
        for name, rows in columns.items()
    }
    if not probe["counted"].any():  # the answers are behind the cut: their prompts show the drift too
        probe["counted"] = pad_sequence(visible, batch_first=True).bool()
    return probe
