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
from olmoe_ft.training.arguments import training_arguments
from olmoe_ft.training.run_directory import RunDirectory

TINY = "recipes/tiny/sft.yaml"
TINY_NETWORK = "configs/model/olmoe_tiny.json"
PACKS = ("data.train.0.max_rows=100", "data.answers=null")
START = ("model.path=null", "model.config=configs/model/olmoe_tiny.json", "model.tokenizer=data/skills/tokenizer")
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
    found = schedule(plan.inputs.train, plan.arguments, 1, plan.end_to_end)
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
    found = schedule(plan.inputs.train, plan.arguments, 1, plan.end_to_end)
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
        found = schedule(plan.inputs.train, plan.arguments, 3, plan.end_to_end)
        assert found.count.steps == steps
        assert found.tokens_per_step == pytest.approx(tokens * rows / 100 / steps)


def test_packs_are_packed():
    (plan,) = make_plans(load_recipe(TINY, PACKS))
    found = schedule(plan.inputs.train, plan.arguments, 1, plan.end_to_end)
    tokens = plan.inputs.train.lengths().sum()
    assert np.ceil(tokens / 128) <= found.rows < 100 and found.padding < 0.2
    assert found.rows_per_pack == 100 / found.rows
    assert found.computed == tokens / np.ceil(found.rows / 14)  # what a pack has left is not computed
    assert largest_batch(plan) == Batch(14, 128, packed=True)


def test_pairs_share_their_prompt_where_attention_can():
    """Tokens of a pair with its prompt once, beside both sides with it; under another back end pairs are padded."""
    (plan,) = make_plans(load_recipe("recipes/tiny/dpo.yaml", START))
    sizes = [
        [len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")] for row in plan.inputs.train.rows
    ]
    longest = max(prompt + max(chosen, rejected) for prompt, chosen, rejected in sizes)
    found = schedule(plan.inputs.train, plan.arguments, 1, plan.end_to_end)
    assert plan.end_to_end and found.padding == 0
    prompts = sum(prompt for prompt, _, _ in sizes)
    assert found.spared == pytest.approx(prompts / (sum(map(sum, sizes)) + prompts))
    assert found.computed == sum(map(sum, sizes)) / np.ceil(len(sizes) / 32)
    assert largest_batch(plan) == Batch(32, longest, laid=max(map(sum, sizes)))
    (eager,) = make_plans(load_recipe("recipes/tiny/dpo.yaml", [*START, "model.attn_implementation=eager"]))
    padded = schedule(eager.inputs.train, eager.arguments, 1, eager.end_to_end)
    assert not eager.end_to_end and padded.padding > 0 and padded.spared == 0
    assert largest_batch(eager) == Batch(32, longest)


def test_judged_answers_are_laid_end_to_end_or_padded():
    """Rows of x + y tokens. The answer of another row behind x is at most max_length long, and is no row of a step."""
    few = ("data.train.0.max_rows=100", "training.per_device_train_batch_size=64")
    (plan,) = make_plans(load_recipe("recipes/tiny/kto.yaml", [*START, *few]))
    rows = plan.inputs.train.rows
    lengths = np.array([len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows])
    found = schedule(plan.inputs.train, plan.arguments, 1, plan.end_to_end)
    assert plan.end_to_end and (found.padding, found.spared) == (0, 0)
    assert found.rows == 100 and found.computed == lengths.sum() / 2
    assert found.tokens_per_step == lengths.sum() / 2  # 64 and 36 rows
    others = [len(row["prompt_ids"]) + len(row["KL_completion_ids"]) for row in plan.inputs.train_rows]
    longest = int(lengths.max())
    assert largest_batch(plan) == Batch(64, longest, laid=longest, forward_alone=max(others))
    assert plan.tokens(largest_batch(plan)) == 64 * longest
    (eager,) = make_plans(load_recipe("recipes/tiny/kto.yaml", [*START, *few, "model.attn_implementation=eager"]))
    padded = schedule(eager.inputs.train, eager.arguments, 1, eager.end_to_end)
    places = 64 * lengths[:64].max() + 36 * lengths[64:].max()
    assert padded.computed == places / 2 and padded.padding == pytest.approx(1 - lengths.sum() / places)
    assert largest_batch(eager) == Batch(64, longest, forward_alone=max(others))


def test_the_largest_batch_of_an_estimate_is_cut_to_length():
    """The collator cuts rows that are joined. Without the estimate none is, and of unknown rows all are max_length."""
    one = [*START, "data.train.0.max_rows=100"]
    (plan,) = make_plans(load_recipe("recipes/tiny/kto.yaml", [*one, "data.max_dropped=1", "training.max_length=29"]))
    assert largest_batch(plan).forward_alone == 29
    (plan,) = make_plans(load_recipe("recipes/tiny/kto.yaml", [*one, "training.loss_type=apo_zero_unpaired"]))
    assert largest_batch(plan).forward_alone is None
    (plan,) = make_plans(load_recipe("recipes/tiny/kto.yaml", [*START, "model.tokenizer=no/where"]))
    assert plan.inputs is None and largest_batch(plan) == Batch(32, 128, laid=128, forward_alone=128)


def test_what_is_printed_of_judged_answers(capsys):
    """Neither pairs nor packs; why rows are padded where they are; the steps that a recipe asks for are known."""
    overrides = [*START, "data.train.0.max_rows=100", "training.per_device_train_batch_size=4"]
    overrides += ["model.attn_implementation=eager", "training.max_steps=12"]
    for tokenizer in ("data/skills/tokenizer", "no/where"):
        (plan,) = make_plans(load_recipe("recipes/tiny/kto.yaml", [*overrides, f"model.tokenizer={tokenizer}"]))
        print_plan(plan, [Machine("cpu", 1, gpu=False)], 80, Rates.of(None, None))
    _, known, unknown = " ".join(capsys.readouterr().out.split()).split(" Steps ")
    assert "rows a step │ 4 = 4 x 1 x devices" in known and "prompts computed once" not in known
    assert "forward alone, beside it │ 1 of the policy and 2 of the reference" in known
    assert "on average: attn_implementation eager" in known
    assert "pairs" not in known + unknown and "packs" not in known + unknown
    assert "optimizer steps │ 12 │ │ epochs │ unknown without the tokenizer" in unknown
    assert "largest micro-batch │ 4 rows x 128 tokens" in unknown


def test_micro_batches_of_a_step_are_grouped_by_length():
    """Three processes, four micro-batches of one pair each a step; each process waits for the longest of three.

    By hand for pairs as they come. Sorted, the twelve pairs of a step are taken in threes of about one length.
    """
    one = ("training.per_device_train_batch_size=1", "training.gradient_accumulation_steps=4")
    asked = "training.train_sampling_strategy="

    def waiting(strategy: str, *more: str) -> float:
        (plan,) = make_plans(load_recipe("recipes/tiny/dpo.yaml", [*START, *one, asked + strategy, *more]))
        return schedule(plan.inputs.train, plan.arguments, 3, plan.end_to_end).waiting

    (plan,) = make_plans(load_recipe("recipes/tiny/dpo.yaml", [*START, *one]))
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


def suggested(batch, *overrides) -> list[str]:
    """The first changes to a KTO recipe with checkpointing, on a GPU where each fits."""
    recipe = load_recipe("recipes/tiny/kto.yaml", [*START, "training.gradient_checkpointing=true", *overrides])
    arguments, config = training_arguments(recipe, RunDirectory(recipe)), OlmoeConfig.from_json_file(TINY_NETWORK)
    return [change for change, _ in changes_that_fit(recipe, config, arguments, batch, Machine("gpu", 1), 80)]


@pytest.mark.parametrize(
    ("rows", "loss", "fewest"), [(6, "kto", 2), (9, "kto", 3), (2, "kto", None), (2, "apo_zero_unpaired", 1)]
)
def test_fewer_rows_are_as_few_as_the_stage_allows(rows, loss, fewest):
    """An estimate needs two; a step keeps its rows, so 9 become 3 x 3 and not 4 x 2."""
    asked = ("training.precompute_ref_log_probs=true", f"training.loss_type={loss}")
    first, *others = suggested(Batch(rows, 32, laid=32, forward_alone=32), *asked)
    if fewest is None:
        assert not any("batch_size" in change for change in (first, *others))
    else:
        times = f"{fewest} (and {rows // fewest} times the gradient_accumulation_steps)"
        assert first == f"training.per_device_train_batch_size={times}"


def test_shorter_rows_are_shorter_in_every_pass():
    """A pair of 300 + 2 x 200 tokens cut to 256 has at most two sides of so many."""
    assert Batch(2, 500, laid=700).cut(256, 2) == Batch(2, 256, laid=512)
    assert Batch(2, 500, laid=500, forward_alone=900).cut(256, 1) == Batch(2, 256, laid=256, forward_alone=256)


def test_a_moving_reference_is_neither_kept_nor_adapted():
    """Both are refused with `sync_ref_model`."""
    changes = suggested(Batch(32, 32, laid=32, forward_alone=32), "training.sync_ref_model=true")
    assert changes and not any("precompute" in change or "lora" in change for change in changes)
