"""How the cost of a step grows with tokens, experts, rank and length: ours alone, beside what the FLOPs say."""

import gc
import statistics
from typing import Any

from measure import seconds
from rich.progress import track
from sides import Case, operations, our_side

MIB = 2**20
SIZE = {"cpu": "mid", "cuda": "1b-7b"}
GROUPS: dict[str, list[tuple[str, Case]]] = {
    "tokens": [(f"{rows} x 512", Case("sft", False, "", 512, rows)) for rows in (1, 2, 4, 8)],
    "experts": [
        (f"{experts}, 8 used", Case("sft", False, "", 512, 2, options={"num_experts": experts}))
        for experts in (16, 32, 64, 128)
    ],
    "length": [
        (f"{4096 // length} x {length:,}", Case("sft", False, "", length, 4096 // length))
        for length in (512, 1024, 2048, 4096)
    ],
    "LoRA rank": [(str(rank), Case("sft", True, "", 512, 2, rank=rank)) for rank in (4, 16, 64, 256)],
}


def growth(device: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each case: seconds and peak memory above the weights, and both relative to the first of its group."""
    found = []
    for group, members in GROUPS.items():
        first = None
        for label, member in track(members, f"growth: {group}", transient=True):
            case = Case(**{**member.__dict__, "size": SIZE[device]})
            side = our_side(case, rounds + 2, device)
            times, tokens = [], []
            for _ in range(rounds + 1):
                times.append(seconds(side.next_step, device))
                tokens.append(side.tokens)
                side.forget()
            peak = side.peak(device) / MIB
            now = statistics.median(times[1:]), operations(case, 1) * statistics.median(tokens[1:])
            first = first or now
            found.append(
                {
                    "what grows": f"{group}: {label}",
                    "step s": f"{now[0]:.3f}",
                    "relative": f"{now[0] / first[0]:.2f}",
                    "by FLOPs": f"{now[1] / first[1]:.2f}",
                    "peak above weights MiB": f"{peak:,.0f}",
                }
            )
            del side
            gc.collect()
    return found
