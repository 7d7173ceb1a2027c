"""The suite's table: differences, verdicts and averages by hand."""

from io import StringIO

import pytest

from olmoe_ft.data.terminal import Console
from olmoe_ft.evaluation.score import Evaluation, Score
from olmoe_ft.evaluation.suite import SUITE
from olmoe_ft.evaluation.suite_table import Measured, average, shared, suite_rows, suite_table

COLUMNS = {column.name: column for column in SUITE}


def score(name: str, value: float, stderr: float | None, n: int = 100, template: str | None = "t1") -> Score:
    column = COLUMNS[name]
    return Score(column.task, column.metric, value, stderr, n, column.shots, template)


def evaluation(*scores: Score, model: str = "runs/a") -> Evaluation:
    return Evaluation(model, None, "command", [*scores], [], {}, 1.0, 0)


def shown(*evaluations: Evaluation, width: int = 200) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(suite_table(evaluations))
    return console.file.getvalue()


@pytest.mark.parametrize(
    "value, stderr, verdict",
    [
        (43.5, 1.5, "within"),  # 3.0 more, which is two errors
        (43.6, 1.5, "higher"),
        (37.4, 1.5, "lower"),
        (37.5, 1.5, "within"),
        (40.5, 0.0, "within"),
        (40.6, 0.0, "higher"),
        (90.0, None, "unknown"),
    ],
)
def test_a_difference_of_more_than_two_standard_errors(value, stderr, verdict):
    """Beside a published value of 40.5."""
    assert Measured(value, stderr, 100).against(40.5) == verdict


def test_rows_are_in_per_cent_and_in_the_papers_order():
    other = Score("gsm8k_cot", "exact_match/strict-match", 0.9, 0.1, 100, 8, "t1")
    rows = suite_rows([evaluation(other, score("ifeval", 0.433, 0.021), score("gsm8k", 0.405, 0.0135))])
    assert [row.column.name for row in rows] == list(COLUMNS)
    assert [row.column.name for row in shared(rows)] == ["gsm8k", "ifeval"]
    [gsm8k] = rows[1].measured
    assert (gsm8k.value, gsm8k.stderr, gsm8k.n) == (pytest.approx(40.5), pytest.approx(1.35), 100)


def test_the_average_is_over_columns_that_all_have():
    """(50 + 40) / 2 = 45; errors of 3 and 4 give sqrt(9 + 16) / 2 = 2.5. MMLU is in one of the two only."""
    first = evaluation(score("gsm8k", 0.5, 0.03), score("ifeval", 0.4, 0.04), score("mmlu", 0.9, 0.01))
    second = evaluation(score("gsm8k", 0.3, 0.03), score("ifeval", 0.2, None), model="runs/b")
    rows = shared(suite_rows([first, second]))
    assert [row.column.name for row in rows] == ["gsm8k", "ifeval"]
    assert average(rows, 0) == Measured(pytest.approx(45.0), pytest.approx(2.5), 200)
    assert average(rows, 1) == Measured(pytest.approx(25.0), None, 200)


def test_the_table_has_value_difference_and_published_values():
    """GSM8k 44.0 ± 1.4: 3.5 above SFT's 40.5, outside; 1.5 below the 45.5 of DPO and KTO, within."""
    text = shown(evaluation(score("gsm8k", 0.44, 0.0137), score("ifeval", 0.432, None)))
    [line] = [line for line in text.splitlines() if line.startswith(" GSM8k")]
    assert line.split() == ["GSM8k", "100", "44.0", "±", "1.4", "+3.5*", "-1.5", "-1.5", "40.5", "45.5", "45.5"]
    [line] = [line for line in text.splitlines() if line.startswith(" IFEval")]
    assert line.split() == ["IFEval", "100", "43.2", "-0.1?", "-4.9?", "-4.3?", "43.3", "48.1", "47.5"]
    # (44.0 + 43.2) / 2; of the paper (40.5 + 43.3) / 2, (45.5 + 48.1) / 2, (45.5 + 47.5) / 2
    [line] = [line for line in text.splitlines() if "average of 2 of 7" in line]
    assert line.split()[5:] == ["200", "43.6", "+1.7?", "-3.2?", "-2.9?", "41.9", "46.8", "46.5"]


def test_what_is_missing_or_departs_is_said():
    text = " ".join(shown(evaluation(score("gsm8k", 0.44, 0.0137))).split())
    assert "the paper gives none for its own values" in text
    assert "GSM8k: taken from all 1,319 questions, the paper drew 200" in text
    assert "MMLU: not measured; name it in --tasks as olmoe_mmlu" in text
    assert "HumanEval: runs programs that the model has written; allow it with --allow-code" in text
    assert "XSTest: needs a judge" in text
    assert "MMLU: lm-eval puts" not in text and "different chat templates" not in text


def test_other_templates_and_numbers_of_questions_are_said():
    first, second = score("gsm8k", 0.44, 0.01), score("gsm8k", 0.44, 0.01, n=1319, template="t2")
    text = shown(evaluation(first), evaluation(second, model="runs/b"))
    assert "different chat templates" in text and "100 / 1,319" in text
    text = shown(evaluation(score("humaneval", 0.5, 0.1, template=None)), evaluation(first))
    assert "different chat templates" not in text


def test_names_are_shown_as_they_are():
    text = shown(evaluation(score("gsm8k", 0.44, 0.0137), model="runs/[red]x\x1b[2J"))
    assert "runs/[red]x\\x1b[2J" in text and "\x1b" not in text


def test_nothing_is_cut_in_a_narrow_terminal():
    text = shown(evaluation(score("gsm8k", 0.44, 0.0137)), width=60)
    assert max(map(len, text.splitlines())) <= 60 and "…" not in text
    for word in ("GSM8k", "44.0", "+3.5*", "86.6", "allow it with"):
        assert word in " ".join(text.split())


def test_no_evaluation_has_a_column():
    assert "average" not in shown(evaluation())
