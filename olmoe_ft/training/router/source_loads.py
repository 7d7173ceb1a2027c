"""Which experts each data source uses: the choices for a few of its rows, counted before training and after it.

Shapes: S sources, B rows, P positions, L layers, E experts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer

from olmoe_ft.constants import Tokens
from olmoe_ft.data.mixture import Mixture
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.training.router.logits import counted_tokens
from olmoe_ft.training.router.probe import LENGTH, ROWS, probed

SOURCES = 16  # the largest
ROWS_A_SOURCE = 8
SEQUENCES = 128  # of all sources together; a pair is two


def rows_by_source(mixture: Mixture) -> dict[str, Dataset]:
    """A few rows of each source by its path, spread over those it keeps, before any are packed together."""
    sizes = [one.source.weight * one.source.repeat * len(one.kept) for one in mixture.sources]
    largest = sorted(range(len(sizes)), key=lambda index: -sizes[index])[:SOURCES]
    sequences = len(largest) * len(mixture.stage.sequences)
    rows: dict[str, Dataset] = {}
    for prepared in (mixture.sources[index] for index in sorted(largest)):
        kept, path = prepared.kept, prepared.source.path
        count = max(1, min(ROWS_A_SOURCE, SEQUENCES // sequences, len(kept)))
        chosen = [int(kept[place * len(kept) // count]) for place in range(count)]
        same = sum(name == path or name.startswith(f"{path} (") for name in rows)  # as of two splits
        name = f"{path} ({same + 1})" if same else path
        rows[name] = prepared.rows.select(chosen, keep_in_memory=True).select_columns([*mixture.stage.columns()])
    return rows


@dataclass(frozen=True)
class SourceLoads:
    """The probe of the sources, and what it has shown before the first step."""

    names: list[str]
    probe: dict[str, Tensor]
    """`input_ids`, `attention_mask`, `counted` (B, P), and `source` (B,): of which source a row is."""
    start: Tensor
    """(S, L, E) int32: how often each expert was chosen."""

    @classmethod
    def of(cls, trainer: Trainer, config: OlmoeConfig, tokens: Tokens, rows: Mapping[str, Dataset]) -> "SourceLoads":
        """Of a network as it is now; every process must take part."""
        probe = _probe(trainer, tokens, rows)
        return cls([*rows], probe, _counts(trainer, config, probe, len(rows)))

    def now(self, trainer: Trainer, config: OlmoeConfig) -> Tensor:
        """The same as `start`, of the network as it is now; every process must take part."""
        return _counts(trainer, config, self.probe, len(self.names))

    def carried(self) -> dict[str, Any]:
        return {"names": self.names, "probe": self.probe, "start": self.start}


def _probe(trainer: Trainer, tokens: Tokens, rows: Mapping[str, Dataset]) -> dict[str, Tensor]:
    """Each row by itself through the trainer's collator, cut to a length; padded also where training packs."""
    pad_token_id = trainer.processing_class.pad_token_id
    columns: dict[str, list[Tensor]] = {"input_ids": [], "attention_mask": [], "counted": [], "source": []}
    for index, dataset in enumerate(rows.values()):
        own: dict[str, list[Tensor]] = {"input_ids": [], "attention_mask": [], "counted": []}
        for row in dataset:
            batch = trainer.data_collator([row])
            ids = batch["input_ids"]
            visible, counted = (counted_tokens(batch, which, pad_token_id) for which in ("non_padding", tokens))
            assert visible is not None
            visible = visible.view_as(ids)
            counted = visible if counted is None else counted.view_as(ids) & visible
            for name, values in (("input_ids", ids), ("attention_mask", visible.long()), ("counted", counted)):
                own[name] += values[:, :LENGTH]
        if not any(bool(row.any()) for row in own["counted"]):  # the answers are behind the cut: their prompts, then
            own["counted"] = [row.bool() for row in own["attention_mask"]]
        columns = {name: values + own.get(name, []) for name, values in columns.items()}
        columns["source"] += [torch.tensor(index)] * len(own["input_ids"])
    source = torch.stack(columns.pop("source"))
    return {"source": source} | {
        name: pad_sequence(values, batch_first=True, padding_value=pad_token_id if name == "input_ids" else 0)
        for name, values in columns.items()
    }


def _counts(trainer: Trainer, config: OlmoeConfig, probe: dict[str, Tensor], sources: int) -> Tensor:
    """(S, L, E) int32; so many rows at once as the drift's probe has, for the sake of memory."""
    layers, experts = config.num_hidden_layers, config.num_experts
    counts = torch.zeros(sources * layers * experts, dtype=torch.long)
    for start in range(0, len(probe["source"]), ROWS):
        part = {name: rows[start : start + ROWS] for name, rows in probe.items()}
        chosen = probed(trainer, part, config.num_experts_per_tok)  # (L, T, K)
        of_token = part["source"][:, None].expand_as(part["counted"])[part["counted"]]  # (T,)
        place = (of_token[:, None] * layers + torch.arange(layers)[:, None, None]) * experts + chosen
        counts += torch.bincount(place.flatten(), minlength=len(counts))
    return counts.view(sources, layers, experts).int()
