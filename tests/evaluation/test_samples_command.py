"""`olmoe-ft samples`, through the real command line: one run, two side by side, hostile texts, mistakes."""

from functools import partial

import pytest
from support.evaluations import evaluation, sample

from olmoe_ft.evaluation.files import add

CODES = "\x1b[2J\x1b]0;t\x07[red]hi[/red]"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Of six sums `one` has 1 and 2 wrong, and `two` has 2 and 3 wrong; `one` was also evaluated before training."""
    monkeypatch.chdir(tmp_path)
    for name, wrong in (("one", {1, 2}), ("two", {2, 3})):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text("name: here\n")
        if name == "one":
            add(folder, evaluation("before", 0, [sample(number, right=False) for number in range(6)]))
        add(folder, evaluation("after", 120, [sample(number, right=number not in wrong) for number in range(6)]))
    return tmp_path / "runs"


@pytest.fixture
def shown(command):
    """`shown("runs/one", "--wrong", columns=60)` is what is printed; of a mistake the message."""
    return partial(command, "samples")


def questions(text: str) -> list[str]:
    return [line.rstrip(" ─") for line in text.splitlines() if line.endswith("──")]


def test_one_run(runs, shown):
    """The newest evaluation, four of six right; the ten first, or as many as asked for."""
    text = shown("runs/one")
    assert "runs/one, step 120, after training: 6 questions, 4 right, 2 wrong" in text
    assert questions(text) == [f"sums {number}" for number in range(6)]
    first = text.partition("sums 1 ")[0]
    for words in (
        "<|user|>",
        "What is 0 + 0?",
        "right (exact_match 1)",
        "tokens   2",
        "layer 1 expert 3: 50%, layer 0 expert 2: 25%",
    ):
        assert words in first
    assert questions(shown("runs/one", "--wrong")) == ["sums 1", "sums 2"]
    short = shown("runs/one", "--limit", "1", "--step", "0")
    assert questions(short) == ["sums 0"] and "step 0, before training: 6 questions, 6 wrong" in short
    assert "1 of 6 are shown; --limit 6 shows all" in short


def test_two_runs_side_by_side(runs, shown):
    """Question 1 is gained and question 3 lost; they come first. Two changes, one each way: p = 1."""
    text = shown("runs/one", "runs/two")
    assert questions(text) == ["sums 1", "sums 3", "sums 0", "sums 2", "sums 4", "sums 5"]
    assert "1: runs/one, step 120, after training: 6 questions, 4 right, 2 wrong" in text
    assert "1 wrong in 1 and right in 2, 1 right in 1 and wrong in 2; p = 1 (McNemar's exact test)" in text
    [first, *_] = text.split("sums 3 ")
    [line] = [line for line in first.splitlines() if line.startswith("verdict")]
    assert line.split() == "verdict wrong (exact_match 0) right (exact_match 1)".split()
    assert first.count("What is 1 + 1?") == 1
    assert questions(shown("runs/one", "runs/two", "--wrong")) == ["sums 1", "sums 3", "sums 2"]


def test_prompts_that_differ_are_shown_each_and_questions_of_one_run_are_counted(runs, shown):
    add(runs / "one", evaluation("command", 120, [sample(0, prompt="Q: 0 + 0?"), sample(7)]))
    text = shown("runs/one", "runs/two", "--limit", "1")
    assert "Q: 0 + 0?" in text and "What is 0 + 0?" in text
    assert "1 questions, 1 right (and 1 that the other was not asked)" in text
    assert "1 questions, 1 right (and 5 that the other was not asked)" in text


@pytest.mark.parametrize("columns", [60, 160])
def test_a_hostile_text_is_shown_as_text_and_cut(runs, shown, columns):
    """Of 100,000 characters the first 400 and the last 600 are shown."""
    long = CODES + "x" * (100_000 - len(CODES) - 7) + "the end"
    add(runs / "one", evaluation("command", 120, [sample(0, output=long, prompt=CODES, expected=CODES)]))
    add(runs / "two", evaluation("command", 120, [sample(0, output="\n" * 5000, prompt=CODES, expected="")]))
    for arguments in (["runs/one"], ["runs/two"], ["runs/one", "runs/two"]):
        text = shown(*arguments, columns=columns)
        assert not set(text) & {"\x1b", "\x07"}
        assert "[red]hi[/red]" in text and "\\x1b[2J\\x1b]0;t\\x07" in text
        assert max(map(len, text.splitlines())) <= columns and len(text.splitlines()) < 80
        left_out = ("99,000" if "runs/one" in arguments else "", "4,978" if "runs/two" in arguments else "")
        assert all(f"[… {count} characters" in text for count in left_out if count)
    assert "the end" in shown("runs/one", columns=columns) and "(empty)" in shown("runs/two", columns=columns)


def test_what_overlaps_and_what_is_not_judged_is_said(runs, shown):
    samples = [sample(0, right=None, metrics={"bleu": 12.5}), sample(1, overlaps=True)]
    add(runs / "one", evaluation("command", 120, samples))
    text = shown("runs/one")
    assert "2 questions, 1 right, 1 not judged; 1 of them in the training rows" in text
    assert "not judged (bleu 12.5)" in text and "right (exact_match 1); in the training rows" in text


def test_mistakes_are_one_sentence(runs, shown):
    assert "runs/no: there is no such run; name a run directory (runs/<name>)" in shown("runs/no")
    assert "this is no run, but holds some; allowed: runs/one, runs/two" in shown("runs")
    (runs / "new").mkdir()
    assert "runs/new: no evaluation so far; evaluate it first: olmoe-ft evaluate runs/new" in shown("runs/new")
    assert "has the task sum (did you mean `sums`?); allowed: sums" in shown("runs/one", "--task", "sum")
    assert "no evaluation of step 7; allowed: 0, 120" in shown("runs/one", "--step", "7")
    add(runs / "new", evaluation("command", None, [sample(0, task="poems")]))
    assert "none of 1 answers is wrong; leave out --wrong" in shown("runs/new", "--wrong")
    assert "none of 1 answers is wrong" in shown("runs/new", "runs/new", "--wrong")
    assert "no question was put to both; found the tasks sums and poems" in shown("runs/one", "runs/new")
    add(runs / "new", evaluation("command", 3, []))
    assert "this evaluation kept no samples; evaluate it again" in shown("runs/new")
