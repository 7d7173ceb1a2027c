"""Held-out prompts that also stand in training: what is measured on them would be memory, not skill."""

from collections import defaultdict
from collections.abc import Iterable

from datasets.fingerprint import Hasher

from olmoe_ft.data.words import ngrams, words

NGRAM = 13  # words (Brown et al. 2020, GPT-3, appendix C)


class HeldOut:
    """An index of held-out prompts.

    A prompt stands in a row if they share 13 words in a row; one shorter than that, if a turn of the row is the prompt.
    Case and punctuation do not count.

    Args:
        prompts: each as the texts of its turns, or of the turns that ask.
    """

    def __init__(self, prompts: Iterable[list[str]]) -> None:
        self.count = 0
        self.key = Hasher.hash(prompts := [list(texts) for texts in prompts])  # of what is cached with it
        self._long: dict[str, list[int]] = defaultdict(list)  # a run of 13 words -> the prompts that have it
        self._short: dict[str, list[int]] = defaultdict(list)  # a whole short text -> the prompts that have it
        for index, texts in enumerate(prompts):
            self.count += 1
            for text in texts:
                found = words(text)
                table = self._long if len(found) >= NGRAM else self._short
                for run in dict.fromkeys(ngrams(found, NGRAM)):
                    table[run].append(index)

    def standing_in(self, turns: Iterable[list[str]]) -> list[int]:
        """The prompts (counted from 0) that stand in a row.

        Args:
            turns: the words of each of its texts.
        """
        found: set[int] = set()
        for said in turns:
            if len(said) < NGRAM:
                found.update(self._short.get(" ".join(said), ()))
            elif self._long:
                for run in ngrams(said, NGRAM):
                    found.update(self._long.get(run, ()))
        return sorted(found)
