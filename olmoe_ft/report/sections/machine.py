"""The machine that a run was trained on, and the command that trains it again."""

import shlex
from collections import Counter
from typing import Any

from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.files.time_spent import processes_of
from olmoe_ft.report.page.blocks import Block, Cell, Code, Facts, Section

SCALARS = (str, int, float)


def machine(run: RunFiles) -> Section | None:
    """What the newest launch ran on; None where no launch is recorded."""
    launch = run.launch
    if not launch:
        return None
    return Section(
        "machine",
        "Machine",
        [*_facts(launch), repeat(run)],
        "What the newest launch ran on." if len(run.launches) > 1 else "",
    )


def repeat(run: RunFiles) -> Code:
    """The command of the newest launch, word for word."""
    words = run.launch.get("command")
    if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
        return Code("The command of the newest launch", shlex.join(words))
    command = shlex.join(["olmoe-ft", "train", (run.path / "recipe.yaml").as_posix()])
    return Code("The command was not recorded; its resolved recipe is trained by", command)


def _facts(launch: dict[str, Any]) -> list[Block]:
    hardware, libraries, precision = (_object(launch, name) for name in ("machine", "libraries", "precision"))
    pairs: list[tuple[str, Cell | str]] = [
        ("devices", _devices(launch, hardware)),
        ("processes", str(processes_of(launch) or "")),
        ("engine", _text(launch.get("engine"))),
        ("processor", _processor(hardware)),
        ("memory", f"{hardware['memory_gib']} GiB" if isinstance(hardware.get("memory_gib"), int | float) else ""),
        ("system", _text(hardware.get("system"))),
        ("Python", _text(launch.get("python") or hardware.get("python"))),
        ("git revision", _revision(launch.get("git_revision"))),
    ]
    tables = (("Computer", pairs), ("Precision", _texts(precision)), ("Libraries", _texts(libraries)))
    return [Facts(title, found) for title, all_of_it in tables if (found := [pair for pair in all_of_it if pair[1]])]


def _devices(launch: dict[str, Any], hardware: dict[str, Any]) -> Cell | str:
    names = hardware.get("devices")
    if not isinstance(names, list) or not names:
        return _text(launch.get("device"))
    text = ", ".join(f"{count} x {name}" for name, count in Counter(map(str, names)).items())
    each = hardware.get("device_memory_gib")
    return Cell(text, f"{each} GiB each" if isinstance(each, int | float) else "")


def _processor(hardware: dict[str, Any]) -> Cell | str:
    cores = hardware.get("cores")
    name = _text(hardware.get("cpu"))
    return Cell(name, f"{cores} cores" if isinstance(cores, int) else "") if name else ""


def _revision(revision: Any) -> Cell | str:
    name = _text(revision)
    if not name.endswith("-dirty"):
        return name
    return Cell(name.removesuffix("-dirty"), "with changes that are in no commit", "warn")


def _texts(values: dict[str, Any]) -> list[tuple[str, Cell | str]]:
    return [(str(name), _text(value)) for name, value in values.items()]


def _object(launch: dict[str, Any], name: str) -> dict[str, Any]:
    found = launch.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    return str(value) if isinstance(value, SCALARS) else ""
