"""Evaluations between the steps of a training change none of them, on any machine shape, and say what the end says."""

import json
import shutil

import pytest
from support.launches import CONFIGS, LAUNCHER, SHORT, launch, olmoe_ft, run_python

SHAPES = ("one", "ddp", "zero2", "zero3")
TASKS = ("evaluation.tasks=[exact_rows=rows.jsonl]", "evaluation.every_steps=2", "evaluation.batch_size=5")
ANSWERS = "data.answers={path: data/skills/heldout.jsonl, limit: 12, max_new_tokens: 6}"


@pytest.fixture(scope="module")
def runs(workspace):
    """By recipe and shape, a run of five steps without and one with evaluations; made once."""
    (workspace / "rows.jsonl").write_text(
        "".join((workspace / "data/skills/heldout.jsonl").read_text().splitlines(keepends=True)[:14])
    )
    made = {}

    def run(recipe: str, shape: str):
        if (recipe, shape) not in made:
            start = () if recipe == "sft" else ("model.path=runs/evaluated-sft-one",)
            if start:
                run("sft", "one")
            common = (*SHORT, "training.max_steps=5", *start)
            for name, more in (("plain", ()), ("evaluated", (ANSWERS, *TASKS))):
                launch(
                    workspace, CONFIGS.get(shape, CONFIGS["one"]), f"recipes/tiny/{recipe}.yaml", *common, *more,
                    f"name={name}-{recipe}-{shape}", processes=2 if shape == "ddp" else None,
                )  # fmt: skip
            made[recipe, shape] = workspace / f"runs/evaluated-{recipe}-{shape}"
        return made[recipe, shape]

    return run


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


CASES = [("sft", shape) for shape in SHAPES] + [("dpo-lora", "one"), ("dpo-lora", "zero3")]


@pytest.mark.parametrize(("recipe", "shape"), CASES)
def test_the_steps_are_those_of_a_run_without_evaluations(runs, recipe, shape):
    """Every value of every record of training, to the last bit; only times and memory may differ."""
    folder = runs(recipe, shape)
    plain, evaluated = (
        [
            {name: value for name, value in record.items() if not name.startswith("perf/")}
            for record in lines(folder.with_name(f"{kind}-{recipe}-{shape}") / "metrics.jsonl")
            if "loss" in record
        ]
        for kind in ("plain", "evaluated")
    )
    assert len(plain) == 5 and evaluated == plain


@pytest.mark.parametrize(("recipe", "shape"), CASES)
def test_every_evaluation_is_kept_in_its_place(runs, recipe, shape):
    """Before, after 2 and 4 steps, and at the end: 12 held-out prompts and 14 rows each time."""
    folder = runs(recipe, shape)
    kept = json.loads((folder / "evaluation.json").read_text())["evaluations"]
    assert [(one["when"], one["step"]) for one in kept] == [
        ("before", 0), ("training", 2), ("training", 4), ("after", 5),
    ]  # fmt: skip
    for one in kept:
        counts = {score["task"]: score["n"] for score in one["scores"] if score["metric"] == "exact_match"}
        assert counts == {"answers": 12, "exact_rows": 14}
        assert one["settings"]["tasks"] == ["answers", "exact_rows"]
    samples = lines(folder / "samples.jsonl")
    assert [sum(sample["step"] == step for sample in samples) for step in (0, 2, 4, 5)] == [26] * 4
    assert all(len(sample["experts"]) == 3 and sample["tokens"] for sample in samples)
    records = [record for record in lines(folder / "metrics.jsonl") if "eval/exact_rows/exact_match" in record]
    assert [record["step"] for record in records] == [0, 2, 4, 5]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["after"]["count"] == 12
    assert {score["task"] for score in summary["scores"]["after"]} == {"answers", "exact_rows"}
    assert not (folder / ".evaluated").exists()


@pytest.mark.parametrize(("recipe", "shape"), CASES)
def test_the_command_gives_the_scores_and_outputs_of_the_run(runs, workspace, recipe, shape):
    """`olmoe-ft evaluate RUN` in one process, with other batches: what the run's own recipe asks."""
    folder = runs(recipe, shape)
    before = lines(folder / "samples.jsonl")
    result = olmoe_ft(workspace, "evaluate", f"runs/{folder.name}")
    assert result.returncode == 0, result.stderr
    kept = json.loads((folder / "evaluation.json").read_text())["evaluations"]
    end, command = (one for one in kept if one["step"] == 5)
    assert (end["when"], command["when"]) == ("after", "command")
    assert command["scores"] == end["scores"]
    assert command["loads"] == end["loads"] and end["loads"].keys() == {"answers", "exact_rows"}
    by_time = [
        {(one["task"], one["id"]): one["output"] for one in lines(folder / "samples.jsonl") if one["when"] == when}
        for when in ("after", "command")
    ]
    assert by_time[0] == by_time[1] and len(by_time[0]) == 26
    assert lines(folder / "samples.jsonl")[: len(before)] == before


def test_two_processes_give_the_scores_of_one(runs, workspace):
    """By `accelerate launch`, under DDP's and ZeRO-3's configuration: the same figures, outputs and loads of experts to
    the last bit."""
    runs("sft", "one")
    for number, shape in enumerate(("zero2", "zero3")):
        copy = workspace / f"runs/copy-{number}"
        shutil.copytree(workspace / "runs/evaluated-sft-one", copy)
        before = json.loads((copy / "evaluation.json").read_text())["evaluations"]
        launcher = ("-m", LAUNCHER, "launch", "--config_file", CONFIGS[shape], "--main_process_port", "0")
        result = run_python(workspace, *launcher, "-m", "olmoe_ft", "evaluate", f"runs/{copy.name}")
        assert result.returncode == 0, result.stderr[-3000:]
        after = json.loads((copy / "evaluation.json").read_text())["evaluations"]
        assert after[-1]["scores"] == before[-1]["scores"] and after[-1]["when"] == "command"
        assert after[-1]["loads"] == before[-1]["loads"] != before[0]["loads"]


def test_a_run_that_goes_on_evaluates_nothing_twice(workspace):
    """Four steps, saved after each two, then six: what was evaluated before keeps its time to the last digit, and the
    records hold each evaluation once, also the one of step 4, which came after the checkpoint was written."""
    common = (*SHORT, "training.save_strategy=steps", "training.save_steps=2", ANSWERS, "evaluation.every_steps=2")
    for steps in (4, 6):
        launch(
            workspace, CONFIGS["one"], "recipes/tiny/sft.yaml", *common, "name=longer", f"training.max_steps={steps}"
        )
        kept = json.loads((workspace / "runs/longer/evaluation.json").read_text())["evaluations"]
        times = {(one["when"], one["step"]): one["seconds"] for one in kept}
        if steps == 4:
            first = times
    assert list(first) == [("before", 0), ("training", 2), ("after", 4)]
    assert list(times) == [("before", 0), ("training", 2), ("training", 4), ("after", 6)]
    assert all(times[key] == first[key] for key in [("before", 0), ("training", 2)])
    records = [one for one in lines(workspace / "runs/longer/metrics.jsonl") if "eval/answers/exact_match" in one]
    assert [record["step"] for record in records] == [0, 2, 4, 6]


def test_a_damaged_file_of_evaluations_is_put_aside_and_the_run_continues(workspace):
    """On two processes, of which one reads the file: the other must not wait for it."""
    common = (*SHORT, "training.save_strategy=steps", "training.save_steps=2", ANSWERS, "name=damaged")
    for steps in (2, 4):
        launch(workspace, CONFIGS["one"], "recipes/tiny/sft.yaml", *common, f"training.max_steps={steps}", processes=2)
        kept = workspace / "runs/damaged/evaluation.json"
        if steps == 2:
            kept.write_text("{")
    assert [one["step"] for one in json.loads(kept.read_text())["evaluations"]] == [0, 4]
    assert list(kept.parent.glob("evaluation.json.*"))
