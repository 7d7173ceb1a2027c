"""Amounts with their units, as people write them."""

import math
from typing import Any

from olmoe_ft.constants import GIB, MIB


def duration(seconds: float) -> str:
    """`12.3 s`, `2 min 24 s`, `3 h 05 min`."""
    if not math.isfinite(seconds):
        return "not finite"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02d} min"


def size(count: float) -> str:
    """Bytes as `1.5 GiB` or `12.0 MiB`."""
    return f"{count / GIB:,.2f} GiB" if count >= GIB else f"{count / MIB:,.1f} MiB"


def hours(count: float) -> str:
    """Hours of devices: `12.5`, and of a short run `0.0399`."""
    return f"{count:,.1f}" if count >= 10 else f"{count:.3g}"


def finite(value: Any) -> float | None:
    """A number of a file; None where there is something else, or it is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        return None
    return float(value) if math.isfinite(value) else None
