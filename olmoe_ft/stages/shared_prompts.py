"""Preference pairs in one row without padding, chosen and rejected behind one copy of their prompt.

The row of a pair is `prompt, chosen, rejected`. Both answers' positions continue from the prompt's. Chosen sees prompt
and itself, rejected the same prompt and itself (`model/attention_backends.py`: one segment of prompt and chosen, one of
rejected). The prompt's last token predicts the first of either answer.

Shapes: P pairs, S positions of a padded row, T tokens of the packed row, N labels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from trl.trainer.dpo_trainer import DataCollatorForPreference


@dataclass
class SharedPromptCollator(DataCollatorForPreference):
    """TRL's batch of 2·P padded rows, with its tokens under `packed` as one row in which no token is twice."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        return batch | {"packed": pack_pairs(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])}


def pack_pairs(input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor) -> dict[str, Any]:
    """Lay out a padded batch of pairs as one row.

    Args:
        input_ids, attention_mask, completion_mask: (2·P, S), chosen rows first, padded on the right.
    Returns:
        `input_ids`, `position_ids`, `completion_mask` (1, T); the bounds of attention
        (`model/attention_backends.py`); `places` (N,), which of the 2·P·(S - 1) next-token targets are an
        answer's, and `scored` (N,), the tokens of the row that predict them.
    """
    pairs, targets = len(input_ids) // 2, input_ids.shape[1] - 1
    lengths = attention_mask.sum(dim=1).tolist()
    prompts = (attention_mask * (1 - completion_mask)).sum(dim=1).tolist()
    tokens: list[Tensor] = []  # of each row those that are laid down: which of the padded batch's
    wheres: list[Tensor] = []  # and where each of its tokens is, the shared ones too
    done = 0
    for chosen in range(pairs):
        rejected, same = pairs + chosen, 0
        prompt = prompts[chosen]
        if prompt == prompts[rejected] and torch.equal(input_ids[chosen, :prompt], input_ids[rejected, :prompt]):
            same = prompt
        first = done + torch.arange(lengths[chosen])
        second = done + lengths[chosen] + torch.arange(lengths[rejected] - same)
        wheres += [first, torch.cat([first[:same], second])]
        for row, start in ((chosen, 0), (rejected, same)):
            tokens.append(row * input_ids.shape[1] + torch.arange(start, lengths[row]))
        done += len(first) + len(second)
    order = [row for chosen in range(pairs) for row in (chosen, pairs + chosen)]
    predicted = [completion_mask[row, 1:].nonzero().flatten() for row in order]
    laid = torch.cat(tokens)
    position = torch.arange(input_ids.shape[1]).expand_as(input_ids)
    return {
        "input_ids": input_ids.flatten()[laid][None],
        "position_ids": position.flatten()[laid][None],
        "completion_mask": completion_mask.flatten()[laid][None],
        "cu_seq_lens_q": _bounds(tokens),
        "cu_seq_lens_k": _bounds(wheres),
        "max_length_q": max(map(len, tokens)),
        "max_length_k": max(map(len, wheres)),
        "key_places": torch.cat(wheres),
        "places": torch.cat([row * targets + columns for row, columns in zip(order, predicted, strict=True)]),
        "scored": torch.cat([where[columns] for where, columns in zip(wheres, predicted, strict=True)]),
    }


def _bounds(parts: list[Tensor]) -> Tensor:
    return torch.tensor([0, *map(len, parts)]).cumsum(0).to(torch.int32)
