"""A converted source -> token ids as a trainer takes them, beside what the audit asks of every row. Cached on disk."""

import json
import os
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as compute
import xxhash
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data import words
from olmoe_ft.data.cache import Cache, entry_rows
from olmoe_ft.data.duplicates import PERMUTATIONS, signatures
from olmoe_ft.data.heldout import OWN, HeldOut
from olmoe_ft.data.length import Length
from olmoe_ft.data.rows import RowError
from olmoe_ft.data.sources import load_source
from olmoe_ft.data.template import special_tokens
from olmoe_ft.data.tokens import Tokens, answer_tokens, tokenize
from olmoe_ft.data.words import row_turns
from olmoe_ft.recipe.schema import Data, Source

ROWS_A_PROCESS = 20_000  # half a minute of work, beside a second to start a process

# Why a row is not trained on; "" for one that is.
MALFORMED, TOO_LONG, HELD_OUT, QUESTION = "malformed", "too long", "held-out prompt", "benchmark question"
NOTHING, CUT = "nothing to learn", "answer beyond max_length"
LOST = (MALFORMED, NOTHING, CUT)  # what no recipe asks to leave out

IDS = List(Value("int32"))
TOKEN_COLUMNS = {"sft": ("input_ids", "labels"), "dpo": ("prompt_ids", "chosen_ids", "rejected_ids")}
READ_COLUMNS = ("place", "problem", "form", "unread", "doubtful")  # of `sources`, kept as they are
FACTS: dict[str, Any] = {
    "dropped": Value("string"),
    "place": Value("string"),
    "problem": Value("string"),
    "form": Value("string"),
    "unread": List(Value("string")),
    "doubtful": List(Value("string")),
    "turns": Value("int32"),
    "tokens": Value("int32"),  # before truncation; of a pair those of prompt and both answers
    "length": Value("int32"),  # before truncation; of a pair that of the longer side
    "supervised": Value("int32"),  # after truncation; of a pair both sides
    "cut_prompt": Value("int32"),  # tokens that truncation took from the prompt
    "cut_answer": Value("int32"),  # and from the answer, of a pair from both
    "ends_with_eos": Value("bool"),  # all that is learned, turn by turn, before truncation
    "double_bos": Value("bool"),
    "special_tokens": Value("bool"),  # EOS or another special token written out in the text
    "same_answers": Value("bool"),
    "held_out": List(Value("int32")),  # the held-out prompts that stand in the row
    "row_hash": Value("int64"),
    "signature": List(Value("uint32"), length=PERMUTATIONS),
}


@dataclass(frozen=True)
class Prepared:
    """A source with every row that was read."""

    source: Source
    rows: Dataset
    """The token columns, empty where the row is dropped, and the columns of `FACTS`."""
    entry: str
    """The name of its entry in the cache, a hash of all that it depends on."""

    @cached_property
    def kept(self) -> np.ndarray:
        """The rows to train on, by position."""
        return np.flatnonzero(compute.equal(self.rows.data.column("dropped"), "").to_numpy())

    @cached_property
    def dropped(self) -> dict[str, int]:
        """How many rows are not trained on, by reason."""
        found = compute.value_counts(self.rows.data.column("dropped")).to_pylist()
        return {one["values"]: one["counts"] for one in sorted(found, key=lambda one: one["values"]) if one["values"]}

    def fact(self, name: str) -> np.ndarray:
        """A column of `FACTS`, (rows,)."""
        return self.rows.data.column(name).to_numpy()

    def first(self, reason: str) -> str:
        """Place and problem of the first row that was dropped for a reason."""
        row = self.rows[int(np.argmax(self.fact("dropped") == reason))]
        return f"{row['place']}: {row['problem'] or reason}"


def prepare(
    source: Source,
    stage: str,
    data: Data,
    length: Length,
    tokenizer: PreTrainedTokenizerBase,
    held_out: HeldOut,
    processes: int | None = None,
) -> Prepared:
    """Read, convert, tokenize and cut one source, and note about each row what the audit adds up.

    Args:
        data: the recipe's section, for what it says of malformed and of contaminated rows.
        held_out: the prompts that should not stand in the source.
        processes: that tokenize side by side. None: one for every ROWS_A_PROCESS rows, as far as there are cores.
    Raises:
        RecipeError: the source cannot be read, or a row is malformed and the recipe says to stop at it.
    """
    converted, read = load_source(source, stage, data)
    key = [
        read,
        astuple(length),
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.chat_template,
        special_tokens(tokenizer),
        held_out.key,
        data.decontaminate,
    ]
    arguments = {"stage": stage, "length": length, "tokenizer": tokenizer, "held_out": held_out}

    def make(folder: Path) -> None:
        converted.map(
            _prepare_batch,
            batched=True,
            fn_kwargs={**arguments, "decontaminate": data.decontaminate},
            remove_columns=converted.column_names,
            features=Features({name: IDS for name in TOKEN_COLUMNS[stage]} | FACTS),
            num_proc=processes or _processes(len(converted)),
            cache_file_name=str(folder / "tokens.arrow"),
            new_fingerprint=folder.name,
            desc=f"Tokenizing {source.path}",
        )

    entry = Cache(data.cache).entry("tokens", key, make)
    return Prepared(source, entry_rows(entry, "tokens"), entry.name)


def _processes(rows: int) -> int | None:
    processes = min(os.cpu_count() or 1, rows // ROWS_A_PROCESS)
    return processes if processes > 1 else None


def _prepare_batch(
    batch: dict[str, list[Any]],
    stage: str,
    length: Length,
    tokenizer: PreTrainedTokenizerBase,
    held_out: HeldOut,
    decontaminate: bool,
) -> dict[str, list[Any]]:
    examples = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    texts = [row_turns(example) for example in examples]
    said = [[(role, words.words(text)) for role, text in turns] for turns in texts]
    sketches = signatures([[word for _, turn in turns for word in turn] for turns in said])
    readable = [example for example in examples if example["problem"] is None]
    done = iter((_pairs if stage == "dpo" else _conversations)(readable, length, tokenizer))
    rows, special = [], tokenizer.all_special_tokens
    for example, turns, row_words, sketch in zip(examples, texts, said, sketches, strict=True):
        row: dict[str, Any] = {
            "dropped": MALFORMED,
            **{name: example[name] for name in READ_COLUMNS},
            "turns": len(turns) - (stage == "dpo") if turns else 0,
            "tokens": 0,
            "length": 0,
            "supervised": 0,
            "cut_prompt": 0,
            "cut_answer": 0,
            "ends_with_eos": False,
            "double_bos": False,
            "special_tokens": any(token in text for _, text in turns for token in special),
            "same_answers": False,
            "held_out": held_out.standing_in(row_words),
            "row_hash": xxhash.xxh3_64_intdigest(json.dumps(turns).encode()) >> 1,
            "signature": sketch,
        }
        row |= {name: [] for name in TOKEN_COLUMNS[stage]}
        if example["problem"] is None:
            row |= next(done)
        if decontaminate and row["held_out"] and not row["dropped"]:
            own = any(held_out.prompts[index].group == OWN for index in row["held_out"])
            row |= {"dropped": HELD_OUT if own else QUESTION} | {name: [] for name in TOKEN_COLUMNS[stage]}
        rows.append(row)
    return {name: [row[name] for row in rows] for name in rows[0]}


def _conversations(examples: list[Any], length: Length, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    return [_conversation(whole, length, tokenizer) for whole in tokenize(examples, tokenizer)]


def _conversation(whole: Tokens | RowError, length: Length, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    if isinstance(whole, RowError):
        return {"dropped": MALFORMED, "problem": str(whole)}
    facts = {
        "tokens": len(whole.input_ids),
        "length": len(whole.input_ids),
        "dropped": "",
        "ends_with_eos": whole.ends_with_eos,
        "double_bos": whole.input_ids[:2] == [tokenizer.bos_token_id] * 2,
    }
    if not whole.supervised:
        problem = "no turn of it is to be learned (its own marks, or data.learn, leave none)"
        return facts | {"dropped": NOTHING, "problem": problem}
    if (cut := length.conversation(whole, tokenizer.bos_token_id)) is None:
        return facts | _too_long(length, len(whole.input_ids))
    if not cut.supervised:
        return facts | _cut_away(length, whole.answer_start)
    answer = len(whole.input_ids) - whole.answer_start
    facts["cut_prompt"] = whole.answer_start - cut.answer_start
    facts["cut_answer"] = answer - (len(cut.input_ids) - cut.answer_start)
    return facts | {"supervised": cut.supervised, "input_ids": cut.input_ids, "labels": cut.labels}


def _pairs(examples: list[Any], length: Length, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    sides = (tokenize([_side(example, side) for example in examples], tokenizer) for side in ("chosen", "rejected"))
    return [_pair(chosen, rejected, length, tokenizer) for chosen, rejected in zip(*sides, strict=True)]


def _side(example: dict[str, Any], side: str) -> dict[str, Any]:
    """A prompt with one of its answers, which alone is learned."""
    messages = example["prompt"] + example[side]
    return {"messages": messages, "learned": [index == len(messages) - 1 for index in range(len(messages))]}


def _pair(
    chosen: Tokens | RowError, rejected: Tokens | RowError, length: Length, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    for side in (chosen, rejected):
        if isinstance(side, RowError):
            return {"dropped": MALFORMED, "problem": str(side)}
    assert isinstance(chosen, Tokens) and isinstance(rejected, Tokens)
    whole = answer_tokens(chosen, rejected)
    if isinstance(whole, RowError):
        return {"dropped": MALFORMED, "problem": str(whole)}
    sizes = [len(part) for part in whole]
    longer = sizes[0] + max(sizes[1:])
    facts = {
        "tokens": sum(sizes),
        "length": longer,
        "dropped": "",
        "ends_with_eos": chosen.ends_with_eos and rejected.ends_with_eos,
        "double_bos": chosen.input_ids[:2] == [tokenizer.bos_token_id] * 2,
        "same_answers": whole[1] == whole[2],
    }
    if (cut := length.pair(*whole, tokenizer.bos_token_id)) is None:
        return facts | _too_long(length, longer)
    if not (cut[1] and cut[2]):
        return facts | _cut_away(length, sizes[0])
    facts["cut_prompt"], *cut_answers = (before - len(after) for before, after in zip(sizes, cut, strict=True))
    facts["cut_answer"] = sum(cut_answers)
    facts["supervised"] = len(cut[1]) + len(cut[2])
    return facts | dict(zip(TOKEN_COLUMNS["dpo"], cut, strict=True))


def _too_long(length: Length, tokens: int) -> dict[str, Any]:
    return {"dropped": TOO_LONG, "problem": f"{tokens:,} tokens, and training.max_length is {length.max_length:,}"}


def _cut_away(length: Length, prompt: int) -> dict[str, Any]:
    room = f"no room for the answer within training.max_length {length.max_length:,}"
    return {"dropped": CUT, "problem": f"its prompt of {prompt:,} tokens leaves {room}"}
