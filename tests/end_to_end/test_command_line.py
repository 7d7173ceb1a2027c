"""What a user types, and what is said when it is wrong: one sentence, exit code 2, nothing written."""

import json
import math
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from support.launches import ENVIRONMENT, SHORT, launch, make_workspace, olmoe_ft
from support.servers import wandb_server
from support.training_cases import FILES

SFT = "recipes/tiny/sft.yaml"
PUBLISHED = [(stage, form) for stage in FILES for form in ("full", "lora")]


@pytest.fixture(scope="module")
def published(workspace) -> dict[tuple[str, str], Path]:
    """Runs of the recipes for the released model, with another model, other rows and fewer steps."""
    stages = []
    for stage, form in PUBLISHED:
        # of whole weights in bf16, only our AdamW keeps every update where DeepSpeed keeps no fp32 copy
        optim = {"optim": None} if (stage, form) == ("kto", "full") else {}
        stages.append(
            {
                "extends": f"recipes/olmoe-1b-7b-0924/{stage}/{form}.yaml",
                "model": {
                    "path": None,
                    "config": "configs/model/olmoe_tiny.json",
                    "tokenizer": "data/skills/tokenizer",
                },
                "data": {"train": [{"path": f"data/skills/{FILES[stage]}.jsonl", "max_rows": 32}]},
                "training": {
                    "per_device_train_batch_size": 2,
                    "gradient_accumulation_steps": 1,
                    "max_steps": 2,
                    **optim,
                },
                "tracking": {"wandb": "off"},
            }
        )
    (workspace / "published.yaml").write_text(
        json.dumps({"name": "published", "stage": "pipeline", "stages": stages}, indent=1)
    )
    short = ("training.logging_steps=1", "training.save_steps=2")
    launch(workspace, "configs/accelerate/cpu.yaml", "published.yaml", *short, real=True)
    return dict(
        zip(
            PUBLISHED,
            (workspace / "runs/published" / name for name in "sft sft-2 dpo dpo-2 kto kto-2".split()),
            strict=True,
        )
    )


@pytest.mark.parametrize(("stage", "form"), PUBLISHED)
def test_the_recipes_for_the_released_model_run_with_a_tiny_one(published, stage, form):
    """Everything of the recipe but its model, its rows and its length in steps, bf16 included."""
    run = published[stage, form]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == [1, 2]
    # both coefficients are 0: the loss is the task's alone, and the router is still watched
    assert all(record["router/loss"] == 0 and record["router/entropy"] > 0 for record in records if "loss" in record)
    assert (run / "final" / ("adapter_model.safetensors" if form == "lora" else "model.safetensors")).exists()
    assert (run / "checkpoints" / "checkpoint-2" / "trainer_state.json").exists()


def test_a_killed_run_goes_on_and_ends_where_an_unbroken_one_does(tmp_path):
    """Killed after the checkpoint of step 4 of 8: the records and the final weights are those of one launch."""
    workspace = make_workspace(tmp_path)
    overrides = [override for override in SHORT if "save_strategy" not in override and "max_steps" not in override]
    command = [SFT, *overrides, "training.max_steps=8", "training.save_steps=4", "tracking.wandb=offline"]
    broken = ["olmoe-ft", "train", *command, "name=broken"]
    process = subprocess.Popen(
        broken, cwd=workspace, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    saved = workspace / "runs/broken/checkpoints/checkpoint-4/trainer_state.json"
    deadline = time.monotonic() + 120
    while not saved.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert saved.exists() and not (workspace / "runs/broken/final").exists()

    resumed = olmoe_ft(workspace, "train", *command, "name=broken")
    assert resumed.returncode == 0, resumed.stderr
    assert "continuing from runs/broken/checkpoints/checkpoint-4" in resumed.stdout
    assert olmoe_ft(workspace, "train", *command, "name=unbroken").returncode == 0
    one, other = (
        [json.loads(line) for line in (workspace / f"runs/{name}/metrics.jsonl").read_text().splitlines()]
        for name in ("unbroken", "broken")
    )
    assert [record["step"] for record in other] == [record["step"] for record in one]
    for expected, actual in zip(one, other, strict=True):
        if "loss" in expected:  # the last ones hold times, and the last measurement of drift
            for name in ("loss", "loss/task", "router/loss", "router/load_balancing_loss", "router/z_loss"):
                assert actual[name] == pytest.approx(expected[name], rel=1e-5), (expected["step"], name)
    # against the start of the first launch, not against the checkpoint
    drift = [next(row for row in reversed(run) if "router/drift_agreement" in row) for run in (one, other)]
    assert drift[0]["router/drift_agreement"] < 0.9
    assert drift[1]["router/drift_agreement"] == pytest.approx(drift[0]["router/drift_agreement"], abs=0.01)
    models = [
        transformers.AutoModelForCausalLM.from_pretrained(workspace / f"runs/{name}/final").state_dict()
        for name in ("unbroken", "broken")
    ]
    for name, tensor in models[0].items():
        assert (models[1][name] - tensor).abs().max() < 1e-5, name
    # one run in W&B: both launches wrote under the same id
    ids = {folder.name.rpartition("-")[2] for folder in (workspace / "runs/broken/wandb").glob("offline-run-*")}
    assert ids == {(workspace / "runs/broken/wandb_id").read_text()}

    again = olmoe_ft(workspace, "train", *command, "name=broken")
    assert again.returncode == 0 and "had finished before" in again.stdout
    other_recipe = olmoe_ft(workspace, "train", *command, "name=broken", "training.learning_rate=1e-5")
    assert other_recipe.returncode == 2
    assert "differs in training.learning_rate" in other_recipe.stderr and "Traceback" not in other_recipe.stderr


def test_the_offline_run_holds_the_metrics_of_the_design(workspace):
    overrides = [override for override in SHORT if "wandb" not in override]
    olmoe = olmoe_ft(workspace, "train", SFT, *overrides, "name=tracked", "tracking.wandb=offline")
    assert olmoe.returncode == 0, olmoe.stderr
    run = workspace / "runs/tracked"
    (folder,) = run.glob("wandb/offline-run-*")
    with wandb_server() as server:
        environment = ENVIRONMENT | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0123456789" * 4}
        sync = [sys.executable, "-m", "wandb", "sync", str(folder)]
        done = subprocess.run(sync, cwd=workspace, env=environment, capture_output=True, text=True, timeout=120)
        history = server.history()
    assert done.returncode == 0, done.stderr
    written = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in history] == [record["step"] for record in written]
    for name in (
        "loss loss/task router/load_balancing_loss router/z_loss router/loss router/entropy router/max_violation "
        "router/dead_experts perf/tokens_per_second perf/mfu perf/padding perf/peak_memory_gib"
    ).split():
        assert history[0][name] == pytest.approx(written[0][name]), name
    image = history[0]["router/load_map"]
    assert image["_type"] == "image-file" and (folder / "files" / image["path"]).stat().st_size > 5000
    for layer in range(4):  # a histogram with one bar an expert
        name = f"router/load/layer_{layer:02d}"
        assert history[0][name]["_type"] == "histogram"
        assert history[0][name]["values"] == pytest.approx(written[0][name])
        assert sum(written[0][name]) == pytest.approx(1, abs=1e-4)


def test_evaluation_and_saved_configs_are_those_of_the_task_alone(workspace):
    """`eval_loss` is stock transformers' mean loss on the answers, for a start whose config asks for router logits."""
    start = workspace / "asks-for-router-logits"
    config = json.loads((workspace / "configs/model/olmoe_tiny.json").read_text()) | {"output_router_logits": True}
    transformers.OlmoeForCausalLM(transformers.OlmoeConfig(**config)).save_pretrained(start)
    evaluation = "data.eval=[{path: data/skills/train.jsonl, max_rows: 32}]"
    result = olmoe_ft(
        workspace,
        *["train", SFT, *SHORT, "name=evaluated", "training.max_steps=2", "training.per_device_eval_batch_size=32"],
        *["model.config=null", f"model.path={start}", evaluation, "router.load_balancing_coef=0.5"],
    )
    assert result.returncode == 0, result.stderr
    final = workspace / "runs/evaluated/final"
    summary = json.loads((final.parent / "summary.json").read_text())
    model = transformers.AutoModelForCausalLM.from_pretrained(final)
    assert model.config.output_router_logits is False
    tokenizer = transformers.AutoTokenizer.from_pretrained(final)
    total, count = 0.0, 0
    for line in (workspace / "data/skills/train.jsonl").read_text().splitlines()[:32]:
        tokens = tokenizer.apply_chat_template(
            json.loads(line)["messages"], return_dict=True, return_tensors="pt", return_assistant_tokens_mask=True
        )
        answer = torch.as_tensor(tokens["assistant_masks"]).bool().view_as(tokens["input_ids"])
        with torch.no_grad():
            loss = model(input_ids=tokens["input_ids"], labels=tokens["input_ids"].masked_fill(~answer, -100)).loss
        total, count = total + loss.item() * answer.sum().item(), count + answer.sum().item()
    assert summary["eval_loss"] == pytest.approx(total / count, rel=1e-5)
    assert summary["eval_perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert not any("router" in name for name in summary if name.startswith("eval"))


def test_merge_and_chat(short_run, workspace):
    run = short_run("sft-lora", "one")
    merged = olmoe_ft(workspace, "merge", str(run.path), "--to", "merged", "--dtype", "bfloat16")
    assert merged.returncode == 0, merged.stderr
    model = transformers.AutoModelForCausalLM.from_pretrained(workspace / "merged")
    assert type(model) is transformers.OlmoeForCausalLM and str(model.dtype) == "torch.bfloat16"
    again = olmoe_ft(workspace, "merge", str(run.path), "--to", "merged")
    assert again.returncode == 2 and "merged exists already" in again.stderr
    answer = olmoe_ft(workspace, "chat", str(run.path), "--prompt", "Copy: a b", "--max-new-tokens", "4")
    assert answer.returncode == 0, answer.stderr


def test_plan_says_rows_tokens_and_steps(workspace):
    plan = olmoe_ft(workspace, "plan", SFT, "data.train.0.max_rows=100")
    assert plan.returncode == 0, plan.stderr
    for fact in ("1,976,448", "100", "1,300 (650 epochs of 2)", "fits in 80 GiB", "peak of a device"):
        assert fact in plan.stdout
    assert [file.name for file in (workspace / "runs/tiny-sft").iterdir()] == ["data_report.json"]
    report = json.loads((workspace / "runs/tiny-sft/data_report.json").read_text())
    assert report["sources"][0]["rows"] == 100
    shutil.rmtree(workspace / "runs/tiny-sft")


def test_plan_names_the_fastest_shape_that_fits(workspace):
    """Two GPUs as ZeRO-2 and one: between slow links one is faster, between fast ones two are, with time to compute."""
    asked = (SFT, "data.train.0.max_rows=100", "data.answers=null", "name=shapes")
    machine = ("--accelerate", "configs/accelerate/zero2.yaml", "--devices", "2")

    def named(*rates: str) -> str:
        plan = olmoe_ft(workspace, "plan", *asked, *machine, *rates)
        assert plan.returncode == 0, plan.stderr
        assert "fits in 80 GiB with zero2 on 2 device(s)" in plan.stdout
        return " ".join(plan.stdout.split()).partition("fastest that fits: ")[2]

    slow = named("--bandwidth", "0.1")
    assert slow.startswith("gpu x 1 without checkpointing, predicted") and "(configs/accelerate/gpu.yaml)" in slow
    quick = named("--bandwidth", "1000", "--tflops", "0.1")
    assert quick.startswith("zero2 x 2 without checkpointing, predicted") and "s a step, as planned" in quick
    shutil.rmtree(workspace / "runs/shapes")


def test_an_answer_beyond_max_length_leaves_nothing_to_train_on(workspace):
    result = olmoe_ft(workspace, "train", SFT, *SHORT, "training.max_length=4", "name=short")
    assert result.returncode == 2
    assert "900 of 900 rows have nothing to learn" in result.stderr and "Traceback" not in result.stderr
    assert not (workspace / "runs/short").exists()


def old_skills(scores: dict) -> float:
    """Exact match of the seven skills of SFT, which have as many prompts each."""
    return statistics.mean(share for skill, share in scores["skills"].items() if skill != "rotate")


@pytest.mark.slow
def test_the_default_learns_its_skills_and_then_its_style(tmp_path):
    """`make sft`, `make dpo` and `make kto`; then adapters teach the SFT model an eighth skill, as documented."""
    workspace = make_workspace(tmp_path)
    environment = {**ENVIRONMENT}
    environment.pop("OMP_NUM_THREADS")
    summaries = []
    for recipe in ("sft", "dpo", "kto", "sft-lora", "dpo-lora", "kto-lora"):
        command = ["accelerate", "launch", "--config_file", "configs/accelerate/cpu.yaml", "-m", "olmoe_ft", "train"]
        subprocess.run([*command, f"recipes/tiny/{recipe}.yaml"], cwd=workspace, env=environment, check=True)
        summaries.append(json.loads((workspace / f"runs/tiny-{recipe}/summary.json").read_text()))
    sft, dpo, kto, sft_lora, dpo_lora, kto_lora = summaries
    assert sft["before"]["exact_match"] <= 0.02 and sft["after"]["exact_match"] >= 0.90
    for preferred in (dpo, kto):
        assert preferred["before"]["styles"]["polite"] <= 0.60 and preferred["after"]["styles"]["polite"] >= 0.95
        assert preferred["after"]["exact_match"] >= sft["after"]["exact_match"] - 0.02
    assert old_skills(sft_lora["before"]) == pytest.approx(sft["after"]["exact_match"])
    assert sft_lora["before"]["skills"]["rotate"] <= 0.05 and sft_lora["after"]["skills"]["rotate"] >= 0.90
    assert old_skills(sft_lora["after"]) >= old_skills(sft_lora["before"]) - 0.03
    for preferred in (dpo_lora, kto_lora):
        assert preferred["after"]["styles"]["polite"] >= 0.95 and preferred["after"]["skills"]["rotate"] >= 0.85
        assert old_skills(preferred["after"]) >= old_skills(sft_lora["before"]) - 0.03
    shutil.rmtree(workspace / "runs")
