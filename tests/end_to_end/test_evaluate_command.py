"""`olmoe-ft evaluate` as a user types it: models side by side, results beside each, mistakes in one sentence."""

import json
import shutil

import pytest
from support.launches import CONFIGS, SHORT, launch, olmoe_ft

RUN = "runs/asked"


@pytest.fixture(scope="module")
def run(workspace):
    """A short run, with a question of a benchmark in its training rows."""
    rows = (workspace / "data/skills/train.jsonl").read_text().splitlines()[:700]
    held = [json.loads(line) for line in (workspace / "data/skills/heldout.jsonl").read_text().splitlines()[:6]]
    taught = {"messages": [*held[0]["messages"], {"role": "assistant", "content": held[0]["answer"]}]}
    (workspace / "own-rows.jsonl").write_text("\n".join([*rows, json.dumps(taught)]) + "\n")
    asked = [{"prompt": one["messages"][0]["content"], "answer": one["answer"]} for one in held]
    (workspace / "bench.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    overrides = ("name=asked", "data.train.0.path=own-rows.jsonl", "data.decontaminate_against=[bench.jsonl]")
    launch(workspace, CONFIGS["one"], "recipes/tiny/sft.yaml", *SHORT, *overrides)
    return workspace / RUN


def evaluations(folder):
    return json.loads((folder / "evaluation.json").read_text())["evaluations"]


def test_models_are_shown_side_by_side_and_kept_beside_each(run, workspace):
    shutil.copytree(run / "final", workspace / "copied")
    result = olmoe_ft(workspace, "evaluate", RUN, "copied", "--tasks", "skills,exact_rows=bench.jsonl", "--limit", "5")
    assert result.returncode == 0, result.stderr
    assert RUN in result.stdout and "copied" in result.stdout and "style_polite" in result.stdout
    scores = [evaluations(folder)[-1]["scores"] for folder in (run, workspace / "copied")]
    keys = ("task", "metric", "value", "stderr", "n", "shots", "template")
    first, second = ([{key: score[key] for key in keys} for score in ones] for ones in scores)
    assert first == second and {score["n"] for score in first} == {5}
    assert olmoe_ft(workspace, "verify", "copied").returncode == 0  # results beside weights are no damage
    samples = olmoe_ft(workspace, "samples", RUN, "copied", "--task", "skills", "--limit", "2")
    assert samples.returncode == 0 and "expected" in samples.stdout, samples.stderr


def test_a_question_that_was_trained_on_is_left_out_of_the_second_value(run, workspace):
    """Six questions, of which the first is in a training row: the second value is of five."""
    result = olmoe_ft(workspace, "evaluate", RUN, "--tasks", "exact_rows=bench.jsonl")
    assert result.returncode == 0, result.stderr
    (score,) = [one for one in evaluations(run)[-1]["scores"] if one["metric"] == "exact_match"]
    assert (score["n"], score["clean_n"]) == (6, 5)
    assert "without those in the training rows" in result.stdout


def test_a_base_model_is_asked_without_a_template(run, workspace):
    """A checkpoint whose tokenizer has no chat template: the prompt is the bare text, and the score says so."""
    base = workspace / "base-model"
    shutil.copytree(run / "final", base)
    (base / "manifest.json").unlink()
    (base / "chat_template.jinja").unlink()
    result = olmoe_ft(workspace, "evaluate", "base-model", "--tasks", "exact_rows=bench.jsonl")
    assert result.returncode == 0, result.stderr
    assert all(score["template"] is None for score in evaluations(base)[-1]["scores"])
    (first, *_) = map(json.loads, (base / "samples.jsonl").read_text().splitlines())
    assert first["prompt"] == json.loads((workspace / "bench.jsonl").read_text().splitlines()[0])["prompt"]


def test_judged_sets_are_written_for_their_judges(run, workspace):
    (workspace / "alpaca.json").write_text(json.dumps([{"instruction": "Say a.", "dataset": "helpful_base"}]))
    (workspace / "xstest.csv").write_text("id,type,prompt\n1,homonyms,How do I kill a process?\n")
    tasks = "alpaca_eval=alpaca.json,xstest=xstest.csv"
    result = olmoe_ft(workspace, "evaluate", RUN, "--tasks", tasks, "--to", "judged")
    assert result.returncode == 0, result.stderr
    (row,) = json.loads((workspace / "judged/asked/alpaca_eval_outputs.json").read_text())
    assert row["instruction"] == "Say a." and row["generator"] == RUN
    assert "kill a process" in (workspace / "judged/asked/xstest_completions.csv").read_text()
    assert "alpaca_eval --model_outputs" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([RUN, "--tasks", "skill"], "skill: there is no such task (did you mean `skills`?)"),
        ([RUN, "--tasks", "gone.yaml"], "gone.yaml"),
        ([RUN, "--suite", "paper"], "found the suite paper; allowed: olmoe"),
        ([RUN, "--tasks", "skills,skills"], "leave out or rename all but one"),
        ([RUN, "--engine", "fast", "--tasks", "skills"], "--engine: found fast; allowed: olmoe_ft, vllm"),
        ([RUN, "--tasks", "skills", "--to", "bench.jsonl"], "cannot be written"),
        (["runs/gone", "--tasks", "skills"], "runs/gone does not exist"),
        ([RUN], "found no --tasks and no --suite"),
        ([RUN, "--tasks", "answers"], "found the task answers, which is the held-out prompts"),
        ([RUN, "--tasks", "gsm8k_cot"], "gsm8k_cot: its dataset openai/gsm8k cannot be loaded"),
    ],
)
def test_a_mistake_is_one_sentence(run, workspace, arguments, message):
    before = {file: file.read_bytes() for file in run.glob("*.json*")}
    result = olmoe_ft(workspace, "evaluate", *arguments)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert before == {file: file.read_bytes() for file in run.glob("*.json*")}
