"""Ids and labels of conversations by `tokenizers` alone: the chat format is written out here."""

from functools import cache

from tokenizers import Tokenizer

from support.small_tokenizers import FOLDERS

END = "<|endoftext|>"


@cache
def backend(name: str) -> Tokenizer:
    return Tokenizer.from_file(str(FOLDERS[name] / "tokenizer.json"))


def pieces(turns: list[tuple[str, str]]) -> list[tuple[str, bool]]:
    """The text of a conversation, cut before and behind every answer; of each piece whether it is one."""
    found, text = [], END
    for index, (role, content) in enumerate(turns):
        if role == "assistant":
            found += [(f"{text}<|assistant|>\n", False), (content + END, True)]
            text = "\n" if index < len(turns) - 1 else ""
        else:
            text += f"<|{role}|>\n{content}\n"
    return [*found, (text, False)]


def ids_and_labels(name: str, turns: list[tuple[str, str]]) -> tuple[list[int], list[int]]:
    """Of a conversation whose answers are all learned."""
    ids: list[int] = []
    labels: list[int] = []
    for text, learned in pieces(turns):
        found = backend(name).encode(text, add_special_tokens=False).ids
        ids += found
        labels += found if learned else [-100] * len(found)
    return ids, labels


def spans(name: str, labels: list[int]) -> list[str]:
    """What is learned, in runs of labels, as text."""
    runs: list[list[int]] = [[]]
    for label in labels:
        if label == -100:
            runs.append([])
        else:
            runs[-1].append(label)
    return [backend(name).decode(run, skip_special_tokens=False) for run in runs if run]
