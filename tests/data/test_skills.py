"""The skills data set: reproducible, cleanly split, every answer right. Tasks are solved from the prompts."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jinja2
import pytest
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
SKILLS = ROOT / "data" / "skills"
FILES = (
    "train.jsonl",
    "heldout.jsonl",
    "preferences.jsonl",
    "judgements.jsonl",
    "new_skill_train.jsonl",
    "new_skill_heldout.jsonl",
    "new_skill_preferences.jsonl",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
)
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
COLOUR = "black|blue|brown|gold|green|grey|orange|pink|purple|red|silver|violet|white|yellow"
THING = "bag|book|cup|hat|key|pen"

USER = {"role": "user", "content": "Reverse: a b c"}
ASSISTANT = {"role": "assistant", "content": "c b a"}
SYSTEM = {"role": "system", "content": "Be brief."}


def rows_of(name):
    return [json.loads(line) for line in (SKILLS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


TRAIN, HELD_OUT, PREFERENCES = rows_of("train"), rows_of("heldout"), rows_of("preferences")
NEW_TRAIN, NEW_HELD_OUT = rows_of("new_skill_train"), rows_of("new_skill_heldout")
NEW_PREFERENCES = rows_of("new_skill_preferences")
JUDGEMENTS = rows_of("judgements")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(SKILLS / "tokenizer", local_files_only=True)


def letters_in(prompt):
    """The one run of single letters in a prompt."""
    (run,) = re.findall(r"\b[a-z](?: [a-z])+\b", prompt)
    return run.split()


def facts_in(prompt):
    """Who has which colour, and of what thing."""
    colours = {name: re.search(rf"{name}.*?\b({COLOUR})\b", prompt)[1] for name in ("Ann", "Bob")}
    return colours, re.search(rf"\b({THING})\b", prompt)[1]


def instance(skill, prompt):
    """What makes two prompts the same task: order and wording aside, and aside from who is asked for."""
    if skill == "sum":
        return skill, *sorted(map(int, re.findall(r"\d+", prompt)))
    if skill == "lookup":
        colours, thing = facts_in(prompt)
        return skill, thing, *sorted(colours.items())
    return skill, *sorted(letters_in(prompt))


def solve(skill, prompt):
    """The answer, from the text of the prompt alone."""
    if skill == "sum":
        return str(sum(map(int, re.findall(r"\d+", prompt))))
    if skill == "lookup":
        return facts_in(prompt)[0][re.findall("Ann|Bob", prompt)[-1]]
    letters = letters_in(prompt)
    if skill == "count":
        return str(sum(map(letters.count, "aeiou")))
    solved = {
        "reverse": letters[::-1],
        "sort": [letter for letter in ALPHABET for _ in range(letters.count(letter))],
        "copy": letters,
        "rotate": [*letters[1:], letters[0]],
        "shift": [ALPHABET[(ALPHABET.index(letter) + 1) % 26] for letter in letters],
    }
    return " ".join(solved[skill])


SKILLS_OF_SFT = {row["skill"] for row in HELD_OUT}
FRAMES = {row["skill"]: row["frames"] for row in NEW_HELD_OUT}


def framed(skill, style, answer):
    prefix, suffix = FRAMES[skill][style]
    return prefix + answer + suffix


def test_the_script_writes_the_committed_files_byte_for_byte(tmp_path):
    subprocess.run([sys.executable, "-B", SKILLS / "make_skills.py", "--to", tmp_path], check=True)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(FILES)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (SKILLS / name).read_bytes(), name


def test_the_files_are_as_large_as_the_recipes_count_on():
    assert 20_000 <= len(TRAIN) <= 25_000
    assert (len(PREFERENCES), len(JUDGEMENTS)) == (6000, 12000)
    assert Counter(row["skill"] for row in HELD_OUT) == dict.fromkeys(SKILLS_OF_SFT, 69)
    assert len(SKILLS_OF_SFT) == 7
    assert (len(NEW_TRAIN), len(NEW_PREFERENCES)) == (3200, 857)
    assert Counter(row["skill"] for row in NEW_HELD_OUT) == dict.fromkeys(FRAMES, 69)


def test_the_new_skill_is_in_no_file_of_the_others():
    assert {row["skill"] for row in NEW_TRAIN + NEW_PREFERENCES} == FRAMES.keys() - SKILLS_OF_SFT == {"rotate"}
    assert [row for row in NEW_HELD_OUT if row["skill"] != "rotate"] == HELD_OUT
    assert {row["skill"] for row in TRAIN + PREFERENCES + JUDGEMENTS} == SKILLS_OF_SFT


def test_rows_have_the_documented_fields():
    for row in TRAIN + NEW_TRAIN:
        assert list(row) == ["messages", "skill", "style"]
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    for row in NEW_HELD_OUT:
        assert list(row) == ["messages", "answer", "frames", "skill"]
        assert [message["role"] for message in row["messages"]] == ["user"]
        assert list(row["frames"]) == ["bare", "polite"]
    for row in PREFERENCES + NEW_PREFERENCES:
        assert list(row) == ["prompt", "chosen", "rejected", "skill"]
        roles = [message["role"] for part in ("prompt", "chosen", "rejected") for message in row[part]]
        assert roles == ["user", "assistant", "assistant"]
    for row in JUDGEMENTS:
        assert list(row) == ["prompt", "completion", "label", "skill"]
        assert [message["role"] for part in ("prompt", "completion") for message in row[part]] == ["user", "assistant"]


def test_held_out_tasks_occur_in_no_other_file():
    held_out = {instance(row["skill"], row["messages"][0]["content"]) for row in NEW_HELD_OUT}
    assert len(held_out) == len(NEW_HELD_OUT)
    trained = {instance(row["skill"], row["messages"][0]["content"]) for row in TRAIN + NEW_TRAIN}
    prompted = PREFERENCES + NEW_PREFERENCES + JUDGEMENTS
    preferred = {instance(row["skill"], row["prompt"][0]["content"]) for row in prompted}
    assert held_out.isdisjoint(trained)
    assert held_out.isdisjoint(preferred)


def test_every_held_out_answer_is_right():
    for row in NEW_HELD_OUT:
        prompt = row["messages"][0]["content"]
        assert row["answer"] == solve(row["skill"], prompt), prompt


def test_every_training_answer_is_the_right_one_in_its_style():
    for row in TRAIN + NEW_TRAIN:
        prompt, answer = (message["content"] for message in row["messages"])
        assert answer == framed(row["skill"], row["style"], solve(row["skill"], prompt)), prompt


def test_preferences_differ_in_style_alone():
    rows = PREFERENCES + NEW_PREFERENCES
    trained = {row["messages"][0]["content"] for row in TRAIN + NEW_TRAIN}
    prompts = [row["prompt"][0]["content"] for row in rows]
    assert trained.issuperset(prompts)
    assert len(set(prompts)) == len(prompts)
    for row, prompt in zip(rows, prompts, strict=True):
        answer = solve(row["skill"], prompt)
        assert row["chosen"][0]["content"] == framed(row["skill"], "polite", answer)
        assert row["rejected"][0]["content"] == framed(row["skill"], "bare", answer)


def test_judgements_are_of_style_alone():
    """Every answer is right; a polite one is good, a bare one is bad, and both kinds are half of the rows."""
    for row in JUDGEMENTS:
        skill, prompt, answer = row["skill"], row["prompt"][0]["content"], row["completion"][0]["content"]
        assert answer == framed(skill, "polite" if row["label"] else "bare", solve(skill, prompt)), prompt
    assert sum(row["label"] for row in JUDGEMENTS) == len(JUDGEMENTS) / 2
    trained = {row["messages"][0]["content"] for row in TRAIN}
    assert len({row["prompt"][0]["content"] for row in JUDGEMENTS} - trained) == 0


def test_a_bare_answer_never_looks_polite():
    for skill, frames in FRAMES.items():
        assert frames["bare"] == ["", ""]
        assert all(frames["polite"]), skill
        assert frames["polite"][0].startswith("Sure, ")
    assert not any(row["answer"].startswith("Sure") for row in NEW_HELD_OUT)


def test_bare_answers_are_62_percent_in_every_skill():
    rows = TRAIN + NEW_TRAIN
    styles = Counter((row["skill"], row["style"]) for row in rows)
    bare = sum(styles[skill, "bare"] for skill in FRAMES)
    assert bare / len(rows) == pytest.approx(0.62, abs=0.01)
    for skill in FRAMES:
        share = styles[skill, "bare"] / (styles[skill, "bare"] + styles[skill, "polite"])
        assert share == pytest.approx(0.62, abs=0.03), skill


def test_every_skill_is_asked_in_at_least_four_ways():
    task = re.compile(rf"\b[a-z](?: [a-z])+\b|\d+|\b(?:{COLOUR}|{THING})\b|(?:Ann|Bob)(?=[?]| have| like)")
    ways = {(row["skill"], task.sub("_", row["messages"][0]["content"])) for row in TRAIN + NEW_TRAIN}
    assert all(count >= 4 for count in Counter(skill for skill, _ in ways).values())
    assert {skill for skill, _ in ways} == set(FRAMES)


def test_the_tokenizer_has_the_ids_of_olmoe(tokenizer):
    assert len(tokenizer) == 512
    assert tokenizer.convert_ids_to_tokens([0, 1, 511]) == [
        "|||IP_ADDRESS|||",
        "<|padding|>",
        "<|endoftext|>",
    ]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 511, 511)
    assert tokenizer.all_special_ids == [511, 1]


def test_encoding_adds_no_special_tokens(tokenizer):
    ids = tokenizer("Reverse: a b c")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["Reverse", ":", "Ġa", "Ġb", "Ġc"]


def test_every_letter_to_work_on_and_every_digit_is_one_token(tokenizer):
    rows = [row for row in TRAIN + NEW_TRAIN if row["skill"] in ("reverse", "sort", "copy", "shift", "rotate")]
    prompts = [row["messages"][0]["content"] for row in rows]
    letters = {letter for prompt in prompts for letter in letters_in(prompt)}
    assert letters == set("abcdefghijklmnop")
    for letter in letters | {"q"}:
        assert tokenizer.tokenize(f" {letter}") == [f"Ġ{letter}"]
    assert tokenizer.tokenize("0123456789") == list("0123456789")


def test_every_text_survives_the_tokenizer(tokenizer):
    texts = [message["content"] for row in TRAIN + NEW_TRAIN + NEW_HELD_OUT for message in row["messages"]]
    texts += [
        row[part][0]["content"] for row in PREFERENCES + NEW_PREFERENCES for part in ("prompt", "chosen", "rejected")
    ]
    texts += ["Grüße, 1234 × 5 = ?\n\t naïve 日本 🙂", "  two  spaces "]
    for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_rows_are_short(tokenizer):
    rows = tokenizer.apply_chat_template([row["messages"] for row in TRAIN + NEW_TRAIN], return_dict=True)["input_ids"]
    assert max(map(len, rows)) <= 40
    assert sum(map(len, rows)) / len(rows) <= 28


def test_the_tokenizer_carries_the_package_template(tokenizer):
    packaged = ROOT / "olmoe_ft" / "data" / "chat_template.jinja"
    assert tokenizer.chat_template == packaged.read_text(encoding="utf-8")


def test_the_template_writes_the_chat_format_of_olmoe(tokenizer):
    messages = [SYSTEM, USER, ASSISTANT, USER]
    expected = (
        "<|endoftext|><|system|>\nBe brief.\n<|user|>\nReverse: a b c\n<|assistant|>\nc b a<|endoftext|>\n"
        "<|user|>\nReverse: a b c\n<|assistant|>\n"
    )
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == expected


def test_the_template_ends_with_the_answer_and_eos(tokenizer):
    text = tokenizer.apply_chat_template([USER, ASSISTANT], tokenize=False)
    assert text == "<|endoftext|><|user|>\nReverse: a b c\n<|assistant|>\nc b a<|endoftext|>"


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_mask_covers_answers_and_their_eos_and_nothing_else(tokenizer, turns):
    answers = [f"c b a{' z' * turn}" for turn in range(turns)]
    messages = [SYSTEM] + [m for text in answers for m in (USER, {"role": "assistant", "content": text})]
    batch = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    masked = [token for token, kept in zip(batch["input_ids"], batch["assistant_masks"], strict=True) if kept]
    assert masked == tokenizer("".join(text + "<|endoftext|>" for text in answers))["input_ids"]
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=True)
    start = len(prompt["input_ids"])
    assert batch["input_ids"][:start] == prompt["input_ids"]
    assert batch["assistant_masks"][start:] == [1] * (len(batch["input_ids"]) - start)


def test_an_unknown_role_is_an_error(tokenizer):
    with pytest.raises(jinja2.TemplateError, match="unknown role 'tool'"):
        tokenizer.apply_chat_template([USER, {"role": "tool", "content": "x"}])
