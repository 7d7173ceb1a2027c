"""Products of rows with their experts' matrices, in two ways: all experts in one kernel, or expert by expert.

The kernel is torch's or our own, depending on the card (`kernel_for`). Expert by expert is for a CPU: each thread takes
experts of its own and works in buffers that stay in its cache. Two threads at one product would wait for each other at
its end: a product of 128 rows ran at 127 to 179 GFLOP/s with both, at 190 with one product each (2 cores;
docs/performance.md).

Shapes: T tokens, H hidden, R rows sorted by expert, n rows of a block, E experts.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.nn import functional as F

from olmoe_ft.model.experts.dispatch import Routes
from olmoe_ft.model.kernels import use_triton

# Measured on 2 cores (docs/performance.md): the threads of one interpreter pay where a matrix has 131,072 numbers or
# more, and the loop over experts is better left to the kernel where an expert has fewer multiplications than this.
WORTH_THREADS, WORTH_A_CALL = 2**17, 6 * 10**6

Strategy = Literal["at_once", "by_expert"]
"""All experts' rows in one kernel; or expert by expert, in buffers that stay in a CPU's cache."""
_forced: list[Strategy] = []  # what `force_strategy` asks for, the innermost last


class Block(Protocol):
    """Some experts' rows, n of the R, and how they are multiplied. Where a result goes is `out`, or a new tensor."""

    def part_of(self, rows: Tensor) -> Tensor:
        """Its rows (n, ·) of (R, ·), to be read or written to."""

    def gather(self, x: Tensor) -> Tensor:
        """Its tokens' rows (n, H) of x (T, H), in the buffer "rows" where there is one."""

    def buffer(self, name: str) -> Tensor | None:
        """Working memory (n, ·) for its rows; None where operations make their own results."""

    def project(self, rows: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        """`rows @ weight[e].T`: rows (n, in), weight (E, out, in) -> (n, out)."""

    def project_back(self, rows: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        """`rows @ weight[e]`: rows (n, out), weight (E, out, in) -> (n, in)."""

    def weight_gradient(self, to_outputs: Tensor, inputs: Tensor, out: Tensor | None) -> Tensor:
        """`out[e] = to_outputs.T @ inputs` over the rows of e: (n, out) and (n, in) -> (E, out, in)."""


def kernel_for(
    capability: tuple[int, int] | None, dtype: torch.dtype, sizes: Iterable[int], triton: bool
) -> Literal["torch", "triton"] | None:
    """Which kernel multiplies all experts' rows at once, without the host knowing how many an expert has.

    On CUDA torch has one for bf16 on compute capabilities 9.x and 10.x; elsewhere its `F.grouped_mm` copies `offs` to
    the host and loops over the experts, in every call (`_grouped_mm_cuda`, aten/src/ATen/native/cuda/GroupedBlas.cpp).

    Args:
        capability: of the CUDA card; None for any other device, where `F.grouped_mm` is what there is.
        sizes: of matrices and rows; torch's takes whole 16 bytes alone.
        triton: whether our own can be launched (`model/kernels/grouped.py`). Triton is made for 8.0 and newer.
    Returns:
        None where no kernel takes them.
    """
    aligned = all(size * dtype.itemsize % 16 == 0 for size in sizes) and dtype != torch.float64
    if capability is None:
        return "torch" if aligned else None
    if aligned and dtype == torch.bfloat16 and capability[0] in (9, 10):
        return "torch"
    return "triton" if triton and capability >= (8, 0) and dtype != torch.float64 else None


def capability_of(x: Tensor) -> tuple[int, int] | None:
    """The compute capability of the NVIDIA card that holds x; None elsewhere."""
    return torch.cuda.get_device_capability(x.device) if x.is_cuda and torch.version.cuda else None


def kernel_on_device(x: Tensor, sizes: Iterable[int]) -> Literal["torch", "triton"] | None:
    return kernel_for(capability_of(x), x.dtype, sizes, use_triton(x))


def choose_strategy(routes: Routes, matrices: list[Tensor]) -> Strategy:
    """How experts are multiplied: by one kernel where one takes them; on a CPU where `F.grouped_mm`, there a loop, is
    faster than ours.

    Args:
        matrices: (E, out, in) each, all that are multiplied; the first is the largest.
    """
    if _forced:
        return _forced[-1]
    stack = matrices[0]
    if stack.device.type == "cpu":
        multiplications = routes.token.numel() * stack[0].numel()
        if multiplications >= WORTH_A_CALL * len(stack) or stack[0].numel() >= WORTH_THREADS:
            return "by_expert"
    taken = all(kernel_on_device(matrix, matrix.shape[1:]) for matrix in matrices)
    return "at_once" if taken else "by_expert"


@contextmanager
def force_strategy(strategy: Strategy) -> Iterator[None]:
    """In the block, experts are multiplied in this way whatever their sizes and device: for the planner, and tests."""
    _forced.append(strategy)
    try:
        yield
    finally:
        _forced.pop()


class AllExperts:
    """All rows at once, by one kernel: on a GPU, and on a CPU where experts are too small to be called one by one."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes

    def part_of(self, rows: Tensor) -> Tensor:
        return rows

    def gather(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.routes.token)

    def buffer(self, name: str) -> Tensor | None:
        return None

    def project(self, rows: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        return self._product(rows, weight.transpose(-2, -1), (rows.shape[0], weight.shape[1]))

    def project_back(self, rows: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        return self._product(rows, weight, (rows.shape[0], weight.shape[2]))

    def weight_gradient(self, to_outputs: Tensor, inputs: Tensor, out: Tensor | None) -> Tensor:
        shape = self.routes.ends.numel(), to_outputs.shape[1], inputs.shape[1]
        return self._product(to_outputs.t(), inputs, shape)

    def _product(self, left: Tensor, right: Tensor, shape: tuple[int, ...]) -> Tensor:
        if is_fake(left):  # its shape rules know bf16 alone
            return left.new_empty(shape)
        ends = self.routes.ends
        if kernel_on_device(left, (*right.shape[1:], *shape[1:])) == "triton":
            from olmoe_ft.model.kernels.grouped import grouped_mm

            return grouped_mm(left, right, ends)
        product = F.grouped_mm(left, right, offs=ends)
        if right.dim() == 2 and (capability_of(left) or (0, 0))[0] == 10:
            # torch leaves what was in memory as the gradient of an expert without rows: pytorch issue #172439
            product.masked_fill_((ends.diff(prepend=ends.new_zeros(1)) == 0)[:, None, None], 0)
        return product


class OneExpert:
    """The rows of one expert."""

    def __init__(self, expert: int, rows: slice, token: Tensor, buffers: dict[str, Tensor]) -> None:
        self.expert, self.rows, self.token, self.buffers = expert, rows, token[rows], buffers

    def part_of(self, rows: Tensor) -> Tensor:
        return rows[self.rows]

    def gather(self, x: Tensor) -> Tensor:
        return torch.index_select(x, 0, self.token, out=self.buffer("rows"))

    def buffer(self, name: str) -> Tensor:
        return self.buffers[name][: self.token.numel()]

    def project(self, rows: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.mm(rows, weight[self.expert].t(), out=out)

    def project_back(self, rows: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.mm(rows, weight[self.expert], out=out)

    def weight_gradient(self, to_outputs: Tensor, inputs: Tensor, out: Tensor | None) -> Tensor:
        assert out is not None  # the one for all experts
        torch.mm(to_outputs.t(), inputs, out=out[self.expert])
        return out


def on_blocks(
    strategy: Strategy,
    compute: Callable[[Any, Tensor | None], Tensor],
    routes: Routes,
    x: Tensor,
    width: int,
    buffers: dict[str, int],
) -> Tensor:
    """Compute something of every row, of all at once or of one expert's after the other.

    Args:
        compute: (block, out) -> (n, width), in `out` where it is given.
        x: (T, H), for its dtype, device and size.
        width: of the result.
        buffers: name and width of the working memory that `compute` asks a block for.
    Returns:
        (R, width)
    """
    if strategy == "at_once":
        return compute(AllExperts(routes), None)
    result = x.new_empty(routes.token.numel(), width)
    on_each_expert(lambda one: compute(one, one.part_of(result)), routes, x, buffers)
    return result


def on_each_expert(compute: Callable[[OneExpert], Any], routes: Routes, x: Tensor, buffers: dict[str, int]) -> None:
    """Call `compute` for every expert, the busiest first, on as many threads as torch may use; see `on_blocks`."""
    if is_fake(x):  # sizes alone: one expert, with its even share
        count = routes.ends.numel()
        bounds = [0, max(1, routes.token.numel() // count)]
    else:
        bounds = [0, *routes.ends.tolist()]
    slices = [slice(*pair) for pair in zip(bounds, bounds[1:], strict=False)]
    sizes = [rows.stop - rows.start for rows in slices]
    worth_it = x.device.type == "cpu" and x.shape[1] * max(buffers.values()) >= WORTH_THREADS
    threads = torch.get_num_threads() if worth_it and not is_fake(x) else 1
    shares: list[list[int]] = [[] for _ in range(min(threads, len(sizes)))]
    loads = [0] * len(shares)
    for expert in sorted(range(len(sizes)), key=lambda expert: -sizes[expert]):
        least = loads.index(min(loads))
        shares[least].append(expert)
        loads[least] += sizes[expert]

    def run_share(share: list[int], memory: dict[str, Tensor], inference: bool) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            for expert in share:
                compute(OneExpert(expert, slices[expert], routes.token, memory))

    inference = torch.is_inference_mode_enabled()
    tasks = [
        (share, {name: x.new_empty(max(sizes), width) for name, width in buffers.items()}, inference)
        for share in shares
    ]
    if len(tasks) == 1:
        run_share(*tasks[0])
        return
    pool = thread_pool(len(tasks))
    for future in [pool.submit(run_share, *task) for task in tasks]:
        future.result()


@cache
def thread_pool(threads: int) -> ThreadPoolExecutor:
    """Threads whose own operations use one thread each."""
    return ThreadPoolExecutor(threads, "olmoe-experts", initializer=torch.set_num_threads, initargs=(1,))


os.register_at_fork(after_in_child=thread_pool.cache_clear)  # threads do not survive a fork
