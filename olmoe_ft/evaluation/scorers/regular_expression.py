"""Regular expression: a row's `answer` is a pattern that must match the whole output, without white space around it.

Some patterns take longer than the age of the universe on a few dozen characters: `(a+)+b`. Python's `re` cannot be
interrupted, so the `regex` library is used, which reads the same patterns and takes a time limit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import regex

from olmoe_ft.evaluation.scorers.answers import answer_text
from olmoe_ft.recipe import UserError

SECONDS = 1.0
"""For one output. A pattern of an ordinary kind needs microseconds."""


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """`regex_match`; and `timed_out`, which is 1 where matching took too long, and then there is no match.

    Raises:
        UserError: the row's `answer` is not a regular expression.
    """
    pattern = answer_text(doc, "a regular expression")
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise UserError(f"`answer` must be a regular expression, found {pattern!r}: {error}") from None
    try:
        return {"regex_match": float(bool(compiled.fullmatch(results[0].strip(), timeout=SECONDS))), "timed_out": 0.0}
    except TimeoutError:
        return {"regex_match": 0.0, "timed_out": 1.0}
