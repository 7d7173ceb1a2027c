"""Steps as the trainer takes them, and changes that make a run fit."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import Trainer

from olmoe_ft.constants import GIB
from olmoe_ft.model import OlmoeConfig
from olmoe_ft.planning.advice import changes_that_fit
from olmoe_ft.planning.machine import Machine
from olmoe_ft.planning.measured_step import Batch
from olmoe_ft.planning.plan import largest_batch, machines_for, make_plans
from olmoe_ft.planning.printed import print_plan
from olmoe_ft.planning.schedule import schedule
from olmoe_ft.planning.time import Rates
from olmoe_ft.recipe import load_recipe

TINY = "recipes/tiny/sft.yaml"
PACKS = ("data.train.0.max_rows=100", "data.answers=null")
ROWS = (*PACKS, "training.packing=false", "training.per_device_train_batch_size=64")


@pytest.mark.parametrize(
    "overrides",
    [
        ("training.max_steps=-1", "training.num_train_epochs=2"),
        ("training.max_steps=-1", "training.num_train_epochs=1.5", "training.per_device_train_batch_size=8"),
        ("training.per_device_train_batch_size=8", "training.gradient_accumulation_steps=3"),
        ("training.per_device_train_batch_size=7", "training.gradient_accumulation_steps=2", "training.max_steps=-1"),
        ("training.dataloader_drop_last=true", "training.max_steps=-1"),
    ],
)
def test_steps_are_those_of_the_trainer(tmp_path, overrides):
    (plan,) = make_plans(load_recipe(TINY, [*ROWS, *overrides]))
    plan.arguments.output_dir = str(tmp_path)  # where the trainer makes a folder
    found = schedule(plan.inputs.train, plan.arguments, 1, plan.shares_prompts)
    trainer = Trainer(torch.nn.Linear(1, 1), args=plan.arguments)
    loader = DataLoader(
        range(100), batch_size=plan.arguments.per_device_train_batch_size, drop_last=plan.arguments.dataloader_drop_last
    )
    _, per_epoch, *rest = trainer.set_initial_training_values(plan.arguments, loader)
    steps = rest[-1]
    assert (found.count.per_epoch, found.count.steps) == (per_epoch, steps)
    assert found.rows == 100


def test_tokens_and_padding_by_hand():
    """Lengths of 100 rows in micro-batches of 64: each is padded to its longest."""
    (plan,) = make_plans(load_recipe(TINY, [*ROWS, "training.max_steps=-1", "training.num_train_epochs=1"]))
    lengths = plan.inputs.train.lengths()[:, 0]
    found = schedule(plan.inputs.train, plan.arguments, 1, plan.shares_prompts)
    padded = 64 * lengths[:64].max() + 36 * lengths[64:].max()
    assert found.padding == pytest.approx(1 - lengths.sum() / padded)
    assert found.tokens == pytest.approx(lengths.sum()) and found.tokens_per_step == lengths.sum() / 2
    assert found.computed == padded / 2
    assert largest_batch(plan) == Batch(64, int(lengths.max()))


def test_rows_that_several_processes_repeat_are_counted():
    """100 rows make 13 micro-batches of 8; three processes take 5 each, so 120 rows in 5 steps: 20 are used twice.
    With dataloader_drop_last 12 whole ones, 4 each: 96 rows in 4 steps."""
    asked = ("training.per_device_train_batch_size=8", "training.max_steps=-1", "training.num_train_epochs=1")
    for more, rows, steps in (((), 120, 5), (("training.dataloader_drop_last=true",), 96, 4)):
        (plan,) = make_plans(load_recipe(TINY, [*ROWS, *asked, *more]))
        tokens = plan.inputs.train.lengths().sum()
        found = schedule(plan.inputs.train, plan.arguments, 3, plan.shares_prompts)
        assert found.count.steps == steps
        assert found.tokens_per_step == pytest.approx(tokens * rows / 100 / steps)


def test_packs_are_packed():
    (plan,) = make_plans(load_recipe(TINY, PACKS))
    found = schedule(plan.inputs.train, plan.arguments, 1, plan.shares_prompts)
    tokens = plan.inputs.train.lengths().sum()
    assert np.ceil(tokens / 128) <= found.rows < 100 and found.padding < 0.2
    assert found.rows_per_pack == 100 / found.rows
    assert found.computed == tokens / np.ceil(found.rows / 14)  # what a pack has left is not computed
    assert largest_batch(plan) == Batch(14, 128, packed=True)


def test_pairs_share_their_prompt_where_attention_can():
    """Tokens of a pair with its prompt once, beside both sides with it; under another back end pairs are padded."""
    start = ("model.path=null", "model.config=configs/model/olmoe_tiny.json", "model.tokenizer=data/skills/tokenizer")
    (plan,) = make_plans(load_recipe("recipes/tiny/dpo.yaml", start))
    sizes = [
        [len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")] for row in plan.inputs.train.rows
    ]
    longest = max(prompt + max(chosen, rejected) for prompt, chosen, rejected in sizes)
    found = schedule(plan.inputs.train, plan.arguments, 1, plan.shares_prompts)
    assert plan.shares_prompts and found.padding == 0
    prompts = sum(prompt for prompt, _, _ in sizes)
    assert found.spared == pytest.approx(prompts / (sum(map(sum, sizes)) + prompts))
    assert found.computed == sum(map(sum, sizes)) / np.ceil(len(sizes) / 32)
    assert largest_batch(plan) == Batch(32, longest, pair=max(map(sum, sizes)))
    (eager,) = make_plans(load_recipe("recipes/tiny/dpo.yaml", [*start, "model.attn_implementation=eager"]))
    padded = schedule(eager.inputs.train, eager.arguments, 1, eager.shares_prompts)
    assert not eager.shares_prompts and padded.padding > 0 and padded.spared == 0
    assert largest_batch(eager) == Batch(32, longest)


def test_micro_batches_of_a_step_are_grouped_by_length():
    """Three processes, four micro-batches of one pair each a step; each process waits for the longest of three.

    By hand for pairs as they come. Sorted, the twelve pairs of a step are taken in threes of about one length.
    """
    start = ("model.path=null", "model.config=configs/model/olmoe_tiny.json", "model.tokenizer=data/skills/tokenizer")
    one = ("training.per_device_train_batch_size=1", "training.gradient_accumulation_steps=4")
    asked = "training.train_sampling_strategy="

    def waiting(strategy: str, *more: str) -> float:
        (plan,) = make_plans(load_recipe("recipes/tiny/dpo.yaml", [*start, *one, asked + strategy, *more]))
        return schedule(plan.inputs.train, plan.arguments, 3, plan.shares_prompts).waiting

    (plan,) = make_plans(load_recipe("recipes/tiny/dpo.yaml", [*start, *one]))
    tokens = [sum(map(len, row.values())) for row in plan.inputs.train.rows]
    threes = [tokens[index : index + 3] for index in range(0, len(tokens) - len(tokens) % 3, 3)]
    assert waiting("random") == pytest.approx(1 - sum(map(sum, threes)) / (3 * sum(map(max, threes))))
    assert waiting("group_by_length") < waiting("random") / 2
    eager = "model.attn_implementation=eager"  # pairs padded to the longer side
    assert waiting("group_by_length", eager) < waiting("random", eager) / 1.5


def test_a_pipeline_goes_on_from_a_run_that_is_to_come():
    recipe = load_recipe("recipes/tiny/pipeline.yaml", ["name=never-run", "data.answers=null"])
    first, second = make_plans(recipe)
    assert second.config.to_dict() == first.config.to_dict() and second.inputs is not None


def test_what_the_hub_has_is_planned_with_the_released_sizes():
    (plan,) = make_plans(load_recipe("recipes/olmoe-1b-7b-0924/sft/full.yaml"))
    assert plan.inputs is None and plan.lacking == ["the tokenizer", "the data"]
    assert [
        next(what for what in ("model", "tokenizer", "dataset") if f"no such {what} in the cache" in reason)
        for reason in plan.unreachable
    ] == ["model", "tokenizer", "dataset"]
    assert isinstance(plan.config, OlmoeConfig) and plan.config.num_experts == 64
    assert largest_batch(plan) == Batch(2, 4096, packed=True)
    assert [(machine.name, machine.processes) for machine in machines_for(plan, None, None)] == [
        ("zero3", 8),
        ("zero2", 8),
        ("gpu", 1),
        ("zero3-offload", 8),
    ]


def test_rows_that_are_here_are_not_what_lacks_where_the_tokenizer_does(capsys):
    (plan,) = make_plans(load_recipe(TINY, [*ROWS, "model.tokenizer=no/where"]))
    assert plan.inputs is None and plan.lacking == ["the tokenizer"]
    print_plan(plan, machines_for(plan, None, None), 80, Rates.of(None, None))
    printed = " ".join(capsys.readouterr().out.split())
    assert "no/where: there is no such folder here and no such tokenizer in the cache" in printed
    assert "unknown without the tokenizer" in printed


def test_changes_go_from_small_to_large_and_fit():
    """The tiny network on a device of its own size: what is named fits, and is no more than is needed."""
    (plan,) = make_plans(load_recipe(TINY, ROWS))
    batch = Batch(64, 512)
    device = Machine("cpu", 1, gpu=False)
    wide = [*changes_that_fit(plan.recipe, plan.config, plan.arguments, batch, device, 1 + 2.0)]
    assert [change for change, _ in wide] == ["training.gradient_checkpointing=true"]
    narrow = [*changes_that_fit(plan.recipe, plan.config, plan.arguments, batch, device, 1 + 0.2)]
    assert "training.per_device_train_batch_size=1" in narrow[0][0]
    assert all(memory.peak + GIB <= 3 * GIB for _, memory in wide)
    assert all(memory.peak + GIB <= 1.2 * GIB for _, memory in narrow)


def test_adapters_need_no_reference():
    """DPO of four layers of the released network on 8 GiB: adapters alone fit, so log-probabilities are not kept."""
    recipe = load_recipe("recipes/olmoe-1b-7b-0924/dpo/full.yaml", ["training.gradient_checkpointing=true"])
    (plan,) = make_plans(recipe)
    device, config = Machine("gpu", 1), OlmoeConfig(**{**plan.config.to_dict(), "num_hidden_layers": 4})
    changes = dict(changes_that_fit(recipe, config, plan.arguments, largest_batch(plan), device, 8))
    assert next(iter(changes)).startswith('"lora=')
    assert any("precompute_ref_log_probs" in change for change in changes)
