"""The section on answers before and after training."""

import pytest
from support.evaluations import evaluation, sample
from support.run_folders import make_run

from olmoe_ft.report.answers import CUT, SHOWN, samples

# verdicts before and after: 10 gained, 2 lost, 40 still wrong, 8 still right
VERDICTS = [(False, True)] * 10 + [(True, False)] * 2 + [(False, False)] * 40 + [(True, True)] * 8


def run_with(folder, *times):
    """Of each time a list of verdicts."""
    return make_run(
        folder,
        evaluations=[
            evaluation(when, step, [sample(number, right=right) for number, right in enumerate(rights)])
            for when, step, rights in times
        ],
    )


@pytest.fixture
def section(tmp_path):
    before, after = ([pair[time] for pair in VERDICTS] for time in (0, 1))
    return samples(run_with(tmp_path / "x", ("before", 0, before), ("after", 9, after)))


def test_all_kinds_are_counted(section):
    """12 changes, 2 of them losses: p = 2 (1 + 12 + 66) / 2^12 = 0.0386 (McNemar)."""
    assert section.lead == (
        "Of 60 questions that were put before and after training: 10 gained, 2 lost, 40 still wrong, 8 still right. "
        "Gained against lost, by McNemar's exact test: p = 0.039."
    )


def test_all_kinds_are_seen(section):
    """24 of four kinds are 6 each; two were lost, so that the three others share 22: 8, 7 and 7."""
    [block] = section.blocks
    notes = [question.note for question in block.questions]
    assert len(notes) == SHOWN and block.note == "24 of 60 questions, evenly from each kind."
    assert [notes.count(kind) for kind in ("gained", "lost", "still wrong", "still right")] == [8, 2, 7, 7]
    for question in block.questions:
        before, after = question.answers
        assert (before.label, after.label) == ("before", "after")
        verdicts = {"gained": (False, True), "lost": (True, False)}
        assert (before.right, after.right) == verdicts.get(question.note, (before.right,) * 2)


def test_they_are_from_all_over_their_kind(section):
    """7 of the 40 that are still wrong, numbers 12 to 51: every 40/7th."""
    [block] = section.blocks
    wrong = [question.prompt for question in block.questions if question.note == "still wrong"]
    numbers = [12 + place * 40 // 7 for place in range(7)]
    assert wrong == [f"<|user|>\nWhat is {number} + {number}?\n<|assistant|>\n" for number in numbers]


@pytest.mark.parametrize(("when", "other"), [("before", "after"), ("after", "before")])
def test_one_time_alone(tmp_path, when, other):
    section = samples(run_with(tmp_path / "x", (when, 3, [True, False, None])))
    assert section.title == f"Answers {when} training"
    assert section.lead == (
        f"3 questions that were put {when} training: 1 wrong, 1 right, 1 not judged. There are no answers of {other} "
        "training."
    )
    [block] = section.blocks
    assert [[answer.label for answer in question.answers] for question in block.questions] == [[when]] * 3
    assert block.note == "All 3 questions."


def test_long_texts_and_questions_in_the_training_rows(tmp_path):
    ones = [sample(1, output="x" * (CUT + 1000), overlaps=True)]
    run = make_run(tmp_path / "x", evaluations=[evaluation("after", 1, ones)])
    [question] = samples(run).blocks[0].questions
    assert question.note == "in the training rows" and question.expected == "2"
    half = "x" * (CUT // 2)
    assert question.answers[0].text == f"{half}\n[… 1,000 characters are left out …]\n{half}"


def test_answers_that_nobody_judged_have_no_p_value(tmp_path):
    section = samples(run_with(tmp_path / "x", ("before", 0, [None]), ("after", 1, [None])))
    assert section.lead.endswith("0 gained, 0 lost, 0 still wrong, 0 still right, 1 not judged.")


def test_damaged_samples_are_left_out_and_named(tmp_path):
    run = run_with(tmp_path / "x", ("after", 1, [True, False]))
    (run.path / "samples.jsonl").write_text((run.path / "samples.jsonl").read_text().splitlines()[0] + "\n")
    assert samples(run) is None and "found 1 of 2 samples" in run.unreadable[0]


def test_a_run_without_samples(tmp_path):
    assert samples(make_run(tmp_path / "x")) is None
