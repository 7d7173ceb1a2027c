"""Converted rows -> token ids and labels.

A row is a prompt and an answer. The answer is the last learned assistant turn with its EOS (or the whole of a plain
text), the prompt is everything before it. Labels are the ids of learned tokens, and -100 elsewhere.

The template says where answers begin and end in the text. The text is cut there and each piece is tokenized by itself.
So no token is partly in an answer, and a prompt has the same tokens as when the model is asked to answer it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from olmoe_ft.constants import IGNORED
from olmoe_ft.data.rows import RowError, shown
from olmoe_ft.data.template import Rendered, render

Ids = list[int]


@dataclass(frozen=True)
class Tokens:
    """One conversation or text: `input_ids`, `labels`, and start and end of its last learned answer."""

    input_ids: Ids
    labels: Ids
    answer_start: int
    answer_end: int | None = None
    ends_with_eos: bool = False
    """Whether every learned turn ends with EOS."""

    @cached_property
    def supervised(self) -> int:
        """Tokens that the loss is computed on; nothing predicts the first token of a row."""
        return len(self.labels[1:]) - self.labels[1:].count(IGNORED)


def tokenize(examples: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> list[Tokens | RowError]:
    """Tokens of whole conversations (`messages` and `learned`) and plain texts (`text`).

    An error if the template refuses or changes a row, or if the tokenizer loses characters of it.
    """
    rendered = iter(render([example["messages"] for example in examples if example["messages"]], tokenizer))
    rows: list[Rendered | RowError] = [
        next(rendered) if example["messages"] else Rendered(example["text"], []) for example in examples
    ]
    pieces = [piece for row in rows if isinstance(row, Rendered) for piece, _ in row.pieces()]
    encoded, ends = _encoded(pieces, tokenizer), (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return [
        row if isinstance(row, RowError) else _tokens(row, example, encoded, *ends)
        for row, example in zip(rows, examples, strict=True)
    ]


def answer_tokens(chosen: Tokens, rejected: Tokens) -> tuple[Ids, Ids, Ids] | RowError:
    """The prompt that two tokenized conversations share, and the last answer of each."""
    prompt = chosen.input_ids[: chosen.answer_start]
    if prompt != rejected.input_ids[: rejected.answer_start]:
        return RowError("the tokenizer's chat template writes the prompt in two ways before the two answers")
    one, other = (side.input_ids[side.answer_start : side.answer_end] for side in (chosen, rejected))
    return prompt, one, other


def _encoded(pieces: list[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[Ids | RowError]:
    """Token ids of each piece; an error if decoding them does not give the piece again."""
    backend = tokenizer.backend_tokenizer
    ids = [found.ids for found in backend.encode_batch_fast(pieces, add_special_tokens=False)]
    for piece, found, back in zip(pieces, ids, backend.decode_batch(ids, skip_special_tokens=False), strict=True):
        if back != piece and back != (backend.normalizer.normalize_str(piece) if backend.normalizer else piece):
            yield RowError(f"the tokenizer changes the text {shown(piece)} to {shown(back)}")
        else:
            yield found


def _tokens(
    row: Rendered, example: dict[str, Any], encoded: Iterator[Ids | RowError], bos: int, eos: int
) -> Tokens | RowError:
    parts: list[tuple[Ids, int | None]] = []
    error: RowError | None = None
    for (_, number), ids in zip(row.pieces(), encoded, strict=False):
        if isinstance(ids, RowError):
            error = ids
        else:
            parts.append((ids, number))
    if error is not None:
        return error
    if not example["messages"]:
        [(ids, _)] = parts
        return _text(ids, bos, eos)
    learned = [
        is_learned
        for turn, is_learned in zip(example["messages"], example["learned"], strict=True)
        if turn["role"] == "assistant"
    ]
    input_ids: Ids = []
    labels: Ids = []
    start = end = None
    complete = True
    for ids, number in parts:
        is_learned = number is not None and learned[number]
        if is_learned:
            start, end = len(input_ids), len(input_ids) + len(ids)
            complete = complete and ids[-1:] == [eos]
        input_ids += ids
        labels += ids if is_learned else [IGNORED] * len(ids)
    if start is None:
        start = len(input_ids)
    return Tokens(input_ids, labels, start, end, complete and end is not None)


def _text(ids: Ids, bos: int, eos: int) -> Tokens:
    """A document between two end-of-text tokens, as in pretraining."""
    ids = [bos, *ids, eos]
    return Tokens(ids, [IGNORED, *ids[1:]], 1, len(ids), True)
