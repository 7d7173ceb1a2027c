"""Number match, as for GSM8K (Cobbe et al. 2021, arXiv:2110.14168), whose answers end with `#### 18`.

The number of an output is the last one that comes directly behind `####` or "the answer is" (the form of the worked
examples of Wei et al. 2022, arXiv:2201.11903); where there is none, the last number of the output.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from olmoe_ft.data.rows import shown
from olmoe_ft.recipe import UserError

# A minus that follows a letter, digit or bracket subtracts: `16-3` has the numbers 16 and 3. A comma belongs to a
# number only between groups of three digits, so `1, 2` and `1,2` have two. The dot that ends a sentence is no decimal.
NUMBER = (
    r"(?:(?<![\w)\]%])(?P<minus>[-\u2212]\$?|\$[-\u2212]))?\$?"
    r"(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)
ANYWHERE = re.compile(NUMBER)
MARKED = re.compile(rf"(?:####|\bthe answer is\b)[\s:*]*{NUMBER}", re.IGNORECASE)


def number_in(output: str) -> Decimal | None:
    """The number that an output gives as its answer; None if it has none.

    Currency and percent signs are not part of it: `$1,234.50` is 1234.5, and `50%` is 50.
    """
    found = [*MARKED.finditer(output)] or [*ANYWHERE.finditer(output)]
    return _value(found[-1]) if found else None


def expected_number(doc: Mapping[str, Any]) -> Decimal:
    """The number of a row: behind `####` in its `answer`, or all of it.

    Raises:
        UserError: there is no number, or more than a number.
    """
    answer = doc.get("answer")
    text = "" if isinstance(answer, bool) or answer is None else str(answer)
    match = ANYWHERE.fullmatch(text.rpartition("####")[2].strip().removesuffix(".").removesuffix("%"))
    if match is None:
        raise UserError(f"`answer` must be a number, or a text that ends with `#### 18`, found {shown(answer)}")
    return _value(match)


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """`exact_match`: whether the output's number is the row's; 18, 18.0 and $18 are the same."""
    return {"exact_match": float(number_in(results[0]) == expected_number(doc))}


def _value(match: re.Match[str]) -> Decimal:
    value = Decimal(match["digits"].replace(",", ""))
    return -value if match["minus"] else value
