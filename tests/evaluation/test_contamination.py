"""Which questions a run was trained on, from real reports on ten questions and a few rows, counted by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.evaluations import sample
from support.small_tokenizers import small_tokenizer

from olmoe_ft.data import audit as auditing
from olmoe_ft.data.audit import audit
from olmoe_ft.data.audit_report import data_report
from olmoe_ft.data.mixture import load_mixtures
from olmoe_ft.evaluation.contamination import overlapping_questions, without_seen
from olmoe_ft.evaluation.questions import load_questions
from olmoe_ft.evaluation.score import Outcome, Score
from olmoe_ft.recipe import Recipe
from olmoe_ft.training.run_directory import RunDirectory

NAMES = "Ann Bob Cid Dan Eve Fay Gus Hal Ida Jim".split()
DOCUMENTS = [
    {"question": f"{name} buys {n} pears and {n} plums at the shop, then eats one. How many has {name}?", "answer": "1"}
    for n, name in enumerate(NAMES)
]
PADDING = "please " * 200  # makes a row longer than training.max_length
OTHER = [{"prompt": f"say {number}", "completion": f"it is {number}"} for number in range(5)]


def taken(number: int, before: str = "") -> dict:
    """A training row that contains a question."""
    return {"prompt": f"{before}Solve: {DOCUMENTS[number]['question'].upper()}", "completion": "x"}


ROWS = [*OTHER, taken(1), taken(4, before=PADDING), taken(7)]


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """`make_run("sft", ROWS, decontaminate=True)` writes `runs/sft` as a launch does before it trains.

    A row whose prompt is longer than 128 tokens is dropped.
    """
    monkeypatch.chdir(tmp_path)
    write("bench.jsonl", DOCUMENTS)
    tokenizer = small_tokenizer("tiny")

    def make(name: str, rows: list[dict], start: str = "a/b", against=("bench.jsonl",), **data) -> Path:
        write(f"{name}.jsonl", rows)
        values = {
            "name": name,
            "stage": "sft",
            "model": {"path": start},
            "router": {"load_balancing_coef": 0, "z_loss_coef": 0, "train": "full"},
            "data": {
                "train": [{"path": f"{name}.jsonl"}],
                "decontaminate_against": list(against),
                "long_prompts": "drop",
                "max_dropped": 1,
                **data,
            },
        }
        recipe = Recipe.model_validate(values)
        own = [one.texts() for one in load_questions(recipe.data.answers)] if recipe.data.answers else []
        mixture, _ = load_mixtures(recipe, 128, tokenizer, own)
        run = RunDirectory(recipe)
        run.create()
        run.write_data_report(data_report(audit(mixture), mixture, tokenizer))
        return run.path

    return make


def write(name: str, rows: list[dict]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def overlapping(run: Path, documents=DOCUMENTS) -> list[int]:
    found = overlapping_questions(run)
    assert found is not None and all(found.looked_for(one) for one in documents)
    return [number for number, one in enumerate(documents) if found.has(one)]


def test_a_question_in_a_row_that_was_dropped_is_clean(make_run):
    """Questions 1, 4 and 7 are in the rows; the row with 4 is too long."""
    run = make_run("sft", ROWS)
    report = json.loads((run / "data_report.json").read_text())
    assert report["sources"][0]["overlaps"]["bench.jsonl"] == {"rows": 3, "kept": 2, "prompts": 3}
    assert overlapping(run) == overlapping(run / "final") == overlapping(run / "checkpoints/checkpoint-5") == [1, 7]


def test_all_are_clean_where_the_rows_were_left_out(make_run):
    assert overlapping(make_run("sft", ROWS, decontaminate=True)) == []


def test_a_document_is_searched_for_the_whole_question(make_run):
    """In any of its texts, in any case; a short question only where it is all of a text. Ten questions with one start
    have 13 words in common, and so has a row with one of them: the report then names all ten."""
    short = {"question": "What is 2+2?"}
    start = "In the old town by the sea there lived a very patient man who "
    alike = [{"question": f"{start} had {n} {'cats' if n % 2 else 'dogs'}. How many legs?"} for n in range(10)]
    write("other.jsonl", [short, *alike])
    rows = [*OTHER, {"prompt": "what is 2 + 2", "completion": "4"}, {"prompt": alike[3]["question"], "completion": "x"}]
    found = overlapping_questions(make_run("sft", rows, against=["other.jsonl"]))
    assert found is not None
    for document in (
        {"query": f"Question: {alike[3]['question'].lower()} Answer:"},
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": alike[3]["question"]}]},
        {"turns": [start, "had 3 cats; how many legs"]},
        {"doc": {"text": ["no", "what is 2+2"]}},
    ):
        assert found.looked_for(document) and found.has(document), document
    for document in ({"question": "What is 2+2+2?"}, {"question": start}, {"question": f"{start} had 12 cats."}, {}):
        assert not found.looked_for(document) and not found.has(document), document


def test_held_out_prompts_with_answers(make_run):
    """The run's own questions, of which training rows contain the second."""
    own = [{"prompt": f"Name the capital of {country}.", "answer": "x"} for country in ("Peru", "Chad", "Oman")]
    write("own.jsonl", own)
    rows = [*OTHER, {"prompt": "name the capital of Chad", "completion": "x"}]
    run = make_run("sft", rows, against=[], answers={"path": "own.jsonl"})
    assert overlapping(run, own) == [1]
    found = overlapping_questions(run)
    assert not found.looked_for(DOCUMENTS[1])


def test_the_run_that_a_run_started_from_counts_too(make_run):
    make_run("first", [*OTHER, taken(2)])
    assert overlapping(make_run("second", ROWS, start="runs/first")) == [1, 2, 7]
    make_run("third", OTHER, start="runs/second/final")
    assert overlapping(Path("runs/third")) == [1, 2, 7]


def test_what_one_of_the_runs_has_not_looked_for_is_not_known(make_run):
    write("other.jsonl", [{"question": "What is 2+2?"}])
    make_run("first", OTHER, against=["other.jsonl"])
    found = overlapping_questions(make_run("second", ROWS, start="runs/first"))
    assert found is not None and not any(map(found.looked_for, DOCUMENTS))
    assert overlapping_questions(make_run("third", ROWS, start="runs/gone")) is None
    make_run("fourth", OTHER, against=[])
    assert overlapping_questions(Path("runs/fourth")) is None
    assert overlapping_questions(make_run("fifth", ROWS, start="runs/fourth")) is None


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"groups": {"bench.jsonl": 10}}'])
def test_without_a_report_nothing_is_known(make_run, content):
    run = make_run("sft", ROWS)
    file = run / "data_report.json"
    file.unlink() if content is None else file.write_bytes(content)
    assert overlapping_questions(run) is None
    assert overlapping_questions(Path("bench.jsonl")) is None


def test_a_report_that_does_not_list_all_rows_says_so(make_run, monkeypatch):
    monkeypatch.setattr(auditing, "LISTED_ROWS", 1)
    found = overlapping_questions(make_run("sft", ROWS))
    assert found is not None and not any(map(found.looked_for, DOCUMENTS))
    [(name, reason)] = found.unknown.items()
    assert name == "bench.jsonl" and reason.startswith("the data report lists 1 of 2 rows of sft.jsonl")


def test_a_benchmark_that_is_gone_or_another_one_is_not_known(make_run):
    run = make_run("sft", ROWS)
    write("bench.jsonl", DOCUMENTS[:9])
    found = overlapping_questions(run)
    assert found is not None and not found.looked_for(DOCUMENTS[0])
    assert found.unknown == {"bench.jsonl": "it had 10 questions when it was looked for, and has 9"}
    Path("bench.jsonl").unlink()
    found = overlapping_questions(run)
    assert found is not None and "there is no such file" in found.unknown["bench.jsonl"]


def test_a_report_of_an_older_version_does_not_say_which_held_out_prompts_were_found(make_run):
    write("own.jsonl", [{"prompt": "say 3", "answer": "x"}])
    run = make_run("sft", ROWS, answers={"path": "own.jsonl"})
    file = run / "data_report.json"
    assert overlapping(run) == [1, 7]
    file.write_text(file.read_text().replace("data.answers, question 1", ""))
    assert list(overlapping_questions(run).unknown) == ["held-out prompts"]
    assert not overlapping_questions(run).looked_for({"prompt": "say 3"}) and overlapping(run) == [1, 7]


class Seen:
    """Overlaps of which each is given: questions that were trained on, and those that were not looked for."""

    def __init__(self, trained_on=(), not_looked_for=()):
        self.trained_on, self.not_looked_for = trained_on, not_looked_for

    def has(self, document):
        return document["number"] in self.trained_on

    def looked_for(self, document):
        return document["number"] not in self.not_looked_for


SAMPLES = [sample(number, right=number < 5) for number in range(10)]
SCORE = Score("sums", "exact_match", 0.5, 0.1, 10, 0, None)


def clean(score, seen, members=None):
    """The score without the questions that were seen, and the samples."""
    outcome = Outcome([score], SAMPLES, [{"number": number} for number in range(10)], members or {})
    found = without_seen(outcome, seen)
    return found.scores[0], found.samples


def test_clean_scores_are_the_means_of_the_other_samples():
    """Five of ten are right: 0 to 4. Without 1 and 7 four of eight are."""
    found, samples = clean(SCORE, Seen((1, 7)))
    assert found == replace(SCORE, clean_value=4 / 8, clean_n=8)
    assert [one.id for one in samples if one.overlaps] == [1, 7]
    assert clean(replace(SCORE, value=0.5 + 1e-10), Seen((1, 7)))[0].clean_n == 8
    none, _ = clean(SCORE, Seen(range(10)))
    assert (none.clean_value, none.clean_n) == (None, 0)


def test_a_group_counts_the_samples_of_its_tasks():
    found, _ = clean(replace(SCORE, task="all"), Seen((1, 7)), {"all": {"sums"}})
    assert (found.clean_value, found.clean_n) == (4 / 8, 8)


@pytest.mark.parametrize(
    "change",
    [
        {"value": 0.5 + 1e-8},  # no mean of the samples
        {"value": float("nan")},
        {"metric": "f1"},
        {"n": 11},
        {"task": "other"},  # of which no sample is there
    ],
)
def test_a_value_that_is_no_mean_of_its_samples_has_no_clean_one(change):
    found, _ = clean(replace(SCORE, **change), Seen((1, 7)))
    assert (found.clean_value, found.clean_n) == (None, None)


def test_a_task_of_which_a_question_was_not_looked_for_has_no_clean_value():
    found, _ = clean(SCORE, Seen((1, 7), not_looked_for=(9,)))
    assert (found.clean_value, found.clean_n) == (None, None)
