"""What is tortured: short runs of every stage, method and machine shape, each with one trait more."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

REPOSITORY = Path(__file__).parents[2]
NAME = "run"  # of every run
START = "start"  # the checkpoint that DPO and KTO start from, in every workspace
STEPS, SAVE_EVERY, EVALUATE_EVERY = 10, 3, 4  # of a stage; the steps are no multiple of an epoch's
ROWS = 34  # of an epoch: 6 steps, with accumulation 3, packed 4
SAVED = (*range(SAVE_EVERY, STEPS, SAVE_EVERY), STEPS)
PROCESSES = {"one": 1, "zero2": 2, "zero3": 2}
TRAITS = {
    "sft": ("accumulation", "packing", "evaluation"),
    "dpo": ("accumulation", "evaluation"),
    "kto": ("accumulation", "evaluation"),
    "pipeline": ("",),
}
FILES = {"sft": "train", "dpo": "preferences", "kto": "judgements"}  # of data/skills

Shape = Literal["one", "zero2", "zero3"]


@dataclass(frozen=True)
class Configuration:
    """One recipe on one machine shape."""

    stage: str
    method: str
    shape: Shape
    trait: str

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.stage, self.method, self.shape, self.trait)))

    @property
    def processes(self) -> int:
        return PROCESSES[self.shape]

    @property
    def stages(self) -> tuple[str, ...]:
        return ("sft", "dpo") if self.stage == "pipeline" else (self.stage,)

    @property
    def runs(self) -> tuple[Path, ...]:
        """The run directories of its stages, in a workspace."""
        folder = Path("runs") / NAME
        return (folder / "sft", folder / "dpo") if self.stage == "pipeline" else (folder,)

    def recipe(self) -> dict[str, Any]:
        if self.stage != "pipeline":
            return {"name": NAME, **self._stage(self.stage, START)}
        return {
            "name": NAME,
            "stage": "pipeline",
            "stages": [self._stage("sft", START), self._stage("dpo", f"runs/{NAME}/sft")],
        }

    def _stage(self, stage: str, start: str) -> dict[str, Any]:
        """SFT starts from random weights, which the run keeps in `base/`; DPO and KTO from a checkpoint."""
        random = {"config": "network.json", "tokenizer": "data/skills/tokenizer"}
        rows = f"data/skills/{FILES[stage]}.jsonl"
        data: dict[str, Any] = {"train": [{"path": rows, "max_rows": ROWS}], "cache": "rows"}
        training: dict[str, Any] = {
            "learning_rate": 1e-2,
            "max_steps": STEPS,
            "save_steps": SAVE_EVERY,
            "save_total_limit": 3,
            "per_device_train_batch_size": 6 // self.processes,
            "max_length": 128,
            "gradient_checkpointing": False,
            "logging_steps": 1,
            "seed": 1,
        }
        if self.trait == "accumulation":
            training["gradient_accumulation_steps"] = 2
        if self.trait == "packing":
            training |= {"packing": True, "per_device_train_batch_size": 2 // self.processes}
        if self.trait == "evaluation":
            training |= {"eval_strategy": "steps", "eval_steps": EVALUATE_EVERY}
            data["eval"] = [{"path": rows, "max_rows": 9}]
            data["answers"] = {"path": "data/skills/heldout.jsonl", "limit": 8, "max_new_tokens": 8}
        return {
            "stage": stage,
            "model": {"dtype": "float32", **(random if stage == "sft" else {"path": start})},
            "router": {"load_balancing_coef": 0.01, "z_loss_coef": 0.001, "scope": "layer", "train": "full"},
            "lora": {"r": 4, "alpha": 8, "attention": True, "experts": True} if self.method == "lora" else None,
            "data": data,
            "training": training,
            "tracking": {"wandb": "offline" if self.trait == "evaluation" and self.shape == "one" else "off"},
        }


ALL = tuple(
    Configuration(stage, method, shape, trait)
    for stage, traits in TRAITS.items()
    for method in ("full", "lora")
    for shape in ("one", "zero2", "zero3")
    for trait in traits
)


def make_workspace(folder: Path, configuration: Configuration, start: Path | None) -> Path:
    """A folder in which the recipe runs, with all that it names and a `runs/` of its own."""
    folder.mkdir(parents=True)
    for name in ("configs", "data"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "network.json").symlink_to(Path(__file__).with_name("network.json"))
    if start is not None:
        (folder / START).symlink_to(start)
    # above ZeRO-3's usual threshold there are weights in large models only; here all are to be partitioned
    zero3 = json.loads((REPOSITORY / "configs/deepspeed/zero3.json").read_text())
    zero3["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    (folder / "zero3.json").write_text(json.dumps(zero3))
    accelerate = (REPOSITORY / "configs/accelerate/zero3.yaml").read_text()
    (folder / "zero3.yaml").write_text(accelerate.replace("configs/deepspeed/zero3.json", "zero3.json"))
    (folder / "recipe.yaml").write_text(json.dumps(configuration.recipe()))
    return folder
