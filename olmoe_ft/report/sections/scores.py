"""The section on what the model scores before, during and after training."""

from collections.abc import Sequence
from dataclasses import replace

from olmoe_ft.evaluation.score import Evaluation, Score
from olmoe_ft.evaluation.table import shown_value
from olmoe_ft.report.comparison.measured import WHY
from olmoe_ft.report.comparison.significance import METHODS, shown_p
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.page.blocks import Block, Cell, Column, Fold, Section, Table, Tone
from olmoe_ft.report.sections.score_changes import Change, Key, changes, key_of, measured_since, scores_at

TIMES = ("before", "training", "after")
NOTE = (
    "Value ± standard error. The difference is that of after and before, with its own standard error: paired where "
    f"the same questions were put both times and their samples are kept. {METHODS} Unpaired: a z test. Green is better "
    "and red is worse by more than chance; no colour where it is not known whether more is better."
)


def scores(run: RunFiles) -> Section | None:
    """Scores of the tasks that were asked for, those of group members in a fold; None without any."""
    at = {when: found for when in TIMES if (found := scores_at(run, when))}
    if not at:
        return None
    evaluations = {when: one for when in at if (one := newest(run, when)) is not None}
    headline = {task for one in evaluations.values() for task in one.settings["tasks"]} or {
        score.task for found in at.values() for score in found
    }
    changed = {key_of(change.after): change for change in changes(run)}
    columns = {when: _title(when, evaluations.get(when)) for when in at}
    own = {when: [score for score in ones if score.task in headline] for when, ones in at.items()}
    members = {when: [score for score in ones if score.task not in headline] for when, ones in at.items()}
    remark = f" After training: {otherwise}, {WHY}." if (otherwise := measured_since(run)) else ""
    blocks: list[Block] = [_table("Scores", own, columns, changed, NOTE + remark)]
    if any(members.values()):
        blocks.append(Fold("Members of the groups", [_table("Members of the groups", members, columns, changed)]))
    if (cut := _cut(evaluations)) is not None:
        blocks.append(cut)
    return Section("scores", "Scores", blocks, _lead(at))


def newest(run: RunFiles, when: str) -> Evaluation | None:
    """The newest evaluation of a time: before, after, or between steps."""
    if when != "training":
        return run.evaluation(when)
    return next((one for one in reversed(run.evaluations) if one.when == when), None)


def _lead(at: dict[str, list[Score]]) -> str:
    if "before" in at and "after" in at:
        return ""
    missing = [f"{when} training" for when in ("before", "after") if when not in at]
    return f"No evaluation of {' or of '.join(missing)} was found, so there is no difference to show."


def _title(when: str, evaluation: Evaluation | None) -> str:
    if when != "training":
        return when
    return "between" if evaluation is None or evaluation.step is None else f"step {evaluation.step:,}"


def _table(
    title: str, at: dict[str, list[Score]], columns: dict[str, str], found: dict[Key, Change], note: str = ""
) -> Table:
    """A line for each metric; a second one without the questions that are in the training rows, where there are any."""
    by_time = {when: {key_of(score): score for score in ones} for when, ones in at.items()}
    rows: list[list[Cell | str]] = []
    for key in dict.fromkeys(key for scores in by_time.values() for key in scores):
        line = {when: by_time[when].get(key) for when in columns}
        known = [score for score in line.values() if score is not None]
        counts = " / ".join(f"{count:,}" for count in sorted({score.n for score in known}))
        shown: list[Cell | str] = [shown_value(score) if score is not None else "" for score in line.values()]
        rows.append([f"{key[0]}: {key[1]}", counts, *shown, _difference(found.get(key))])
        if any(score.clean_n not in (None, score.n) for score in known):
            rows.append(["  without those in the training rows", "", *map(_clean, line.values()), ""])
    names = [*columns.values(), "difference"]
    return Table(
        title,
        [Column("task: metric"), Column("questions", number=True), *(Column(name, number=True) for name in names)],
        rows,
        note,
    )


def _difference(change: Change | None) -> Cell:
    if change is None:
        return Cell("")
    if change.difference is None:
        return Cell("", change.how)
    factor, unit = (100, " points") if change.share else (1, "")
    error = "" if change.stderr is None else f" ± {factor * change.stderr:.1f}"
    p = "" if change.p is None else f"{shown_p(change.p)}, "
    return Cell(f"{factor * change.difference:+.1f}{unit}{error}", f"{p}{change.how}", _tone(change))


def _tone(change: Change) -> Tone:
    """Only of a metric of which it is known whether more is better, and where chance is unlikely."""
    if not change.significant or change.better is None:
        return ""
    return "good" if change.better else "bad"


def _clean(score: Score | None) -> Cell:
    if score is None:
        return Cell("")
    if score.clean_n is None:
        return Cell("not known")
    if score.clean_value is None:
        return Cell("all are there", tone="warn")
    return Cell(shown_value(replace(score, value=score.clean_value, stderr=None)), f"of {score.clean_n:,}", "warn")


def cut_off(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Tasks, and what of them did not fit into the network's positions."""
    prompts, outputs = (evaluation.settings.get(name, {}) for name in ("cut_prompts", "short_outputs"))
    return [
        *((task, f"{count:,} prompts lost their start") for task, count in prompts.items()),
        *((task, f"outputs end after {most:,} tokens, and the task wants more") for task, most in outputs.items()),
    ]


def _cut(evaluations: dict[str, Evaluation]) -> Table | None:
    rows: Sequence[Sequence[str]] = [
        [_title(when, one), task, what] for when, one in evaluations.items() for task, what in cut_off(one)
    ]
    columns = [Column("when"), Column("task"), Column("what")]
    return Table("What did not fit into the network's positions", columns, rows) if rows else None
