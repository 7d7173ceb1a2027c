"""Steps and uneven rows, beside accelerate's own division of batches among processes."""

from types import SimpleNamespace

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, SequentialSampler

from olmoe_ft.recipe import RecipeError
from olmoe_ft.training.steps import count_steps


def arguments(batch: int, accumulation: int = 1, drop_last: bool = False, max_steps: int = -1, epochs: float = 1):
    return SimpleNamespace(
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        dataloader_drop_last=drop_last,
        max_steps=max_steps,
        num_train_epochs=epochs,
    )


def shards(rows: int, batch: int, processes: int, drop_last: bool) -> list[list[list[int]]]:
    sampler = BatchSampler(SequentialSampler(range(rows)), batch, drop_last)
    return [list(BatchSamplerShard(sampler, processes, process)) for process in range(processes)]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(
    ("rows", "batch", "processes"), [(5, 2, 2), (8, 2, 2), (7, 2, 2), (23, 4, 3), (64, 8, 4), (3, 1, 2)]
)
def test_rows_are_those_that_the_processes_take(rows, batch, processes, drop_last):
    """Of several processes: a single one's batches are not divided, and its last one is smaller."""
    shares = shards(rows, batch, processes, drop_last)
    taken = [row for share in shares for one in share for row in one]
    counted = count_steps(rows, arguments(batch, drop_last=drop_last), processes)
    assert counted.steps == counted.per_epoch == len(shares[0])
    assert counted.repeated == len(taken) - len(set(taken))
    assert counted.left_out == rows - len(set(taken))


def test_five_rows_on_two_processes_by_hand():
    """Micro-batches of 2: (0 1) (2 3) and (4 0) (1 2), so 0, 1 and 2 are taken again. One process takes 2, 2 and 1."""
    found = count_steps(5, arguments(2), 2)
    assert (found.per_epoch, found.repeated, found.left_out) == (2, 3, 0)
    assert found.uneven().startswith("3 rows are used twice in every epoch")
    assert count_steps(5, arguments(2, accumulation=2), 1).uneven() is None
    assert "1 rows are left out" in count_steps(5, arguments(2, drop_last=True), 2).uneven()


def test_a_run_of_no_step_is_refused():
    with pytest.raises(RecipeError, match="64 rows, which do not fill 1 micro-batch.* of 128"):
        count_steps(64, arguments(128, drop_last=True), 1)
    with pytest.raises(RecipeError, match="do not fill 4 micro-batch"):
        count_steps(64, arguments(32, drop_last=True, max_steps=3), 4)
