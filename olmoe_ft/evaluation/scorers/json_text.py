"""JSON: whether the whole output is JSON, and whether it is the value that the row expects.

JSON as RFC 8259 has it: no NaN, no text around it such as a code fence. A key that appears twice is refused, as RFC
7493 does, since readers disagree on its value. A row's `answer`, where it has one, is a text of JSON.
"""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from olmoe_ft.data.rows import shown
from olmoe_ft.recipe import UserError


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """`valid_json`; and `exact_match` where the row has an `answer`: the same value, whatever the order of keys.

    Raises:
        UserError: the row's `answer` is not JSON.
    """
    valid, value = _read(results[0])
    scores = {"valid_json": float(valid)}
    if (answer := doc.get("answer")) is not None:
        known, expected = _read(answer) if isinstance(answer, str) else (False, None)
        if not known:
            raise UserError(f"`answer` must be a text of JSON, such as '{{\"a\": 1}}', found {shown(answer)}")
        scores["exact_match"] = float(valid and value == expected)
    return scores


def _read(text: str) -> tuple[bool, Any]:
    """Whether a text is JSON, and its value. Numbers are tagged: to Python, 1 would equal true."""
    try:
        return True, json.loads(
            text, object_pairs_hook=_object, parse_int=_number, parse_float=_number, parse_constant=_refused
        )
    except (ValueError, RecursionError):
        return False, None


def _number(text: str) -> tuple[str, Decimal | str]:
    try:
        return "number", Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits
        return "number", text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key appears twice")
    return found


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
