"""Predicted and measured peak memory of training steps: `python benchmarks/planning.py [PART OF A LABEL]`.

Measured is what torch's CPU allocator had given out at most during the steps of real runs, by torch's profiler, of the
first process; predicted is what `olmoe-ft plan` says for the same recipe and machine.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
MIB = 2**20
SFT, DPO = "recipes/tiny/sft.yaml", "recipes/tiny/dpo.yaml"
STEPS = ("training.max_steps=3", "training.save_strategy='no'", "data.answers=null", "tracking.wandb='off'")
LENGTH = 512
LORA = ("lora={r: 16, alpha: 32, attention: true, experts: true}", "router.train=frozen")
CHECKPOINTING, BF16 = "training.gradient_checkpointing=true", "model.dtype=bfloat16"
PADDED = ("training.packing=false", "training.per_device_train_batch_size=64")
CPU, ZERO2, ZERO3 = (f"configs/accelerate/{name}.yaml" for name in ("cpu", "zero2", "zero3"))
MID = {
    "vocab_size": 512, "hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 8, "num_experts": 64, "num_experts_per_tok": 8, "max_position_embeddings": 512,
    "pad_token_id": 1, "bos_token_id": 511, "eos_token_id": 511,
}  # fmt: skip

# label, recipe, accelerate configuration, overrides; `mid` networks get four rows (pairs: two) of 512 tokens
CASES: list[tuple[str, str, str, tuple[str, ...]]] = [
    ("tiny SFT", SFT, CPU, ()),
    ("tiny SFT, not packed", SFT, CPU, PADDED),
    ("tiny SFT, bf16", SFT, CPU, (BF16,)),
    ("tiny SFT, LoRA", SFT, CPU, LORA),
    ("tiny DPO", DPO, CPU, ()),
    ("tiny DPO, LoRA", DPO, CPU, LORA),
    ("mid SFT", SFT, CPU, ()),
    ("mid SFT, checkpointing", SFT, CPU, (CHECKPOINTING,)),
    ("mid SFT, two micro-batches", SFT, CPU, ("training.gradient_accumulation_steps=2",)),
    ("mid SFT, bf16", SFT, CPU, (BF16,)),
    ("mid SFT, LoRA", SFT, CPU, LORA),
    ("mid SFT, LoRA, checkpointing", SFT, CPU, (*LORA, CHECKPOINTING)),
    ("mid DPO", DPO, CPU, ()),
    ("mid DPO, LoRA", DPO, CPU, LORA),
    ("mid SFT, ZeRO-2", SFT, ZERO2, ()),
    ("mid SFT, ZeRO-2, two micro-batches", SFT, ZERO2, ("training.gradient_accumulation_steps=2",)),
    ("mid SFT, ZeRO-3", SFT, ZERO3, ()),
    ("mid SFT, ZeRO-3, checkpointing", SFT, ZERO3, (CHECKPOINTING,)),
    ("mid SFT, ZeRO-3, LoRA", SFT, ZERO3, LORA),
    ("mid SFT, ZeRO-3, LoRA, checkpointing", SFT, ZERO3, (*LORA, CHECKPOINTING)),
]


def settings_of(label: str, recipe: str, overrides: tuple[str, ...]) -> list[str]:
    """All overrides of a case. Its rows are long: every micro-batch is cut to the longest there can be."""
    rows = "pairs.jsonl" if recipe == DPO else "rows.jsonl"
    network = [f"model.config={'mid' if label.startswith('mid') else 'tiny'}.json", "model.path=null"]
    network += ["model.tokenizer=data/skills/tokenizer", f"data.train=[{{path: {rows}}}]"]
    if label.startswith("mid"):
        batch = 2 if recipe == DPO else 4
        network += [f"training.per_device_train_batch_size={batch}", f"training.max_length={LENGTH}"]
    return [*STEPS, *network, *overrides]


def write_inputs() -> None:
    """Networks and rows, into the working directory."""
    Path("mid.json").write_text(json.dumps(MID))
    Path("tiny.json").write_text(Path("configs/model/olmoe_tiny.json").read_text())
    answers = [" ".join("abcdefg"[(shift + place) % 7] for place in range(600)) for shift in range(128)]
    rows = [{"prompt": "go on", "completion": answer} for answer in answers]
    pairs = [{"prompt": "go on", "chosen": answer, "rejected": answer[2:]} for answer in answers]
    for name, content in (("rows", rows), ("pairs", pairs)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))


def predict(recipe: str, machine: str, overrides: list[str]) -> int:
    """Bytes at the peak, as the plan has them."""
    from olmoe_ft.planning.machine import read_machine
    from olmoe_ft.planning.measured_step import measure_step
    from olmoe_ft.planning.memory import device_memory
    from olmoe_ft.planning.plan import largest_batch, make_plans
    from olmoe_ft.recipe import load_recipe

    (plan,) = make_plans(load_recipe(recipe, overrides))
    step = measure_step(plan.recipe, plan.config, plan.arguments, largest_batch(plan), gpu=False)
    return device_memory(step, read_machine(machine), plan.arguments.gradient_accumulation_steps > 1).peak


def measure(recipe: str, overrides: list[str]) -> None:
    """Run one recipe here and print the peak of its steps, of the first process of a launch."""
    from torch.profiler import ProfilerActivity, profile, record_function
    from transformers import Trainer

    from olmoe_ft.pipeline import run
    from olmoe_ft.recipe import load_recipe

    steps, weights = Trainer._inner_training_loop, []

    def marked_steps(self, *args, **kwargs):
        models = [self.model, *([self.ref_model] if getattr(self, "ref_model", None) is not None else [])]
        for weight in (weight for model in models for weight in model.parameters()):
            weight.data = weight.data.clone()  # else a part of it may be a mapped file, which is no memory when freed
            weights.append(weight.nbytes)
        with record_function("training"):
            return steps(self, *args, **kwargs)

    Trainer._inner_training_loop = marked_steps
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(load_recipe(recipe, overrides))
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    [training] = [event for event in events if event.name() == "training"]
    allocated = peak = sum(weights)  # of what was there before nothing else counts
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        if training.start_ns() <= event.start_ns() <= training.end_ns():
            allocated += event.nbytes()
            peak = max(peak, allocated)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps({"peak": peak}))


def run_case(recipe: str, machine: str, overrides: list[str]) -> int:
    """Bytes at the peak, measured in a launch of its own."""
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file", machine]
    launch += ["--main_process_port", "0"]
    result = subprocess.run(
        [*launch, str(Path(__file__).resolve()), recipe, *overrides], capture_output=True, text=True
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return json.loads(result.stdout.rstrip().splitlines()[-1])["peak"]


def compare(only: str) -> Table:
    """Args: only: a part of the labels of the cases to run."""
    table = Table("run", "predicted MiB", "measured MiB", "predicted / measured")
    cases = [case for case in CASES if only in case[0]]
    for label, recipe, machine, overrides in track(cases, "planning", transient=True):
        settings = settings_of(label, recipe, overrides)
        predicted, measured = predict(recipe, machine, settings), run_case(recipe, machine, settings)
        shutil.rmtree("runs")
        table.add_row(label, f"{predicted / MIB:,.0f}", f"{measured / MIB:,.0f}", f"{predicted / measured:.2f}")
    return table


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure(sys.argv[1], sys.argv[2:])
    else:
        os.environ |= {"KINETO_LOG_LEVEL": "99", "HF_HUB_OFFLINE": "1"}
        with tempfile.TemporaryDirectory() as folder:
            for name in ("recipes", "configs", "data"):
                (Path(folder) / name).symlink_to(REPOSITORY / name)
            with chdir(folder):
                write_inputs()
                Console(width=120).print(compare(sys.argv[1] if len(sys.argv) > 1 else ""))
