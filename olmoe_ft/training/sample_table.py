"""Samples of every evaluation as one table in Weights & Biases, which grows by step."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb

from olmoe_ft.data.terminal import middle_cut, say
from olmoe_ft.reasons import one_line

if TYPE_CHECKING:  # evaluation is above training
    from olmoe_ft.evaluation.score import Evaluation

NAME = "eval/samples"
COLUMNS = ("step", "task", "id", "prompt", "output", "expected", "right", "tokens", "experts")
ROWS = 20  # of a task and evaluation
START, END = 2_000, 3_000  # characters of a longer text that are kept on either side
STAGED = "WANDB_DATA_DIR"  # where wandb keeps what it is to upload


class SampleTable:
    """The first samples of each task, the same questions each time, so that one sees their answers change.

    Each evaluation is an increment of the table, of which wandb sends only the new rows. A launch that resumes an
    online run adds to its table. An offline launch cannot ask the server for it, so it begins a table of its own; the
    rows of the earlier launches stay under their steps.
    """

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: of the run's files of W&B; without it wandb needs a home directory that can be written.
        """
        self.folder = folder
        self.table: wandb.Table | None = wandb.Table(columns=list(COLUMNS), log_mode="INCREMENTAL")

    def log(self, wandb_run: Any, record: Mapping[str, Any], evaluation: "Evaluation") -> None:
        """Send a record, and with it the new rows of the table. Where the table alone fails, the record is sent."""
        if self.table is not None and (rows := list(_rows(evaluation))):
            try:
                with _staged_in(self.folder):
                    for row in rows:
                        self.table.add_data(*row)
                    wandb_run.log({**record, NAME: self.table})
                return
            except Exception as error:  # of a disk, or a server that takes records and no tables
                self.table = None
                say(f"W&B: no samples from here on, as they failed: {one_line(error)}", sys.stderr)
        wandb_run.log(dict(record))


def _rows(evaluation: "Evaluation") -> Iterator[tuple[Any, ...]]:
    by_task: dict[str, int] = {}
    for sample in sorted(evaluation.samples, key=lambda sample: (sample.task, sample.id)):
        by_task[sample.task] = by_task.get(sample.task, 0) + 1
        if by_task[sample.task] <= ROWS:
            texts = map(_cut, (sample.prompt, sample.output, sample.expected))
            yield evaluation.step, sample.task, sample.id, *texts, sample.right, sample.tokens, sample.busiest


def _cut(text: str) -> str:
    start, end, left_out = middle_cut(text, START, END)
    return f"{start}\n[… {left_out:,} characters are left out …]\n{end}" if left_out else text


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Have wandb keep what it is to upload in a folder, unless the user has named one."""
    named = os.environ.get(STAGED)
    os.environ[STAGED] = named or str(folder.resolve())
    try:
        yield
    finally:
        if named is None:
            del os.environ[STAGED]
