"""Where does a step wait for the device, and what runs in it? A table of the profiler goes to `profile.txt`."""

import time
import warnings
from collections import Counter
from pathlib import Path

import torch
from sides import Case, Side
from torch.profiler import ProfilerActivity, profile

from gpu.cases import cases, free, label, warm_side
from gpu.part import Part

REPOSITORY = Path(__file__).parents[2]
ROWS = 80  # of the profiler's table


def run(part: Part) -> None:
    (part.out / "profile.txt").write_text("")
    for case in cases(part)[:2]:  # all weights, adapters
        part.attempt(label(case), lambda case=case: look_at(part, case), needs=12)
        free(part)


def look_at(part: Part, case: Case) -> None:
    side = warm_side(part, case, 3)
    if part.dry:
        part.report(f"{label(case)}: waits", skipped="a CPU waits for nothing")
    else:
        waits(part, case, side)
    host, whole = timed(part, side)
    part.report(f"{label(case)}: a step", None, ms=round(1e3 * whole, 1), host_done_ms=round(1e3 * host, 1))
    profiled(part, case, side)


def waits(part: Part, case: Case, side: Side) -> None:
    """Every call that made the host wait, by the line it was made from. The network itself is to make none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            side.next_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    side.forget()
    made = [warning for warning in caught if "synchroniz" in str(warning.message)]
    places = Counter(
        f"{Path(warning.filename).parent.name}/{Path(warning.filename).name}:{warning.lineno}" for warning in made
    )
    own = [warning for warning in made if str(REPOSITORY / "olmoe_ft/model") in warning.filename]
    figures = {"in_the_network": len(own), "all": len(made), "places": places.most_common(20)}
    part.report(f"{label(case)}: waits", not own, **figures)


def timed(part: Part, side: Side) -> tuple[float, float]:
    """Seconds until the host had asked for everything of a step, and until all was done."""
    if not part.dry:
        torch.cuda.synchronize()
    began = time.perf_counter()
    side.next_step()
    host = time.perf_counter() - began
    if not part.dry:
        torch.cuda.synchronize()
    whole = time.perf_counter() - began
    side.forget()
    return host, whole


def profiled(part: Part, case: Case, side: Side) -> None:
    """A step under the profiler: how long the device was at work, and the kernels that took longest."""
    activities = [ProfilerActivity.CPU] if part.dry else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities) as profiler:
        side.next_step()
        if not part.dry:
            torch.cuda.synchronize()
    side.forget()
    averages = profiler.key_averages()
    order = "self_cpu_time_total" if part.dry else "self_device_time_total"
    with (part.out / "profile.txt").open("a") as stream:
        stream.write(f"{label(case)}\n{averages.table(sort_by=order, row_limit=ROWS, max_name_column_width=90)}\n")
    kernels = [event for event in averages if event.device_type.name == ("CPU" if part.dry else "CUDA")]
    kernels.sort(key=lambda event: -getattr(event, order))
    busy = sum(getattr(event, order) for event in kernels) / 1e3  # from microseconds
    longest = [[event.key[:80], event.count, round(getattr(event, order) / 1e3, 2)] for event in kernels[:15]]
    part.report(f"{label(case)}: profile", None, busy_ms=round(busy, 1), kernels=len(kernels), longest=longest)
