"""Predicted and measured peak memory of training steps: `python benchmarks/planning.py [PART OF A LABEL]`.

How both are found: tests/support/peak_memory.py.
"""

import os
import shutil
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import REPOSITORY  # noqa: E402
from support.peak_memory import DPO, KTO, predict, run_case, settings_of, write_inputs  # noqa: E402

MIB = 2**20
SFT = "recipes/tiny/sft.yaml"
LORA = ("lora={r: 16, alpha: 32, attention: true, experts: true}", "router.train=frozen")
EAGER, KEPT = "model.attn_implementation=eager", "training.precompute_ref_log_probs=true"
CHECKPOINTING, BF16 = "training.gradient_checkpointing=true", "model.dtype=bfloat16"
PADDED = ("training.packing=false", "training.per_device_train_batch_size=64")
CPU, ZERO2, ZERO3 = (f"configs/accelerate/{name}.yaml" for name in ("cpu", "zero2", "zero3"))

# label, recipe, accelerate configuration, overrides; `mid` networks get four rows (pairs: two) of 512 tokens
CASES: list[tuple[str, str, str, tuple[str, ...]]] = [
    ("tiny SFT", SFT, CPU, ()),
    ("tiny SFT, not packed", SFT, CPU, PADDED),
    ("tiny SFT, bf16", SFT, CPU, (BF16,)),
    ("tiny SFT, LoRA", SFT, CPU, LORA),
    ("tiny DPO", DPO, CPU, ()),
    ("tiny DPO, LoRA", DPO, CPU, LORA),
    ("tiny KTO", KTO, CPU, ()),
    ("tiny KTO, eager", KTO, CPU, (EAGER,)),
    ("tiny KTO, precomputed", KTO, CPU, (KEPT,)),
    ("tiny KTO, LoRA", KTO, CPU, LORA),
    ("tiny KTO, LoRA, eager", KTO, CPU, (*LORA, EAGER)),
    ("mid SFT", SFT, CPU, ()),
    ("mid SFT, checkpointing", SFT, CPU, (CHECKPOINTING,)),
    ("mid SFT, two micro-batches", SFT, CPU, ("training.gradient_accumulation_steps=2",)),
    ("mid SFT, bf16", SFT, CPU, (BF16,)),
    ("mid SFT, LoRA", SFT, CPU, LORA),
    ("mid SFT, LoRA, checkpointing", SFT, CPU, (*LORA, CHECKPOINTING)),
    ("mid DPO", DPO, CPU, ()),
    ("mid DPO, LoRA", DPO, CPU, LORA),
    ("mid KTO", KTO, CPU, ()),
    ("mid KTO, checkpointing", KTO, CPU, (CHECKPOINTING,)),
    ("mid KTO, precomputed", KTO, CPU, (KEPT,)),
    ("mid KTO, eager", KTO, CPU, (EAGER,)),
    ("mid KTO, LoRA", KTO, CPU, LORA),
    ("mid KTO, LoRA, checkpointing", KTO, CPU, (*LORA, CHECKPOINTING)),
    ("mid KTO, LoRA, eager, checkpointing", KTO, CPU, (*LORA, EAGER, CHECKPOINTING)),
    ("mid KTO, two micro-batches", KTO, CPU, ("training.gradient_accumulation_steps=2",)),
    ("mid SFT, ZeRO-2", SFT, ZERO2, ()),
    ("mid SFT, ZeRO-2, two micro-batches", SFT, ZERO2, ("training.gradient_accumulation_steps=2",)),
    ("mid SFT, ZeRO-3", SFT, ZERO3, ()),
    ("mid SFT, ZeRO-3, checkpointing", SFT, ZERO3, (CHECKPOINTING,)),
    ("mid KTO, ZeRO-2", KTO, ZERO2, ()),
    ("mid KTO, ZeRO-3", KTO, ZERO3, ()),
    ("mid SFT, ZeRO-3, LoRA", SFT, ZERO3, LORA),
    ("mid SFT, ZeRO-3, LoRA, checkpointing", SFT, ZERO3, (*LORA, CHECKPOINTING)),
]


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
    os.environ |= {"KINETO_LOG_LEVEL": "99", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("recipes", "configs", "data"):
            (Path(folder) / name).symlink_to(REPOSITORY / name)
        with chdir(folder):
            write_inputs()
            Console(width=120).print(compare(sys.argv[1] if len(sys.argv) > 1 else ""))
