"""One part of the run, in a process of its own: a crashed kernel or a full card ends with it.

    python -m gpu.part NAME SECONDS OUT [--dry]

Its standard output is one JSON line a finding; whatever libraries print goes to standard error.
"""

import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from gpu.findings import Finding, one_line

MODULES = {
    "machine": "machine",
    "correctness": "correctness",
    "tests": "pytests",
    "optimizer": "optimizer",
    "training": "training",
    "waits": "waits",
    "rates": "rates",
    "speed": "speed_lines",
    "memory": "memory",
}


class Part:
    """What a part's module is given.

    Args:
        limit: seconds that it may take.
        out: a folder for files to keep.
        dry: whether it runs on a CPU, at tiny sizes.
    """

    def __init__(self, name: str, limit: float, out: Path, dry: bool, stream: TextIO) -> None:
        self.name, self.out, self.dry, self.stream = name, out, dry, stream
        self.device = "cpu" if dry else "cuda"
        self.ends = time.monotonic() + limit

    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def report(self, what: str, ok: bool | None = None, **figures: Any) -> None:
        print(Finding(self.name, what, ok, figures).to_json(), file=self.stream, flush=True)

    def attempt(self, what: str, work: Callable[[], Any], needs: float = 0.0) -> None:
        """Do some work that reports for itself; if it fails that is a finding, and the next work goes on.

        Args:
            needs: seconds; where fewer are left it is not begun.
        """
        if self.left() < needs:
            self.report(what, skipped=f"no time left: it needs {needs:.0f} s of {max(0.0, self.left()):.0f}")
            return
        try:
            work()
        except Exception as error:  # whatever it is, it is what was found
            traceback.print_exc()
            self.report(what, False, error=one_line(error))


def own_stdout() -> TextIO:
    """The standard output, which from now on nothing else in this process or its children writes to."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return kept


def main() -> None:
    name, limit, out, *rest = sys.argv[1:]
    part = Part(name, float(limit), Path(out), rest == ["--dry"], own_stdout())
    part.attempt(name, lambda: importlib.import_module(f"gpu.{MODULES[name]}").run(part))
    sys.stdout.flush()
    os._exit(0)  # worker threads and the driver's teardown take seconds


if __name__ == "__main__":
    main()
