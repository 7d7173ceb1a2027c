"""Predicted and measured peak memory of training steps; as a program, one run that is measured.

Measured is what torch's CPU allocator had given out at most during the steps of real runs, by torch's profiler, of the
first process; predicted is what `olmoe-ft plan` says for the same recipe and machine.
"""

import json
import os
import sys
from pathlib import Path

from support import SUPPORT
from support.launches import LAUNCHER, run_python

DPO, KTO = "recipes/tiny/dpo.yaml", "recipes/tiny/kto.yaml"
STEPS = ("training.max_steps=3", "training.save_strategy='no'", "data.answers=null", "tracking.wandb='off'")
LENGTH = 512
MID = {
    "vocab_size": 512, "hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 8, "num_experts": 64, "num_experts_per_tok": 8, "max_position_embeddings": 512,
    "pad_token_id": 1, "bos_token_id": 511, "eos_token_id": 511,
}  # fmt: skip


def settings_of(label: str, recipe: str, overrides: tuple[str, ...]) -> list[str]:
    """All overrides of a case. Its rows are long: every micro-batch is cut to the longest there can be."""
    rows = {DPO: "pairs.jsonl", KTO: "judgements.jsonl"}.get(recipe, "rows.jsonl")
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
    judged = [row | {"prompt": f"go on {place}", "label": place % 2 == 0} for place, row in enumerate(rows)]
    for name, content in (("rows", rows), ("pairs", pairs), ("judgements", judged)):
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
    launch = ["-m", LAUNCHER, "launch", "--config_file", machine, "--main_process_port", "0"]
    program = str(SUPPORT / "peak_memory.py")
    result = run_python(Path.cwd(), *launch, program, recipe, *overrides, timeout=3000, KINETO_LOG_LEVEL="99")
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return json.loads(result.stdout.rstrip().splitlines()[-1])["peak"]


if __name__ == "__main__":
    measure(sys.argv[1], sys.argv[2:])
