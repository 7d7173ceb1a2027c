"""A converted source -> token ids as a trainer takes them, beside what the audit asks of every row. Cached on disk."""

import json
import os
import sys
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data import duplicates, heldout, tokens, words
from olmoe_ft.data.duplicates import PERMUTATIONS, signatures
from olmoe_ft.data.heldout import HeldOut
from olmoe_ft.data.sources import load_source, version_of
from olmoe_ft.data.tokens import Length, Tokens, answer_tokens, tokenize
from olmoe_ft.data.turns import RowError
from olmoe_ft.data.words import row_turns
from olmoe_ft.recipe.schema import Data, Source

ROWS_A_PROCESS = 20_000  # half a minute of work, beside a second to start a process

# Why a row is not trained on; "" for one that is.
MALFORMED, TOO_LONG, UNSUPERVISED, HELD_OUT = "malformed", "too long", "no supervised token", "held-out prompt"

IDS = List(Value("int32"))
TOKEN_COLUMNS = {"sft": ("input_ids", "labels"), "dpo": ("prompt_ids", "chosen_ids", "rejected_ids")}
FACTS: dict[str, Any] = {
    "dropped": Value("string"),
    "place": Value("string"),
    "problem": Value("string"),
    "turns": Value("int32"),
    "tokens": Value("int32"),  # before truncation; of a pair the longer side
    "supervised": Value("int32"),  # after truncation; of a pair both sides
    "cut_prompt": Value("int32"),  # tokens that truncation took from the prompt
    "cut_answer": Value("int32"),  # and from the answer, of a pair from both
    "ends_with_eos": Value("bool"),  # the last supervised token, before truncation
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

    @cached_property
    def kept(self) -> np.ndarray:
        """The rows to train on, by position."""
        return np.flatnonzero(self.fact("dropped") == "")

    @cached_property
    def dropped(self) -> dict[str, int]:
        """How many rows are not trained on, by reason."""
        reasons, counts = np.unique(self.fact("dropped"), return_counts=True)
        return {str(reason): int(count) for reason, count in zip(reasons, counts, strict=True) if reason}

    def fact(self, name: str) -> np.ndarray:
        """A column of `FACTS`, (rows,)."""
        return self.rows.data.column(name).to_numpy()

    def first(self, reason: str) -> str:
        """Place and problem of the first row that was dropped for a reason."""
        row = self.rows[int(np.argmax(self.fact("dropped") == reason))]
        return f"{row['place']}: {row['problem'] or _why(reason, row['tokens'])}"


def _why(reason: str, tokens: int) -> str:
    return f"{reason} in {tokens:,} tokens (none at all in the row, or none within training.max_length)"


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
    converted = load_source(source, stage, data.malformed)
    features = Features({name: IDS for name in TOKEN_COLUMNS[stage]} | FACTS)
    arguments = {"stage": stage, "length": length, "tokenizer": tokenizer, "held_out": held_out}
    arguments["decontaminate"] = data.decontaminate
    key = (
        converted._fingerprint,
        stage,
        astuple(length),
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.chat_template,
        (tokenizer.bos_token, tokenizer.eos_token),
        held_out.key,
        data.decontaminate,
        version_of(duplicates, heldout, tokens, words, sys.modules[__name__]),
    )
    rows = converted.map(
        _prepare_batch,
        batched=True,
        fn_kwargs=arguments,
        remove_columns=converted.column_names,
        features=features,
        num_proc=processes or _processes(len(converted)),
        new_fingerprint=Hasher.hash(key),
        desc=f"Tokenizing {source.path}",
    )
    return Prepared(source, rows)


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
    said = [[(role, words.words(text)) for role, text in row_turns(example)] for example in examples]
    sketches = signatures([[word for _, turn in turns for word in turn] for turns in said])
    readable = [example for example in examples if example["problem"] is None]
    done = iter((_pairs if stage == "dpo" else _conversations)(readable, length, tokenizer))
    rows, special = [], tokenizer.all_special_tokens
    for example, turns, sketch in zip(examples, said, sketches, strict=True):
        texts = row_turns(example)
        row: dict[str, Any] = {
            "dropped": MALFORMED,
            "place": example["place"],
            "problem": example["problem"],
            "turns": len(texts) - (stage == "dpo"),
            "tokens": 0,
            "supervised": 0,
            "cut_prompt": 0,
            "cut_answer": 0,
            "ends_with_eos": False,
            "double_bos": False,
            "special_tokens": any(token in text for _, text in texts for token in special),
            "same_answers": False,
            "held_out": held_out.standing_in(turns),
            "row_hash": xxhash.xxh3_64_intdigest(json.dumps(texts).encode()) >> 1,
            "signature": sketch,
        }
        row |= {name: [] for name in TOKEN_COLUMNS[stage]}
        if example["problem"] is None:
            row |= next(done)
        if decontaminate and row["held_out"] and not row["dropped"]:
            row |= {"dropped": HELD_OUT} | {name: [] for name in TOKEN_COLUMNS[stage]}
        rows.append(row)
    return {name: [row[name] for row in rows] for name in rows[0]}


def _conversations(examples: list[Any], length: Length, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    return [_conversation(whole, length, tokenizer) for whole in tokenize(examples, tokenizer)]


def _conversation(whole: Tokens | RowError, length: Length, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    if isinstance(whole, RowError):
        return {"dropped": MALFORMED, "problem": str(whole)}
    facts = _facts(whole, tokenizer) | {"tokens": len(whole.input_ids), "dropped": ""}
    if not whole.supervised:
        return facts | {"dropped": UNSUPERVISED}
    if (cut := length.conversation(whole, tokenizer.bos_token_id)) is None:
        return facts | {"dropped": TOO_LONG}
    answer = len(whole.input_ids) - whole.answer_start
    facts["cut_prompt"] = whole.answer_start - cut.answer_start
    facts["cut_answer"] = answer - (len(cut.input_ids) - cut.answer_start)
    if not cut.supervised:
        return facts | {"dropped": UNSUPERVISED}
    return facts | {"supervised": cut.supervised, "input_ids": cut.input_ids, "labels": cut.labels}


def _pairs(examples: list[Any], length: Length, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    sides = (
        tokenize([{"messages": example["prompt"] + example[side]} for example in examples], tokenizer)
        for side in ("chosen", "rejected")
    )
    return [_pair(chosen, rejected, length, tokenizer) for chosen, rejected in zip(*sides, strict=True)]


def _pair(
    chosen: Tokens | RowError, rejected: Tokens | RowError, length: Length, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    for side in (chosen, rejected):
        if isinstance(side, RowError):
            return {"dropped": MALFORMED, "problem": str(side)}
    assert isinstance(chosen, Tokens) and isinstance(rejected, Tokens)
    whole = answer_tokens(chosen, rejected)
    both = [_facts(side, tokenizer) for side in (chosen, rejected)]
    facts = {
        "tokens": max(len(chosen.input_ids), len(rejected.input_ids)),
        "dropped": "",
        "ends_with_eos": all(side["ends_with_eos"] for side in both),
        "double_bos": both[0]["double_bos"],
        "same_answers": chosen.input_ids == rejected.input_ids,
    }
    if not (chosen.supervised and rejected.supervised):
        return facts | {"dropped": UNSUPERVISED}
    if (cut := length.pair(*whole, tokenizer.bos_token_id)) is None:
        return facts | {"dropped": TOO_LONG}
    facts["cut_prompt"], *cut_answers = (len(before) - len(after) for before, after in zip(whole, cut, strict=True))
    facts["cut_answer"] = sum(cut_answers)
    if not (cut[1] and cut[2]):
        return facts | {"dropped": UNSUPERVISED}
    facts["supervised"] = len(cut[1]) + len(cut[2])
    return facts | dict(zip(TOKEN_COLUMNS["dpo"], cut, strict=True))


def _facts(whole: Tokens, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    learned = [label for label in whole.labels if label != tokens.IGNORED]
    return {
        "ends_with_eos": bool(learned) and learned[-1] == tokenizer.eos_token_id,
        "double_bos": whole.input_ids[:2] == [tokenizer.bos_token_id] * 2,
    }
