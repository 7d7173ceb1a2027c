"""Does `olmoe-ft train` go on where it was killed? Real runs of the released shape with random weights.

Adapters on all 16 layers, whose checkpoints are small. Then all weights of a network of 4 of these layers: a checkpoint
of the whole, weights and optimizer states, is 42 GB, which beside the start and `final/` (14 GB each) does not fit on a
disk of 64 GiB. Whether training all 16 fits on the card is asked by `memory`.
"""

import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from gpu.part import Part
from olmoe_ft.checkpoints.weights import save_whole
from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM

REPOSITORY = Path(__file__).parents[2]
RELEASED, TOKENIZER = REPOSITORY / "configs/model/olmoe_1b_7b.json", REPOSITORY / "data/skills/tokenizer"
TINY = {
    "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 4, "num_experts": 8, "num_experts_per_tok": 2, "vocab_size": 512, "eos_token_id": 511,
}  # fmt: skip
SAVED, STEPS = 4, 8  # the step with a checkpoint, after which the run is killed; the last one
LORA = {"lora": {"r": 16, "alpha": 32, "attention": True, "experts": True}}
KINDS: dict[str, tuple[int, dict[str, Any], str, float]] = {  # layers, sections, router.train, learning rate
    "SFT LoRA": (16, LORA, "frozen", 2e-4),
    "SFT full": (4, {}, "full", 2e-5),
}
SAME_LOSS = 1e-2  # relative: a step after the resume, and the same step before the kill, in bf16


def run(part: Part) -> None:
    for kind in KINDS:
        part.attempt(kind, lambda kind=kind: _killed_and_resumed(part, kind), needs=20)


def _killed_and_resumed(part: Part, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        began = time.monotonic()
        write_start(part, workspace / "start", KINDS[kind][0])
        recipe = write_recipe(part, workspace, kind)
        part.report(f"{kind}: random weights written", None, seconds=round(time.monotonic() - began, 1))
        train = Launch(part, workspace, recipe)
        part.report(f"{kind}: killed after step {SAVED}", **train.until_saved())
        before = train.records()
        part.report(f"{kind}: the same command again", **train.until_done())
        part.report(f"{kind}: goes on after step {SAVED}", **going_on(train.run, before, train.records()))
        part.report(f"{kind}: weights move", **movement(train.records()))


def write_start(part: Part, folder: Path, layers: int) -> None:
    """A checkpoint of random weights, drawn on the device."""
    values = json.loads(RELEASED.read_text()) | {"num_hidden_layers": layers} | (TINY if part.dry else {})
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(part.device):
        network = OlmoeForCausalLM(OlmoeConfig(**values))
    torch.set_default_dtype(torch.float32)
    save_whole(network, AutoTokenizer.from_pretrained(TOKENIZER), folder)
    del network
    if not part.dry:
        torch.cuda.empty_cache()  # the run that follows is another process


def write_recipe(part: Part, workspace: Path, kind: str) -> Path:
    """Packed rows of 512 tokens of the committed skills; a recipe is YAML, of which JSON is a part."""
    _, sections, router, rate = KINDS[kind]
    length = 64 if part.dry else 512
    content = {
        "name": "run",
        "stage": "sft",
        "model": {"path": "start", "dtype": "bfloat16"},
        "router": {"load_balancing_coef": 0.01, "z_loss_coef": 0.001, "scope": "layer", "train": router},
        "data": {"train": [{"path": str(REPOSITORY / "data/skills/train.jsonl"), "max_rows": 2000}], "cache": "rows"},
        "training": {
            "learning_rate": rate, "lr_scheduler_type": "constant", "max_steps": STEPS, "packing": True,
            "per_device_train_batch_size": 4, "max_length": length, "gradient_checkpointing": False,
            "logging_steps": 1, "save_steps": SAVED, "save_total_limit": 1,
        },
        "tracking": {"wandb": "off"},
        **sections,
    }  # fmt: skip
    recipe = workspace / "recipe.yaml"
    recipe.write_text(json.dumps(content, indent=1))
    return recipe


class Launch:
    """`olmoe-ft train` in a workspace, as often as it is asked to."""

    def __init__(self, part: Part, workspace: Path, recipe: Path) -> None:
        self.part, self.workspace = part, workspace
        self.command = [sys.executable, "-m", "olmoe_ft", "train", recipe.name]
        self.run = workspace / "runs/run"

    def records(self) -> list[dict[str, Any]]:
        """The whole lines of `metrics.jsonl` that are of training steps."""
        if not (file := self.run / "metrics.jsonl").exists():
            return []
        lines = file.read_text().splitlines(keepends=True)
        return [record for record in map(json.loads, (x for x in lines if x.endswith("\n"))) if "loss" in record]

    def until_saved(self) -> dict[str, Any]:
        """Killed by SIGKILL as soon as a step after the checkpoint is recorded."""
        with self._start() as process:
            began = time.monotonic()
            while process.poll() is None and not any(record["step"] > SAVED for record in self.records()):
                self._or_give_up(process)
                time.sleep(0.01)
            early = process.poll() is not None
            process.send_signal(signal.SIGKILL)
            process.wait()
        if early:
            return {"ok": False, "error": f"it ended with code {process.returncode} before it could be killed"}
        first = min(record["step"] for record in self.records())
        return {"ok": first == 1, "seconds": round(time.monotonic() - began, 1), **_last(self.records())}

    def until_done(self) -> dict[str, Any]:
        began = time.monotonic()
        with self._start() as process:
            while process.poll() is None:
                self._or_give_up(process)
                time.sleep(0.1)
        whole = process.returncode == 0 and (self.run / "final").is_dir() and (self.run / "summary.json").exists()
        figures = {"seconds": round(time.monotonic() - began, 1), "code": process.returncode}
        return {"ok": whole, **figures, **_last(self.records())}

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command, cwd=self.workspace)

    def _or_give_up(self, process: subprocess.Popen[bytes]) -> None:
        if self.part.left() < 2:
            process.kill()
            raise TimeoutError(f"the time of this part was over; {len(self.records())} steps were recorded")


def _last(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What the last step says of itself."""
    names = {"loss": "loss", "perf/tokens_per_second": "tokens_s", "perf/peak_memory_gib": "peak_gib"}
    return {short: round(records[-1][name], 4) for name, short in names.items() if records and name in records[-1]}


def going_on(run: Path, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether the second launch began at the checkpoint, every step stands in the metrics once, losses are finite,
    and the step that was done twice had the same loss both times."""
    launches = json.loads((run / "run.json").read_text())["launches"]
    resumed, steps = launches[-1]["resumed_from"], [record["step"] for record in after]
    twice = [next(record["loss"] for record in records if record["step"] == SAVED + 1) for records in (before, after)]
    differ = abs(twice[0] - twice[1]) / abs(twice[0])
    finite = all(math.isfinite(record["loss"]) for record in after)
    right = resumed == f"checkpoint-{SAVED}" and steps == list(range(1, STEPS + 1)) and finite and differ < SAME_LOSS
    return {"ok": right, "resumed_from": resumed, "steps": steps, "finite": finite, "losses_differ": differ}


def movement(records: list[dict[str, Any]]) -> dict[str, Any]:
    """`optim/moved`, the share of a sample of trained weights that changed since the last record: not below 1%."""
    moved = [record["optim/moved"] for record in records if "optim/moved" in record]
    if not moved:
        return {"ok": False, "error": "metrics.jsonl has no optim/moved"}
    return {"ok": min(moved) >= 0.01, "least": min(moved), "most": max(moved)}
