"""Task files of users: what is read, and every mistake that is found before a model is loaded."""

import gzip
import json
import re
from pathlib import Path

import pytest
from datasets import Dataset
from support import REPOSITORY
from support.task_folder import ROWS, TASK, changed, problems, write

from olmoe_ft.evaluation.task_files import check_name, check_tasks, load_tasks, takes_rows


def test_a_users_task_is_loaded_with_its_rows(folder):
    task = load_tasks(["mine.yaml"])["tasks"]["mine"]
    assert [task.doc_to_text(doc) for doc in task.test_docs()] == ["Q: 1+1?", "Q: 2+2?"]
    assert [task.doc_to_target(doc) for doc in task.test_docs()] == ["2", "4"]


def test_python_functions_beside_the_file_are_used(folder):
    changed('"Q: {{question}}"', "!function code.upper\nprocess_docs: !function code.kept")
    Path("mine.yaml").write_text(
        Path("mine.yaml").read_text().replace("exact_match}", "length, aggregation: mean}")
        + "process_results: !function code.score\n"
    )
    task = load_tasks(["mine.yaml"])["tasks"]["mine"]
    assert [task.doc_to_text(doc) for doc in task.test_docs()] == ["2+2?"]
    assert task.process_results(task.test_docs()[0], ["four"]) == {"length": 4.0}


def test_the_task_in_the_documents_is_right(tmp_path, monkeypatch):
    """Of the two outputs one names the city; they have 3 words and 1."""
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / "docs/tasks.md").read_text()
    for name, language in (("capitals.yaml", "yaml"), ("capitals.jsonl", "json"), ("marks.py", "python")):
        Path(name).write_text(re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0])
    task = load_tasks(["capitals.yaml"])["tasks"]["capitals"]
    france, peru = task.test_docs()
    assert task.doc_to_text(france) == "What is the capital of France?" and task.doc_to_target(peru) == "Lima"
    assert task.process_results(france, ["It is Paris"]) == {"named": 1.0, "words": 3.0}
    assert task.process_results(peru, ["Quito"]) == {"named": 0.0, "words": 1.0}


@pytest.mark.parametrize("name", ["other.jsonl", "other.jsonl.gz", "other.json", "other.csv", "other.parquet"])
def test_a_file_takes_the_place_of_the_rows(folder, name):
    rows = [{"question": "When?", "answer": "2024-01-01"}, {"question": "Or?", "answer": "2024-01-02T00:00:00"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    contents = {
        "jsonl": lambda: Path(name).write_text(lines),
        "gz": lambda: Path(name).write_bytes(gzip.compress(lines.encode())),
        "json": lambda: Path(name).write_text(json.dumps(rows)),
        "csv": lambda: Path(name).write_text("question,answer\nWhen?,2024-01-01\nOr?,2024-01-02T00:00:00\n"),
        "parquet": lambda: Dataset.from_list(rows).to_parquet(name),
    }
    contents[name.rpartition(".")[2]]()
    for task in (f"mine.yaml={name}", f"number_rows={name}"):
        if task.startswith("mine"):
            [loaded] = load_tasks([task])["tasks"].values()
            # `datasets` alone would make dates of these texts
            assert [loaded.doc_to_target(doc) for doc in loaded.test_docs()] == ["2024-01-01", "2024-01-02T00:00:00"]
        else:
            assert "`answer` must be a number" in problems(task)[0]


def test_files_are_found_beside_the_task_file_and_includes_are_merged(folder, monkeypatch):
    Path("more.yaml").write_text('include: mine.yaml\ntask: more\ndoc_to_text: "{{answer}}"\n')
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    task = load_tasks(["../more.yaml"])["tasks"]["more"]
    assert task.doc_to_text(task.test_docs()[0]) == "2" and task.doc_to_target(task.test_docs()[0]) == "2"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # YAML
        (TASK, "", "mine.yaml:1: the file is empty; a task file needs at least `task` and `doc_to_text`"),
        (TASK, "- a\n", "mine.yaml:1: this is not a task file; write `key: value` on each line"),
        ("task: mine", "task: [mine", "mine.yaml:2: not valid YAML"),
        ("test_split", "\ttest_split", "mine.yaml:4: found a tab"),
        ("test_split: test", "task: again", "mine.yaml:4: found `task` on line 1 and again on line 4"),
        ("answer", "!!python/object/apply:os.system [ls]", "mine.yaml:7: not valid YAML (found the tag tag:yaml.org"),
        ("answer", "!include x", "mine.yaml:7: not valid YAML (found the tag !include; allowed: !function"),
        ("answer", "!function [a]", "mine.yaml:7: not valid YAML (found a list or mapping behind !function"),
        ("answer", "*name", "mine.yaml:7: not valid YAML (found an alias"),
        ("test_split: test", "include: no.yaml", "mine.yaml:4: include: no.yaml: there is no such file"),
        ("test_split: test", "include: mine.yaml", "mine.yaml:4: include: mine.yaml includes itself in the end"),
        ("test_split: test", "include: 3", "mine.yaml:4: include: found 3; allowed: the path of a task file"),
        # keys
        ("doc_to_target: a", "doc_to_targt: a", "mine.yaml:7: doc_to_targt: lm-eval has no such key (did you mean `do"),
        ("doc_to_target: a", "doc_to_targt: a", "mine.yaml:1: doc_to_target: is missing; allowed: a key of the rows"),
        ('doc_to_text: "Q: {{question}}"\n', "", "mine.yaml:1: doc_to_text: is missing"),
        ("task: mine", "task: a b", "mine.yaml:1: task: found 'a b'; allowed: a name of letters"),
        ("task: mine", "task: [a, b]", "mine.yaml:1: task: this is a group of tasks; name its tasks one by one"),
        ("task: mine", "task: mine\nclass: x", "mine.yaml:2: class: a task that is a Python class cannot be checked"),
        ("task: mine", "task: skills", "mine.yaml:1: task: `skills` is a task of olmoe_ft; give yours another name"),
        ("task: mine", "task: gsm8k", "mine.yaml:1: task: `gsm8k` is a task of lm-eval; give yours another name"),
        ("dataset_path: json", "repeats: 1", "mine.yaml:1: dataset_path: is missing; write `dataset_path: json`"),
        ("test_split: test\n", "", "mine.yaml:1: test_split: is missing; name the split that has the questions"),
        ("test_split: test", "num_fewshot: two", "mine.yaml:4: num_fewshot: found 'two'; allowed: a whole number"),
        ("test_split: test", "test_split: [test]", "mine.yaml:4: test_split: found ['test']; allowed: text"),
        ("{until", "[until", "mine.yaml:8: not valid YAML"),
        ('["Q:"]', "[3]", "mine.yaml:8: generation_kwargs.until: found [3]; allowed: a text at which"),
        ("toks: 8", "toks: 0", "mine.yaml:8: generation_kwargs.max_gen_toks: found 0; allowed: a whole number"),
        ("generate_until", "generate", "mine.yaml:5: output_type: found 'generate'; allowed: loglikelihood,"),
        ("generate_until", "multiple_choice", "mine.yaml:1: doc_to_choice: is missing"),
        (
            "test_split: test",
            "test_split: test\ndoc_to_choice: [a, 3]",
            "mine.yaml:5: doc_to_choice: found ['a', 3]; allow",
        ),
        (
            "test_split: test",
            "test_split: test\ndoc_to_choice: '{{[question, \"\"]}}'",
            "mine.yaml:5: doc_to_choice: rows.jsonl:1: found the choices ['1+1?', '']; allowed: a list of texts",
        ),
        (
            "test_split: test",
            "test_split: test\nuse_prompt: a:b",
            "mine.yaml:5: use_prompt: prompts of promptsource are",
        ),
        (
            "{data_files",
            "{a: 1, data_files",
            "mine.yaml:3: dataset_kwargs: `datasets` refuses them (JsonConfig.__init__()",
        ),
        (
            "test_split: test",
            "test_split: test\nmetadata: {data_files: 1}",
            "mine.yaml:5: metadata: found data_files, which `dataset_kwargs` has too; remove them here",
        ),
        (
            "test_split: test",
            "test_split: test\nnum_fewshot: 2",
            "mine.yaml:5: num_fewshot: the worked examples would be questions of the test itself",
        ),
        (
            "test_split: test",
            "test_split: test\nfewshot_config: {sampler: first}",
            "mine.yaml:5: fewshot_config.sampler: found 'first'; allowed: default, first_n",
        ),
        (
            "test_split: test",
            "test_split: test\nfewshot_config: {smples: []}",
            "mine.yaml:5: fewshot_config.smples: lm-eval has no such key (did you mean `samples`?)",
        ),
        # metrics, filters, functions
        ("[{metric: exact_match}]", "[]", "mine.yaml:9: metric_list: found no metric; name one, or remove the key"),
        (
            "test_split: test",
            "test_split: test\nfilter_list: []",
            "mine.yaml:5: filter_list: found no filter, so that no output would be marked; name one, or remove the key",
        ),
        (
            "exact_match}",
            "exactmatch}",
            "mine.yaml:9: metric_list.0.metric: found 'exactmatch' (did you mean `exact_ma",
        ),
        ("exact_match}", "exact_match, aggregation: avg}", "mine.yaml:9: metric_list.0.aggregation: found 'avg'"),
        ("{metric: exact_match}", "exact_match", "mine.yaml:9: metric_list.0: found 'exact_match'; allowed: a mapping"),
        (
            "metric_list: [{metric: exact_match}]",
            "process_results: !function code.score\nmetric_list: [{metric: length}]",
            "mine.yaml:10: metric_list.0: `length` needs its `aggregation`, such as `aggregation: mean`",
        ),
        (
            "test_split: test",
            "test_split: test\nprocess_results: code.score",
            "mine.yaml:5: process_results: found 'code.score'; allowed: `!function file.function`",
        ),
        (
            "test_split: test",
            "test_split: test\nprocess_results: !function code.scores",
            "mine.yaml:5: process_results: found `!function code.scores`, which cannot be loaded",
        ),
        (
            "test_split: test",
            "test_split: test\nprocess_results: !function no_module.score",
            "mine.yaml:5: process_results: found `!function no_module.score`, which cannot be loaded",
        ),
        (
            "test_split: test",
            "test_split: test\nfilter_list: [{name: a, filter: [{function: regx}]}]",
            "mine.yaml:5: filter_list.0.filter.0.function: found 'regx' (did you mean `regex`?); allowed: custom,",
        ),
        (
            "test_split: test",
            'test_split: test\nfilter_list: [{name: a, filter: [{function: regex, regex_pattern: "("}]}]',
            "mine.yaml:5: filter_list.0.filter.0: the filter refuses its options (missing ), unterminated subpattern",
        ),
        (
            "test_split: test",
            "test_split: test\nfilter_list: [{filter: []}]",
            "mine.yaml:5: filter_list.0: found {'filter': []}; allowed: a mapping with `name` and `filter`",
        ),
        # templates and rows
        ("{{question}}", "{{question", "mine.yaml:6: doc_to_text: is not a Jinja template ("),
        ("{{question}}", "{{qestion}}", "mine.yaml:6: doc_to_text: rows.jsonl:1: 'qestion' is undefined"),
        ('"Q: {{question}}"', "qestion", "mine.yaml:6: doc_to_text: found 'qestion', which is no key of the rows (did"),
        ("answer", "anser", "mine.yaml:7: doc_to_target: found 'anser', which is no key of the rows (did you mean"),
        ('"Q: {{question}}"', "!function code.broken", "mine.yaml:6: doc_to_text: rows.jsonl:1: KeyError: 'nothing'"),
        ("rows.jsonl", "no.jsonl", "mine.yaml:3: dataset_kwargs.data_files: no.jsonl: there is no such file"),
        ("rows.jsonl", "code.py", "mine.yaml:3: dataset_kwargs.data_files: code.py: this kind of file cannot be read"),
        (
            "{test: rows.jsonl}",
            "rows.jsonl",
            "mine.yaml:4: test_split: found `test`, of which there is no file; allowe",
        ),
        ("{test: rows.jsonl}", "{test: 3}", "mine.yaml:3: dataset_kwargs.data_files: found 3; allowed: the path of a"),
        (
            "{data_files: {test: rows.jsonl}}",
            "{}",
            "mine.yaml:3: dataset_kwargs.data_files: needs your file: --tasks mine.yaml=FILE",
        ),
        ("{data_files: {test: rows.jsonl}}", "rows", "mine.yaml:3: dataset_kwargs: found 'rows'; allowed: a mapping"),
        (
            "test_split: test",
            "test_split: test\nprocess_docs: !function code.broken",
            "mine.yaml:5: process_docs: fails on the rows (Column 'nothing' doesn't exist.)",
        ),
    ],
)
def test_a_broken_task_file_is_refused_with_its_line(folder, old, new, message):
    changed(old, new)
    assert any(found.startswith(message) for found in problems("mine.yaml")), problems("mine.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "mine.yaml=other.jsonl: other.jsonl: the file has no rows; give at least one"),
        ('{"question": "a", "answer"\n', "mine.yaml=other.jsonl: other.jsonl:1: not valid JSON (Expecting ':'"),
        ("[1]\n", "mine.yaml=other.jsonl: other.jsonl:1: found [1]; allowed: an object with named fields"),
        (
            '{"question": "a", "answer": "b"}\n{"answer": "b"}\n',
            "mine.yaml:6: doc_to_text: other.jsonl:2: 'question' is undefined; correct the row",
        ),
        (
            '{"question": "a", "answer": "b"}\n{"question": null, "answer": "b"}\n',
            "mine.yaml:6: doc_to_text: other.jsonl:2: a value that the template writes is null",
        ),
        (
            '{"question": "a", "answer": "b"}\n{"question": "a"}\n',
            "mine.yaml:7: doc_to_target: other.jsonl:2: has no `answer`; found question; add it, or take out the row",
        ),
        (
            '{"question": "a", "answer": "b"}\n{"question": "a", "answer": 3}\n',
            "mine.yaml=other.jsonl: other.jsonl:1 and below: `answer` has values of different kinds",
        ),
    ],
)
def test_a_broken_file_of_rows_is_refused_with_its_row(folder, content, message):
    Path("other.jsonl").write_text(content)
    assert any(found.startswith(message) for found in problems("mine.yaml=other.jsonl")), problems(
        "mine.yaml=other.jsonl"
    )


def test_the_first_malformed_rows_are_named_and_the_others_counted(folder):
    write("rows.jsonl", [{"answer": "2"}] * 7 + ROWS)
    found = problems("mine.yaml")
    assert [one.partition(" 'question'")[0] for one in found[:5]] == [
        f"mine.yaml:6: doc_to_text: rows.jsonl:{line}:" for line in range(1, 6)
    ]
    assert found[5:] == ["mine.yaml:6: doc_to_text: and 2 more rows like these"]


def test_all_that_is_wrong_is_said_at_once(folder):
    changed("exact_match", "exactmatch")
    found = problems("mine.yaml", "no.yaml", "gsm8k_rows", "regex_rows=rows.jsonl", "json_rows", "json_rows")
    starts = [
        "mine.yaml:9: metric_list.0.metric",
        "no.yaml: there is no such file",
        "gsm8k_rows: needs your file: --tasks gsm8k_rows=FILE",
        "json_rows: needs your file: --tasks json_rows=FILE",
        "json_rows: needs your file: --tasks json_rows=FILE",
        "json_rows: found 2 tasks of this name; leave out or rename all but one",
    ]
    assert len(found) == len(starts)
    assert all(one.startswith(start) for one, start in zip(found, starts, strict=True)), found


def test_tasks_of_the_registry(folder):
    """The index of lm-eval is built once for all of these."""
    gsm8k, unknown, group, few = problems("gsm8k_ct", "mmlu=rows.jsonl", "gsm8k=rows.jsonl", "skils")
    # in the order in which they were asked for
    assert gsm8k.startswith("gsm8k_ct: there is no such task (did you mean `gsm8k_cot`?); allowed: exact_rows,")
    assert unknown.startswith("mmlu=rows.jsonl: only a single task can have a file of rows")
    assert group.startswith("gsm8k=rows.jsonl: fewshot_split: found `train`, of which there is no file; allowed: test")
    assert few.startswith("skils: there is no such task (did you mean `skills`?)")
    write("other.jsonl", [{"question": "1+1?", "answer": "#### 2"}])
    loaded = load_tasks(["gsm8k_cot=other.jsonl", "skills"])["tasks"]
    assert list(loaded) == ["gsm8k_cot", "skills"]
    assert loaded["gsm8k_cot"].doc_to_target(loaded["gsm8k_cot"].test_docs()[0]) == "2"
    assert "for questions in a file name a task with it, such as `exact_rows=other.jsonl`" in problems("other.jsonl")[0]
    assert problems("skills=") == ["skills=: found no file behind the task; write `skills=FILE`, or `skills` alone"]
    check_tasks(["mmlu"])  # a group, whose datasets are on the Hub


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("answers", "the held-out prompts of a recipe"),
        ("xstest", "a set of prompts for a judge"),
        ("alpaca_eval", "a set of prompts for a judge"),
        ("skills", "a task of olmoe_ft"),
        ("olmoe_bbh", "a task of olmoe_ft"),
        ("mmlu", "a task of lm-eval"),
    ],
)
def test_a_name_of_another_task_is_refused(folder, name, whose):
    changed("task: mine", f"task: {name}")
    assert problems("mine.yaml") == [f"mine.yaml:1: task: `{name}` is {whose}; give yours another name"]
    assert check_name(name, f"{name}.jsonl") == f"{name}.jsonl: `{name}` is {whose}; give yours another name"


def test_other_names_are_free(folder):
    assert check_name("mine", "mine.jsonl") is None


def test_files_of_a_pattern_are_found_beside_the_task_file(folder, monkeypatch):
    """Also in a folder whose own name looks like a pattern."""
    (folder / "a[b]").mkdir()
    for name in ("mine.yaml", "rows.jsonl"):
        (folder / name).rename(folder / "a[b]" / name)
    (folder / "a[b]" / "mine.yaml").write_text(TASK.replace("rows.jsonl", '"r*.jsonl"'))
    write("a[b]/rest.jsonl", ROWS[:1])
    task = load_tasks(["a[b]/mine.yaml"])["tasks"]["mine"]
    assert [task.doc_to_target(doc) for doc in task.test_docs()] == ["2", "2", "4"]
    write("rx.jsonl", ROWS[1:])  # the working folder comes first
    assert len(load_tasks(["a[b]/mine.yaml"])["tasks"]["mine"].test_docs()) == 1


def test_a_file_can_replace_the_rows_of_some_tasks(folder):
    """GSM8K's examples are of its training split, those of `gsm8k_cot` are written out; `mmlu` is many tasks."""
    Path("few.yaml").write_text("include: mine.yaml\ntask: few\nnum_fewshot: 1\nfewshot_split: more\n")
    names = ["gsm8k_rows", "mine.yaml", "gsm8k_cot", "few.yaml", "no.yaml", "gsm8k", "mmlu", "a, b"]
    assert [takes_rows(name) for name in names] == [True] * 3 + [False] * 5


def test_no_task_and_no_lm_eval(folder, monkeypatch):
    assert problems()[0].startswith("found no task; allowed: exact_rows, gsm8k_rows,")
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    assert problems("skills") == [
        "evaluation with tasks needs lm-eval, which is not installed; install it: pip install 'olmoe_ft[evaluation]'"
    ]
