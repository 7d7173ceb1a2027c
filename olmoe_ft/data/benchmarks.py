"""The questions of benchmarks, whichever key they are under."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmoe_ft.data.content import text
from olmoe_ft.data.formats import row_reader
from olmoe_ft.data.heldout import Prompt
from olmoe_ft.data.locations import read_rows
from olmoe_ft.data.reader import RowReader
from olmoe_ft.data.rows import USUAL, RowError, is_blank, shown_keys
from olmoe_ft.data.turns import ROLES
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.data_section import Benchmark

# Keys that may hold the question; the first filled one counts.
QUESTION_KEYS = tuple("question prompt problem query instruction input messages conversations turns text".split())


def load_benchmark(benchmark: Benchmark) -> list[Prompt]:
    """Every question of a benchmark.

    Raises:
        UserError: the file or dataset is missing or empty, or a row has no question.
    """
    split = benchmark.split or ("train" if Path(benchmark.path).is_file() else "test")
    rows = read_rows(benchmark.path, split, benchmark.config, benchmark.revision)
    questions, unseen = [], set(benchmark.columns)
    for place, row in rows:
        unseen -= set(row) if isinstance(row, Mapping) else set()
        questions.append(Prompt(_question(row, benchmark, place), benchmark.path, place))
    if not questions:
        raise UserError(f"{benchmark.path}: the benchmark is empty; give one with at least one question")
    if unseen:
        raise UserError(
            f"{benchmark.path}: no row has {shown_keys(sorted(unseen))}; correct `columns`, which renames it"
        )
    return questions


def _question(row: Any, benchmark: Benchmark, place: str) -> list[str]:
    """The questions in a row, turn after turn."""
    try:
        reader = row_reader(row, USUAL)
        renamed = {new: reader.row[old] for old, new in benchmark.columns.items() if old in reader.row}
        named = {**reader.row, **renamed}
        chosen = [key for key in renamed if key in QUESTION_KEYS]  # keys that the recipe names come first
        filled = [key for key in (*chosen, *QUESTION_KEYS) if not is_blank(named.get(key))]
        if filled[:1] == ["instruction"] and "input" in filled:  # Alpaca's question is in both
            return [f"{named['instruction']}\n\n{named['input']}"]
        if filled:
            return _asked(named[filled[0]], filled[0], reader)
    except RowError as error:
        raise UserError(f"{place}: {error}") from None
    raise UserError(
        f"{place}: found {shown_keys(row)}, but no question; allowed: {', '.join(QUESTION_KEYS)}; rename its key with "
        f"`decontaminate_against: [{{path: {benchmark.path}, columns: {{its_key: question}}}}]`"
    )


def _asked(value: Any, key: str, reader: RowReader) -> list[str]:
    """The texts of a question: one text, several, or the user's turns of a conversation.

    Raises:
        RowError: it is none of these.
    """
    if isinstance(value, list) and all(isinstance(one, Mapping) and ("role" in one or "from" in one) for one in value):
        turns = [turn for turn in value if ROLES.get(str(turn.get("role") or turn.get("from")).lower()) == "user"]
        value = [turn.get("content") or turn.get("value") for turn in turns]
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise RowError(f"`{key}` has no user turn, so there is no question; add one, or take out the row")
    return [text(one, f"`{key}`", reader) for one in texts]
