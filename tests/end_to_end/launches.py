"""Run recipes as a user does, in a folder of their own: `accelerate launch … -m olmoe_ft train …`."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # accelerate and olmoe-ft of this venv
    "OMP_NUM_THREADS": "1",  # two processes on two cores
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "200",  # rich wraps at the terminal's width
}
# ten steps over a part of the skills, the same sixteen packs or pairs a step on one process and on two
SHORT = (
    "training.max_steps=10",
    "training.per_device_train_batch_size=8",
    "training.logging_steps=1",
    "training.save_strategy='no'",
    "data.train.0.max_rows=900",
    "data.answers=null",
    "tracking.wandb='off'",
)


@dataclass
class Run:
    path: Path
    output: str

    @property
    def final(self) -> Path:
        return self.path / "final"

    @property
    def records(self) -> list[dict]:
        """The records of training steps, without the closing one."""
        lines = (self.path / "metrics.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if "loss" in record]


def make_workspace(folder: Path) -> Path:
    """A folder where the repository's relative paths hold and `runs/` is its own."""
    for name in ("recipes", "configs", "data"):
        (folder / name).symlink_to(REPOSITORY / name)
    # everything is above ZeRO-3's usual threshold only in large models: here every parameter is to be partitioned
    zero3 = json.loads((REPOSITORY / "configs/deepspeed/zero3.json").read_text())
    zero3["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    (folder / "zero3.json").write_text(json.dumps(zero3))
    config = (REPOSITORY / "configs/accelerate/zero3.yaml").read_text()
    (folder / "zero3-all.yaml").write_text(config.replace("configs/deepspeed/zero3.json", "zero3.json"))
    return folder


def olmoe_ft(workspace: Path, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`olmoe-ft …` in the workspace."""
    return subprocess.run(
        ["olmoe-ft", *arguments], cwd=workspace, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout
    )


def launch(
    workspace: Path,
    config: str,
    recipe: str,
    *overrides: str,
    processes: int | None = None,
    program: tuple[str, ...] = ("-m", "olmoe_ft"),
) -> str:
    """`accelerate launch` in the workspace; returns what it printed, and fails with it.

    Args:
        processes: where they are not as many as the configuration says.
        program: what is launched in the place of the command.
    """
    number = [] if processes is None else ["--num_processes", str(processes)]
    command = ["accelerate", "launch", "--config_file", config, *number, "--main_process_port", "0"]
    result = subprocess.run(
        [*command, *program, "train", recipe, *overrides],
        cwd=workspace,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-6000:]
    return result.stdout


SFT_START = {"model": {"config": "configs/model/olmoe_tiny.json", "tokenizer": "data/skills/tokenizer", "path": None}}
CONFIGS = {"one": "configs/accelerate/cpu.yaml", "zero2": "configs/accelerate/zero2.yaml", "zero3": "zero3-all.yaml"}
