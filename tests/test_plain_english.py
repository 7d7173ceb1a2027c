"""Words that we decided against do not come back into messages, docstrings, comments and docs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

COVERED = (
    "olmoe_ft",
    "recipes",
    "configs",
    "docs",
    "data",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
)
INSTEAD = {  # words that we decided against, and what to write
    "mend, mends, mended, mending": "correct; remedy",
    "stand, stands, standing": "is; appears; is used",
    "stood": "was",
    "told": "reported; said",
    "known are, known is": "allowed: a, b",
    "to be had, not be had": "cannot be loaded",
    "go on from, goes on from, going on from": "continue from",
    "give way, gives way": "is cut; is replaced",
    "for want of": "because it is missing",
    "data set, data sets": "dataset",
    "small letters": "lower case",
    "in silence": "silently; without a word",
}
WORDS = {word: text for words, text in INSTEAD.items() for word in words.split(", ")}
FORBIDDEN = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)
PLAIN = re.compile(
    r"\b(stands? for|stands_on|stand-ins?|stand_ins?)\b", re.IGNORECASE
)  # "X stands for Y"; an attribute


def files() -> list[Path]:
    found: list[Path] = []
    for place in map(Path, COVERED):
        assert place.exists(), place
        found += place.rglob("*") if place.is_dir() else [place]
    return sorted(file for file in found if file.suffix in (".py", ".md", ".yaml", ".sbatch", ".json"))


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text: of Python code its strings and comments, of other files every line."""
    content = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        yield from enumerate(content.splitlines(), 1)
        return
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for number, line in enumerate(content.splitlines(), 1):
        if comment := re.search(r"(?:^|\s)# (.*)", line):
            yield number, comment[1]


def unwanted(text: str) -> list[str]:
    return [
        f"{word!r}; write: {WORDS[word.lower()]}" for word in FORBIDDEN.findall(PLAIN.sub("", " ".join(text.split())))
    ]


@pytest.mark.parametrize("file", files(), ids=str)
def test_no_words_that_we_decided_against(file):
    found = [f"{file}:{line}: {what}" for line, text in texts(file) for what in unwanted(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("word", WORDS)
def test_each_of_them_is_found(word):
    assert unwanted(f"What this {word.capitalize()} of\nit.")
