"""Findings on the rows that a run was trained on, and on its scores."""

from collections.abc import Iterator

from olmoe_ft.evaluation.table import shown_value
from olmoe_ft.report.comparison.measured import WHY
from olmoe_ft.report.files.data_report import DataReport, data_report
from olmoe_ft.report.files.evaluated import Time
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.page.blocks import Finding
from olmoe_ft.report.sections.score_changes import Change, changes, measured_since
from olmoe_ft.report.sections.scores import cut_off, shown_chance

SENTENCES = 12  # of the data report that are listed: a mixture of many sources would push all else off the page
REMEDY = "data.decontaminate"  # in sentences on held-out questions, which are summed up here by themselves
TASKS = 6  # whose scores rose, and those that fell, by name


def of_data(run: RunFiles) -> Iterator[Finding]:
    """What the audit found; rows with held-out questions are worse than the rest, since scores are then too high."""
    report = data_report(run)
    if report is None:
        return
    parts = [("", report)] if report.evaluation is None else [("", report), ("evaluation rows: ", report.evaluation)]
    sentences = [
        f"{where}{sentence}"
        for where, part in parts
        for sentence in part.findings or _dropped(part)
        if REMEDY not in sentence
    ]
    for sentence in sentences[:SENTENCES]:
        yield Finding("warn", sentence, "data")
    if len(sentences) > SENTENCES:
        yield Finding(
            "warn", f"{len(sentences) - SENTENCES:,} more findings on the rows are in data_report.json", "data"
        )
    for group in report.groups:
        found = [source.overlaps[group] for source in report.sources if group in source.overlaps]
        if kept := sum(one.kept for one in found):
            yield Finding("bad", f"{kept:,} rows that were trained on contain questions of {group}", "data")


def _dropped(report: DataReport) -> list[str]:
    """Of a report without findings."""
    return [
        f"{source.path}: {source.lost:,} of {source.rows:,} rows are dropped"
        for source in report.sources
        if source.lost
    ]


def of_scores(run: RunFiles) -> Iterator[Finding]:
    """The first metric of each task that was asked for: what became better or worse beyond chance, and what its scores
    do not cover."""
    found, evaluated = changes(run), run.evaluated
    certain = [change for change in found if change.significant]
    at = f" at {evaluated.title('training')}" if evaluated.latest == "training" else ""
    for better in (False, True):
        ones = [change for change in certain if change.better is better]
        for change in ones[:TASKS]:
            yield Finding("good" if better else "bad", _sentence(change, at), "scores")
        if len(ones) > TASKS:
            what = "better" if better else "worse"
            yield Finding("good" if better else "bad", f"{len(ones) - TASKS} more tasks became {what}", "scores")
    if found and (otherwise := measured_since(run)):
        yield Finding("warn", f"after training it was evaluated with {otherwise}, {WHY}", "scores")
    yield from _seen_questions(run)
    times: tuple[Time, ...] = ("before", evaluated.latest)
    for time in times:
        when = evaluated.title(time) if time == "training" else f"{time} training"
        for task, what in dict.fromkeys(cut for one in evaluated.used(time) for cut in cut_off(one)):
            yield Finding("warn", f"{task}, {when}: {what}", "scores")


def _sentence(change: Change, at: str) -> str:
    score = change.after
    verb = "rose" if change.difference and change.difference > 0 else "fell"
    values = f"from {shown_value(change.before)} to {shown_value(score)}"
    chance = ", ".join([*shown_chance(change), change.how])
    return f"{score.task}: {score.metric} {verb} {values}{at} ({chance})"


def _seen_questions(run: RunFiles) -> Iterator[Finding]:
    for score in run.evaluated.asked(run.evaluated.latest):
        if score.clean_n is not None and score.clean_n < score.n:
            seen = f"{score.n - score.clean_n:,} of {score.n:,} questions are in the training rows"
            yield Finding("bad", f"{score.task}: {score.metric}: {seen}", "scores")
