"""Converted rows -> token ids and labels, cut to length by the recipe's policy.

A row is a prompt and an answer: the answer is the last assistant turn with its EOS (of plain text, all of it), the
prompt everything before it. Labels are the ids of what is learned, all assistant turns, and -100 elsewhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.turns import RowError

IGNORED = -100
Ids = list[int]


@dataclass(frozen=True)
class Tokens:
    """One conversation or text: `labels` beside `input_ids`, and where its last answer starts."""

    input_ids: Ids
    labels: Ids
    answer_start: int

    @property
    def supervised(self) -> int:
        """Tokens that a loss is taken of; the first of a row is predicted by none."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True)
class Length:
    """How long a row may be, in tokens, and what becomes of longer ones. A row within `max_length` is never cut.

    A longer row's prompt is cut to `max_prompt_length` by `long_prompts`, then its answer to the room that is left by
    `long_answers`: "keep_start", "keep_end", or "drop" for the whole row. A prompt cut at its start keeps its BOS.
    """

    max_length: int | None
    max_prompt_length: int | None = None
    long_prompts: str = "keep_start"
    long_answers: str = "keep_start"

    def conversation(self, tokens: Tokens, bos: int) -> Tokens | None:
        """A conversation cut to length; None where the policy drops it."""
        start = tokens.answer_start
        kept = self._kept(tokens.input_ids[:start], [len(tokens.input_ids) - start], bos)
        if kept is None:
            return None
        prompt, [answer] = kept
        positions = [*prompt, *(start + position for position in answer)]
        ids, labels = ([row[position] for position in positions] for row in (tokens.input_ids, tokens.labels))
        return Tokens(ids, labels, len(prompt))

    def pair(self, prompt: Ids, chosen: Ids, rejected: Ids, bos: int) -> tuple[Ids, Ids, Ids] | None:
        """A preference pair cut to length; None where the policy drops it. Both answers see the same prompt."""
        kept = self._kept(prompt, [len(chosen), len(rejected)], bos)
        if kept is None:
            return None
        rows = zip((prompt, chosen, rejected), (kept[0], *kept[1]), strict=True)
        cut = [[row[position] for position in positions] for row, positions in rows]
        return cut[0], cut[1], cut[2]

    def _kept(self, prompt: Ids, answers: Sequence[int], bos: int) -> tuple[Sequence[int], list[range]] | None:
        """Positions that stay of the prompt and of each answer, which is given by its length."""
        if self.max_length is None or len(prompt) + max(answers) <= self.max_length:
            return range(len(prompt)), [range(answer) for answer in answers]
        allowed = min(self.max_prompt_length or self.max_length, self.max_length)
        positions: Sequence[int] = range(len(prompt))
        if len(prompt) > allowed:
            if self.long_prompts == "drop":
                return None
            positions = _side(len(prompt), allowed, self.long_prompts)
            if prompt[0] == bos:
                positions = [0, *positions[1:]]
        room = self.max_length - len(positions)
        if self.long_answers == "drop" and max(answers) > room:
            return None
        return positions, [_side(answer, room, self.long_answers) for answer in answers]


def _side(length: int, room: int, side: str) -> range:
    return range(min(length, room)) if side == "keep_start" else range(max(0, length - room), length)


def tokenize(examples: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> list[Tokens | RowError]:
    """Tokens of conversations (`messages`) and plain texts (`text`), whole; an error where the template refuses one."""
    conversations = [example["messages"] for example in examples if example["messages"]]
    try:
        found: Iterable[Tokens | RowError] = _conversations(conversations, tokenizer)
    except TemplateError:  # of one of them: find out which
        found = [_one_conversation(messages, tokenizer) for messages in conversations]
    done = iter(found)
    return [next(done) if example["messages"] else _text(example["text"], tokenizer) for example in examples]


def answer_tokens(chosen: Tokens, rejected: Tokens) -> tuple[Ids, Ids, Ids]:
    """The prompt that two tokenized conversations share, and their answers.

    Tokens may merge across the end of the prompt: where the two differ earlier, the answers begin there.
    """
    shared = min(chosen.answer_start, rejected.answer_start)
    pairs = enumerate(zip(chosen.input_ids[:shared], rejected.input_ids[:shared], strict=True))
    shared = next((index for index, (left, right) in pairs if left != right), shared)
    return chosen.input_ids[:shared], chosen.input_ids[shared:], rejected.input_ids[shared:]


def _conversations(conversations: list[Any], tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    if not conversations:
        return []
    found = tokenizer.apply_chat_template(conversations, return_dict=True, return_assistant_tokens_mask=True)
    return [
        Tokens(
            ids, [token if learned else IGNORED for token, learned in zip(ids, mask, strict=True)], _last_start(mask)
        )
        for ids, mask in zip(found["input_ids"], found["assistant_masks"], strict=True)
    ]


def _one_conversation(messages: Any, tokenizer: PreTrainedTokenizerBase) -> Tokens | RowError:
    try:
        return _conversations([messages], tokenizer)[0]
    except TemplateError as error:
        return RowError(f"the tokenizer's chat template refuses it ({error})")


def _text(text: str, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """As in pretraining: a document between two ends of text."""
    ids = [
        tokenizer.bos_token_id,
        *tokenizer(text, add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]
    return Tokens(ids, [IGNORED, *ids[1:]], 0)


def _last_start(mask: Sequence[int]) -> int:
    """Where the last run of ones begins; the end where there is none."""
    last = next((index for index in range(len(mask) - 1, -1, -1) if mask[index]), None)
    if last is None:
        return len(mask)
    return next((index + 1 for index in range(last, -1, -1) if not mask[index]), 0)
