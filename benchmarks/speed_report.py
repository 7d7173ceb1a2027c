"""The results of `speed.py`: a file for each device, a table on the screen, and that of docs/performance.md."""

import json
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
import trl
from growth import SIZE
from rich.console import Console
from rich.table import Table
from sides import EQUAL, OURS, STOCK, Case

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parents[1] / "docs/performance.md"
START, END = "<!-- speed: made by benchmarks/speed.py -->\n", "<!-- speed: end -->\n"
MIB = 2**20


@dataclass(frozen=True)
class Line:
    """Medians of one case; seconds and bytes by side."""

    name: str
    size: str
    length: int
    batch: int
    checkpointing: bool
    seconds: dict[str, float]
    """Of the sides whose memory sufficed; so is the next."""
    peak: dict[str, int]
    floor: float
    """Seconds the step's FLOPs take at the measured matrix rate: seconds of a side over these are 1 / MFU. 0 where our
    side, whose tokens are counted, did not fit."""
    difference: float
    """The largest relative difference of a side's loss and ours."""
    sides: Sequence[str] = (STOCK, OURS)
    """That were measured, or would have been if they had fit."""

    @classmethod
    def of(
        cls,
        case: Case,
        seconds: dict[str, float],
        peak: dict[str, int],
        floor: float,
        difference: float,
        sides: Sequence[str],
    ) -> "Line":
        known = case.name, case.size, case.length, case.batch, case.checkpointing
        return cls(*known, seconds, peak, floor, difference, tuple(sides))

    @property
    def case(self) -> tuple[str, str, int, int]:
        """Of which one measurement can give two lines."""
        return self.size, self.name, self.length, self.batch

    def cells(self, sides: Sequence[str] = (STOCK, OURS)) -> list[str]:
        """Under `columns` of the same sides."""
        unit = ("pair" if self.name.startswith("DPO") else "row") + ("s" if self.batch > 1 else "")
        how = ", checkpointing" if self.checkpointing else ""
        mfu = {side: f"{self.floor / taken:.0%}" for side, taken in self.seconds.items() if self.floor}
        missing = {side: "out of memory" for side in self.sides}
        beside = {side: OURS in self.seconds and side in self.seconds for side in sides if side != OURS}
        return [
            self.name, self.size, f"{self.batch} {unit} x {self.length:,}{how}",
            *(f"{self.seconds[side]:.3f}" if side in self.seconds else missing.get(side, "") for side in sides),
            *(f"{self.seconds[side] / self.seconds[OURS]:.2f}x" if both else "" for side, both in beside.items()),
            f"{self.floor:.3f}" if self.floor else "",
            *(mfu.get(side, "") for side in sides),
            *(f"{self.peak[side] / MIB:,.0f}" if side in self.peak else "" for side in sides),
            *(f"{self.peak[OURS] / self.peak[side]:.2f}" if both else "" for side, both in beside.items()),
            f"{self.difference:.0e}" if any(beside.values()) else "",
        ]  # fmt: skip


def columns(sides: Sequence[str]) -> list[str]:
    """Of a table: with the second stock's, where a line has one."""
    short = {STOCK: "stock", EQUAL: "equal", OURS: "ours"}
    ours = {**short, OURS: "our"}
    others = [side for side in sides if side != OURS]
    return [
        "case", "size", "batch", *(f"{short[side]} s" for side in sides),
        *("speed" if side == STOCK else "speed, equal" for side in others),
        "floor s", *(f"{ours[side]} MFU" for side in sides), *(f"{ours[side]} MiB" for side in sides),
        *(f"of {short[side]}'s" for side in others), "losses differ by",
    ]  # fmt: skip


@dataclass
class Results:
    """Everything measured on one device."""

    device: str
    kind: str
    versions: dict[str, str]
    rate: float
    """FLOP/s of large matrix products, measured when the last lines were."""
    lines: list[Line] = field(default_factory=list)
    growth: list[dict[str, Any]] = field(default_factory=list)
    generation: list[dict[str, Any]] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)
    """Predicted beside measured peaks, of `make gpu`."""

    @classmethod
    def here(cls, kind: str, rate: float | None = None) -> "Results":
        """Of this device, with the lines of earlier runs; with their rate too where none was measured."""
        device = torch.cuda.get_device_name() if kind == "cuda" else f"{_cpu()}, {torch.get_num_threads()} threads"
        versions = {module.__name__: module.__version__ for module in (torch, transformers, trl, peft)}
        file = RESULTS / f"{_slug(device)}.json"
        found = cls.read(file) if file.exists() else cls(device, kind, {}, 0)
        found.versions, found.rate = versions, found.rate if rate is None else rate
        return found

    @classmethod
    def read(cls, file: Path) -> "Results":
        stored = json.loads(file.read_text())
        lines = [Line(**line) for line in stored["lines"]]  # older ones without `sides`
        return cls(**{**stored, "lines": [replace(line, sides=tuple(line.sides)) for line in lines]})

    def put(self, lines: list[Line]) -> None:
        """Take a case's lines in the place of its earlier ones."""
        others = [other for other in self.lines if other.case != lines[0].case]
        self.lines = sorted(others + lines, key=_order)

    def put_generation(self, rows: list[dict[str, Any]]) -> None:
        """Take rows in the place of earlier ones of the same case; the others stay."""
        self.generation = list({row["generation"]: row for row in [*self.generation, *rows]}.values())

    @property
    def sides(self) -> tuple[str, ...]:
        """Of which the table has columns."""
        return tuple(side for side in (STOCK, EQUAL, OURS) if any(side in line.sides for line in self.lines))

    def write(self) -> None:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{_slug(self.device)}.json"
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        partial.replace(file)

    def title(self) -> str:
        dtype = "bf16" if self.kind == "cuda" else "fp32"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.device}, {dtype}, {self.rate / 1e12:.3g} TFLOP/s of matrix products; {versions}"


def print_table(results: Results, console: Console) -> None:
    table = Table(*columns(results.sides), title=results.title())
    for line in results.lines:
        table.add_row(*line.cells(results.sides))
    console.print(table)


def results_table(all_results: list[Results]) -> str:
    """Markdown of every device's lines, and what was not measured."""
    text = ""
    for results in all_results:
        text += f"\n**{results.title()}**\n\n"
        names = columns(results.sides)
        text += "| " + " | ".join(names) + " |\n|" + " --- |" * 3 + " ---: |" * (len(names) - 3) + "\n"
        text += "".join("| " + " | ".join(line.cells(results.sides)) + " |\n" for line in results.lines)
        if EQUAL in results.sides:
            text += (
                "\n*equal*: stock with this project's attention. The machine has no FlashAttention, and stock's packed "
                "rows attend under a dense mask of all tokens by all.\n"
            )
        if results.growth:
            text += f"\nHow our cost grows (SFT of `{SIZE[results.kind]}`, against the first line of each group):\n\n"
            text += _markdown(results.growth)
        if results.generation:
            text += "\nGreedy generation beside transformers' `generate`:\n\n" + _markdown(results.generation)
        if results.memory:
            text += "\nThe peak of a step with the optimizer, as `olmoe-ft plan` has it and as it was:\n\n"
            text += _markdown(results.memory)
    if not any(results.kind == "cuda" for results in all_results):
        text += (
            "\n`1b-7b` on a GPU: **not measured**, no CUDA device was at hand. `make bench` measures it where one is.\n"
        )
    return text + "\n"


def _markdown(rows: list[dict[str, Any]]) -> str:
    """Rows with the same keys, which are the columns."""
    text = "| " + " | ".join(rows[0]) + " |\n|" + " --- |" + " ---: |" * (len(rows[0]) - 1) + "\n"
    return text + "".join("| " + " | ".join(map(str, row.values())) + " |\n" for row in rows)


def write_document() -> None:
    """Put the table of all results between the marks in docs/performance.md."""
    content = DOCUMENT.read_text()
    before, rest = content.split(START)
    after = rest.split(END)[1]
    found = [Results.read(file) for file in sorted(RESULTS.glob("*.json"))]
    DOCUMENT.write_text(before + START + results_table(found) + END + after)


def _order(line: Line) -> tuple[Any, ...]:
    return (
        ("tiny", "mid", "1b-7b").index(line.size),
        ("SFT", "DPO", "KTO").index(line.name[:3]),
        "LoRA" in line.name,
        line.length,
        line.checkpointing,
    )


def _cpu() -> str:
    try:
        names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _slug(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
