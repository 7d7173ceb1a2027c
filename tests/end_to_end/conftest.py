"""One workspace for all runs of the tests here, and the short runs that several of them look at."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.launches import CONFIGS, SFT_START, SHORT, Run, launch, make_workspace
from support.training_cases import FILES


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("workspace"))


STAGES = {  # recipe -> its run in a pipeline
    "sft": "sft",
    "sft-lora": "sft-2",
    "dpo": "dpo",
    "dpo-lora": "dpo-2",
    "kto": "kto",
    "kto-lora": "kto-2",
}


def start_of(recipe: str) -> str:
    """The SFT run that a recipe of preferences starts from."""
    return STAGES["sft-lora" if recipe.endswith("-lora") else "sft"]


@pytest.fixture(scope="session")
def short_run(workspace) -> Callable[[str, str], Run]:
    """A short run of a tiny recipe on a machine shape: `short_run("dpo", "zero3")`.

    The six recipes run as one pipeline for each shape, made once. DPO and KTO start from the one-process SFT run,
    whichever shape they run on, so that shapes can be compared.
    """
    made: dict[str, str] = {}

    def run(recipe: str, shape: str) -> Run:
        if shape not in made:
            if shape != "one":
                run(recipe, "one")
            stages = [
                {"extends": f"recipes/tiny/{name}.yaml"}
                | (SFT_START if name.startswith("sft") else {"model": {"path": f"runs/one/{start_of(name)}"}})
                for name in STAGES
            ]
            file = workspace / f"{shape}.yaml"
            file.write_text(json.dumps({"name": shape, "stage": "pipeline", "stages": stages}))
            overrides = [*SHORT, *(["training.gradient_accumulation_steps=2"] if shape == "one" else [])]
            for stage, rows in enumerate(FILES[name.removesuffix("-lora")] for name in STAGES):
                # 21 rows in batches of 8: two processes have 16 and 5
                overrides.append(f"stages.{stage}.data.eval=[{{path: data/skills/{rows}.jsonl, max_rows: 21}}]")
            for dpo in (2, 3):  # DPO alone starts at ln 2
                overrides += [
                    f"stages.{dpo}.training.loss_type=[sigmoid]",
                    f"stages.{dpo}.training.loss_weights=null",
                ]
            made[shape] = launch(workspace, CONFIGS[shape], file.name, *overrides)
        return Run(workspace / "runs" / shape / STAGES[recipe], made[shape])

    return run
