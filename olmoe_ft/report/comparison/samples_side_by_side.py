"""The section of samples: the same questions and what each run answers, those with different verdicts first."""

from collections.abc import Iterator, Sequence

from olmoe_ft.report.comparison.compared_scores import AskedOfAll, ComparedScores
from olmoe_ft.report.page.blocks import Answer, Question, Questions, Section
from olmoe_ft.report.texts import cut

SHOWN = 24
ALIKE = 4  # of them at least, where there are any, on which all runs agree
TEXT = 300_000  # characters of all answers together, so that a page of fifty runs stays small

Verdicts = tuple[tuple[int, bool | None], ...]  # of the runs that were asked, by their places


def samples_section(scores: ComparedScores) -> Section | None:
    """None where no question was put to two runs."""
    shared = [one for ones in scores.questions.values() for one in ones if len(one.answers) > 1]
    if not shared:
        return None
    shown = select(shared)
    differing = sum(_differs(one) for one in shared)
    note = (
        f"Of {len(shared):,} questions that two runs or more were asked, {differing:,} have different verdicts; "
        f"{len(shown):,} are shown."
    )
    questions = [_question(scores, one, max(100, TEXT // (len(shown) * len(scores.runs)))) for one in shown]
    lead = "First the questions that one run has right and another one wrong."
    return Section("samples", "Samples side by side", [Questions("Samples", questions, note)], lead)


def select(questions: Sequence[AskedOfAll]) -> list[AskedOfAll]:
    """Some of each task and of each pattern of verdicts, in turns; first those whose verdicts differ."""
    differing = list(_in_turns([one for one in questions if _differs(one)]))
    alike = list(_in_turns([one for one in questions if not _differs(one)]))
    first = differing[: max(SHOWN - len(alike), SHOWN - ALIKE)]
    return [*first, *alike[: SHOWN - len(first)]]


def _in_turns(questions: Sequence[AskedOfAll]) -> Iterator[AskedOfAll]:
    groups: dict[tuple[str, Verdicts], list[AskedOfAll]] = {}
    for one in questions:
        groups.setdefault((one.task, _verdicts(one)), []).append(one)
    for turn in range(max(map(len, groups.values()), default=0)):
        yield from (ones[turn] for ones in groups.values() if len(ones) > turn)


def _verdicts(question: AskedOfAll) -> Verdicts:
    return tuple((place, sample.right) for place, sample in question.answers.items())


def _differs(question: AskedOfAll) -> bool:
    return len({sample.right for sample in question.answers.values()}) > 1


def _question(scores: ComparedScores, one: AskedOfAll, length: int) -> Question:
    first = next(iter(one.answers.values()))
    answers = [
        Answer(scores.runs[place].label, cut(sample.output, length), sample.right)
        for place, sample in one.answers.items()
    ]
    overlapping = [scores.runs[place].label for place, sample in one.answers.items() if sample.overlaps]
    note = f"In the training rows of {', '.join(overlapping)}." if overlapping else ""
    return Question(first.task, first.prompt, first.expected, answers, note)
