"""Seconds and memory of one training step."""

import gc
import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def seconds(work: Callable[[], object], device: str) -> float:
    """By the clock, until all that was asked of the device is done."""
    start = _clock(device)
    work()
    return _clock(device) - start


def median(work: Callable[[], object], rounds: int, device: str) -> float:
    """Of `rounds` calls, after one that warms up."""
    work()
    return statistics.median(seconds(work, device) for _ in range(rounds))


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """The most that torch had allocated at once beyond what was there before, as weights are."""
    gc.collect()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    allocated = peak = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak


def _clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
