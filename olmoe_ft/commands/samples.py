"""`olmoe-ft samples`: the questions of an evaluation in the terminal, of one model or of two side by side."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from olmoe_ft.data.terminal import Console, middle_cut, printable
from olmoe_ft.evaluation.files import newest_evaluation, read_samples
from olmoe_ft.evaluation.paired import Changes, Pair, pairs
from olmoe_ft.evaluation.score import Evaluation, Sample
from olmoe_ft.recipe import UserError

START, END, LINES = 400, 600, 12  # characters and lines of a long text that are shown on either side
LABEL = len("expected")
STYLES = {True: "bold green", False: "bold red", None: "bold"}
VERDICTS = {True: "right", False: "wrong", None: "not judged"}


def show_one(run: str, wrong: bool, task: str | None, step: int | None, limit: int) -> None:
    """Print the samples of one model's evaluation.

    Args:
        wrong: those alone that are wrong.
        task, step: of which task and step; None is all tasks, and the newest evaluation.
        limit: how many to print.
    Raises:
        UserError: there is no such run, evaluation or sample.
    """
    evaluation, samples = _samples(run, task, step)
    shown = [sample for sample in samples if sample.right is False] if wrong else samples
    if not shown:
        raise UserError(f"{run}: none of {len(samples):,} answers is wrong; leave out --wrong to see them")
    console = Console(highlight=False)
    console.print(Text(printable(f"{_title(run, evaluation)}: {_counts(samples)}"), style="bold"))
    for sample in shown[:limit]:
        _print_question(console, [sample], [])
    _print_rest(console, len(shown), limit)


def show_two(first: str, second: str, wrong: bool, task: str | None, step: int | None, limit: int) -> None:
    """Print the questions that were put to two models, with both answers; first those with two verdicts.

    Args:
        wrong: those alone that at least one has wrong.
        task, step, limit: as of one model.
    Raises:
        UserError: there is no such run, evaluation or sample, or no question was put to both.
    """
    runs = [_samples(run, task, step) for run in (first, second)]
    found = pairs(runs[0][1], runs[1][1])
    if not found:
        tasks = [", ".join(sorted({sample.task for sample in samples})) for _, samples in runs]
        raise UserError(
            f"{first} and {second}: no question was put to both; found the tasks {tasks[0]} and {tasks[1]}; evaluate "
            "both with the same --tasks"
        )
    shown = [pair for pair in found if False in (pair[0].right, pair[1].right)] if wrong else found
    if not shown:
        raise UserError(f"{first} and {second}: none of {len(found):,} answers is wrong; leave out --wrong to see them")
    names = [_title(run, evaluation) for run, (evaluation, _) in zip((first, second), runs, strict=True)]
    console = Console(highlight=False)
    _print_comparison(console, names, found, [len(samples) for _, samples in runs])
    for pair in shown[:limit]:
        _print_question(console, pair, [first, second])
    _print_rest(console, len(shown), limit)


def _samples(run: str, task: str | None, step: int | None) -> tuple[Evaluation, list[Sample]]:
    folder = Path(run)
    if not folder.is_dir():
        raise UserError(f"{run}: there is no such run; name a run directory (runs/<name>) or a checkpoint folder")
    if not (folder / "recipe.yaml").exists() and (runs := sorted(folder.glob("*/recipe.yaml"))):
        named = ", ".join(str(recipe.parent) for recipe in runs)
        raise UserError(f"{run}: this is no run, but holds some; allowed: {named}")
    evaluation, samples = newest_evaluation(folder, task, step), read_samples(folder, task, step)
    if not samples:
        raise UserError(f"{run}: this evaluation kept no samples; evaluate it again: olmoe-ft evaluate {run}")
    return evaluation, samples


def _title(run: str, evaluation: Evaluation) -> str:
    step = "" if evaluation.step is None else f"step {evaluation.step:,}"
    when = {"before": "before training", "after": "after training"}.get(evaluation.when, "")
    return f"{run}, {', '.join(filter(None, (step, when)))}".removesuffix(", ")


def _counts(samples: Sequence[Sample]) -> str:
    verdicts = [sample.right for sample in samples]
    counts = [f"{count:,} {VERDICTS[verdict]}" for verdict in VERDICTS if (count := verdicts.count(verdict))]
    overlapping = sum(sample.overlaps for sample in samples)
    in_training = f"; {overlapping:,} of them in the training rows" if overlapping else ""
    return f"{len(samples):,} questions, {', '.join(counts)}{in_training}"


def _print_comparison(console: Console, names: list[str], found: list[Pair], totals: list[int]) -> None:
    for number, name in enumerate(names):
        alone = totals[number] - len(found)
        besides = f" (and {alone:,} that the other was not asked)" if alone else ""
        counts = _counts([pair[number] for pair in found])
        console.print(Text(printable(f"{number + 1}: {name}: {counts}{besides}"), style="bold"))
    changes = Changes.of(found)
    console.print(
        Text.assemble(
            (f"{changes.gained:,} wrong in 1 and right in 2", STYLES[True]),
            ", ",
            (f"{changes.lost:,} right in 1 and wrong in 2", STYLES[False]),
            f"; p = {changes.p_value():.2g} (McNemar's exact test)",
        )
    )


def _print_question(console: Console, samples: Sequence[Sample], runs: Sequence[str]) -> None:
    """One question with the answers of one or of two models.

    Args:
        runs: their names, where there are two. What both have in common is printed once.
    """
    console.rule(Text(printable(f"{samples[0].task} {samples[0].id}")), align="left", style="dim")
    common = Table.grid(padding=(0, 1, 0, 0))
    common.add_column(style="dim", no_wrap=True, min_width=LABEL)
    common.add_column(overflow="fold")
    table = Table(box=None, show_header=bool(runs), padding=(0, 1, 0, 0), pad_edge=False, expand=bool(runs))
    table.add_column("", style="dim", no_wrap=True, min_width=LABEL)
    for number, run in enumerate(runs or [""], 1):
        table.add_column(Text(printable(f"{number}: {run}")), overflow="fold", ratio=1 if runs else None)
    texts = {"prompt": [sample.prompt for sample in samples], "expected": [sample.expected for sample in samples]}
    for name, each in texts.items():
        if len(set(each)) == 1:
            common.add_row(name, _cut(each[0]))
        else:
            table.add_row(name, *map(_cut, each))
    table.add_row("output", *(_cut(sample.output) for sample in samples))
    table.add_row("verdict", *map(_verdict, samples))
    table.add_row("tokens", *(f"{sample.tokens:,}" for sample in samples))
    if any(sample.experts for sample in samples):
        table.add_row("busiest", *(Text(sample.busiest) for sample in samples))
    console.print(common)
    console.print(table)


def _verdict(sample: Sample) -> Text:
    values = ", ".join(f"{name} {value:g}" for name, value in sample.metrics.items())
    overlaps = "; in the training rows" if sample.overlaps else ""
    return Text.assemble((VERDICTS[sample.right], STYLES[sample.right]), printable(f" ({values}){overlaps}"))


def _cut(text: str) -> Text:
    """A text from a model or from data as it is, long ones without their middle."""
    start, end, left_out = middle_cut(text, START, END, LINES)
    shown = Text(printable(start))
    if left_out:
        shown.append(f"\n[… {left_out:,} characters are left out …]\n", style="italic dim")
        shown.append(printable(end))
    return shown if text else Text("(empty)", style="italic dim")


def _print_rest(console: Console, count: int, limit: int) -> None:
    if count > limit:
        console.print(Text(f"{limit:,} of {count:,} are shown; --limit {count} shows all", style="dim"))
