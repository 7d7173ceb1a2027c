"""Scores as a person reads them: one table, a column for each model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from olmoe_ft.data.terminal import Console, printable, say
from olmoe_ft.evaluation.contamination import Overlaps
from olmoe_ft.evaluation.score import Evaluation, Score
from olmoe_ft.evaluation.suite_table import suite_table

NOT_SHARES = ("word_perplexity", "byte_perplexity", "perplexity", "bits_per_byte", "brier_score", "mcc", "likelihood")


def print_evaluation(evaluation: Evaluation, folder: Path, overlaps: Overlaps | None = None) -> None:
    """How long it took, where the results are, and what to look at."""
    speed = f", {evaluation.tokens_per_second:,.0f} tokens/s" if evaluation.new_tokens else ""
    say(
        f"{evaluation.model}: {len(evaluation.samples):,} questions in {evaluation.seconds:.1f} s{speed}; "
        f"{folder}/evaluation.json, samples.jsonl"
    )
    print_checks(evaluation)
    for benchmark, reason in (overlaps.unknown if overlaps else {}).items():
        say(f"check: {benchmark}: which of its questions the training rows contain is not known: {reason}")


def print_checks(evaluation: Evaluation) -> None:
    """What did not fit into the model's positions."""
    for task, most in evaluation.settings["short_outputs"].items():
        say(f"check: {task}: outputs end after {most:,} tokens, as the model has only {2 * most:,} positions")
    for task, count in evaluation.settings["cut_prompts"].items():
        say(f"check: {task}: {count:,} prompts did not fit into the model's positions and lost their start")


def print_agreement(own: Evaluation, other: Evaluation) -> None:
    """How far another engine's outputs and verdicts are those of our own network on the same questions."""
    by_question = {(sample.task, sample.id): sample for sample in other.samples}
    pairs = [(one, by_question[one.task, one.id]) for one in own.samples]
    verdicts = sum(one.metrics == two.metrics for one, two in pairs)
    outputs = sum(one.output == two.output for one, two in pairs)
    say(
        f"{other.settings['engine']} beside our own network on {len(pairs):,} questions: {verdicts:,} verdicts and "
        f"{outputs:,} outputs are the same"
    )


def print_side_by_side(evaluations: Sequence[Evaluation]) -> None:
    """The scores of the tasks that were asked for, a column for each model."""
    Console().print(side_by_side(evaluations))


def print_suite(evaluations: Sequence[Evaluation]) -> None:
    """The columns of the paper's table beside its values."""
    Console().print(suite_table(evaluations))


def side_by_side(evaluations: Sequence[Evaluation]) -> Table:
    """A column for each model, and below what is known of their questions."""
    names = [one.model for one in evaluations]
    if len(set(names)) < len(names):
        names = [f"{one.model} ({number})" for number, one in enumerate(evaluations, 1)]
    table = scores_table({name: one.headline for name, one in zip(names, evaluations, strict=True)})
    table.caption = escape(printable("\n".join(_notes(evaluations))))
    return table


def scores_table(columns: Mapping[str, Sequence[Score]]) -> Table:
    """A line for each metric; a second one without the questions that are in the training rows, where there are any.

    Args:
        columns: scores by the title of their column.
    """
    table = Table(title="value ± standard error", caption_justify="left")
    for title in ("task", "metric"):
        table.add_column(title, overflow="fold")
    table.add_column("questions", justify="right")
    for title in columns:
        table.add_column(escape(printable(title)), justify="right", overflow="fold")
    by_column = [{(score.task, score.metric): score for score in scores} for scores in columns.values()]
    before = None
    for task, metric in dict.fromkeys(key for scores in by_column for key in scores):
        if before not in (None, task):
            table.add_section()
        found = [scores.get((task, metric)) for scores in by_column]
        name = escape(printable(task)) if task != before else ""
        counts = sorted({score.n for score in found if score is not None})
        shown = [shown_value(score) if score else "" for score in found]
        table.add_row(name, escape(printable(metric)), " / ".join(f"{count:,}" for count in counts), *shown)
        if any(score is not None and score.clean_n not in (None, score.n) for score in found):
            clean = [_clean(score) if score else "" for score in found]
            table.add_row("", "  without those in the training rows", "", *clean, style="dim")
        before = task
    return table


def _notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """What makes values differ beside the models, and what is known of questions in the training rows."""
    lines = []
    if len({one.settings["template"] for one in evaluations}) > 1:
        lines.append("check: the models have different chat templates, which can move scores more than training does")
    questions: dict[str, set[str]] = {}
    for one in evaluations:
        for task, asked in one.settings["questions"].items():
            questions.setdefault(task, set()).add(asked)
    if different := [task for task, asked in questions.items() if len(asked) > 1]:
        lines.append(f"check: the models were not asked the same in {', '.join(different)}")
    for one in evaluations:
        known = {score.task: score for score in one.headline if score.clean_n is not None}
        if none := [task for task, score in known.items() if score.clean_n == score.n]:
            lines.append(f"{one.model}: no question of {', '.join(none)} is in its training rows")
    return lines


def is_share(score: Score) -> bool:
    """Whether a value is a share of 1, which is shown as percent."""
    return score.metric.partition("/")[0] not in NOT_SHARES and 0 <= score.value <= 1


def shown_value(score: Score) -> str:
    """`41.2% ± 1.3`; of what is no share, the number. An error of 0 is left out: where all answers are right, or all
    wrong, their spread says nothing of how far the share may be off."""
    share = is_share(score)
    factor = 100 if share else 1
    error = "" if not score.stderr else f" ± {factor * score.stderr:.1f}"
    return f"{factor * score.value:.1f}{'%' if share else ''}{error}"


def _clean(score: Score) -> str:
    if score.clean_n is None:
        return "not known"
    if score.clean_value is None:
        return "all are there"
    return f"{shown_value(replace(score, value=score.clean_value, stderr=None))} of {score.clean_n:,}"
