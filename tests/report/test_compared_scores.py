"""Scores of several runs: which evaluations are compared, with which p-values, and which are not."""

import pytest
from support.evaluations import sample
from support.side_by_side import asked, run_of

from olmoe_ft.report.comparison.compared import labelled
from olmoe_ft.report.comparison.compared_scores import ComparedScores
from olmoe_ft.report.comparison.comparison import comparison, summary_of
from olmoe_ft.report.comparison.samples_side_by_side import ALIKE, SHOWN, samples_section, select
from olmoe_ft.report.comparison.scores_side_by_side import scores_section
from olmoe_ft.report.page.blocks import Fold, Table

SUMS, POEMS = ("sums", "exact_match"), ("poems", "chrf")


def sums(wrong, count=6):
    return [sample(number, right=number not in wrong) for number in range(count)]


def poems(*values):
    return [
        sample(number, "poems", right=None, metrics={"chrf": value}, document=f"poem {number}")
        for number, value in enumerate(values)
    ]


def scores_of(tmp_path, *evaluations):
    """Of runs a, b, ... with these evaluations each."""
    runs = [run_of(tmp_path / name, evaluations=ones) for name, ones in zip("abcdef", evaluations, strict=False)]
    return ComparedScores(labelled(runs))


def test_p_values_and_their_correction(tmp_path):
    """Against `a`, all six wrong. `b` has 5 of 6 right: five changes one way, p = 2 / 2^5 = 0.0625. `c` has all: p =
    2 / 2^6 = 0.03125. Poems of `b` are 1, 2, 3 better: p = 2 / 2^3 = 0.25. Holm of three: c 3 x 0.03125 = 0.09375; b
    2 x 0.0625 = 0.125; poems 0.25."""
    wrong = asked([*sums(range(6)), *poems(1.0, 1.0, 1.0)])
    better = asked([*sums({0}), *poems(2.0, 3.0, 4.0)])
    scores = scores_of(tmp_path, [wrong], [better], [asked(sums(()))])
    found = {place: (tested.difference.p, tested.adjusted) for place, tested in scores.tests.items()}
    assert found == {
        (1, SUMS): pytest.approx((0.0625, 0.125)),
        (2, SUMS): pytest.approx((0.03125, 0.09375)),
        (1, POEMS): (0.25, 0.25),
    }
    section = scores_section(scores)
    table, fold = section.blocks
    assert isinstance(table, Table) and isinstance(fold, Fold)
    [row] = [row for row in table.rows if row[0] == "sums exact_match"]
    assert [cell.text for cell in row[1:]] == ["0.0%", "83.3%", "100.0%"]
    assert [cell.note for cell in row[1:]] == [
        "± 12.5",
        "± 12.5; p = 0.062 (adjusted 0.12)",
        "± 12.5; p = 0.031 (adjusted 0.094)",
    ]
    assert "Holm's correction for all 3 comparisons" in table.note
    [line] = [line for line in fold.blocks[0].rows if line[:3] == ["sums", "exact_match", "b"]]
    # error of the mean of five 1 and one 0: sqrt((5/6 x 1/6 x 6/5) / 6) = 1/6
    assert line[3:9] == ["+0.8333", "0.1667", "5", "0", "6", "0.062"]


def test_what_is_beyond_chance_is_coloured(tmp_path):
    """Seven changes one way: p = 2 / 2^7 = 0.0156, the only comparison."""
    scores = scores_of(tmp_path, [asked(sums(range(7), 7))], [asked(sums((), 7))])
    [table, _] = scores_section(scores).blocks
    assert table.rows[0][2].tone == "good" and "adjusted" not in table.rows[0][2].note
    back = ComparedScores(labelled([one.run for one in reversed(scores.runs)]))
    assert scores_section(back).blocks[0].rows[0][2].tone == "bad"


def slow(*shares):
    """Seven questions a run; their `timed_out` and `length` are all the same share."""
    return [
        asked(
            [sample(at, "regex", right=None, metrics={"timed_out": share, "length": share}) for at in range(7)],
            higher={"timed_out": False},
        )
        for share in shares
    ]


def test_what_is_better_is_what_the_task_says(tmp_path):
    """Seven of seven time out in `b`, which is worse: p = 2 / 2^7 = 0.0156, adjusted for two 0.031. Of `length` nobody
    knows: no colour, and no word."""
    runs = [[one] for one in slow(0.0, 1.0)]
    scores = scores_of(tmp_path, *runs)
    [table, fold] = scores_section(scores).blocks
    tones = {row[0]: row[2].tone for row in table.rows}
    assert tones == {"regex timed_out": "bad", "regex length": ""}
    assert [[row[1], row[-2].text, row[-2].tone] for row in fold.blocks[0].rows] == [
        ["timed_out", "0.031", "bad"],
        ["length", "0.031", ""],
    ]
    texts = [one.text for one in comparison([one.run for one in scores.runs]).findings]
    assert texts == ["regex timed_out: b is worse than a by 100.0 points (p = 0.031)"]


def test_of_a_metric_that_nobody_knows_the_highest_comes_first_and_that_is_said(tmp_path):
    runs = [one.run for one in scores_of(tmp_path, *[[one] for one in slow(0.25, 0.5)]).runs]
    page = comparison(runs, "eval/regex/length")
    figures = summary_of(page)[1]
    assert [row[0] for row in figures.rows] == ["b", "a"]
    assert figures.note.endswith(
        "Sorted by eval/regex/length, the highest first; it is not known whether more of it is better."
    )
    assert [name for name, _ in page.tiles if "length" in name] == ["highest eval/regex/length"]
    known = comparison(runs, "eval/regex/timed_out")
    assert [row[0] for row in summary_of(known)[1].rows] == ["a", "b"]
    assert summary_of(known)[1].note.endswith("Sorted by eval/regex/timed_out, the lowest first.")
    assert [name for name, _ in known.tiles if "eval/" in name] == ["best eval/regex/timed_out"]


def test_another_engine_or_dtype_is_said(tmp_path):
    """It is compared, with a warning: in the findings, beside the value, and below the tables. `c` is of a version that
    recorded neither."""
    ours, other = ({"engine": name, "dtype": dtype} for name, dtype in (("olmoe_ft", "float32"), ("vllm", "bfloat16")))
    scores = scores_of(
        tmp_path, [asked(sums(range(7), 7), **ours)], [asked(sums((), 7), **other)], [asked(sums((), 7))]
    )
    remark = "another engine (vllm, not olmoe_ft), another dtype (bfloat16, not float32)"
    assert [scores.remark(place, "sums") for place in range(3)] == ["", remark, ""] and (1, SUMS) in scores.tests
    page = comparison([one.run for one in scores.runs])
    [finding] = [one for one in page.findings if one.tone == "warn"]
    assert finding.text == f"sums: b was evaluated with {remark}, which moves scores by itself"
    [table, fold] = scores_section(scores).blocks
    assert table.rows[0][2].note == f"± 12.5; p = 0.016 (adjusted 0.031); {remark}"
    assert f"b: {remark}, which moves scores by itself." in table.note and "c: another" not in table.note
    assert fold.blocks[0].rows[0][-1].note == remark
    figures = summary_of(page)[1]
    assert f"b: {remark}" in figures.note
    assert "p: by question, on the same ones, McNemar's exact test; adjusted for all 2 comparisons" in figures.note
    assert [(row[-3].tone, remark in row[-3].note) for row in figures.rows] == [
        ("", False),
        ("warn", True),
        ("", False),
    ]


def test_of_several_evaluations_asked_alike_those_count_that_were_measured_alike(tmp_path):
    """`a` was evaluated by vllm, after it was by our own network, as `b` was."""
    ours, other = asked(sums({0}), engine="olmoe_ft"), asked(sums({0, 1}), when="command", engine="vllm")
    scores = scores_of(tmp_path, [ours, other], [asked(sums(()), engine="olmoe_ft")])
    assert scores.score(0, SUMS).value == pytest.approx(5 / 6) and scores.remark(1, "sums") == ""


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"questions": "r"}, "not comparable: other questions"),
        ({"template": "1234"}, "not comparable: another chat template"),
        ({"limit": 6}, "not comparable: another limit"),
    ],
)
def test_what_was_asked_otherwise_is_not_compared(tmp_path, how, reason):
    scores = scores_of(tmp_path, [asked(sums(range(6)))], [asked(sums(()), **how)])
    assert scores.tests == {}
    [table] = scores_section(scores).blocks
    assert table.rows[0][2].text == "100.0%" and table.rows[0][2].note == f"± 12.5; {reason}"
    assert samples_section(scores) is None


def test_a_group_was_asked_what_its_members_were(tmp_path):
    """`mmlu` has no questions of its own; one other member makes it another group."""

    def mmlu(digest):
        one = asked([sample(0, "mmlu_art"), sample(1, "mmlu_law")])
        one.settings["questions"] = {"mmlu_art": "1", "mmlu_law": digest}
        one.settings["tasks"] = ["mmlu"]
        one.scores[:] = [one.scores[0].__class__("mmlu", "exact_match", 1.0, None, 2, 0, None)]
        return [one]

    scores = scores_of(tmp_path, mmlu("2"), mmlu("2"), mmlu("3"))
    assert scores.apart(1, "mmlu") == "" and scores.tests[1, ("mmlu", "exact_match")].difference.questions == 2
    assert scores.apart(2, "mmlu") == "not comparable: other questions"


def test_of_several_evaluations_those_count_that_were_asked_alike(tmp_path):
    """`a` was evaluated after training, then by hand with a limit; `b` only in full. The one before training and one
    of an earlier step never count."""
    early = [asked(sums(range(6)), 0, "before"), asked(sums(range(6)), 10, "training")]
    limited = asked(sums((), 2), when="command", questions="two", limit=2)
    scores = scores_of(tmp_path, [*early, asked(sums({0})), limited], [*early, asked(sums({0, 1}))])
    assert [scores.score(place, SUMS).value for place in range(2)] == [pytest.approx(5 / 6), pytest.approx(4 / 6)]
    assert scores.apart(1, "sums") == "" and (1, SUMS) in scores.tests


def test_a_run_between_its_steps_has_the_scores_of_its_newest_step(tmp_path):
    runs = [
        run_of(tmp_path / "a", evaluations=[asked(sums(()))]),
        run_of(tmp_path / "b", finished=False, evaluations=[asked(sums({1}), step, "training") for step in (5, 10)]),
        run_of(tmp_path / "c"),
    ]
    scores = ComparedScores(labelled(runs))
    [table, _] = scores_section(scores).blocks
    assert "b: evaluated at step 10 of 20." in table.note
    assert [cell.text for cell in table.rows[0][1:]] == ["100.0%", "83.3%", ""]
    assert table.rows[0][3].note == "not evaluated"


def test_nothing_is_compared_without_evaluations_and_damaged_samples_are_named(tmp_path):
    runs = [run_of(tmp_path / name) for name in "ab"]
    assert scores_section(ComparedScores(labelled(runs))) is None
    runs = [run_of(tmp_path / name, evaluations=[asked(sums(()))]) for name in "cd"]
    file = tmp_path / "d" / "samples.jsonl"
    file.write_text(file.read_text()[:-20])
    scores = ComparedScores(labelled(runs))
    assert scores.tests == {} and [cell.text for cell in scores_section(scores).blocks[0].rows[0][1:]] == ["100.0%"] * 2
    [damage] = scores.unreadable
    assert "samples.jsonl: it is damaged" in damage


def test_what_overlaps_the_training_rows_is_left_out_in_a_line_of_its_own(tmp_path):
    from dataclasses import replace

    one = asked(sums({0}))
    one.scores[:] = [replace(one.scores[0], clean_value=0.5, clean_n=2)]
    [table, *_] = scores_section(scores_of(tmp_path, [one], [asked(sums(()))])).blocks
    assert table.rows[1][0] == "sums exact_match, without questions in the training rows"
    assert [(cell.text, cell.note) for cell in table.rows[1][1:]] == [("50.0%", "of 2"), ("", "not known")]


def test_samples_with_two_verdicts_come_first(tmp_path):
    """Of 40 questions `a` has 0 to 9 wrong, and `b` 5 to 14: 0 to 4 are gained and 10 to 14 lost, in turns. Five both
    have wrong and 25 right."""
    scores = scores_of(tmp_path, [asked(sums(range(10), 40))], [asked(sums(range(5, 15), 40))])
    section = samples_section(scores)
    [block] = section.blocks
    assert "Of 40 questions that two runs or more were asked, 10 have different verdicts; 24 are shown." in block.note
    verdicts = [tuple(answer.right for answer in question.answers) for question in block.questions]
    assert verdicts[:10] == [(False, True), (True, False)] * 5
    assert set(verdicts[10:]) == {(False, False), (True, True)} and len(verdicts) == SHOWN
    assert [answer.label for answer in block.questions[0].answers] == ["a", "b"]


def test_some_questions_on_which_all_agree_are_always_shown(tmp_path):
    scores = scores_of(tmp_path, [asked(sums(range(40), 50))], [asked(sums((), 50))])
    shown = select(scores.questions["sums"])
    assert len(shown) == SHOWN and [one.answers[0].right for one in shown] == [False] * (SHOWN - ALIKE) + [True] * ALIKE


def test_long_answers_are_cut(tmp_path):
    long = [sample(0, output="x" * 5000, prompt="y" * 50_000)]
    [block] = samples_section(scores_of(tmp_path, [asked(long)], [asked(long)])).blocks
    [question] = block.questions
    assert len(question.answers[0].text) < 1600 and "3,500 characters are left out" in question.answers[0].text
    assert len(question.prompt) < 6100
