"""Numbers as a page shows them, and as its charts carry them."""

import math
from collections.abc import Iterable
from typing import Any


def number(value: Any, digits: int = 4) -> str:
    """A number for people: `digits` significant digits, thousands apart, powers of ten where it is huge or tiny.

    The charts' `formatNumber` in JavaScript writes the same.
    """
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-4:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e+")
    if float(value).is_integer() or size >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:,.{digits}g}"


def rounded(values: Iterable[Any], digits: int) -> list[float | int | None]:
    """Numbers with so many significant digits, whole ones as integers; None for what is not finite."""
    return [_short(value, digits) for value in values]


def _short(value: Any, digits: int) -> float | int | None:
    if value is None:
        return None
    found = float(value)
    if not math.isfinite(found):
        return None
    found = float(f"{found:.{digits}g}")
    return int(found) if found.is_integer() and abs(found) < 2**53 else found
