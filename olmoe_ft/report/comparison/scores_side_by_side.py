"""The section of several runs' scores: values, differences from the first run, and how sure these are."""

from collections.abc import Sequence
from dataclasses import replace

from olmoe_ft.evaluation.score import Score
from olmoe_ft.evaluation.table import shown_value
from olmoe_ft.report.comparison.compared_scores import ComparedScores, Key, Tested
from olmoe_ft.report.comparison.measured import WHY
from olmoe_ft.report.comparison.recipe_differences import by_run
from olmoe_ft.report.comparison.significance import LEVEL, METHODS, shown_p
from olmoe_ft.report.page.blocks import Block, Cell, Column, Fold, Section, Table, Tone


def scores_section(scores: ComparedScores) -> Section | None:
    """None where no run was evaluated after its steps."""
    if not scores.keys:
        return None
    runs = scores.runs
    rows: list[tuple[str, Sequence[Cell]]] = []
    for key in scores.keys:
        rows.append((" ".join(key), [value_cell(scores, place, key) for place in range(len(runs))]))
        if any(_overlaps(scores.score(place, key)) for place in range(len(runs))):
            cells = [_clean_cell(scores.score(place, key)) for place in range(len(runs))]
            rows.append((f"{' '.join(key)}, without questions in the training rows", cells))
    blocks: list[Block] = [by_run("Scores", "task and metric", rows, runs, _note(scores))]
    if scores.tests:
        blocks.append(Fold("Every comparison", [_comparisons(scores)]))
    return Section("scores", "Scores", blocks, _lead(scores))


def value_cell(scores: ComparedScores, place: int, key: Key, alone: bool = False) -> Cell:
    """A run's value with its standard error.

    Args:
        alone: without how it differs from the first run's.
    """
    if (score := scores.score(place, key)) is None:
        return Cell("", "not evaluated" if key[0] not in scores.evaluations[place] else "")
    value, _, error = shown_value(score).partition(" ± ")
    against = "" if alone else _against_first(scores, place, key)
    notes = [f"± {error}" if error else "", against]
    return Cell(value, "; ".join(note for note in notes if note), tone_of(scores, place, key))


def p_cell(scores: ComparedScores, place: int, key: Key) -> Cell:
    """The p-value alone."""
    if scores.score(place, key) is None or not place:
        return Cell("")
    if scores.apart(place, key[0]):
        return Cell("not comparable", tone="warn")
    if (tested := scores.tests.get((place, key))) is None:
        return Cell("")
    notes = [f"adjusted {tested.adjusted:.2g}"] if len(scores.tests) > 1 else []
    if remark := scores.remark(place, key[0]):
        notes.append(remark)
    shown = shown_p(tested.difference.p).removeprefix("p = ").removeprefix("p ")
    return Cell(shown, "; ".join(notes), "warn" if remark else "")


def _against_first(scores: ComparedScores, place: int, key: Key) -> str:
    if apart := scores.apart(place, key[0]):
        return apart
    notes = [scores.remark(place, key[0])]
    if (tested := scores.tests.get((place, key))) is not None:
        adjusted = f" (adjusted {tested.adjusted:.2g})" if len(scores.tests) > 1 else ""
        notes.insert(0, f"{shown_p(tested.difference.p)}{adjusted}")
    return "; ".join(note for note in notes if note)


def tone_of(scores: ComparedScores, place: int, key: Key) -> Tone:
    """Good where a run is better than the first one by more than chance, bad where it is worse; neither where it is not
    known whether more is better."""
    tested, higher = scores.tests.get((place, key)), scores.higher_is_better(key)
    if tested is None or higher is None or tested.adjusted >= LEVEL or not tested.difference.value:
        return ""
    return "good" if (tested.difference.value > 0) == higher else "bad"


def size_of(tested: Tested) -> str:
    """How large a difference is; in points of a percentage where the metric is right or wrong."""
    size = abs(tested.difference.value)
    return f"{size:.4g}" if tested.difference.changes is None else f"{100 * size:.1f} points"


def _comparisons(scores: ComparedScores) -> Table:
    names = ("task", "metric", "run")
    numbers = ("minus the first", "± standard error", "gained", "lost", "questions", "p", "adjusted p")
    columns = [*map(Column, names), *(Column(name, number=True) for name in numbers), Column("test")]
    rows = [_comparison(scores, place, key, tested) for (place, key), tested in scores.tests.items()]
    note = f"Each run against {scores.runs[0].label}. {METHODS}"
    return Table("Every comparison", columns, rows, note)


def _comparison(scores: ComparedScores, place: int, key: Key, tested: Tested) -> list[Cell | str]:
    one = tested.difference
    changes = [f"{one.changes.gained:,}", f"{one.changes.lost:,}"] if one.changes is not None else ["", ""]
    figures = [f"{one.value:+.4f}", f"{one.stderr:.4f}", *changes, f"{one.questions:,}", f"{one.p:.2g}"]
    adjusted = Cell(f"{tested.adjusted:.2g}", tone=tone_of(scores, place, key))
    return [*key, scores.runs[place].label, *figures, adjusted, Cell(one.method, scores.remark(place, key[0]))]


def _lead(scores: ComparedScores) -> str:
    return (
        f"Value ± standard error after training. p is of the difference from {scores.runs[0].label}, on the same "
        "questions; green is better and red is worse by more than chance. Without a colour is what is neither, or of "
        "which it is not known whether more is better."
    )


def _note(scores: ComparedScores) -> str:
    notes = []
    if scores.tests:
        notes.append(METHODS)
    if len(scores.tests) > 1:
        notes.append(f"Adjusted: by Holm's correction for all {len(scores.tests)} comparisons.")
    places = range(1, len(scores.runs))
    if any(scores.score(place, key) and (place, key) not in scores.tests for place in places for key in scores.keys):
        notes.append("No p: it was not asked the same, the first run lacks it, or samples do not hold this metric.")
    notes += [f"{label}: {remark}, {WHY}." for label, remark in remarks(scores)]
    steps = {
        one.label: sorted({evaluation.step for evaluation in found.values() if evaluation.step is not None})
        for one, found in zip(scores.runs, scores.evaluations, strict=True)
    }
    notes += [
        f"{one.label}: evaluated at step {steps[one.label][0]:,} of {one.run.metrics.last_step:,}."
        for one in scores.runs
        if steps[one.label] and steps[one.label][0] < one.run.metrics.last_step
    ]
    return " ".join(notes)


def remarks(scores: ComparedScores) -> list[tuple[str, str]]:
    """Runs that were measured otherwise than the first one, by their labels, and how."""
    tasks = dict.fromkeys(task for task, _ in scores.keys)
    found = [(one.label, scores.remark(place, task)) for place, one in enumerate(scores.runs) for task in tasks]
    return [(label, remark) for label, remark in dict.fromkeys(found) if remark]


def _overlaps(score: Score | None) -> bool:
    return score is not None and score.clean_n not in (None, score.n)


def _clean_cell(score: Score | None) -> Cell:
    if score is None or score.clean_n is None:
        return Cell("", "not known")
    if score.clean_value is None:
        return Cell("", "all are there")
    return Cell(shown_value(replace(score, value=score.clean_value, stderr=None)), f"of {score.clean_n:,}")
