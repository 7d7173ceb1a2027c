"""What a stage answers, and that nobody else knows a stage's name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from olmoe_ft.recipe.data_section import Source
from olmoe_ft.recipe.training_fields import default_of, training_fields
from olmoe_ft.stages import STAGES

PACKAGE = Path(__file__).parents[2] / "olmoe_ft"


def test_only_the_stages_know_their_names():
    """A literal "sft", "dpo" or "kto", or a column of one stage, elsewhere is a stage that is not in its file."""
    columns = "chosen_ids|rejected_ids|completion_ids|KL_completion_ids"
    literals = re.compile(rf"""["'](sft|dpo|kto|{columns})["']|\b(SFT|DPO|KTO)(Config|Trainer)\b(?!`)""")
    found = [
        f"{file.relative_to(PACKAGE)}:{number}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if "stages" not in file.parts
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if literals.search(line)
    ]
    assert not found


def test_the_light_half_imports_nothing_heavy():
    script = (
        "import sys, olmoe_ft.stages\n"
        "print(sorted({'torch', 'transformers', 'trl', 'datasets', 'numpy', 'pydantic'} & sys.modules.keys()))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_stage_is_consistent_with_itself(stage):
    assert STAGES[stage.name] is stage and "loss" in stage.metrics
    assert {column for parts in stage.sequences for column in parts} <= stage.columns().keys()
    assert {*stage.estimated} <= {*stage.columns(), *(f"KL_{column}" for column in stage.columns())}
    assert stage.options.keys() <= training_fields(stage.name).keys()
    for format in stage.formats:
        Source.model_validate({"path": "x", "format": format})


def test_a_reference_is_needed_or_not():
    """One rule for trainer, planner and advice: a second model only without adapters, and not where it ran before."""

    class Arguments:
        precompute_ref_log_probs = False

    dpo, before = STAGES["dpo"], Arguments()
    before.precompute_ref_log_probs = True
    assert dpo.own_reference(None, Arguments()) and not dpo.own_reference("lora", Arguments())
    assert dpo.computes_reference(Arguments()) and not dpo.computes_reference(before)
    assert not dpo.own_reference(None, before) and not STAGES["sft"].own_reference(None, Arguments())


def test_dpo_loss_by_hand():
    """beta 0.5; sums of the policy -2, -3 | -1, -5, of the reference -2, -2 | -2, -2.

    Log-ratios 0, -1 | 1, -3, so the margins are 0 - 1 = -1 and -1 - (-3) = 2, and the loss is the mean of
    log(1 + e^0.5) = 0.974077 and log(1 + e^-1) = 0.313262: 0.643669.
    """

    class Arguments:
        beta = 0.5

    policy = torch.tensor([[-1.0, -1.0], [-3.0, 0.0], [-1.0, 0.0], [-2.0, -3.0]])
    reference = torch.full((4, 2), -1.0)
    loss = STAGES["dpo"].scored_loss(policy, reference, Arguments())
    torch.testing.assert_close(loss, torch.tensor(0.643669), rtol=0, atol=1e-6)


def test_sft_loss_by_hand():
    assert STAGES["sft"].scored_loss(torch.tensor([[-1.0, -2.0, -6.0]]), None, None).item() == 3.0


def test_packing_is_the_recipes_or_trls_default():
    sft = STAGES["sft"]
    usual = default_of("sft", "max_length"), default_of("sft", "packing_strategy")
    assert sft.packing({}) is None and sft.packing({"packing": True}) == usual
    assert sft.packing({"packing": True, "eval_packing": False}, evaluation=True) is None
    assert sft.order_seed({}) is None and sft.order_seed({"shuffle_dataset": True, "seed": 5}) == 5
    assert STAGES["dpo"].packing({"packing": True}) is None
