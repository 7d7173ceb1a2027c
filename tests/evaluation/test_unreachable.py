"""Errors of libraries about what a task needs, each as one sentence. The suite runs offline."""

import pytest

from olmoe_ft.evaluation.unreachable import refusal_of_task
from olmoe_ft.recipe import Unreachable


def test_a_dataset_that_is_not_in_the_cache():
    pytest.importorskip("lm_eval")
    import datasets

    with pytest.raises(ConnectionError) as caught:
        datasets.load_dataset("openai/gsm8k", "main")
    refused = refusal_of_task("gsm8k_cot", caught.value)
    assert isinstance(refused, Unreachable) and len(refused.messages) == 1
    assert str(refused) == (
        "gsm8k_cot: its dataset openai/gsm8k cannot be loaded: no network, or not in the cache; fetch it once where "
        "there is a network (the same command with --limit 1) and bring the cache here (HF_HOME), give its rows in a "
        "file (--tasks gsm8k_cot=FILE), or leave the task out"
    )
    # the worked examples of `gsm8k` are of a split that a file would not have, and two tasks have no one file
    assert "gsm8k=FILE" not in str(refusal_of_task("gsm8k", caught.value))
    assert "=FILE" not in str(refusal_of_task("gsm8k_cot, gsm8k_cot_zeroshot", caught.value))
    assert "=FILE" not in str(refusal_of_task("gsm8k_cot", caught.value, own_rows=False))
    # prompts for a judge may always be in a file
    assert "(--tasks xstest=FILE)" in str(refusal_of_task("xstest", caught.value, "natolambert/xstest"))


def test_a_task_that_runs_what_the_model_has_written():
    """As `evaluate` refuses to, in a banner of ten lines."""
    error = ValueError('#### The "code_eval" metric executes untrusted code\nset HF_ALLOW_CODE_EVAL="1"\n####')
    assert str(refusal_of_task("humaneval", error)) == (
        "humaneval: it runs code which the model has written; allow it with --allow-code (`evaluation.allow_code: "
        "true` in a recipe), in a container, or leave the task out"
    )


def test_a_task_of_lm_eval():
    tasks = pytest.importorskip("lm_eval.tasks")
    row = {"task": "other", "dataset_path": "some/thing", "test_split": "test", "doc_to_text": "x", "doc_to_target": ""}
    with pytest.raises(ConnectionError) as caught:
        tasks.TaskManager(include_defaults=False).load(row)
    assert "other: its dataset some/thing cannot be loaded" in str(refusal_of_task("other", caught.value))


def test_a_metric_that_is_not_in_the_cache(tmp_path, monkeypatch):
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.chdir(tmp_path)  # it looks there first
    with pytest.raises(FileNotFoundError) as caught:
        evaluate.load("no_such_metric")
    text = str(refusal_of_task("humaneval", caught.value))
    assert text.startswith("humaneval: its metric no_such_metric cannot be loaded: no network")


def test_words_that_ifevals_checks_need():
    nltk = pytest.importorskip("nltk")
    with pytest.raises(LookupError) as caught:
        nltk.data.find("tokenizers/no_such_thing")
    text = str(refusal_of_task("ifeval", caught.value))
    assert "its checks need no_such_thing of nltk" in text and "python -m nltk.downloader no_such_thing" in text


def test_another_reason_is_not_hidden():
    text = str(refusal_of_task("a", RuntimeError("Dataset scripts are no longer supported, but found x.py"), "b/c"))
    assert (
        "Dataset scripts are no longer supported" in text
        and text.startswith("a: ")
        and text.endswith("or leave the task out")
    )
    assert str(refusal_of_task("a", ValueError("split `x` is missing"))) == (
        "a: its questions cannot be loaded (split `x` is missing); leave the task out"
    )
