"""The results of `speed.py`: a file for each device, a table on the screen, and the README's made from the files."""

import json
import platform
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
import trl
from growth import SIZE
from rich.console import Console
from rich.table import Table
from sides import OURS, STOCK, Case

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- speed: made by benchmarks/speed.py -->\n", "<!-- speed: end -->\n"
SIDES = STOCK, OURS
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
    """The largest relative difference of the two sides' losses."""

    @classmethod
    def of(cls, case: Case, seconds: dict[str, float], peak: dict[str, int], floor: float, difference: float) -> "Line":
        return cls(case.name, case.size, case.length, case.batch, case.checkpointing, seconds, peak, floor, difference)

    @property
    def case(self) -> tuple[str, str, int, int]:
        """Of which one measurement can give two lines."""
        return self.size, self.name, self.length, self.batch

    def cells(self) -> list[str]:
        unit = ("pair" if self.name.startswith("DPO") else "row") + ("s" if self.batch > 1 else "")
        how = ", checkpointing" if self.checkpointing else ""
        both = len(self.seconds) == 2
        mfu = {side: f"{self.floor / taken:.0%}" for side, taken in self.seconds.items() if self.floor}
        return [
            self.name, self.size, f"{self.batch} {unit} x {self.length:,}{how}",
            *(f"{self.seconds[side]:.3f}" if side in self.seconds else "out of memory" for side in SIDES),
            f"{self.seconds[STOCK] / self.seconds[OURS]:.2f}x" if both else "",
            f"{self.floor:.3f}" if self.floor else "",
            *(mfu.get(side, "") for side in SIDES),
            *(f"{self.peak[side] / MIB:,.0f}" if side in self.peak else "" for side in SIDES),
            f"{self.peak[OURS] / self.peak[STOCK]:.2f}" if both else "",
            f"{self.difference:.0e}" if both else "",
        ]  # fmt: skip


COLUMNS = (
    "case", "size", "batch", "stock s", "ours s", "speed", "floor s", "stock MFU", "our MFU", "stock MiB", "our MiB",
    "of stock's", "losses differ by",
)  # fmt: skip


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

    @classmethod
    def here(cls, kind: str, rate: float) -> "Results":
        """Of this device, with the lines of earlier runs."""
        device = torch.cuda.get_device_name() if kind == "cuda" else f"{_cpu()}, {torch.get_num_threads()} threads"
        versions = {module.__name__: module.__version__ for module in (torch, transformers, trl, peft)}
        file = RESULTS / f"{_slug(device)}.json"
        found = cls.read(file) if file.exists() else cls(device, kind, {}, 0)
        found.versions, found.rate = versions, rate
        return found

    @classmethod
    def read(cls, file: Path) -> "Results":
        stored = json.loads(file.read_text())
        return cls(**{**stored, "lines": [Line(**line) for line in stored["lines"]]})

    def put(self, lines: list[Line]) -> None:
        """Take a case's lines in the place of its earlier ones."""
        others = [other for other in self.lines if other.case != lines[0].case]
        self.lines = sorted(others + lines, key=_order)

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
    table = Table(*COLUMNS, title=results.title())
    for line in results.lines:
        table.add_row(*line.cells())
    console.print(table)


def readme_table(all_results: list[Results]) -> str:
    """Markdown of every device's lines, and what was not measured."""
    text = ""
    for results in all_results:
        text += f"\n**{results.title()}**\n\n"
        text += "| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * 3 + " ---: |" * (len(COLUMNS) - 3) + "\n"
        text += "".join("| " + " | ".join(line.cells()) + " |\n" for line in results.lines)
        if results.growth:
            columns = list(results.growth[0])
            text += f"\nHow our cost grows (SFT of `{SIZE[results.kind]}`, against the first line of each group):\n\n"
            text += "| " + " | ".join(columns) + " |\n|" + " --- |" + " ---: |" * (len(columns) - 1) + "\n"
            text += "".join("| " + " | ".join(map(str, row.values())) + " |\n" for row in results.growth)
    if not any(results.kind == "cuda" for results in all_results):
        text += (
            "\n`1b-7b` on a GPU: **not measured**, no CUDA device was at hand. `make bench` measures it where one is.\n"
        )
    return text + "\n"


def write_readme() -> None:
    """Put the table of all results between the marks in the README."""
    content = README.read_text()
    before, rest = content.split(START)
    after = rest.split(END)[1]
    found = [Results.read(file) for file in sorted(RESULTS.glob("*.json"))]
    README.write_text(before + START + readme_table(found) + END + after)


def _order(line: Line) -> tuple[Any, ...]:
    return (
        ("tiny", "mid", "1b-7b").index(line.size),
        line.name[:3] == "DPO",
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
