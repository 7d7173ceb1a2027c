"""The section on scores, and whether their changes may be chance."""

import math
from dataclasses import replace

import pytest
from support.evaluations import evaluation, sample
from support.run_folders import make_run, table_of, titles_of

from olmoe_ft.evaluation.score import Score
from olmoe_ft.report.findings.of_results import of_scores
from olmoe_ft.report.sections.score_changes import changes
from olmoe_ft.report.sections.scores import ADJUSTED, NOTE, scores


def of(when, step, values, **settings):
    """An evaluation with these scores: task, metric, value, standard error, questions, clean value and n."""
    ones = [Score(*one[:5], 0, "t", *one[5:]) for one in values]
    made = {
        "tasks": [score.task for score in ones],
        "cut_prompts": {},
        "short_outputs": {},
        "questions": {},
        **settings,
    }
    return replace(evaluation(when, step, [], settings=made), scores=ones)


def test_before_between_and_after(tmp_path):
    """Of two evaluations between steps the last. 0.3 - 0.1 = 20 points; errors 3 and 4 make 5 of a difference of two
    separate measurements; z = 4, so that p is below 0.0001 (it is 6.3e-5)."""
    run = make_run(
        tmp_path / "x",
        evaluations=[
            of("before", 0, [("gsm8k", "exact_match", 0.1, 0.03, 90)]),
            of("training", 100, [("gsm8k", "exact_match", 0.15, 0.03, 90)]),
            of("training", 200, [("gsm8k", "exact_match", 0.2, 0.03, 90)]),
            of("after", 300, [("gsm8k", "exact_match", 0.3, 0.04, 90)]),
        ],
    )
    section = scores(run)
    assert [column.name for column in section.blocks[0].columns] == [
        "task: metric", "questions", "before", "step 200", "after", "difference",
    ]  # fmt: skip
    assert table_of(section, "Scores") == [
        [
            "gsm8k: exact_match", "90", "10.0% ± 3.0", "20.0% ± 3.0", "30.0% ± 4.0",
            "+20.0 points ± 5.0 (p < 0.0001, unpaired, z test)",
        ]
    ]  # fmt: skip
    assert section.blocks[0].note == NOTE + ADJUSTED and section.blocks[0].rows[0][-1].tone == "good"


def test_the_same_questions_are_paired(tmp_path):
    """Ten questions, six gained, none lost: 0.6 with a standard error of sqrt(10/9 * 0.6 * 0.4 / 10) = 16.3 points;
    p = 2 / 2^6 = 0.031 by McNemar's test. The scores' own errors, 12.5, would have made 17.7 of it."""
    ones = [sample(number, right=number >= 8) for number in range(10)]
    others = [sample(number, right=number >= 2) for number in range(10)]
    run = make_run(tmp_path / "x", evaluations=[evaluation("before", 0, ones), evaluation("after", 9, others)])
    [change] = changes(run)
    assert (change.before.value, change.after.value, change.difference) == (0.2, 0.8, 0.6)
    assert change.stderr == pytest.approx(math.sqrt(10 / 9 * 0.6 * 0.4 / 10))
    assert change.p == 2 / 2**6 and change.significant and change.better
    assert table_of(scores(run), "Scores")[0][-1] == "+60.0 points ± 16.3 (p = 0.031, paired, McNemar's exact test)"


def ten_tasks(later):
    """Ten tasks of ten questions; in the first `later` of them six are gained and none is lost."""
    tasks = [f"task_{letter}" for letter in "abcdefghij"]

    def ones(gained):
        return [
            sample(number, task, right=number < (6 if gained and at < later else 0))
            for at, task in enumerate(tasks)
            for number in range(10)
        ]

    return [evaluation("before", 0, ones(False)), evaluation("after", 9, ones(True))]


def test_one_difference_among_ten_tasks_may_be_chance(tmp_path):
    """p = 2 / 2^6 = 0.031 alone; the least of ten p-values counts ten times."""
    run = make_run(tmp_path / "x", evaluations=ten_tasks(later=1))
    first = changes(run)[0]
    assert first.p == 2 / 2**6 and first.adjusted == 20 / 2**6 and not first.significant
    row = scores(run).blocks[0].rows[0]
    assert row[-1].tone == "" and row[-1].note == "adjusted p = 0.31, paired, McNemar's exact test"


def test_only_the_first_metric_of_a_task_is_one_of_several(tmp_path):
    """With its other metrics and the members of a group, six scores would make 0.0078 six times as large."""
    before = [("a", "acc", 0.1, 0.03, 90), ("a", "acc_norm", 0.1, 0.03, 90), ("a_b", "acc", 0.1, 0.03, 90)]
    later = [(*one[:2], 0.3, 0.04, 90) for one in before]
    run = make_run(
        tmp_path / "x", evaluations=[of("before", 0, before, tasks=["a"]), of("after", 9, later, tasks=["a"])]
    )
    assert [change.adjusted is not None for change in changes(run)] == [True, False, False]
    assert changes(run)[0].adjusted == changes(run)[0].p
    assert [row[-1].tone for row in scores(run).blocks[0].rows] == ["good", ""]


@pytest.mark.parametrize(("n", "p"), [(10, 2 / 184756), (3, 2 / 20), (1, 1.0)])
def test_from_all_wrong_to_all_right(tmp_path, n, p):
    """Neither has a spread. Of 20 answers there are 184,756 ways to choose 10 right ones, and of 6 there are 20; two of
    them are as one-sided."""
    ones = [of("before", 0, [("a", "acc", 0.0, 0.0, n)]), of("after", 9, [("a", "acc", 1.0, 0.0, n)])]
    run = make_run(tmp_path / "x", evaluations=ones)
    assert changes(run)[0].p == pytest.approx(p) and changes(run)[0].how == "unpaired, Fisher's exact test"
    [row] = table_of(scores(run), "Scores")
    assert row[2:4] == ["0.0%", "100.0%"] and row[-1].startswith("+100.0 points (p ")


def test_a_value_without_a_spread_that_is_no_share_has_no_p(tmp_path):
    name = ("wikitext", "word_perplexity")
    ones = [of("before", 0, [(*name, 8.0, 0.0, 9)]), of("after", 9, [(*name, 7.0, 0.0, 9)])]
    assert changes(make_run(tmp_path / "x", evaluations=ones))[0].p is None


def test_a_perplexity_that_rose_is_worse_and_no_share(tmp_path):
    """0.5 beside errors of 0.03 and 0.04: z = 10."""
    name = ("wikitext", "word_perplexity")
    run = make_run(
        tmp_path / "x", evaluations=[of("before", 0, [(*name, 8.0, 0.03, 9)]), of("after", 9, [(*name, 8.5, 0.04, 9)])]
    )
    [change] = changes(run)
    assert change.p == pytest.approx(math.erfc(10 / math.sqrt(2))) and change.better is False
    [row] = scores(run).blocks[0].rows
    assert row[2:4] == ["8.0 ± 0.0", "8.5 ± 0.0"]
    assert (row[-1].text, row[-1].tone) == ("+0.5 ± 0.1", "bad")


@pytest.mark.parametrize(("higher", "tone"), [(True, "good"), (False, "bad"), (None, "")])
def test_what_is_better_is_what_the_task_says(tmp_path, higher, tone):
    """0.8 beside errors of 0.01: far beyond chance."""
    ones = [of("before", 0, [("a", "length", 0.1, 0.01, 9)]), of("after", 9, [("a", "length", 0.9, 0.01, 9)])]
    ones = [replace(one, scores=[replace(one.scores[0], higher_is_better=higher)]) for one in ones]
    run = make_run(tmp_path / "x", evaluations=ones)
    assert changes(run)[0].significant and scores(run).blocks[0].rows[0][-1].tone == tone
    assert [one.tone for one in of_scores(run)] == ([tone] if tone else [])


@pytest.mark.parametrize(("n", "p"), [(2, None), (5, None), (6, 0.0)])
def test_a_few_questions_are_not_tested_by_their_standard_errors(tmp_path, n, p):
    """10 beside 0.5, whose own errors are 0.05: of two questions, these say little."""
    name = ("wikitext", "word_perplexity")
    ones = [of("before", 0, [(*name, 10.0, 0.05, n)]), of("after", 9, [(*name, 0.5, 0.05, n)])]
    run = make_run(tmp_path / "x", evaluations=ones)
    assert changes(run)[0].p == (p if p is None else pytest.approx(p)) and changes(run)[0].significant == (
        p is not None
    )
    assert changes(run)[0].better is True


def test_another_engine_after_training_is_said(tmp_path):
    ones = [
        of("before", 0, [("a", "acc", 0.5, 0.05, 90)], engine="olmoe_ft", dtype="float32"),
        of("after", 9, [("a", "acc", 0.5, 0.05, 90)], engine="vllm", dtype="float32"),
    ]
    run = make_run(tmp_path / "x", evaluations=ones)
    assert scores(run).blocks[0].note.endswith("another engine (vllm, not olmoe_ft), which moves scores by itself.")
    assert [(one.tone, one.text) for one in of_scores(run)] == [
        (
            "warn",
            "after training it was evaluated with another engine (vllm, not olmoe_ft), which moves scores by itself",
        )
    ]


@pytest.mark.parametrize("metric", ["style_polite", "likelihood"])
def test_of_some_metrics_more_is_neither_better_nor_worse(tmp_path, metric):
    run = make_run(
        tmp_path / "x",
        evaluations=[of("before", 0, [("a", metric, 0.1, 0.01, 9)]), of("after", 9, [("a", metric, 0.9, 0.01, 9)])],
    )
    assert changes(run)[0].significant and changes(run)[0].better is None
    assert scores(run).blocks[0].rows[0][-1].tone == ""


@pytest.mark.parametrize(
    ("n", "questions", "why"),
    [(90, "other", "other questions"), (50, "same", "another number of questions")],
)
def test_what_was_asked_otherwise_is_not_compared(tmp_path, n, questions, why):
    before = of("before", 0, [("a", "acc", 0.5, 0.05, 90)], questions={"a": "same"})
    after = of("after", 9, [("a", "acc", 0.9, 0.03, n)], questions={"a": questions})
    run = make_run(tmp_path / "x", evaluations=[before, after])
    assert changes(run)[0].difference is None and not changes(run)[0].significant
    assert table_of(scores(run), "Scores")[0][-1] == f" (not comparable: {why})"


def test_values_without_the_questions_in_the_training_rows(tmp_path):
    run = make_run(tmp_path / "x", evaluations=[of("after", 9, [("a", "acc", 0.5, 0.05, 100, 0.4, 80)])])
    section = scores(run)
    assert table_of(section, "Scores") == [
        ["a: acc", "100", "50.0% ± 5.0", ""],
        ["  without those in the training rows", "", "40.0% (of 80)", ""],
    ]
    assert section.lead == "No evaluation of before training was found, so there is no difference to show."


def test_members_of_a_group_are_folded(tmp_path):
    values = [("mmlu", "acc", 0.5, 0.05, 100), ("mmlu_law", "acc", 0.4, 0.05, 50), ("mmlu_art", "acc", 0.6, 0.05, 50)]
    section = scores(make_run(tmp_path / "x", evaluations=[of("after", 9, values, tasks=["mmlu"])]))
    assert titles_of(section) == ["Scores", "Members of the groups"]
    assert [row[0] for row in table_of(section, "Scores")] == ["mmlu: acc"]
    assert [row[0] for row in table_of(section, "Members of the groups")] == ["mmlu_law: acc", "mmlu_art: acc"]


def test_what_did_not_fit(tmp_path):
    settings = {"cut_prompts": {"a": 1200}, "short_outputs": {"a": 256}}
    run = make_run(tmp_path / "x", evaluations=[of("after", 9, [("a", "acc", 0.5, 0.05, 100)], **settings)])
    assert table_of(scores(run), "What did not fit into the network's positions") == [
        ["after", "a", "1,200 prompts lost their start"],
        ["after", "a", "outputs end after 256 tokens, and the task wants more"],
    ]


def test_a_run_of_an_older_version_has_its_exact_match_in_its_summary(tmp_path):
    """sqrt(0.5 * 0.5 / 100) = 5.0 points with 101 prompts; of 0 it is 0, so that z is 10."""
    answered = {"styles": {}, "skills": {}, "count": 101}
    summary = {"steps": 9, "before": answered | {"exact_match": 0.0}, "after": answered | {"exact_match": 0.5}}
    section = scores(make_run(tmp_path / "x", summary=summary))
    assert table_of(section, "Scores") == [
        [
            "answers: exact_match", "101", "0.0%", "50.0% ± 5.0",
            "+50.0 points ± 5.0 (p < 0.0001, unpaired, z test)",
        ]
    ]  # fmt: skip


def test_scores_of_a_summary(tmp_path):
    score = Score("a", "acc", 0.5, None, 7, 0, None).as_dict()
    run = make_run(tmp_path / "x", summary={"steps": 9, "scores": {"after": [score]}})
    assert table_of(scores(run), "Scores") == [["a: acc", "7", "50.0%", ""]]


def test_a_damaged_summary_is_named(tmp_path):
    run = make_run(tmp_path / "x", summary={"steps": 9, "scores": {"after": [{"task": 1}]}})
    assert scores(run) is None and "summary.json cannot be read" in run.unreadable[0]


def test_a_run_without_scores(tmp_path):
    assert scores(make_run(tmp_path / "x")) is None
