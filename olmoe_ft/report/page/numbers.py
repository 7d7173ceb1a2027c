"""Numbers as a page shows them, and as its charts carry them."""

import math
import sys
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np

from olmoe_ft.report.page.blocks import Cell

LARGEST = sys.float_info.max  # which a whole number of a file may exceed
WITHOUT_WARNINGS = np.errstate(over="ignore", invalid="ignore", divide="ignore")
"""Around what makes a page: sums of numbers near 1e308 are not finite, and are shown as that."""


def number(value: Any, digits: int = 4) -> str:
    """A number for people: `digits` significant digits, thousands apart, powers of ten where it is huge or tiny.

    The charts' `formatNumber` in JavaScript writes the same.
    """
    if value is None or abs(value) > LARGEST or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent):+d}"
    exact = Decimal(repr(float(value)))
    decimals = 0 if exact == exact.to_integral_value() else max(0, digits - 1 - exact.adjusted())
    text = f"{exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP):,f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def number_cell(value: float | None, form: str, note: str = "", unit: str = "") -> Cell:
    """A value in a format of Python's; in red where it is not finite."""
    if value is None:
        return Cell("")
    if not math.isfinite(value):
        return Cell("not finite", note, "bad")
    return Cell(f"{format(value, form)}{unit}", note)


def rounded(values: Iterable[Any], digits: int) -> list[float | int | None]:
    """Numbers with so many significant digits, whole ones as integers; None for what is not finite."""
    return [_short(value, digits) for value in values]


def _short(value: Any, digits: int) -> float | int | None:
    if value is None or abs(value) > LARGEST:
        return None
    found = float(value)
    if not math.isfinite(found):
        return None
    found = float(f"{found:.{digits}g}")
    return int(found) if found.is_integer() and abs(found) < 2**53 else found
