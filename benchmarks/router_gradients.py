"""Is the router's gradient the same on every machine? One optimizer step on the same micro-batches, many ways.

    python benchmarks/router_gradients.py    # prints the tables of docs/router-objective.md: six minutes on 2 cores

A case runs the real pipeline (or stock TRL, or transformers' Trainer) for one step of plain SGD with a learning rate of
a million: the weights it leaves are the gradient times minus a million, to 7 digits, whatever shards it on the way.
`gradient_worker.py` is launched once for each machine shape and runs that shape's cases in `gradient_cases.py`.
"""

import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from gradient_cases import LEARNING_RATE, REPOSITORY, SHAPES, Case, product_of_modes, recipe_of, splits, write_start
from gradient_worker import stock_trainer
from safetensors.torch import load_file
from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func

from olmoe_ft.objective import load_balancing_loss, router_z_loss

WORKER = Path(__file__).with_name("gradient_worker.py")


def run_cases(cases: Iterable[Case], folder: Path, timeout: float = 3000) -> None:
    """Run cases, one `accelerate launch` for each shape; `gradients` reads what they leave in the folder.

    Raises:
        RuntimeError: a worker failed, with the end of what it printed.
    """
    cases = list(dict.fromkeys(cases))
    write_start(folder)
    for case in cases:
        (folder / f"{case.name}.yaml").write_text(yaml.safe_dump(recipe_of(case, folder)))
    for shape in dict.fromkeys(case.shape for case in cases):
        listed = folder / "cases.json"
        listed.write_text(json.dumps([asdict(case) for case in cases if case.shape == shape]))
        result = subprocess.run(
            [sys.executable, "-m", *_launcher(shape, folder), str(WORKER), str(listed)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        if result.returncode:
            raise RuntimeError(f"{shape}: {result.stdout[-16000:]}")


def _launcher(shape: str, folder: Path) -> list[str]:
    """The module that starts a shape's processes, with its arguments."""
    engine, processes = SHAPES[shape]
    if engine == "plain":
        return ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    # a tiny model's parameters all stay whole under ZeRO-3's default threshold
    config = json.loads((REPOSITORY / f"configs/deepspeed/{engine}.json").read_text())
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    file = folder / f"{engine}.json"
    file.write_text(json.dumps(config))
    machine = ["--config_file", str(REPOSITORY / f"configs/accelerate/{engine}.yaml")]
    machine += ["--deepspeed_config_file", str(file), "--num_processes", str(processes), "--main_process_port", "0"]
    return ["accelerate.commands.accelerate_cli", "launch", *machine]


def gradients(case: Case, folder: Path) -> dict:
    """Name -> gradient of the step, from the weights a case left."""
    final = folder / "runs" / case.name / "final"
    weights = {name: tensor for file in final.glob("*.safetensors") for name, tensor in load_file(file).items()}
    return {name: tensor.double() / -LEARNING_RATE for name, tensor in weights.items()}


def deviation(actual: dict, expected: dict) -> float:
    """The largest difference of two gradients, over each tensor's largest element: the worst tensor's."""
    assert actual.keys() == expected.keys(), actual.keys() ^ expected.keys()
    return max(
        (float((actual[name] - tensor).abs().max() / tensor.abs().max()) for name, tensor in expected.items()),
        default=float("nan"),
    )


def definition(case: Case, folder: Path) -> dict[str, Any]:
    """Gate -> gradient of a stack's own router loss, by autograd on its definition: the mean over the micro-batches."""
    with contextlib.chdir(folder):
        trainer = stock_trainer(case)
        batches = list(itertools.islice(trainer.get_train_dataloader(), case.micro_batches))
    model = transformers.OlmoeForCausalLM.from_pretrained(folder / "start", dtype="float32")
    for batch in batches:
        batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits, mask = model(**batch, output_router_logits=True).router_logits, batch["attention_mask"]
        if case.stack == "olmoe_ft":
            loss = load_balancing_loss(logits, 2, mask.flatten()) + 0.1 * router_z_loss(logits, mask.flatten())
        else:
            loss = load_balancing_loss_func(logits, 8, 2, mask)
        (case.coefficient * loss / case.micro_batches).backward()
    return {name: weight.grad.double() for name, weight in model.named_parameters() if "mlp.gate" in name}


def strength(case: Case, folder: Path) -> tuple[float, float]:
    """What a stack adds to the gates' gradient for its router loss, as a multiple of the definition, and the rest.

    Returns:
        the multiple, by projection; and the largest element that no multiple explains, over the largest of all.
    """
    expected = definition(case, folder)
    with_it, without = gradients(case, folder), gradients(replace(case, coefficient=0.0), folder)
    actual = torch.cat([(with_it[name] - without[name]).flatten() for name in expected])
    right = torch.cat([tensor.flatten() for tensor in expected.values()])
    multiple = float(actual @ right / (right @ right))
    return multiple, float((actual - multiple * right).abs().max() / right.abs().max())


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_modes(folder)
        print_splits(folder)
        print_strengths(folder)


def print_modes(folder: Path) -> None:
    cases = product_of_modes()
    run_cases([*cases, *(case.reference for case in cases)], folder)
    shapes = list(dict.fromkeys(case.shape for case in cases))
    print("| stage | weights | rows | checkpointing |", " | ".join(shapes), "|")
    print("|---|---|---|---|" + "---|" * len(shapes))
    for case in cases[:: len(shapes)]:
        found = [
            deviation(gradients(replace(case, shape=shape), folder), gradients(case.reference, folder))
            for shape in shapes
        ]
        print(
            f"| {case.stage} | {case.form} | {case.layout} | {case.checkpointing} |",
            " | ".join(f"{value:.1e}" for value in found),
            "|",
        )


def print_splits(folder: Path) -> None:
    pairs = splits()
    run_cases([case for pair in pairs for case in pair], folder)
    print("| stage | machine | a micro-batch split over its processes, balanced over ranks |")
    print("|---|---|---|")
    for split, whole in pairs:
        found = deviation(gradients(split, folder), gradients(whole, folder))
        print(f"| {split.stage} | {split.shape} | {found:.1e} |")


def print_strengths(folder: Path) -> None:
    stacks = ("olmoe_ft", "trl", "transformers")
    ways = [
        *((shape, "none") for shape in SHAPES),
        ("1 process", "non_reentrant"),
        ("1 process", "reentrant"),
        ("ZeRO-3", "reentrant"),
    ]
    cases = [Case(shape=shape, checkpointing=mode, stack=stack) for shape, mode in ways for stack in stacks]
    run_cases([*cases, *(replace(case, coefficient=0.0) for case in cases)], folder)
    print("| machine | checkpointing |", " | ".join(stacks), "|")
    print("|---|---|" + "---|" * len(stacks))
    for shape, mode in ways:
        found = [strength(Case(shape=shape, checkpointing=mode, stack=stack), folder) for stack in stacks]
        print(f"| {shape} | {mode} |", " | ".join(f"{multiple:.4f} ({rest:.0e})" for multiple, rest in found), "|")


if __name__ == "__main__":
    main()
