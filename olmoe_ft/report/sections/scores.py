"""The section on what the model scores before, during and after training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from olmoe_ft.evaluation.score import Evaluation, Score
from olmoe_ft.evaluation.table import shown_value
from olmoe_ft.report.comparison.fisher import FISHER
from olmoe_ft.report.comparison.measured import WHY
from olmoe_ft.report.comparison.significance import METHODS, shown_p
from olmoe_ft.report.files.evaluated import TIMES, Evaluated, Measured, Time, limit_of
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.page.blocks import Block, Cell, Column, Fold, Section, Table, Tone
from olmoe_ft.report.sections.score_changes import Change, Key, changes, key_of, measured_since

OTHERS = "Other evaluations by command"
ADJUSTED = (
    " The p of each task's first metric is adjusted for the number of tasks (Holm 1979); other metrics have no colour."
)
NOTE = (
    "Value ± standard error. The difference is that of after and before, with its own standard error: paired where "
    f"the same questions were put both times and their samples are kept. {METHODS} Unpaired: a z test, or {FISHER} "
    "where all are right or all are wrong. Green is better and red is worse by more than chance; no colour where it is "
    "not known whether more is better."
)


def scores(run: RunFiles) -> Section | None:
    """Scores of the tasks that were asked for, those of group members in a fold; None without any."""
    evaluated = run.evaluated
    at = {when: found for when in TIMES if (found := evaluated.scores(when))}
    others = [_others(evaluated)] if evaluated.others else []
    if not at:
        return Section("scores", "Scores", others, _lead(evaluated)) if others else None
    changed = {key_of(change.after): change for change in changes(run)}
    own = {when: [score for score in ones if score.task in evaluated.headline] for when, ones in at.items()}
    members = {when: [score for score in ones if score.task not in evaluated.headline] for when, ones in at.items()}
    remark = f" After training: {otherwise}, {WHY}." if (otherwise := measured_since(run)) else ""
    blocks: list[Block] = [_table("Scores", own, evaluated, changed, NOTE + ADJUSTED + remark)]
    if any(members.values()):
        blocks.append(Fold("Members of the groups", [_table("Members of the groups", members, evaluated, changed)]))
    if (cut := _cut(evaluated)) is not None:
        blocks.append(cut)
    return Section("scores", "Scores", [*blocks, *others], _lead(evaluated))


def _lead(evaluated: Evaluated) -> str:
    missing = [when for when in ("before", "after") if not evaluated.scores(when)]
    if not missing:
        return ""
    text = f"No evaluation of {' or of '.join(f'{when} training' for when in missing)} was found"
    if missing == ["after"] and evaluated.latest == "training":
        return f"{text}; the difference is that of {evaluated.title('training')} and before."
    return f"{text}, so there is no difference to show."


def _others(evaluated: Evaluated) -> Fold:
    """What was evaluated by command beside the scores after training: of other steps, with a limit, or once more."""
    rows: list[list[Cell | str]] = []
    for one, found in evaluated.others:
        step, limit = "" if one.step is None else f"{one.step:,}", limit_of(one)
        how = ["" if limit is None else f"{limit:,}", str(one.settings.get("engine") or "")]
        rows += [[f"{score.task}: {score.metric}", step, f"{score.n:,}", *how, shown_value(score)] for score in found]
    numbers = [Column(name, number=True) for name in ("step", "questions", "limit")]
    columns = [Column("task: metric"), *numbers, Column("engine"), Column("value", number=True)]
    return Fold(OTHERS, [Table(OTHERS, columns, rows, "The newest first. Not shown as after training.")])


def _table(
    title: str, at: dict[Time, list[Score]], evaluated: Evaluated, found: dict[Key, Change], note: str = ""
) -> Table:
    """A line for each metric; a second one without the questions that are in the training rows, where there are any."""
    by_time = {when: {key_of(score): score for score in ones} for when, ones in at.items()}
    rows: list[list[Cell | str]] = []
    for key in dict.fromkeys(key for scores in by_time.values() for key in scores):
        line = {when: by_time[when].get(key) for when in at}
        known = [score for score in line.values() if score is not None]
        counts = " / ".join(f"{count:,}" for count in sorted({score.n for score in known if score.n}))
        shown = [_value(score, evaluated.at(when)) for when, score in line.items()]
        rows.append([f"{key[0]}: {key[1]}", counts, *shown, _difference(found.get(key))])
        if any(score.clean_n not in (None, score.n) for score in known):
            rows.append(["  without those in the training rows", "", *map(_clean, line.values()), ""])
    names = [*map(evaluated.title, at), "difference"]
    return Table(
        title,
        [Column("task: metric"), Column("questions", number=True), *(Column(name, number=True) for name in names)],
        rows,
        note,
    )


def _value(score: Score | None, measured: Mapping[str, Measured]) -> Cell | str:
    if score is None:
        return ""
    how = measured[score.task].how
    return Cell(shown_value(score), how) if how else shown_value(score)


def _difference(change: Change | None) -> Cell:
    if change is None:
        return Cell("")
    if change.difference is None:
        return Cell("", change.how)
    factor, unit = (100, " points") if change.share else (1, "")
    error = "" if not change.stderr else f" ± {factor * change.stderr:.1f}"
    parts = [*shown_chance(change), change.how]
    return Cell(f"{factor * change.difference:+.1f}{unit}{error}", ", ".join(parts), _tone(change))


def shown_chance(change: Change) -> list[str]:
    """`p = 0.031`; where it is one of several, `adjusted p = 0.062`, or that it is not."""
    if change.p is None:
        return []
    if change.adjusted is None:
        return [shown_p(change.p), "not adjusted"] if change.difference else []
    return [shown_p(change.p)] if change.adjusted == change.p else [f"adjusted {shown_p(change.adjusted)}"]


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


def _cut(evaluated: Evaluated) -> Table | None:
    found = [(when, cut) for when in TIMES for one in evaluated.used(when) for cut in cut_off(one)]
    rows: Sequence[Sequence[str]] = [[evaluated.title(when), *cut] for when, cut in dict.fromkeys(found)]
    columns = [Column("when"), Column("task"), Column("what")]
    return Table("What did not fit into the network's positions", columns, rows) if rows else None
