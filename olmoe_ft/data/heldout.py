"""Held-out prompts that also stand in training: what is measured on them would be memory, not skill."""

import operator
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate

from datasets.fingerprint import Hasher

from olmoe_ft.data.words import ngrams, words

NGRAM = 13  # words (Brown et al. 2020, GPT-3, appendix C)


class HeldOut:
    """An index of held-out prompts.

    A prompt is what the user says in it, turn after turn. It stands in a row if they share 13 words in a row; one
    shorter than that, if it is a turn of the row or the user's first turns. Case, punctuation and system turns do not
    count.

    Args:
        prompts: each as the texts of the user's turns.
    """

    def __init__(self, prompts: Iterable[list[str]]) -> None:
        self.count = 0
        self.key = Hasher.hash(prompts := [list(texts) for texts in prompts])  # of what is cached with it
        self._long: dict[str, list[int]] = defaultdict(list)  # a run of 13 words -> the prompts that have it
        self._short: dict[str, list[int]] = defaultdict(list)  # a whole short text -> the prompts that have it
        for index, texts in enumerate(prompts):
            self.count += 1
            found = words(" ".join(texts))
            table = self._long if len(found) >= NGRAM else self._short
            for run in dict.fromkeys(ngrams(found, NGRAM)):
                table[run].append(index)

    def standing_in(self, turns: Iterable[tuple[str, list[str]]]) -> list[int]:
        """The prompts (counted from 0) that stand in a row.

        Args:
            turns: role and words of each of its turns.
        """
        said = [(role, text) for role, text in turns if role != "system"]
        starts = list(accumulate((text for role, text in said if role == "user"), operator.add))
        short = [text for text in (*(text for _, text in said), *starts) if len(text) < NGRAM]
        found = {prompt for text in short for prompt in self._short.get(" ".join(text), ())}
        if self._long:
            whole = [*(text for role, text in said if role != "user"), *starts[-1:]]
            found |= {prompt for text in whole for run in ngrams(text, NGRAM) for prompt in self._long.get(run, ())}
        return sorted(found)
