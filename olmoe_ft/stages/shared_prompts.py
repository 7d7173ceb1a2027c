"""Prompts with their answers in one row without padding, the two answers of a pair behind one copy of their prompt.

A prompt with one answer is a segment of its own. The row of a pair is `prompt, chosen, rejected`. Both answers'
positions continue from the prompt's. Chosen sees prompt and itself, rejected the same prompt and itself
(`model/attention_backends.py`: one segment of prompt and chosen, one of rejected). The prompt's last token predicts the
first of either answer.

Shapes: P prompts, A answers of each (1 or 2), S positions of a padded row, T tokens of the packed row, N labels.
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
        masks = batch["attention_mask"], batch["completion_mask"]
        return batch | {"packed": lay_end_to_end(batch["input_ids"], *masks, answers=2)}


def lay_end_to_end(input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor, answers: int) -> dict[str, Any]:
    """Lay out a padded batch as one row.

    Args:
        input_ids, attention_mask, completion_mask: (A·P, S), of pairs the chosen rows first, padded on the right.
        answers: A, of each prompt.
    Returns:
        `input_ids`, `position_ids`, `completion_mask` (1, T); the bounds of attention
        (`model/attention_backends.py`); `places` (N,), which of the A·P·(S - 1) next-token targets are an
        answer's, and `scored` (N,), the tokens of the row that predict them.
    """
    prompts, targets = len(input_ids) // answers, input_ids.shape[1] - 1
    lengths = attention_mask.sum(dim=1).tolist()
    asked = (attention_mask * (1 - completion_mask)).sum(dim=1).tolist()  # tokens of a row's prompt
    order = [answer * prompts + prompt for prompt in range(prompts) for answer in range(answers)]
    tokens: list[Tensor] = []  # of each row those that are laid down: which of the padded batch's
    wheres: list[Tensor] = []  # and where each of its tokens is, the shared ones too
    done = 0
    for row in order:
        first, size = row % prompts, asked[row]
        shares = row != first and asked[first] == size and torch.equal(input_ids[first, :size], input_ids[row, :size])
        same = wheres[first * answers][:size] if shares else torch.arange(0)
        tokens.append(row * input_ids.shape[1] + torch.arange(len(same), lengths[row]))
        wheres.append(torch.cat([same, done + torch.arange(len(tokens[-1]))]))
        done += len(tokens[-1])
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
        **({"key_places": torch.cat(wheres)} if answers > 1 else {}),
        "places": torch.cat([row * targets + columns for row, columns in zip(order, predicted, strict=True)]),
        "scored": torch.cat([where[columns] for where, columns in zip(wheres, predicted, strict=True)]),
    }


def _bounds(parts: list[Tensor]) -> Tensor:
    return torch.tensor([0, *map(len, parts)]).cumsum(0).to(torch.int32)
