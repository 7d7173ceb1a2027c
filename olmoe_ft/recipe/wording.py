"""How messages show a value and suggest a name."""

import json
from difflib import get_close_matches

Problem = tuple[str, str]  # dotted key, what is wrong with it


def nearest(name: str, known: list[str]) -> str:
    """A question with the known name that is most like this one; empty if none is."""
    matches = get_close_matches(name, known, n=1)
    return f" (did you mean `{matches[0]}`?)" if matches else ""


def shown(value: object) -> str:
    """A value as a message shows it: about as YAML would, and short."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."
