"""The suite's table beside lm-eval's own task files, and one column from end to end on rows of a local file."""

import json
import math

import pytest

from olmoe_ft.evaluation.paper import BASE, COMPARED, DPO, KTO, SFT
from olmoe_ft.evaluation.suite import SUITE, TASKS, pass_at_10
from tests.support.networks import ours
from tests.support.small_tokenizers import small_tokenizer

tasks = pytest.importorskip("lm_eval.tasks")
from lm_eval.tasks._index import Kind  # noqa: E402
from lm_eval.tasks._yaml_loader import load_yaml  # noqa: E402

COLUMNS = {column.name: column for column in SUITE}
MEASURED = [column for column in SUITE if not column.judged]


@pytest.fixture(scope="module")
def manager():
    return tasks.TaskManager(include_path=str(TASKS))


def member_of(column) -> dict:
    """The one task or group that the suite's file changes, with the keys that it replaces."""
    [member] = load_yaml(TASKS / f"{column.name}.yaml", resolve_func=False)["task"]
    return member


def leaves(manager, name: str) -> list[dict]:
    """The task files below a task, tag or group of lm-eval."""
    entry = manager.task_index[name]
    if entry.kind is Kind.TAG:
        return [leaf for member in sorted(entry.tags) for leaf in leaves(manager, member)]
    config = load_yaml(entry.yaml_path, resolve_func=False)
    if not isinstance(config["task"], list):
        return [config]
    return [leaf for member in config["task"] for leaf in leaves(manager, member)]


def test_the_columns_are_the_papers_in_its_order():
    titles = ["MMLU", "GSM8k", "BBH", "HumanEval", "AlpacaEval 1.0", "XSTest", "IFEval"]
    assert [column.title for column in SUITE] == titles
    assert [column.name for column in SUITE if column.judged] == ["alpaca_eval", "xstest"]
    assert [column.name for column in SUITE if column.runs_code] == ["humaneval"]


@pytest.mark.parametrize("column", MEASURED, ids=lambda column: column.name)
def test_lm_eval_has_the_task_with_this_metric_and_these_shots(column, manager):
    member = member_of(column)
    name = member.pop("task", None) or member.pop("group")
    assert name == column.task and column.group in manager.all_groups
    found = leaves(manager, column.task)
    assert len(found) == {"mmlu": 57, "bbh": 27}.get(column.name, 1)
    for leaf in found:
        assert set(member) <= {*leaf, "num_fewshot", "gen_prefix", "repeats"}  # keys that lm-eval reads
        merged = {**leaf, **member}
        assert merged["num_fewshot"] == column.shots
        metric, _, read_by = column.metric.partition("/")
        assert read_by in [one["name"] for one in merged.get("filter_list", [{"name": ""}])]
        if column.name != "humaneval":  # whose metric is a function that names its results
            assert metric in [one["metric"] for one in merged["metric_list"]]


@pytest.mark.parametrize("column", MEASURED, ids=lambda column: column.name)
def test_generation_is_as_the_protocol_says(column):
    """The figures of `protocol`, which docs show, are those of the file."""
    member = member_of(column)
    if column.name == "mmlu":
        assert "generation_kwargs" not in member and f"`{member['gen_prefix']}`" in column.protocol
        return
    wishes = member["generation_kwargs"]
    assert f"{wishes['max_gen_toks']:,} new tokens" in column.protocol
    assert ("greedy" in column.protocol) == (wishes["do_sample"] is False)
    if column.name == "humaneval":
        assert f"{member['repeats']} samples at temperature {wishes['temperature']}" in column.protocol
        assert f"top-p {wishes['top_p']}" in column.protocol


def test_humaneval_stops_where_lm_evals_does(manager):
    [leaf] = leaves(manager, "humaneval")
    assert member_of(COLUMNS["humaneval"])["generation_kwargs"]["until"] == leaf["generation_kwargs"]["until"]


def test_pass_at_10_of_20_programs(monkeypatch):
    """n = 20, c = 3: 1 - C(17, 10) / C(20, 10) = 1 - 19448 / 184756 = 0.8947..."""
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    programs = ["def add(a, b):\n    return a + b"] * 3 + ["def add(a, b):\n    return a * b"] * 17
    try:
        found = pass_at_10(["assert add(2, 3) == 5"], [programs])
    except FileNotFoundError:
        pytest.skip("the metric code_eval of `evaluate` is not in the cache")
    assert found == {"pass@10": pytest.approx(1 - math.comb(17, 10) / math.comb(20, 10))}


def local(manager, member: dict, rows: list[dict], folder):
    """A task of lm-eval with a suite's keys, on the rows of a file."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"test": str(file), "dev": str(file)}
    data = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    return manager.load({"group": "local", "task": [{**member, **data}]})


def test_gsm8k_on_local_rows_from_end_to_end(manager, tmp_path, monkeypatch):
    """A random network has no right answer: 0 of 2, with 8 worked examples in one user turn."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    from lm_eval.evaluator import evaluate

    rows = [{"question": f"What is {number} and 1000?", "answer": f"#### {number + 1000}"} for number in (1, 2)]
    member = member_of(COLUMNS["gsm8k"])
    member["generation_kwargs"] = {**member["generation_kwargs"], "max_gen_toks": 4}  # 512 take a while
    loaded = local(manager, member, rows, tmp_path)
    network = ours(vocab_size=512, max_position_embeddings=4096)
    model = huggingface.HFLM(pretrained=network, tokenizer=small_tokenizer("tiny"), max_length=4096)
    found = evaluate(model, loaded, apply_chat_template=True, fewshot_as_multiturn=False, log_samples=True)
    assert found["results"]["gsm8k_cot"]["exact_match,flexible-extract"] == 0.0
    assert found["n-shot"]["gsm8k_cot"] == 8
    prompt = found["samples"]["gsm8k_cot"][0]["arguments"][0][0]
    assert prompt.count("Q: ") == 9 and prompt.count("<|user|>") == 1 and prompt.endswith("<|assistant|>\n")


def test_mmlu_begins_the_answer(manager, tmp_path, monkeypatch):
    """The four letters, each behind `The answer is:` and a space."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"question": "1 + 1?", "choices": ["2", "3", "4", "5"], "answer": 0}]
    keys = {key: value for key, value in member_of(COLUMNS["mmlu"]).items() if key != "group"}
    loaded = local(manager, {"task": "mmlu_abstract_algebra", **keys}, rows, tmp_path)
    [task] = loaded["tasks"].values()
    task.build_all_requests(apply_chat_template=True, chat_template=lambda turns, **_: turns[-1]["content"])
    assert [one.args for one in task.instances] == [("The answer is:", f" {letter}") for letter in "ABCD"]


@pytest.mark.parametrize("published, mean", [(SFT, 54.0), (DPO, 57.7), (KTO, 57.7)])
def test_published_values_have_the_papers_average(published, mean):
    """The paper's last column, to its one decimal; a misread value would move it by more."""
    assert set(published.values) == set(COLUMNS) and published in COMPARED
    assert sum(published.values.values()) / 7 == pytest.approx(mean, abs=0.05)


def test_the_base_has_no_win_rate():
    assert set(COLUMNS) - set(BASE.values) == {"alpaca_eval"}


def test_the_document_has_the_protocol_of_each_column():
    """One row each, word for word, and the published values."""
    text = (TASKS.parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for column in SUITE:
        where = "judged" if column.judged else f"`{column.task}`: `{column.metric}`"
        assert f"| {column.title} | {column.protocol} | {where} | {column.departure} |" in text
    for published in (BASE, *COMPARED):
        values = [f"{published.values[name]:.1f}" if name in published.values else "" for name in COLUMNS]
        assert f" | {' | '.join(values)} | ".replace("  ", " ") in text
