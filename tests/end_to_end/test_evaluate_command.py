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


TASK = """\
task: letters
dataset_path: json
dataset_kwargs: {data_files: {test: bench.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: [], max_gen_toks: 4}
process_results: !function marks_of_letters.marks
metric_list:
  - {metric: length, aggregation: mean, higher_is_better: true}
"""
MARKS = """\
import os

def marks(doc, results):
    if os.path.exists("fails"):
        raise ValueError("it is broken")
    return {"length": 3.0}
"""


def test_a_task_file_of_ones_own_is_shown_and_recorded(run, workspace):
    """By the name in it, in the table and, in a training, in the records; what is no share is no percentage. When its
    marking fails after steps were trained, the run is finished all the same, and says so."""
    (workspace / "letters.yaml").write_text(TASK)
    (workspace / "marks_of_letters.py").write_text(MARKS)
    result = olmoe_ft(workspace, "evaluate", RUN, "--tasks", "letters.yaml")
    assert result.returncode == 0, result.stderr
    assert "letters" in result.stdout and "3.0" in result.stdout and "300" not in result.stdout
    overrides = ("name=own-task", "training.max_steps=3", "evaluation.tasks=[letters.yaml]", "evaluation.limit=2")
    output = launch(workspace, CONFIGS["one"], "recipes/tiny/sft.yaml", *SHORT, *overrides)
    records = [json.loads(line) for line in (workspace / "runs/own-task/metrics.jsonl").read_text().splitlines()]
    assert [one["step"] for one in records if one.get("eval/letters/length") == 3.0] == [0, 3]
    assert "letters" in output
    (workspace / "fails").touch()
    try:
        overrides = ("name=fails", *overrides[1:], "evaluation.before=false")
        output = launch(workspace, CONFIGS["one"], "recipes/tiny/sft.yaml", *SHORT, *overrides)
        assert "step 3 is not evaluated: letters, question 0: the task fails with ValueError: it is broken" in output
        assert (workspace / "runs/fails/final").exists()
    finally:
        (workspace / "fails").unlink()


def test_other_rows_and_templates_are_other_evaluations(run, workspace):
    """None replaces another; `samples` pairs no question with another one."""
    (workspace / "other.jsonl").write_text('{"prompt": "Say b.", "answer": "b"}\n{"prompt": "Say c.", "answer": "c"}\n')
    shutil.copytree(run / "final", workspace / "twice")
    asked = [("exact_rows=bench.jsonl",), ("exact_rows=other.jsonl",), ("exact_rows=other.jsonl", "--no-chat")]
    for options in asked:
        assert olmoe_ft(workspace, "evaluate", "twice", "--tasks", *options, "--limit", "2").returncode == 0
    kept = evaluations(workspace / "twice")
    assert [one["settings"]["asked"][0] for one in kept] == [options[0] for options in asked]
    assert [one["settings"]["template"] is None for one in kept] == [False, False, True]
    assert olmoe_ft(workspace, "evaluate", RUN, "--tasks", "exact_rows=bench.jsonl", "--limit", "2").returncode == 0
    shown = olmoe_ft(workspace, "samples", RUN, "twice", "--task", "exact_rows")
    assert "McNemar" not in shown.stdout + shown.stderr


def test_checkpoints_of_a_run_are_the_runs_and_its_start_is_not(run, workspace):
    launch(
        workspace, CONFIGS["one"], "recipes/tiny/sft.yaml", *SHORT, "name=saved", "training.max_steps=4",
        "training.save_strategy=steps", "training.save_steps=2", "training.save_total_limit=3",
    )  # fmt: skip
    folder = workspace / "runs/saved"
    models = ("runs/saved/checkpoints/checkpoint-2", "runs/saved", "runs/saved/base")
    result = olmoe_ft(workspace, "evaluate", *models, "--tasks", "exact_rows=bench.jsonl")
    assert result.returncode == 0, result.stderr
    assert [(one["model"], one["step"]) for one in evaluations(folder)] == [(models[0], 2), (models[1], 4)]
    assert [(one["model"], one["step"]) for one in evaluations(folder / "base")] == [(models[2], None)]


def test_a_dataset_out_of_reach_is_said_before_a_step_is_trained(run, workspace):
    overrides = ("name=unreachable", "evaluation.tasks=[skills, arc_easy]", "evaluation.before=false")
    result = olmoe_ft(workspace, "train", "recipes/tiny/sft.yaml", *SHORT, *overrides)
    assert result.returncode == 2 and "arc_easy: its dataset" in result.stderr, result.stderr
    assert not (workspace / "runs/unreachable").exists()


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
        ([RUN, "--tasks", "worked.jsonl"], "name the task that compares the number: gsm8k_rows=worked.jsonl"),
        ([RUN, "--tasks", "mmlu.jsonl"], "mmlu.jsonl: `mmlu` is a task of lm-eval"),
        ([RUN, "--tasks", "olmoe_gsm8k=bench.jsonl"], "a column of the suite has its own questions"),
        ([RUN, "--tasks", "olmoe_humaneval"], "allow it with --allow-code"),
        ([RUN, RUN, "--tasks", "skills", "--to", "out"], "the results of both would be in"),
    ],
)
def test_a_mistake_is_one_sentence(run, workspace, arguments, message):
    (workspace / "worked.jsonl").write_text(json.dumps({"question": "1+1?", "answer": "It is 2.\n#### 2"}) + "\n")
    shutil.copy(workspace / "bench.jsonl", workspace / "mmlu.jsonl")
    before = {file: file.read_bytes() for file in run.glob("*.json*")}
    result = olmoe_ft(workspace, "evaluate", *arguments)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert before == {file: file.read_bytes() for file in run.glob("*.json*")}
