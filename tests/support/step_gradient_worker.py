"""One process of a machine shape: runs the cases listed in a file. `step_gradients.py` launches it."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import transformers
from accelerate.state import AcceleratorState, GradientState, PartialState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl import SFTConfig, SFTTrainer

from olmoe_ft import pipeline
from olmoe_ft.data.sources import load_source
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.recipe import load_recipe
from support.training_cases import Case, training_of


def work(listed: Path) -> None:
    """The worker: run every case of the list in this process (one of several)."""
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


def _run_ours(case: Case) -> None:
    pipeline.run(load_recipe(f"{case.name}.yaml"))


def _run_stock(case: Case) -> None:
    """The same step by TRL's trainer as it is, or by transformers' on the rows TRL prepares."""
    trainer = stock_trainer(case)
    if case.stack == "transformers":
        values = {name: value for name, value in training_of(case).items() if name != "max_length"}
        arguments = transformers.TrainingArguments(
            output_dir=f"checkpoints/{case.name}-trainer", report_to="none", **_machine(), **values
        )
        model = trainer.model
        model.config.output_router_logits, model.router_aux_loss_coef = True, case.coefficient
        rows, collator = trainer.train_dataset, trainer.data_collator
        trainer = transformers.Trainer(model, arguments, collator, rows)
    trainer.train()
    trainer.save_model(f"runs/{case.name}/final")


def stock_trainer(case: Case) -> Any:
    recipe = load_recipe(f"{case.name}.yaml")
    arguments = SFTConfig(
        output_dir=f"checkpoints/{case.name}",
        assistant_only_loss=True,
        report_to="none",
        bf16=False,
        router_aux_loss_coef=case.coefficient,
        **_machine(),
        **training_of(case),
    )
    return SFTTrainer(
        model=transformers.OlmoeForCausalLM.from_pretrained("start", dtype="float32"),
        args=arguments,
        train_dataset=load_source(recipe.data.train[0], recipe.kind, recipe.data)[0]
        .select_columns("messages")
        .shuffle(seed=1),
        processing_class=load_tokenizer("start", 512),
    )


def _machine() -> dict[str, Any]:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    return {"ddp_backend": "gloo" if processes > 1 or deepspeed else None, "use_cpu": not deepspeed}


if __name__ == "__main__":
    work(Path(sys.argv[1]))
