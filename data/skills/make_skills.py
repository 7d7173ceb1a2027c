"""Writes the skills dataset: small tasks whose answers a program can check, in a bare and a polite style.

    python data/skills/make_skills.py [--to DIR]

Same seed, same bytes: the committed files are exactly what this script writes. Every skill of `tasks.py`
draws distinct instances (the letters to sort, the numbers to add); some are held out, the rest are asked in
several phrasings. A held-out instance occurs nowhere in training, whatever the phrasing. Styles are drawn
independently of the prompt: a model learns both, prefers the more frequent bare one, and preference training
can turn it polite without changing an answer. One more skill has files of its own: SFT leaves it out, and adapters
learn it afterwards.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from tasks import NEW_SKILL, SKILLS, Instance, Skill
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent
CHAT_TEMPLATE = HERE.parents[1] / "olmoe_ft" / "data" / "chat_template.jinja"

SEED = "olmoe-skills-1"
HELD_OUT_PER_SKILL = 69
PREFERENCES = 6000
JUDGEMENTS = 12000  # as many as the pairs have answers
NEW_PREFERENCES = 857  # as many as each of the seven skills has, on average
POLITE_SHARE = 0.38

VOCABULARY = 512
# As in OLMoE's own tokenizer: these two come first; the end-of-text token, which is BOS as well, comes last.
UNUSED, PADDING = "|||IP_ADDRESS|||", "<|padding|>"
END_OF_TEXT = "<|endoftext|>"


def distinct_instances(skill: Skill, rng: random.Random) -> list[Instance]:
    """As many instances as both splits need, no two with the same key."""
    found: dict[str, Instance] = {}
    while len(found) < HELD_OUT_PER_SKILL + skill.instances:
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
    """A prompt, its answer, and what may come before and after the answer in each style."""
    prompt = rng.choice(skill.phrasings).format(**instance.fields)
    frames = {"bare": ["", ""], "polite": list(skill.polite)}
    return {"messages": [user(prompt)], "answer": instance.answer, "frames": frames, "skill": skill.name}


def answered_prompts(skill: Skill, instance: Instance, rng: random.Random) -> Iterator[dict]:
    """The instance in several phrasings, each with the answer in both styles."""
    prefix, suffix = skill.polite
    answers = {"bare": instance.answer, "polite": prefix + instance.answer + suffix}
    for phrasing in rng.sample(skill.phrasings, skill.repeats):
        yield {"prompt": phrasing.format(**instance.fields), "answers": answers, "skill": skill.name}


def conversation_row(row: dict, rng: random.Random) -> dict:
    """An SFT row in a style drawn by chance."""
    style = "polite" if rng.random() < POLITE_SHARE else "bare"
    messages = [user(row["prompt"]), assistant(row["answers"][style])]
    return {"messages": messages, "skill": row["skill"], "style": style}


def preference_row(row: dict) -> dict:
    """A pair in which both answers are right and the polite one is preferred."""
    chosen, rejected = assistant(row["answers"]["polite"]), assistant(row["answers"]["bare"])
    return {
        "prompt": [user(row["prompt"])],
        "chosen": [chosen],
        "rejected": [rejected],
        "skill": row["skill"],
    }


def judged_row(row: dict, style: str) -> dict:
    """One answer: right in both styles, and good in the polite one alone."""
    return {
        "prompt": [user(row["prompt"])],
        "completion": [assistant(row["answers"][style])],
        "label": style == "polite",
        "skill": row["skill"],
    }


def split_rows(skill: Skill) -> tuple[list[dict], list[dict]]:
    """A skill's held-out rows, and its prompts for training with both answers."""
    rng = random.Random(f"{SEED}/{skill.name}")
    instances = distinct_instances(skill, rng)
    held_out = [held_out_row(skill, one, rng) for one in instances[:HELD_OUT_PER_SKILL]]
    training = [row for one in instances[HELD_OUT_PER_SKILL:] for row in answered_prompts(skill, one, rng)]
    return held_out, training


def by_turns(rows: list[list[dict]]) -> list[dict]:
    """The first row of each skill, then the second of each."""
    return [row for turn in zip(*rows, strict=True) for row in turn]


def make_rows() -> dict[str, list[dict]]:
    """The rows of each file, skills mixed: by turns in the held-out files, shuffled in the others."""
    splits = [split_rows(skill) for skill in SKILLS]
    held_out = [rows for rows, _ in splits]
    training = [row for _, rows in splits for row in rows]
    rng = random.Random(SEED)
    rng.shuffle(training)
    rows = {
        "train": [conversation_row(row, rng) for row in training],
        "heldout": by_turns(held_out),
        "preferences": [preference_row(row) for row in rng.sample(training, PREFERENCES)],
    }
    new_held_out, new_training = split_rows(NEW_SKILL)
    rows |= {
        "new_skill_train": [conversation_row(row, rng) for row in new_training],
        "new_skill_heldout": by_turns([*held_out, new_held_out]),
        "new_skill_preferences": [preference_row(row) for row in rng.sample(new_training, NEW_PREFERENCES)],
    }
    judged = zip(
        rng.sample(training, JUDGEMENTS), cycle(("polite", "bare")), strict=False
    )  # as many good ones as bad ones
    return rows | {"judgements": [judged_row(row, style) for row, style in judged]}


def train_tokenizer(conversations: list[dict]) -> Tokenizer:
    """Byte-level BPE on the turns as the chat template renders them. Every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        special_tokens=[UNUSED, PADDING],
        initial_alphabet=sorted(byte_level.alphabet()),
        show_progress=False,
    )
    turns = (turn for row in conversations for turn in row["messages"])
    tokenizer.train_from_iterator((f"<|{turn['role']}|>\n{turn['content']}\n" for turn in turns), trainer)
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"only {tokenizer.get_vocab_size()} tokens: add words to the phrasings")
    return tokenizer


def tokenizer_config() -> dict:
    """What transformers needs beside tokenizer.json. BOS and EOS come from the chat template alone."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": PADDING,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE.read_text(encoding="utf-8"),
    }


def write(path: Path, text: str) -> None:
    """Writes UTF-8 with the same line ends on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    """Writes all files into the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Writes the skills dataset.")
    parser.add_argument("--to", type=Path, default=HERE, metavar="DIR", help="default: the script's folder")
    folder = parser.parse_args().to
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)

    rows = make_rows()
    for name, lines in rows.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write(folder / f"{name}.jsonl", text)
    tokenizer = train_tokenizer(rows["train"])
    write(folder / "tokenizer" / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    config = json.dumps(tokenizer_config(), ensure_ascii=False, indent=2)
    write(folder / "tokenizer" / "tokenizer_config.json", config + "\n")


if __name__ == "__main__":
    main()
