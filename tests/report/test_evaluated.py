"""Which evaluation a run's scores are of: its own, or those by command, which is how benchmarks are mostly measured."""

from dataclasses import replace

import numpy as np
import pytest
from support.card_runs import make_run as finished_run
from support.evaluations import evaluation, sample
from support.run_folders import make_run, table_of, titles_of

from olmoe_ft.evaluation.files import add
from olmoe_ft.evaluation.score import Score
from olmoe_ft.report.card.card import model_card
from olmoe_ft.report.files.atlas import _of_benchmarks
from olmoe_ft.report.files.run_files import read_run
from olmoe_ft.report.findings.findings import findings
from olmoe_ft.report.sections.answers import samples
from olmoe_ft.report.sections.score_changes import changes
from olmoe_ft.report.sections.scores import OTHERS, scores
from olmoe_ft.report.tiles import tiles

ENDED = {"steps": 9}
FILLED = {"cut_prompts": {}, "short_outputs": {}, "questions": {}}


def of(when, step, task, right, n, limit=None, **others):
    """An evaluation in which the first `right` of n questions of a task are right."""
    ones = [sample(number, task, right=number < right) for number in range(n)]
    settings = {"tasks": [task], "limit": limit, **FILLED}
    return evaluation(when, step, ones, settings=settings, **others)


def shown(run):
    return {row[0]: row[1:] for row in table_of(scores(run), "Scores")}


def tile(run):
    return next((title, cell.text, cell.note) for title, cell in tiles(run) if "exact match" in title)


def test_a_benchmark_by_command_stands_beside_the_runs_own_task(tmp_path):
    """An evaluation by command does not hide the run's own, and is not hidden by it; nor are its answers."""
    run = make_run(
        tmp_path / "x",
        evaluations=[of("after", 9, "answers", 3, 4), of("command", 9, "gsm8k", 1, 4)],
        summary=ENDED,
    )
    assert shown(run) == {
        "answers: exact_match": ["4", "75.0% ± 12.5", ""],
        "gsm8k: exact_match": ["4", "25.0% ± 12.5 (by command)", ""],
    }
    assert titles_of(scores(run)) == ["Scores"]
    assert {one.task for one in run.evaluated.samples["after"]} == {"answers", "gsm8k"}
    assert tile(run) == ("answers, exact match", "75.0%", "± 12.5%, 4 questions")


@pytest.mark.parametrize("limited_last", [True, False])
def test_a_look_at_five_questions_does_not_replace_all_of_them(tmp_path, limited_last):
    """Of a run that evaluated nothing itself the newest in full counts, whatever came after it; the other is listed."""
    whole, few = of("command", 9, "answers", 4, 8), of("command", 9, "answers", 5, 5, limit=5)
    run = make_run(tmp_path / "x", evaluations=[whole, few] if limited_last else [few, whole], summary=ENDED)
    assert shown(run) == {"answers: exact_match": ["8", "50.0% ± 12.5 (by command)", ""]}
    assert table_of(scores(run), OTHERS) == [["answers: exact_match", "9", "5", "5", "", "100.0% ± 12.5"]]
    assert tile(run) == ("answers, exact match", "50.0%", "± 12.5%, 8 questions, by command")
    assert len(run.evaluated.samples["after"]) == 8


def test_a_limit_counts_where_nothing_else_has_the_task_and_the_most_questions_of_several(tmp_path):
    ones = [of("command", 9, "gsm8k", 30, 40, limit=40), of("command", 9, "gsm8k", 5, 5, limit=5)]
    run = make_run(tmp_path / "x", evaluations=ones, summary=ENDED)
    assert shown(run) == {"gsm8k: exact_match": ["40", "75.0% ± 12.5 (by command, the first 40)", ""]}
    assert tile(run)[2] == "± 12.5%, 40 questions, by command, the first 40"


def test_the_runs_own_evaluation_counts_before_a_newer_one_by_command(tmp_path):
    """It was asked as the one before training was. The command's is listed, as are those of other steps."""
    own = [of("before", 0, "answers", 0, 4, limit=4), of("after", 9, "answers", 3, 4, limit=4)]
    others = [of("command", 9, "answers", 6, 8), of("command", 5, "gsm8k", 1, 4)]
    run = make_run(tmp_path / "x", evaluations=[*own, *others], summary=ENDED)
    assert [(one.before.n, one.after.n, one.difference) for one in changes(run)] == [(4, 4, 0.75)]
    assert table_of(scores(run), OTHERS) == [
        ["gsm8k: exact_match", "5", "4", "", "", "25.0% ± 12.5"],
        ["answers: exact_match", "9", "8", "", "", "75.0% ± 12.5"],
    ]


def test_scores_in_the_summary_count_before_those_by_command(tmp_path):
    """Which have the answers and the loads that the summary lacks."""
    summary = ENDED | {"scores": {"after": [Score("answers", "exact_match", 0.5, None, 6, 0, None).as_dict()]}}
    loads = {"answers": [[0.75, 0.25]]}
    ones = [of("command", 9, "answers", 3, 4, loads=loads), of("command", 9, "gsm8k", 1, 4)]
    run = make_run(tmp_path / "x", evaluations=ones, summary=summary)
    assert shown(run) == {
        "answers: exact_match": ["6", "50.0%", ""],
        "gsm8k: exact_match": ["4", "25.0% ± 12.5 (by command)", ""],
    }
    assert {one.task for one in run.evaluated.samples["after"]} == {"answers", "gsm8k"}
    assert list(_of_benchmarks(run, (1, 2))) == ["benchmark answers"]


def test_a_run_that_evaluated_only_another_step_shows_that_alone(tmp_path):
    run = make_run(tmp_path / "x", evaluations=[of("command", 5, "gsm8k", 1, 4)], summary=ENDED)
    assert titles_of(scores(run)) == [OTHERS] and not any("gsm8k" in title for title, _ in tiles(run))


def test_a_run_that_goes_on_beyond_its_former_end_has_no_scores_after_training(tmp_path):
    """It had ended after 9 steps, and was lengthened; its summary is of the former end until there is a new one."""
    summary = ENDED | {"scores": {"after": [Score("answers", "exact_match", 0.5, None, 6, 0, None).as_dict()]}}
    ones = [of("command", 9, "gsm8k", 1, 4)]
    run = make_run(tmp_path / "x", records=[{"step": 12, "loss": 1.0}], evaluations=ones, summary=summary)
    assert titles_of(scores(run)) == [OTHERS]


def test_the_atlas_has_the_benchmarks_of_commands(tmp_path):
    loads = {"gsm8k": [[0.75, 0.25]]}
    ones = [of("after", 9, "answers", 1, 4), of("command", 9, "gsm8k", 1, 4, loads=loads)]
    run = make_run(tmp_path / "x", evaluations=ones, summary=ENDED)
    found = _of_benchmarks(run, (1, 2))
    assert list(found) == ["benchmark gsm8k"] and np.array_equal(found["benchmark gsm8k"]["after"], [[0.75, 0.25]])


def test_the_card_has_the_benchmarks_of_commands(tmp_path):
    """With how many questions, where there was a limit."""
    path = finished_run(tmp_path / "x")
    add(path, of("command", 20, "arc", 3, 4))
    add(path, of("command", 20, "boolq", 2, 4, limit=4))
    card = model_card(read_run(path))
    results = {one.dataset_name: (one.metric_name, one.metric_value) for one in card.data.eval_results}
    assert results["arc"] == ("exact_match", 0.75) and results["boolq"] == (
        "exact_match, the first 4 questions", 0.5
    )  # fmt: skip
    assert "gsm8k" in results and "| `arc` | `exact_match` | 4 | 75.0% ± 12.5 |" in card.text


# ---- runs that have not come to their end ----


@pytest.fixture
def killed(tmp_path):
    """Ten questions, none right before; two right at step 4, nine at step 8. Nothing after that."""
    ones = [of("before", 0, "answers", 0, 10), of("training", 4, "answers", 2, 10), of("training", 8, "answers", 9, 10)]
    ones = [replace(one, loads={"answers": [[one.scores[0].value, 0.5]]}) for one in ones]
    return make_run(tmp_path / "x", records=[{"step": 8, "loss": 1.0}], evaluations=ones, launches=[{}])


def test_a_killed_run_shows_its_newest_scores_by_their_step(killed):
    """Nine gained of ten: p = 2 / 2^9 = 0.0039."""
    assert tile(killed)[1:] == ("90.0%", "± 12.5%, 10 questions, at step 8, before 0.0%")
    section = scores(killed)
    assert [column.name for column in section.blocks[0].columns][2:] == ["before", "step 8", "difference"]
    assert section.lead.endswith("was found; the difference is that of step 8 and before.")
    texts = [one.text for one in findings(killed) if one.tone == "good"]
    assert texts == [
        "answers: exact_match rose from 0.0% ± 12.5 to 90.0% ± 12.5 at step 8 (p = 0.0039, paired, McNemar's exact "
        "test)"
    ]
    assert list(_of_benchmarks(killed, (1, 2))["benchmark answers"]) == ["before", "step 8"]


def test_a_killed_runs_answers_are_those_of_its_newest_evaluation(killed):
    section = samples(killed)
    assert section.title == "Answers before and at step 8"
    assert section.lead.startswith("Of 10 questions that were put before training and at step 8: 9 gained, 0 lost")
    assert [answer.label for answer in section.blocks[0].questions[0].answers] == ["before", "step 8"]


# ---- older versions ----


def test_skills_and_styles_of_an_older_summary(tmp_path):
    """How many prompts a skill has was not said, so there is no p. Of 5 prompts one was polite, and then all: of 210
    ways to choose 6 polite ones of 10 there are 5 with one of them in the first half, and 5 with one in the second."""
    parts = {"exact_match": 0.0, "styles": {"polite": 0.2}, "skills": {"sums": 0.0}, "count": 5}
    later = {"exact_match": 1.0, "styles": {"polite": 1.0}, "skills": {"sums": 1.0}, "count": 5}
    run = make_run(tmp_path / "x", summary=ENDED | {"before": parts, "after": later})
    found = shown(run)
    assert list(found) == ["answers: exact_match", "answers: exact_match/sums", "answers: style_polite"]
    assert found["answers: exact_match/sums"] == ["", "0.0%", "100.0%", "+100.0 points (unpaired)"]
    how = "p = 0.048, not adjusted, unpaired, Fisher's exact test"
    assert found["answers: style_polite"] == ["5", "20.0% ± 20.0", "100.0%", f"+80.0 points ({how})"]
    assert tile(run) == ("answers, exact match", "100.0%", "5 questions, before 0.0%")
