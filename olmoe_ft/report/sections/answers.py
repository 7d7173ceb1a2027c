"""The section on what the model said before and after training."""

from collections.abc import Sequence
from typing import TypeVar

from olmoe_ft.evaluation.paired import Changes, Pair, pairs
from olmoe_ft.evaluation.score import Sample
from olmoe_ft.report.comparison.significance import shown_p
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.page.blocks import Answer, Question, Questions, Section
from olmoe_ft.report.texts import Long

SHOWN = 24  # questions: all kinds are seen, and a page is read in minutes
CUT = 1500  # characters of a text
KINDS = {  # by the verdicts before and after
    (False, True): "gained",
    (True, False): "lost",
    (False, False): "still wrong",
    (True, True): "still right",
}
NOT_JUDGED = "not judged"
T = TypeVar("T")
ALONE = {True: "right", False: "wrong", None: NOT_JUDGED}


def samples(run: RunFiles) -> Section | None:
    """Questions with the answers of both times, or of the one that there is; None without samples."""
    evaluated = run.evaluated
    found, latest = evaluated.samples, evaluated.latest
    both = pairs(found.get("before", []), found.get(latest, []))
    if both:
        return _side_by_side(both, evaluated.title(latest))
    for when in (latest, "before"):
        if found.get(when):
            return _alone(evaluated.title(when), found[when])
    return None


def _side_by_side(both: list[Pair], later: str) -> Section:
    """Of before training and a later time."""
    by_kind: dict[str, list[Pair]] = {kind: [] for kind in (*KINDS.values(), NOT_JUDGED)}
    for pair in both:
        verdicts = pair[0].right, pair[1].right
        kind = NOT_JUDGED if None in verdicts else KINDS[bool(verdicts[0]), bool(verdicts[1])]
        by_kind[kind].append(pair)
    counts = ", ".join(f"{len(ones):,} {kind}" for kind, ones in by_kind.items() if ones or kind != NOT_JUDGED)
    questions = [_question(pair, ("before", later), kind) for kind, ones in _chosen(by_kind).items() for pair in ones]
    when = "before and after training" if later == "after" else f"before training and at {later}"
    lead = f"Of {len(both):,} questions that were put {when}: {counts}."
    if len(by_kind[NOT_JUDGED]) < len(both):
        lead += f" Gained against lost, by McNemar's exact test: {shown_p(Changes.of(both).p_value())}."
    return Section(
        "samples", f"Answers before and {_at(later)}", [Questions("Answers", questions, _of(questions, both))], lead
    )


def _alone(when: str, ones: list[Sample]) -> Section:
    by_kind: dict[str, list[Sample]] = {kind: [] for kind in (ALONE[False], ALONE[True], ALONE[None])}
    for sample in ones:
        by_kind[ALONE[sample.right]].append(sample)
    counts = ", ".join(f"{len(of_kind):,} {kind}" for kind, of_kind in by_kind.items() if of_kind)
    questions = [_question((sample,), (when,), "") for of_kind in _chosen(by_kind).values() for sample in of_kind]
    other = "after" if when == "before" else "before"
    time = f"{when} training" if when in ("before", "after") else _at(when)
    lead = f"{len(ones):,} questions that were put {time}: {counts}. There are no answers of {other} training."
    return Section("samples", f"Answers {time}", [Questions("Answers", questions, _of(questions, ones))], lead)


def _at(when: str) -> str:
    return when if when == "after" else f"at {when}"


def _chosen(by_kind: dict[str, list[T]]) -> dict[str, list[T]]:
    """At most SHOWN, as equally many of each kind as there are, evenly from each kind's first to its last."""
    quotas = dict.fromkeys(by_kind, 0)
    while sum(quotas.values()) < SHOWN:
        open_kinds = [kind for kind, ones in by_kind.items() if quotas[kind] < len(ones)]
        if not open_kinds:
            break
        for kind in open_kinds[: SHOWN - sum(quotas.values())]:
            quotas[kind] += 1
    return {
        kind: [ones[place * len(ones) // quotas[kind]] for place in range(quotas[kind])]
        for kind, ones in by_kind.items()
    }


def _question(ones: Sequence[Sample], labels: Sequence[str], kind: str) -> Question:
    first = ones[0]
    in_training = "in the training rows" if any(one.overlaps for one in ones) else ""
    return Question(
        task=first.task,
        prompt=Long(first.prompt, CUT),
        expected=Long(first.expected, CUT),
        answers=[Answer(label, Long(one.output, CUT), one.right) for label, one in zip(labels, ones, strict=True)],
        note="; ".join(filter(None, (kind, in_training))),
    )


def _of(shown: Sequence[Question], all_of_them: Sequence[object]) -> str:
    if len(shown) == len(all_of_them):
        return f"All {len(shown):,} questions."
    return f"{len(shown):,} of {len(all_of_them):,} questions, evenly from each kind."
