"""Questions of benchmarks in training: found row by row, told apart from held-out prompts, left out on demand."""

import io

import pytest
from rich.console import Console

from olmoe_ft.data.audit import audit
from olmoe_ft.data.audit_report import data_report, print_audit
from olmoe_ft.data.benchmarks import load_benchmark
from olmoe_ft.data.findings import findings
from olmoe_ft.recipe import RecipeError
from olmoe_ft.recipe.data_section import Benchmark

QUESTIONS = [
    {
        "question": f"Ann has {n} apples and gives {n} to Bob and then buys {n} more at the shop. How many?",
        "answer": "1",
    }
    for n in range(5)
]
SHORT = {"question": "What is 2+2?", "answer": "4"}
ROWS = [{"prompt": f"say {number}", "completion": f"it is {number}"} for number in range(6)]
# two of the five questions, one in other words around it, and the short one
TAKEN = [
    {"prompt": QUESTIONS[1]["question"], "completion": "a"},
    {"prompt": f"Please solve: {QUESTIONS[3]['question'].upper()} Think!", "completion": "b"},
    {"prompt": "what is 2 + 2", "completion": "4"},
]


@pytest.fixture
def sources(write):
    """A clean source, one with questions in it, and the benchmark."""
    clean, mixed = write("clean.jsonl", ROWS), write("mixed.jsonl", [*ROWS[:2], *TAKEN])
    return [{"path": clean}, {"path": mixed}], write("bench.jsonl", [*QUESTIONS, SHORT])


def test_questions_are_found_row_by_row(sources, mixture, tokenizer):
    paths, bench = sources
    found = mixture(paths, decontaminate_against=[bench], questions=[["say 5"]])
    audited = audit(found)
    clean, mixed = audited.sources
    assert audited.groups == {"held-out prompts": 1, bench: 6}
    none = {"rows": 0, "kept": 0, "prompts": 0}
    assert clean.overlaps == {"held-out prompts": {"rows": 1, "kept": 1, "prompts": 1}, bench: none}
    assert mixed.overlaps == {"held-out prompts": none, bench: {"rows": 3, "kept": 3, "prompts": 3}}
    listed = [
        (row["row"].rpartition(":")[2], [place.rpartition(":")[2] for place in row["prompts"]])
        for row in mixed.overlapping
    ]
    assert listed == [("3", ["2"]), ("4", ["4"]), ("5", ["6"])]
    assert len(found.rows) == 11
    told = (
        f"3 of 5 rows (60.0%) contain questions of {bench} (3 of 6 were found); set data.decontaminate to leave "
        "such rows out"
    )
    assert told in " ".join(findings(audited))
    assert data_report(audited, found, tokenizer)["sources"][1]["overlapping"] == mixed.overlapping


def test_the_table_shows_each_source_and_benchmark(sources, mixture, tokenizer):
    paths, bench = sources
    found = mixture(paths, decontaminate_against=[bench])
    stream = io.StringIO()
    print_audit(audit(found), found, tokenizer, Console(file=stream, width=400))
    [line] = [line for line in stream.getvalue().splitlines() if "bench.jsonl" in line and "check:" not in line]
    assert "0 (0)" in line and "3 (3)" in line


def test_such_rows_are_left_out_and_counted_once(sources, mixture):
    paths, bench = sources
    found = mixture(paths, decontaminate_against=[bench], questions=[["say 0"]], decontaminate=True)
    clean, mixed = audit(found).sources
    assert (clean.dropped, mixed.dropped) == ({"held-out prompt": 1}, {"benchmark question": 3, "held-out prompt": 1})
    assert len(found.rows) == 5 + 1
    assert not [finding for finding in findings(audit(found)) if "data.decontaminate leaves" in finding]
    # two of the rows dropped for another reason: the finding speaks of those that are trained on
    short = audit(mixture(paths, decontaminate_against=[bench], max_length=30, long_prompts="drop"))
    assert short.sources[1].overlaps[bench] == {"rows": 3, "kept": 1, "prompts": 3}
    assert [finding for finding in findings(short) if f"1 of 5 rows (20.0%) contain questions of {bench}" in finding]


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        ({"question": "q", "answer": "a"}, ["q"]),
        ({"problem": "q", "solution": "a"}, ["q"]),
        ({"instruction": "q", "input": "i", "output": "a"}, ["q\n\ni"]),
        ({"input": "q", "target": "a"}, ["q"]),
        ({"prompt": "def f():", "task_id": 3, "label": True}, ["def f():"]),
        ({"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "a"}]}, ["1"]),
        ({"prompt": [{"role": "user", "content": "1"}], "text": "x"}, ["1"]),
        ({"question": "", "text": "t"}, ["t"]),
        ({"turns": ["one", "two"]}, ["one", "two"]),  # MT-Bench
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "1"}]}]}, ["1"]),
        ({"messages": '[{"role": "user", "content": "1"}]'}, ["1"]),  # of a CSV
    ],
)
def test_where_a_question_stands(write, row, texts):
    [prompt] = load_benchmark(Benchmark(path=write("b.jsonl", [row])))
    assert prompt.texts == texts and prompt.place.endswith("b.jsonl:1")


def test_a_benchmark_whose_question_has_another_name(write):
    path = write("b.jsonl", [{"ctx": "q", "endings": ["a"]}])
    with pytest.raises(
        RecipeError, match="b.jsonl:1: found ctx, endings, but no question; .*columns: {its_key: question}"
    ):
        load_benchmark(Benchmark(path=path))
    assert load_benchmark(Benchmark(path=path, columns={"ctx": "question"}))[0].texts == ["q"]
    row = {"q": "the real question", "question": "Category 3", "statement": "s"}
    for columns, text in (({"q": "question"}, "the real question"), ({"statement": "prompt"}, "s")):
        assert load_benchmark(Benchmark(path=write("c.jsonl", [row]), columns=columns))[0].texts == [text]
    with pytest.raises(RecipeError, match="no row has statment; correct `columns`"):
        load_benchmark(Benchmark(path=write("c.jsonl", [row]), columns={"statment": "question"}))
    picture = [{"role": "user", "content": [{"type": "image"}]}]
    with pytest.raises(RecipeError, match="p.jsonl:1: `messages` has a part of type 'image'"):
        load_benchmark(Benchmark(path=write("p.jsonl", [{"messages": picture}])))
    with pytest.raises(RecipeError, match="the benchmark is empty"):
        load_benchmark(Benchmark(path=write("empty.jsonl", [])))
