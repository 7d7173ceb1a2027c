"""How long a row may be, and what is cut from a longer one."""

from collections.abc import Sequence
from dataclasses import dataclass

from olmoe_ft.constants import IGNORED
from olmoe_ft.data.tokens import Ids, Tokens

LEAST_PROMPT = 16  # keep_end keeps at least this many tokens of a prompt, or max_length / 16 if that is less


@dataclass(frozen=True)
class Length:
    """How long a row may be, in tokens, and what happens to longer ones. A row within `max_length` is never cut.

    A longer row's prompt is cut to `max_prompt_length` by `long_prompts`, then its answer is cut to the remaining room
    by `long_answers`: "keep_start", "keep_end", or "drop" for the whole row. A prompt cut at its start keeps its BOS.
    Without `max_prompt_length`, the prompt may have the room that the answer does not need ("keep_end"), or all of
    `max_length` (the others).
    """

    max_length: int | None
    max_prompt_length: int | None = None
    long_prompts: str = "keep_start"
    long_answers: str = "keep_start"

    def conversation(self, tokens: Tokens, bos: int) -> Tokens | str:
        """A conversation cut to length, or the reason why it is dropped.

        Whatever follows the last learned answer teaches nothing, so it is cut first.
        """
        if self.max_length is None or len(tokens.input_ids) <= self.max_length:
            return tokens
        start, end = tokens.answer_start, tokens.answer_end
        kept = self._kept(tokens.input_ids[:start], [len(tokens.input_ids[start:end])], bos)
        if isinstance(kept, str):
            return kept
        prompt, [answer] = kept
        positions = [*prompt, *(start + position for position in answer)]
        ids, labels = ([row[position] for position in positions] for row in (tokens.input_ids, tokens.labels))
        return Tokens(ids, _without_a_cut_answer(labels, tokens.labels, prompt), len(prompt), len(ids))

    def answered(self, prompt: Ids, answers: Sequence[Ids], bos: int) -> list[Ids] | str:
        """A prompt and its answers cut to length, or the reason why they are dropped. All answers see one prompt."""
        kept = self._kept(prompt, [len(answer) for answer in answers], bos)
        if isinstance(kept, str):
            return kept
        rows = zip((prompt, *answers), (kept[0], *kept[1]), strict=True)
        return [[row[position] for position in positions] for row, positions in rows]

    def _kept(self, prompt: Ids, answers: Sequence[int], bos: int) -> tuple[Sequence[int], list[range]] | str:
        """The positions to keep of the prompt and of each answer; `answers` are their lengths."""
        if self.max_length is None or len(prompt) + max(answers) <= self.max_length:
            return range(len(prompt)), [range(answer) for answer in answers]
        allowed = min(self._prompt_room(max(answers)), self.max_length)
        positions: Sequence[int] = range(len(prompt))
        if len(prompt) > allowed:
            if self.long_prompts == "drop":
                return f"its prompt of {len(prompt):,} tokens is longer than {allowed:,} (data.long_prompts: drop)"
            positions = _side(len(prompt), allowed, self.long_prompts)
            if prompt[0] == bos:
                positions = [0, *positions[1:]]
        room = self.max_length - len(positions)
        if self.long_answers == "drop" and max(answers) > room:
            return f"its answer of {max(answers):,} tokens is longer than the {room:,} left (data.long_answers: drop)"
        return positions, [_side(answer, room, self.long_answers) for answer in answers]

    def _prompt_room(self, answer: int) -> int:
        """Tokens to keep of a prompt before an answer of this length; at least those that begin the answer's turn."""
        assert self.max_length is not None
        if self.max_prompt_length is not None:
            return self.max_prompt_length
        least = max(1, min(LEAST_PROMPT, self.max_length // LEAST_PROMPT))
        return max(least, self.max_length - answer) if self.long_prompts == "keep_end" else self.max_length


def _without_a_cut_answer(labels: Ids, before: Ids, prompt: Sequence[int]) -> Ids:
    """The labels without those of an earlier answer that lost its beginning: the rest of it answers nothing."""
    start = next((place for place in range(1, len(prompt)) if prompt[place] != prompt[place - 1] + 1), None)
    if start is None or before[prompt[start]] == IGNORED:
        return labels
    end = next((place for place in range(start, len(labels)) if labels[place] == IGNORED), len(labels))
    return [*labels[:start], *[IGNORED] * (end - start), *labels[end:]]


def _side(length: int, room: int, side: str) -> range:
    return range(min(length, room)) if side == "keep_start" else range(max(0, length - room), length)
