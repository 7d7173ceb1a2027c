"""The questions of benchmarks, by whichever key a benchmark calls them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmoe_ft.data.heldout import Prompt
from olmoe_ft.data.locations import read_rows
from olmoe_ft.data.rows import is_empty, shown_keys
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.schema import Benchmark

# Where a question may stand, the first that is filled.
QUESTION_KEYS = ("question", "prompt", "problem", "query", "instruction", "input", "messages", "conversations", "text")


def load_benchmark(benchmark: Benchmark) -> list[Prompt]:
    """Every question of a benchmark.

    Raises:
        RecipeError: the file or data set is missing or empty, or a row has no question.
    """
    split = benchmark.split or ("train" if Path(benchmark.path).is_file() else "test")
    rows = read_rows(benchmark.path, split, benchmark.config, benchmark.revision)
    questions = [Prompt(_question(row, benchmark, place), benchmark.path, place) for place, row in rows]
    if not questions:
        raise RecipeError(f"{benchmark.path}: the benchmark is empty; give one with at least one question")
    return questions


def _question(row: Any, benchmark: Benchmark, place: str) -> list[str]:
    """What is asked in a row, turn after turn."""
    if not isinstance(row, Mapping):
        raise RecipeError(f"{place}: a row must be an object with named fields")
    row = {benchmark.columns.get(key, key): value for key, value in row.items()}
    filled = [key for key in QUESTION_KEYS if not is_empty(row.get(key))]
    if filled[:1] == ["instruction"] and "input" in filled:  # Alpaca's question stands in both
        return [f"{row['instruction']}\n\n{row['input']}"]
    for key in filled:
        texts = _asked(row[key])
        if texts:
            return texts
    raise RecipeError(
        f"{place}: has {shown_keys(row)}, and none of {', '.join(QUESTION_KEYS)} holds a question; say which key does: "
        f"`decontaminate_against: [{{path: {benchmark.path}, columns: {{its_key: question}}}}]`"
    )


def _asked(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    turns = [turn for turn in value if isinstance(turn, Mapping)] if isinstance(value, list) else []
    said = [
        turn.get("content") or turn.get("value")
        for turn in turns
        if str(turn.get("role") or turn.get("from")).lower() in ("user", "human", "prompter")
    ]
    return [text for text in said if isinstance(text, str)]
