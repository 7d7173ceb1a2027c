"""The key of a row that scorers read."""

from collections.abc import Mapping
from typing import Any

from olmoe_ft.data.rows import shown
from olmoe_ft.recipe import UserError


def answer_text(doc: Mapping[str, Any], what: str) -> str:
    """What is expected of a row.

    Args:
        what: what its `answer` must be, for the message.
    Raises:
        UserError: it is missing, empty or not a text.
    """
    answer = doc.get("answer")
    if not isinstance(answer, str) or not answer:
        raise UserError(f"`answer` must be {what}, found {shown(answer)}")
    return answer
