"""The gradient of one optimizer step, read from the weights that it leaves.

A case runs the real pipeline (or stock TRL, or transformers' Trainer) for one step of plain SGD with a learning rate of
a million: the weights it leaves are the gradient times minus a million, to 7 digits, whatever shards it on the way.
`step_gradient_worker.py` is launched once for each machine shape and runs that shape's cases.
"""

import contextlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from safetensors.torch import load_file
from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func

from olmoe_ft.objective import load_balancing_loss, router_z_loss
from support import REPOSITORY, SUPPORT
from support.launches import LAUNCHER, run_python
from support.step_gradient_worker import stock_trainer
from support.training_cases import LEARNING_RATE, SHAPES, Case, recipe_of, write_start

WORKER = str(SUPPORT / "step_gradient_worker.py")


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
        result = run_python(folder, "-m", *_launcher(shape, folder), WORKER, str(listed), timeout=timeout)
        if result.returncode:
            raise RuntimeError(f"{shape}: {result.stdout[-8000:]}{result.stderr[-8000:]}")


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
    return [LAUNCHER, "launch", *machine]


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
