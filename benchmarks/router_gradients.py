"""Is the router's gradient the same on every machine? One optimizer step on the same micro-batches, many ways.

    python benchmarks/router_gradients.py    # prints the tables of docs/router-objective.md: six minutes on 2 cores

A case runs the real pipeline (or stock TRL, or transformers' Trainer) for one step of plain SGD with a learning rate of
a million: the weights it leaves are the gradient times minus a million, to 7 digits, whatever shards it on the way.
`accelerate launch` starts this file again as a worker, once for each machine shape, which runs that shape's cases.
"""

import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
LEARNING_RATE = 1e6
MICRO_BATCHES = 4  # of ROWS rows, or packed rows, or pairs; spread over processes x accumulation steps
ROWS = 2
SHAPES = {  # name -> engine, processes
    "1 process": ("plain", 1),
    "2 processes": ("plain", 2),
    "4 processes": ("plain", 4),
    "ZeRO-2": ("zero2", 2),
    "ZeRO-3": ("zero3", 2),
}


@dataclass(frozen=True)
class Case:
    """One way of taking the step; `shape` is a key of SHAPES."""

    stage: str = "sft"  # sft, dpo
    form: str = "full"  # full, lora
    layout: str = "padded"  # padded, packed
    checkpointing: str = "none"  # none, reentrant, non_reentrant
    shape: str = "1 process"
    stack: str = "olmoe_ft"  # olmoe_ft, trl, transformers
    balance_over: str = "micro_batch"
    rows: int = ROWS  # of a micro-batch
    micro_batches: int = MICRO_BATCHES
    coefficient: float = 0.5  # of load balancing; the z-loss has a tenth of it. Large, so that an error is seen

    @property
    def name(self) -> str:
        return "-".join(str(value).replace(" ", "_") for value in asdict(self).values())

    @property
    def reference(self) -> "Case":
        """The same step in the plainest way."""
        return replace(self, checkpointing="none", shape="1 process")


def product_of_modes(shapes: Iterable[str] = ("1 process", "2 processes", "ZeRO-2", "ZeRO-3")) -> list[Case]:
    """Every combination that exists: TRL packs no preference pairs."""
    return [
        Case(stage, form, layout, checkpointing, shape)
        for stage, form, layout, checkpointing, shape in product(
            ("sft", "dpo"), ("full", "lora"), ("padded", "packed"), ("none", "reentrant", "non_reentrant"), shapes
        )
        if (stage, layout) != ("dpo", "packed")
    ]


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
            [sys.executable, "-m", *_launcher(shape, folder), __file__, str(listed)],
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
    from safetensors.torch import load_file

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


def write_start(folder: Path) -> None:
    """A small model with routers that are not balanced, with its tokenizer."""
    if (folder / "start").exists():
        return
    import torch

    from olmoe_ft.data.tokenizer import load_tokenizer
    from olmoe_ft.model import OlmoeConfig, OlmoeForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = OlmoeConfig(vocab_size=512, num_experts=8, num_experts_per_tok=2, eos_token_id=511, **sizes)
    model = OlmoeForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(torch.randn_like(weight) * (0.5 if "mlp.gate" in name else 0.1))
    model.save_pretrained(folder / "start")
    load_tokenizer(str(REPOSITORY / "data/skills/tokenizer"), config.vocab_size).save_pretrained(folder / "start")


def _work(listed: Path) -> None:
    """The worker: run every case of the list in this process (one of several)."""
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    for values in json.loads(listed.read_text()):
        case = Case(**values)
        if case.stack == "olmoe_ft":
            _run_ours(case)
        else:
            _run_stock(case)
        PartialState().wait_for_everyone()
        unset_hf_deepspeed_config()
        AcceleratorState._reset_state()
        GradientState._reset_state()


def _training(case: Case) -> dict:
    processes = SHAPES[case.shape][1]
    assert case.micro_batches % processes == 0, case
    return {
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "per_device_train_batch_size": case.rows,
        "gradient_accumulation_steps": case.micro_batches // processes,
        "gradient_checkpointing": case.checkpointing != "none",
        "gradient_checkpointing_kwargs": {"use_reentrant": case.checkpointing == "reentrant"},
        "max_length": 64,
        "save_strategy": "no",
        "logging_steps": 1,
        "seed": 1,
    }


def recipe_of(case: Case, folder: Path) -> dict:
    rows = "train" if case.stage == "sft" else "preferences"
    recipe = {
        "name": case.name,
        "stage": case.stage,
        "model": {"path": str(folder.resolve() / "start"), "dtype": "float32"},
        "router": {
            "load_balancing_coef": case.coefficient,
            "z_loss_coef": case.coefficient / 10,
            "train": "full",
            "balance_over": case.balance_over,
        },
        "data": {"train": [{"path": str(REPOSITORY / f"data/skills/{rows}.jsonl"), "max_rows": 64}]},
        "training": _training(case) | ({"packing": True} if case.layout == "packed" else {}),
        "tracking": {"wandb": "off"},
    }
    if case.form == "lora":  # both factors random, so that both have a gradient
        recipe["lora"] = {"r": 2, "alpha": 4, "attention": True, "experts": True, "init_lora_weights": False}
    return recipe


def _run_ours(case: Case) -> None:
    from olmoe_ft import pipeline
    from olmoe_ft.recipe import load_recipe

    pipeline.run(load_recipe(f"{case.name}.yaml"))


def _run_stock(case: Case) -> None:
    """The same step by TRL's trainer as it is, or by transformers' on the rows TRL prepares."""
    import transformers

    trainer = _stock_trainer(case)
    if case.stack == "transformers":
        values = {name: value for name, value in _training(case).items() if name != "max_length"}
        arguments = transformers.TrainingArguments(
            output_dir=f"checkpoints/{case.name}-trainer", report_to="none", **_machine(), **values
        )
        model = trainer.model
        model.config.output_router_logits, model.router_aux_loss_coef = True, case.coefficient
        rows, collator = trainer.train_dataset, trainer.data_collator
        trainer = transformers.Trainer(model, arguments, collator, rows)
    trainer.train()
    trainer.save_model(f"runs/{case.name}/final")


def _stock_trainer(case: Case) -> Any:
    import transformers
    from trl import SFTConfig, SFTTrainer

    from olmoe_ft.data.sources import load_mixture
    from olmoe_ft.data.tokenizer import load_tokenizer
    from olmoe_ft.recipe import load_recipe

    recipe = load_recipe(f"{case.name}.yaml")
    arguments = SFTConfig(
        output_dir=f"checkpoints/{case.name}",
        assistant_only_loss=True,
        report_to="none",
        bf16=False,
        router_aux_loss_coef=case.coefficient,
        **_machine(),
        **_training(case),
    )
    return SFTTrainer(
        model=transformers.OlmoeForCausalLM.from_pretrained("start", dtype="float32"),
        args=arguments,
        train_dataset=load_mixture(recipe.data.train, "sft", 1),
        processing_class=load_tokenizer("start", 512),
    )


def _machine() -> dict[str, Any]:
    import os

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    return {"ddp_backend": "gloo" if processes > 1 or deepspeed else None, "use_cpu": not deepspeed}


def definition(case: Case, folder: Path) -> dict[str, Any]:
    """Gate -> gradient of a stack's own router loss, by autograd on its definition: the mean over the micro-batches."""
    import transformers
    from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func

    from olmoe_ft.objective import load_balancing_loss, router_z_loss

    with contextlib.chdir(folder):
        trainer = _stock_trainer(case)
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
    import torch

    expected = definition(case, folder)
    with_it, without = gradients(case, folder), gradients(replace(case, coefficient=0.0), folder)
    actual = torch.cat([(with_it[name] - without[name]).flatten() for name in expected])
    right = torch.cat([tensor.flatten() for tensor in expected.values()])
    multiple = float(actual @ right / (right @ right))
    return multiple, float((actual - multiple * right).abs().max() / right.abs().max())


def main() -> None:
    if len(sys.argv) == 2:
        _work(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_modes(folder)
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
