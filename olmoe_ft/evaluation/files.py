"""`evaluation.json` and `samples.jsonl`: the evaluations of a model, in its run directory or beside its checkpoint.

`evaluation.json` is rewritten whole. `samples.jsonl` grows: each line begins with the key of its evaluation, and lines
of a key that `evaluation.json` does not list do not count. They are of an evaluation that was cut off.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from olmoe_ft.checkpoints.run_checkpoints import put_aside
from olmoe_ft.data.terminal import say
from olmoe_ft.evaluation.listed import check_listed
from olmoe_ft.evaluation.score import Evaluation, Sample, Score, digest
from olmoe_ft.recipe import UserError
from olmoe_ft.recipe.wording import nearest
from olmoe_ft.training.files import to_json, write_text, write_whole

EVALUATIONS = "evaluation.json"
SAMPLES = "samples.jsonl"
VERSION = 1

NUMBERS = re.compile(r"\[\n[-+.,\deE\s]*\]")  # a list of numbers over several lines; no text in JSON has a line end

Listed = list[dict[str, Any]]  # the evaluations, as they are in the file


def add(folder: Path, evaluation: Evaluation) -> None:
    """Write an evaluation to a folder; it replaces the older one of the same model, time, step and
    questions.

    It takes time for its own samples only, unless it replaces others.

    Args:
        folder: a run directory or a checkpoint folder; made where it is not there. Damaged files in it are renamed,
            which is said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {**evaluation.as_dict(), "samples": len(evaluation.samples)}
    listed, size = _listed_or_aside(folder)
    kept = [one for one in listed if _key(one) != _key(values)]
    lines = (_line(_key(values), evaluation, sample) for sample in evaluation.samples)
    _write_samples(folder, lines, kept, as_listed=len(kept) == len(listed) and _size(folder) == size)
    _write_list(folder, [*kept, values])


def forget_after(folder: Path, step: int) -> None:
    """Remove the evaluations of later steps and of the end: a run that continues from this step makes them anew."""
    if not (folder / EVALUATIONS).exists():
        return
    listed, _ = _listed_or_aside(folder)
    kept = [one for one in listed if one["step"] is None or (one["step"] <= step and one["when"] != "after")]
    if len(kept) < len(listed):
        _write_samples(folder, (), kept, as_listed=False)
        _write_list(folder, kept)


def read_evaluations(folder: Path) -> list[Evaluation]:
    """The evaluations in a folder, the newest last, without their samples; an empty list where it has none.

    Raises:
        UserError: the file is damaged.
    """
    return [_evaluation(one) for one in _listed(folder)[0]]


def newest_evaluation(folder: Path, task: str | None = None, step: int | None = None) -> Evaluation:
    """The newest evaluation in a folder, without its samples.

    Args:
        task: the newest one that has this task; a group of tasks is named by what their names begin with.
        step: the newest one of this step.
    Raises:
        UserError: there is none, or the file is damaged.
    """
    found = read_evaluations(folder)
    if not found:
        raise UserError(f"{folder}: no evaluation so far; evaluate it first: olmoe-ft evaluate {folder}")
    if step is not None:
        steps = sorted({one.step for one in found if one.step is not None})
        found = [one for one in found if one.step == step]
        if not found:
            allowed = ", ".join(map(str, steps)) or "none, as it is no run's"
            raise UserError(f"{folder}: no evaluation of step {step}; allowed: {allowed}")
    if task is not None:
        names = sorted({name for one in found for name in _tasks(one)})
        found = [one for one in found if chosen(task, _tasks(one))]
        if not found:
            raise UserError(
                f"{folder}: no evaluation has the task {task}{nearest(task, names)}; allowed: {', '.join(names)}"
            )
    return found[-1]


def _tasks(evaluation: Evaluation) -> set[str]:
    """Those with scores, and those that wait for a judge."""
    return {score.task for score in evaluation.scores} | {*evaluation.settings.get("tasks", ())}


def read_samples(
    folder: Path, task: str | None = None, step: int | None = None, evaluation: Evaluation | None = None
) -> list[Sample]:
    """The samples of `newest_evaluation`, or of another one that was read here, in the order of their tasks and ids.

    Raises:
        UserError: there is no such evaluation, or a file is damaged.
    """
    samples = _samples_of(folder, evaluation or newest_evaluation(folder, task, step))
    if task is not None:
        tasks = chosen(task, {sample.task for sample in samples})
        samples = [sample for sample in samples if sample.task in tasks]
    return sorted(samples, key=lambda sample: (sample.task, sample.id))


def chosen(task: str, names: Iterable[str]) -> list[str]:
    """The task of this name; if there is none, those of the group: `mmlu` are all `mmlu_...`."""
    names = list(names)
    return [name for name in names if name == task] or [name for name in names if name.startswith(f"{task}_")]


def _key(values: Mapping[str, Any]) -> str:
    """What tells an evaluation from others in its folder: the model, when it was, its step, and all that was asked."""
    settings = values["settings"]
    asked = [settings.get(name) for name in ("tasks", "questions", "template", "limit", "engine")]
    return digest([values["model"], values["when"], values["step"], asked])


def _line(key: str, evaluation: Evaluation, sample: Sample) -> str:
    return to_json({"evaluation": key, "when": evaluation.when, **sample.as_dict(evaluation.step)}) + "\n"


def _starts(keys: Iterable[str]) -> tuple[bytes, ...]:
    """How lines of these evaluations begin."""
    return tuple(f'{{"evaluation": "{key}", '.encode() for key in keys)


def _write_samples(folder: Path, lines: Iterable[str], kept: Listed, as_listed: bool) -> None:
    """Add lines, and drop those of evaluations that are not kept.

    Args:
        as_listed: whether the file has the lines of the kept evaluations and no other ones.
    """
    file = folder / SAMPLES

    def write(stream: BinaryIO) -> None:
        stream.writelines(line.encode() for line in lines)

    def rewrite(partial: Path) -> None:
        with partial.open("wb") as stream:
            stream.writelines(_lines_of(file, [_key(one) for one in kept]))
            write(stream)

    if as_listed and file.is_file():
        with file.open("ab") as stream:
            write(stream)
    else:
        write_whole(file, rewrite)


def _lines_of(file: Path, keys: Sequence[str]) -> Iterator[bytes]:
    """The whole lines of these evaluations, one at a time."""
    if not file.is_file():
        return
    starts = _starts(keys)
    with file.open("rb") as stream:
        yield from (line for line in stream if line.startswith(starts) and line.endswith(b"\n"))


def _samples_of(folder: Path, evaluation: Evaluation) -> list[Sample]:
    file, key = folder / SAMPLES, _key(evaluation.as_dict())
    try:
        found = [_sample(json.loads(line)) for line in _lines_of(file, [key])]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _damaged(folder, "a line of it is not a sample") from None
    (expected,) = (one["samples"] for one in _listed(folder)[0] if _key(one) == key)
    if len(found) != expected:
        raise _damaged(folder, f"found {len(found):,} of {expected:,} samples")
    return found


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(f"{folder / SAMPLES}: it is damaged ({what}); evaluate again: olmoe-ft evaluate {folder}")


def _sample(values: dict[str, Any]) -> Sample:
    del values["evaluation"], values["when"]
    values["metrics"] = {name: float(value) for name, value in values["metrics"].items()}
    return Sample.read(values)


def _evaluation(values: Mapping[str, Any]) -> Evaluation:
    return Evaluation(
        model=values["model"],
        step=values["step"],
        when=values["when"],
        scores=[Score.read(score) for score in values["scores"]],
        samples=[],
        settings=values["settings"],
        seconds=values["seconds"],
        new_tokens=values["new_tokens"],
        generating=values["generating"],
        loads=_loads(values.get("loads", {})),  # which older versions do not have
    )


def _loads(values: Mapping[str, Any]) -> dict[str, list[list[float]]]:
    return {task: [[*map(float, layer)] for layer in layers] for task, layers in values.items()}


def _listed(folder: Path) -> tuple[Listed, int]:
    """The evaluations in a folder's file, and how long its samples are, in bytes.

    Raises:
        UserError: the file is there and cannot be read.
    """
    file = folder / EVALUATIONS
    if not (file.exists() or file.is_symlink()):
        return [], 0
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["version"] != VERSION:
            raise ValueError(f"found version {found['version']!r}; allowed: {VERSION}")
        for one in found["evaluations"]:
            _evaluation(one)
            check_listed(one)
        return found["evaluations"], int(found["samples_bytes"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise UserError(
            f"{file}: it cannot be read ({type(error).__name__}: {error}); move it away, and evaluate again: "
            f"olmoe-ft evaluate {folder}"
        ) from None


def _listed_or_aside(folder: Path) -> tuple[Listed, int]:
    """The same; a damaged file is renamed with its samples, since hours of training may come before this."""
    try:
        return _listed(folder)
    except UserError as error:
        for place in filter(Path.exists, (folder / EVALUATIONS, folder / SAMPLES)):
            say(f"{place} is kept as {put_aside(place).name}: {error}")
        return [], 0


def _size(folder: Path) -> int:
    file = folder / SAMPLES
    return file.stat().st_size if file.is_file() else 0


def _write_list(folder: Path, listed: Listed) -> None:
    content = {"version": VERSION, "samples_bytes": _size(folder), "evaluations": listed}
    text = NUMBERS.sub(lambda found: " ".join(found[0].split()), to_json(content, indent=2))
    write_text(folder / EVALUATIONS, text + "\n")
