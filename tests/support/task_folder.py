"""A user's folder with a task file, its rows and its functions, and the messages about it."""

import json
from pathlib import Path

import pytest

from olmoe_ft.evaluation.task_files import check_tasks
from olmoe_ft.recipe import UserError

ROWS = [{"question": "1+1?", "answer": "2"}, {"question": "2+2?", "answer": "4"}]
TASK = """\
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{question}}"
doc_to_target: answer
generation_kwargs: {until: ["Q:"], max_gen_toks: 8}
metric_list: [{metric: exact_match}]
"""
CODE = """\
def score(doc, results):
    return {"length": float(len(results[0]))}


def upper(doc):
    return doc["question"].upper()


def broken(doc):
    return doc["nothing"]


def kept(docs):
    return docs.filter(lambda doc: doc["answer"] == "4")
"""


def write(name: str, rows: list) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def changed(old: str, new: str) -> None:
    assert old in TASK
    Path("mine.yaml").write_text(TASK.replace(old, new))


def problems(*names: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        check_tasks(names)
    return caught.value.messages
