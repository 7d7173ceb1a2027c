"""A converted row -> its token ids, cut to length, and the facts that the audit needs."""

import json
from typing import Any

import xxhash
from datasets import List, Value
from transformers import PreTrainedTokenizerBase

from olmoe_ft.data import words
from olmoe_ft.data.duplicates import PERMUTATIONS, signatures
from olmoe_ft.data.heldout import OWN, HeldOut
from olmoe_ft.data.length import Length
from olmoe_ft.data.rows import RowError
from olmoe_ft.data.sources import COMMON
from olmoe_ft.data.words import row_turns
from olmoe_ft.stages import Stage

# Why a row is not trained on; "" for one that is.
MALFORMED, TOO_LONG, HELD_OUT, QUESTION = "malformed", "too long", "held-out prompt", "benchmark question"
UNLEARNED, CUT = "nothing to learn", "answer beyond max_length"
LOST = (MALFORMED, UNLEARNED, CUT)  # reasons that no recipe asks for

FACTS: dict[str, Any] = {
    **COMMON,
    "dropped": Value("string"),
    "turns": Value("int32"),
    "tokens": Value("int32"),  # before truncation; of a pair those of the prompt and both answers
    "length": Value("int32"),  # before truncation; of a pair the longer side
    "supervised": Value("int32"),  # after truncation; of a pair both answers
    "cut_prompt": Value("int32"),  # tokens cut from what is not learned
    "cut_answer": Value("int32"),  # learned tokens that were cut; of a pair those of both answers
    "ends_with_eos": Value("bool"),  # whether every learned turn does, before truncation
    "double_bos": Value("bool"),
    "special_tokens": Value("bool"),  # EOS or another special token written out in the text
    "same_answers": Value("bool"),
    "held_out": List(Value("int32")),  # indexes of the held-out prompts that the row contains
    "row_hash": Value("int64"),
    "signature": List(Value("uint32"), length=PERMUTATIONS),
}


def rows_with_facts(
    batch: dict[str, list[Any]],
    stage: Stage,
    length: Length,
    tokenizer: PreTrainedTokenizerBase,
    held_out: HeldOut,
    decontaminate: bool,
) -> dict[str, list[Any]]:
    """Token columns and `FACTS` of a batch of converted rows, column by column."""
    examples = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    texts = [row_turns(example) for example in examples]
    worded = [[(role, words.words(text)) for role, text in turns] for turns in texts]
    labels = [example.get("label") for example in examples]
    sketches = signatures([[word for _, turn in turns for word in turn] for turns in worded], labels)
    readable = [example for example in examples if example["problem"] is None]
    done = iter(stage.tokenize(readable, length, tokenizer))
    rows, special = [], tokenizer.all_special_tokens
    empty: dict[str, Any] = {name: [] if isinstance(kind, List) else None for name, kind in stage.columns().items()}
    for example, turns, label, row_words, sketch in zip(examples, texts, labels, worded, sketches, strict=True):
        row: dict[str, Any] = {
            "dropped": MALFORMED,
            **{name: example[name] for name in COMMON},
            "turns": len(turns) - (len(stage.sequences) - 1) if turns else 0,
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
            "row_hash": _hash_of(turns, label),
            "signature": sketch,
        }
        row |= empty
        if example["problem"] is None:
            row |= next(done)
        if decontaminate and row["held_out"] and not row["dropped"]:
            own = any(held_out.prompts[index].group == OWN for index in row["held_out"])
            row |= {"dropped": HELD_OUT if own else QUESTION} | empty
        rows.append(row)
    return {name: [row[name] for row in rows] for name in rows[0]}


def _hash_of(turns: list[tuple[str, str]], label: bool | None) -> int:
    """A number of 63 bits for the texts of a row and, if its answer is judged, the label."""
    return xxhash.xxh3_64_intdigest(json.dumps(turns if label is None else [label, turns]).encode()) >> 1


def refused(error: RowError) -> dict[str, Any]:
    """The facts of a row that the template or the tokenizer does not take."""
    return {"dropped": MALFORMED, "problem": str(error), "turns": 0}


def cut_away(length: Length, prompt: int) -> dict[str, Any]:
    """The facts of a row whose prompt leaves no room for what is learned."""
    room = f"no room for the answer within training.max_length {length.max_length:,}"
    return {"dropped": CUT, "problem": f"its prompt of {prompt:,} tokens leaves {room}"}
