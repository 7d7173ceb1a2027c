"""The skills: how to draw a task, how to phrase it, and how a polite answer frames the bare one.

Everything is small on purpose. Letters are apart and digits are tokens of their own, so that a network of
two million parameters learns the seven skills of SFT in minutes, and every answer can be checked by a program.
An eighth is left for adapters to learn.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass

NAMES = ("Ann", "Bob")
COLOURS = (
    *("black", "blue", "brown", "gold", "green", "grey", "orange"),
    *("pink", "purple", "red", "silver", "violet", "white", "yellow"),
)
LETTERS = string.ascii_lowercase[:16]
THINGS = ("bag", "book", "cup", "hat", "key", "pen")


@dataclass(frozen=True)
class Instance:
    """One task before it is phrased. Two instances with the same key count as the same task."""

    key: str
    fields: dict[str, str]
    answer: str


@dataclass(frozen=True)
class Skill:
    """A kind of task.

    draw: one random instance.
    phrasings: templates that an instance's fields fill.
    instances: distinct instances in the training split, each asked in `repeats` different phrasings.
    polite: what a polite answer puts before and after the bare one.
    """

    name: str
    draw: Callable[[random.Random], Instance]
    phrasings: tuple[str, ...]
    instances: int = 3200
    repeats: int = 1
    polite: tuple[str, str] = ("Sure, it is ", ". Anytime!")


def spaced(letters: Iterable[str]) -> str:
    """Letters apart, so that each is one token."""
    return " ".join(letters)


def letters_to(solve: Callable[[str], Iterable[str]]) -> Callable[[random.Random], Instance]:
    """Draws 3 or 4 of the letters a to p. The key ignores their order: anagrams count as the same task."""

    def draw(rng: random.Random) -> Instance:
        word = "".join(rng.choices(LETTERS, k=rng.randint(3, 4)))
        return Instance("".join(sorted(word)), {"word": spaced(word)}, spaced(solve(word)))

    return draw


def shifted(word: str) -> str:
    """Each letter's successor."""
    return "".join(chr(ord(letter) + 1) for letter in word)


def rotated(word: str) -> str:
    """The first letter goes to the end."""
    return word[1:] + word[:1]


def draw_count(rng: random.Random) -> Instance:
    """Five letters, one to four of them vowels."""
    vowels = rng.randint(1, 4)
    word = rng.choices("aeiou", k=vowels) + rng.choices("bcdfghjklmnpqrstvwxyz", k=5 - vowels)
    rng.shuffle(word)
    return Instance("".join(sorted(word)), {"word": spaced(word)}, str(vowels))


def draw_sum(rng: random.Random) -> Instance:
    """Two two-digit numbers whose sum needs no carry. The key ignores their order."""
    tens, ones = rng.randint(2, 9), rng.randint(0, 9)
    x = 10 * rng.randint(1, tens - 1) + rng.randint(0, ones)
    y = 10 * tens + ones - x
    return Instance(f"{min(x, y)}+{max(x, y)}", {"x": str(x), "y": str(y)}, str(x + y))


def draw_lookup(rng: random.Random) -> Instance:
    """What Ann and Bob have, always in that order. The key ignores who is asked for."""
    red, blue = rng.sample(COLOURS, 2)
    thing, asked = rng.choice(THINGS), rng.randrange(2)
    fields = {"red": red, "blue": blue, "key": thing, "who": NAMES[asked]}
    return Instance(f"{red} and {blue} {thing}", fields, (red, blue)[asked])


SKILLS = (
    Skill(
        "reverse",
        letters_to(reversed),
        (
            "Reverse: {word}",
            "Write {word} backwards.",
            "Spell {word} backwards.",
            "What is {word} in reverse?",
            "Mirror: {word}",
        ),
    ),
    Skill(
        "sort",
        letters_to(sorted),
        (
            "Sort: {word}",
            "Put {word} in order.",
            "Sort the letters {word}.",
            "What is {word} in order?",
            "Arrange {word} by alphabet.",
        ),
    ),
    Skill(
        "copy",
        letters_to(str),
        (
            "Copy: {word}",
            "Write {word} again.",
            "Copy these letters: {word}",
            "Say {word} once more.",
            "Repeat: {word}",
        ),
    ),
    Skill(
        "shift",
        letters_to(shifted),
        (
            "Shift: {word}",
            "Shift {word} by one.",
            "Next letters: {word}",
            "What comes after {word}?",
            "Move {word} one step forward.",
        ),
    ),
    Skill(
        "count",
        draw_count,
        (
            "Count vowels: {word}",
            "Count the vowels in {word}.",
            "How many vowels are in {word}?",
            "How many of {word} are vowels?",
            "Find the number of vowels: {word}",
        ),
        instances=1600,
        polite=("Sure, I count ", ". Anytime!"),
    ),
    Skill(
        "sum",
        draw_sum,
        (
            "Add: {x} + {y}",
            "Add {x} and {y}.",
            "What is {x} + {y}?",
            "How much is {x} plus {y}?",
            "Total of {x} and {y}?",
        ),
        instances=900,
        repeats=3,
        polite=("Sure, that makes ", ". Anytime!"),
    ),
    Skill(
        "lookup",
        draw_lookup,
        (
            "Ann has the {red} {key}, Bob the {blue} one. Which does {who} have?",
            "Ann likes the {red} {key}, Bob the {blue} one. Which does {who} like?",
            "Ann: {red} {key}. Bob: {blue} {key}. Which is for {who}?",
            "Ann found the {red} {key}, Bob found the {blue} {key}. And {who}?",
        ),
        instances=980,
        repeats=4,
    ),
)

# Not in SFT's rows: adapters learn it afterwards.
NEW_SKILL = Skill(
    "rotate",
    letters_to(rotated),
    (
        "Rotate: {word}",
        "Rotate {word} by one.",
        "Turn {word} by one.",
        "Roll {word} one step.",
        "What is {word} rotated?",
    ),
)
