"""What two evaluations were answered by: the same questions come out a little otherwise on another engine or dtype."""

from collections.abc import Mapping
from typing import Any

NAMES = ("engine", "dtype")
WHY = "which moves scores by itself"


def measured(settings: Mapping[str, Any]) -> tuple[str | None, ...]:
    """What of an evaluation's settings is a matter of degree; None where an older version did not record it."""
    return tuple(None if settings.get(name) is None else str(settings[name]) for name in NAMES)


def measured_otherwise(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What differs in the second one: "another engine (vllm, not olmoe_ft)"; empty where nothing known does."""
    found = zip(NAMES, measured(first), measured(other), strict=True)
    return ", ".join(
        f"another {name} ({two}, not {one})" for name, one, two in found if None not in (one, two) and one != two
    )
