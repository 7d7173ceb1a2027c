"""Run directories that tests write by hand, a file for each argument."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from olmoe_ft.report.run_files import RunFiles, read_run


def small_run(
    folder: Path,
    records: Iterable[Mapping[str, Any]] = (),
    launches: Iterable[Mapping[str, Any]] = (),
    plan: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
) -> RunFiles:
    """Write a run directory, and read it as a page does.

    Args:
        records: of metrics.jsonl, a line each.
        launches: of run.json; the file is not written where there are none.
        plan, summary: plan.json and summary.json.
    """
    (folder / "recipe.yaml").write_text("name: small\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    objects = {"run": {"launches": [*launches]} if launches else None, "plan": plan, "summary": summary}
    for name, value in objects.items():
        if value is not None:
            (folder / f"{name}.json").write_text(json.dumps(value))
    return read_run(folder)
