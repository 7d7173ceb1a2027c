"""Find held-out prompts and benchmark questions in training rows: scores on them would measure memory, not skill."""

import hashlib
import json
import operator
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, NamedTuple

from olmoe_ft.data.words import ngrams, words

NGRAM = 13  # words (Brown et al. 2020, GPT-3, appendix C)
OWN = "held-out prompts"  # those of `data.eval` and `data.answers`


class Prompt(NamedTuple):
    """A prompt that should not appear in training."""

    texts: list[str]
    """What the user says in it, turn after turn."""
    group: str = OWN
    """Where it belongs: OWN, or a benchmark's name."""
    place: str = ""
    """Its file and line."""


def place_of_answers(number: int) -> str:
    """The place of a question of `data.answers`, counted from 1: its row in the file, which is read elsewhere."""
    return f"data.answers, question {number}"


class HeldOut:
    """An index of such prompts.

    A prompt is what the user says in it, turn after turn. A row contains it if both have the same 13 consecutive words.
    A shorter prompt must be a whole turn of the row, or the user's first turns. Case, punctuation and system turns do
    not count.
    """

    def __init__(self, prompts: Iterable[Prompt] = ()) -> None:
        self.prompts = list(prompts)
        # cache keys: of rows that were searched for the prompts, and of an audit that names their places
        self.key = _hash([[prompt.texts, prompt.group == OWN] for prompt in self.prompts])
        self.key_with_places = _hash(self.prompts)
        self._long: dict[str, list[int]] = defaultdict(list)  # a run of 13 words -> the prompts that have it
        self._short: dict[str, list[int]] = defaultdict(list)  # a whole short text -> the prompts that have it
        for index, prompt in enumerate(self.prompts):
            found = words(" ".join(prompt.texts))
            table = self._long if len(found) >= NGRAM else self._short
            for run in dict.fromkeys(ngrams(found, NGRAM)):
                table[run].append(index)

    def groups(self) -> dict[str, int]:
        """How many prompts each group has."""
        counts: dict[str, int] = {}
        for prompt in self.prompts:
            counts[prompt.group] = counts.get(prompt.group, 0) + 1
        return counts

    def standing_in(self, turns: Iterable[tuple[str, list[str]]]) -> list[int]:
        """The indexes of the prompts that a row contains.

        Args:
            turns: role and words of each turn of the row.
        """
        if not self.prompts:
            return []
        said = [(role, text) for role, text in turns if role != "system"]
        starts = list(accumulate((text for role, text in said if role == "user"), operator.add))
        short = [text for text in (*(text for _, text in said), *starts) if len(text) < NGRAM]
        found = {prompt for text in short for prompt in self._short.get(" ".join(text), ())}
        if self._long:
            whole = [*(text for role, text in said if role != "user"), *starts[-1:]]
            found |= {prompt for text in whole for run in ngrams(text, NGRAM) for prompt in self._long.get(run, ())}
        return sorted(found)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
