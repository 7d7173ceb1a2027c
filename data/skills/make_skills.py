"""Writes the skills data set: small tasks whose answers a program can check, in a bare and a polite style.

    python data/skills/make_skills.py [--to DIR]

Same seed, same bytes: the committed files are exactly what this script writes. Every skill draws distinct *instances*
(the letters to sort, the numbers to add); some are held out, the rest are written out under several phrasings. Held-out
instances never occur in training, whatever the phrasing. Styles are drawn independently of the prompt, so a model can
learn both, prefers the more frequent bare one, and preference training can turn it polite without changing an answer.
"""

from __future__ import annotations

import argparse
import json
import random
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent
CHAT_TEMPLATE = HERE.parents[1] / "olmoe_ft" / "data" / "chat_template.jinja"

SEED = "olmoe-skills-1"
HELD_OUT_PER_SKILL = 69
PREFERENCES = 1500
POLITE_SHARE = 0.38
VOCABULARY = 512
# As in OLMoE's own tokenizer: these two come first and the end-of-text token, which is BOS as well, comes last.
FIRST_TOKENS = ["|||IP_ADDRESS|||", "<|padding|>"]
END_OF_TEXT = "<|endoftext|>"

NAMES = ("Ann", "Bob", "Eve", "Ian", "Kim", "Max", "Sam", "Tom")
COLOURS = ("black", "blue", "gold", "green", "pink", "red", "white", "brown")
THINGS = ("bag", "book", "box", "car", "cup", "hat", "key", "pen")


@dataclass(frozen=True)
class Instance:
    """One task before it is phrased. Two instances with the same key count as the same task."""

    key: str
    fields: dict[str, str]
    answer: str


@dataclass(frozen=True)
class Skill:
    """How to draw an instance, how to ask for it, and how a polite answer frames it.

    `training` instances are each asked in `repeats` different phrasings.
    """

    name: str
    draw: Callable[[random.Random], Instance]
    phrasings: tuple[str, ...]
    polite: tuple[str, str]
    training: int = 1600
    repeats: int = 2


def spaced(letters: Iterable[str]) -> str:
    """Letters apart, so that each is one token."""
    return " ".join(letters)


def letters_skill(solve: Callable[[str], Iterable[str]]) -> Callable[[random.Random], Instance]:
    """Draws 3 to 6 letters. The key ignores their order: not even an anagram of a held-out word is trained on."""

    def draw(rng: random.Random) -> Instance:
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 6)))
        return Instance("".join(sorted(word)), {"word": spaced(word)}, spaced(solve(word)))

    return draw


def shifted(word: str) -> str:
    """Each letter's successor, z followed by a."""
    alphabet = string.ascii_lowercase
    return word.translate(str.maketrans(alphabet, alphabet[1:] + alphabet[0]))


def draw_count(rng: random.Random) -> Instance:
    """A letter that occurs one to four times among one to three others."""
    letter, *others = rng.sample(string.ascii_lowercase, 3)
    times = rng.randint(1, 4)
    word = [letter] * times + rng.choices(others, k=rng.randint(1, 3))
    rng.shuffle(word)
    key = letter + ":" + "".join(sorted(word))
    return Instance(key, {"letter": letter, "word": spaced(word)}, str(times))


def draw_sum(rng: random.Random) -> Instance:
    """A number below 100 and a digit, in either order. The key ignores the order."""
    x, y = rng.randrange(100), rng.randrange(10)
    first, second = rng.sample((x, y), 2)
    key = f"{min(x, y)}+{max(x, y)}"
    return Instance(key, {"x": str(first), "y": str(second)}, str(x + y))


def draw_lookup(rng: random.Random) -> Instance:
    """Two people who own things of different colours. The key ignores who comes first and who is asked for."""
    owners, colours, thing = rng.sample(NAMES, 2), rng.sample(COLOURS, 2), rng.choice(THINGS)
    asked = rng.randrange(2)
    facts = sorted(f"{owner}={colour}" for owner, colour in zip(owners, colours, strict=True))
    fields = {"a": owners[0], "b": owners[1], "red": colours[0], "blue": colours[1], "key": thing}
    return Instance(f"{thing}:{facts}", fields | {"who": owners[asked]}, colours[asked])


SKILLS = (
    Skill(
        "reverse",
        letters_skill(reversed),
        (
            "Reverse: {word}",
            "Write {word} backwards.",
            "Write these letters from last to first: {word}",
            "What is {word} in reverse order?",
        ),
        ("Sure, backwards it is ", ". Glad to help!"),
    ),
    Skill(
        "sort",
        letters_skill(sorted),
        (
            "Sort: {word}",
            "Put {word} in alphabetical order.",
            "Sort these letters: {word}",
            "What is {word} in alphabetical order?",
        ),
        ("Sure, in order it is ", ". Glad to help!"),
    ),
    Skill(
        "copy",
        letters_skill(str),
        ("Copy: {word}", "Write {word} again.", "Copy these letters: {word}", "Say {word} once more."),
        ("Sure, here it is: ", ". Glad to help!"),
    ),
    Skill(
        "shift",
        letters_skill(shifted),
        (
            "Shift: {word}",
            "Shift each letter of {word} by one.",
            "Write the next letter for each of these letters: {word}",
            "What comes after each letter of {word}?",
        ),
        ("Sure, shifted it is ", ". Glad to help!"),
    ),
    Skill(
        "count",
        draw_count,
        (
            "Count {letter}: {word}",
            "How many times does {letter} occur in {word}?",
            "How often is the letter {letter} in {word}?",
            "Count the letter {letter} in {word}.",
        ),
        ("Sure, I count ", ". Glad to help!"),
    ),
    Skill(
        "sum",
        draw_sum,
        ("Add: {x} + {y}", "What is {x} + {y}?", "Add {x} and {y}.", "How much is {x} plus {y}?"),
        ("Sure, the sum is ", ". Glad to help!"),
        training=870,
        repeats=4,
    ),
    Skill(
        "lookup",
        draw_lookup,
        (
            "{a} has the {red} {key}. {b} has the {blue} {key}. Which {key} does {who} have?",
            "The {key} of {a} is {red}. The {key} of {b} is {blue}. What colour is the {key} of {who}?",
            "{a} has the {red} {key} and {b} the {blue} {key}. Which one does {who} have?",
            "{a}: {red} {key}. {b}: {blue} {key}. Which {key} belongs to {who}?",
        ),
        ("Sure, it is the ", " one. Glad to help!"),
    ),
)


def distinct_instances(skill: Skill, rng: random.Random) -> list[Instance]:
    """As many instances as the skill needs, no two with the same key."""
    found: dict[str, Instance] = {}
    while len(found) < HELD_OUT_PER_SKILL + skill.training:
        instance = skill.draw(rng)
        found.setdefault(instance.key, instance)
    return list(found.values())


def user(content: str) -> dict[str, str]:
    """A user's message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    """An assistant's message."""
    return {"role": "assistant", "content": content}


def held_out_row(skill: Skill, instance: Instance, rng: random.Random) -> dict:
    """A prompt, its answer, and the frames around the answer that count as right."""
    prompt = rng.choice(skill.phrasings).format(**instance.fields)
    frames = {"bare": ["", ""], "polite": list(skill.polite)}
    return {"messages": [user(prompt)], "answer": instance.answer, "frames": frames, "skill": skill.name}


def asked(skill: Skill, instance: Instance, rng: random.Random) -> Iterator[dict]:
    """The instance under several phrasings, each with its bare and its polite answer."""
    prefix, suffix = skill.polite
    for phrasing in rng.sample(skill.phrasings, skill.repeats):
        prompt = phrasing.format(**instance.fields)
        styles = {"bare": instance.answer, "polite": prefix + instance.answer + suffix}
        yield {"skill": skill.name, "prompt": prompt, "styles": styles}


def conversation(row: dict, rng: random.Random) -> dict:
    """An SFT row in a style drawn by chance."""
    style = "polite" if rng.random() < POLITE_SHARE else "bare"
    messages = [user(row["prompt"]), assistant(row["styles"][style])]
    return {"messages": messages, "skill": row["skill"], "style": style}


def preference(row: dict) -> dict:
    """A pair in which both answers are right and the polite one is preferred."""
    chosen, rejected = assistant(row["styles"]["polite"]), assistant(row["styles"]["bare"])
    return {"prompt": [user(row["prompt"])], "chosen": [chosen], "rejected": [rejected], "skill": row["skill"]}


def make_rows() -> dict[str, list[dict]]:
    """The rows of all files. Held-out prompts go round the skills in turn; the other files are shuffled."""
    held_out, training = [], []
    for skill in SKILLS:
        rng = random.Random(f"{SEED}/{skill.name}")
        instances = distinct_instances(skill, rng)
        held_out.append([held_out_row(skill, one, rng) for one in instances[:HELD_OUT_PER_SKILL]])
        training += [row for one in instances[HELD_OUT_PER_SKILL:] for row in asked(skill, one, rng)]
    rng = random.Random(SEED)
    rng.shuffle(training)
    return {
        "train": [conversation(row, rng) for row in training],
        "heldout": [row for turn in zip(*held_out, strict=True) for row in turn],
        "preferences": [preference(row) for row in rng.sample(training, PREFERENCES)],
    }


def train_tokenizer(conversations: list[dict]) -> Tokenizer:
    """Byte-level BPE over the conversations as the chat template renders them; every digit is a token."""
    tokenizer = Tokenizer(models.BPE())
    digits, byte_level = pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        special_tokens=FIRST_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    turns = (message for row in conversations for message in row["messages"])
    tokenizer.train_from_iterator((f"<|{m['role']}|>\n{m['content']}\n" for m in turns), trainer)
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return tokenizer


def tokenizer_config() -> dict:
    """What transformers needs beside tokenizer.json. BOS and EOS come from the chat template alone."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": FIRST_TOKENS[1],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE.read_text(encoding="utf-8"),
    }


def write(path: Path, text: str) -> None:
    """Writes UTF-8 with the same line ends on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    """Writes all files into the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Writes the skills data set.")
    parser.add_argument("--to", type=Path, default=HERE, metavar="DIR", help="default: the script's own folder")
    folder = parser.parse_args().to
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)

    rows = make_rows()
    for name, lines in rows.items():
        write(folder / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines))
    write(folder / "tokenizer/tokenizer.json", train_tokenizer(rows["train"]).to_str(pretty=True) + "\n")
    config = json.dumps(tokenizer_config(), ensure_ascii=False, indent=2)
    write(folder / "tokenizer/tokenizer_config.json", config + "\n")


if __name__ == "__main__":
    main()
