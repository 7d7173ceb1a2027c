"""Rows of a step by their length: which rows, in which order, the same after a resumption."""

import pytest
import torch
from support.training_cases import Case

from olmoe_ft.data.mixture import row_lengths
from olmoe_ft.training.by_length import StepsByLength

GROUPED = "training.train_sampling_strategy=group_by_length"


def steps_of(order: list[int], step: int) -> list[list[int]]:
    return [order[start : start + step] for start in range(0, len(order), step)]


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_step_keeps_its_rows_and_only_their_order_changes(epoch):
    """Chance deals 22 rows to steps of 4, which are sorted; at last the longest row and the first change places."""
    lengths = torch.randperm(22, generator=torch.Generator().manual_seed(5)).tolist()
    sampler = StepsByLength(lengths, step=4, seed=7)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(22)) and len(sampler) == 22 and list(sampler) == order
    dealt = steps_of(torch.randperm(22, generator=torch.Generator().manual_seed(7 + epoch)).tolist(), 4)
    longest, first = lengths.index(21), max(dealt[0], key=lengths.__getitem__)
    swapped = [[{longest: first, first: longest}.get(row, row) for row in step] for step in dealt]
    for found, expected in zip(steps_of(order, 4), swapped, strict=True):
        assert sorted(found) == sorted(expected)
    assert order[0] == longest
    for number, found in enumerate(steps_of(order, 4)):
        sizes = [lengths[row] for row in found if row not in (longest, first)]
        assert sizes == sorted(sizes, reverse=True), number


def test_epochs_differ_and_processes_do_not():
    orders = []
    for epoch in (0, 1, 0):
        sampler = StepsByLength([1] * 50, step=5, seed=1)
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_trainers_sort_the_rows_of_a_step(make_trainer, stage):
    """Four micro-batches of two rows: the longest rows of the step come first, of pairs both answers and one prompt."""
    trainer = make_trainer(Case(stage), GROUPED)
    lengths = row_lengths(trainer.train_dataset, trainer.stage).tolist()
    names = ("input_ids",) if stage == "sft" else ("prompt_ids", "chosen_ids", "rejected_ids")
    assert lengths == [sum(len(row[name]) for name in names) for row in trainer.train_dataset]
    order = list(trainer.get_train_dataloader().batch_sampler)
    assert all(len(batch) == 2 for batch in order)
    for step in steps_of([row for batch in order for row in batch], 8)[1:]:
        sizes = [lengths[row] for row in step]
        assert sum(sizes[:2]) >= sum(sizes[-2:]) and len(set(sizes)) > 1


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_resumed_run_takes_the_rows_of_an_unbroken_one(make_trainer, stage):
    """Two steps an epoch; a run that resumes after step 5, in the middle of the third, has its losses."""
    more = ("data.train.0.max_rows=16", "training.max_steps=6", "training.save_strategy=steps", "training.save_steps=5")
    whole = make_trainer(Case(stage), GROUPED, *more)
    whole.train()
    resumed = make_trainer(Case(stage), GROUPED, *more)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-5")
    one, other = (
        {record["step"]: record["loss"] for record in trainer.state.log_history if "loss" in record}
        for trainer in (whole, resumed)
    )
    assert list(one) == [1, 2, 3, 4, 5, 6] and other == pytest.approx(one, rel=1e-5)
    assert len({round(loss, 6) for loss in one.values()}) == 6
