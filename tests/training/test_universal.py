"""A checkpoint goes on with another number of processes: what is said where it cannot, random numbers where it does."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from olmoe_ft.recipe import RunError
from olmoe_ft.training.universal import UniversalMixin, convert, processes_of


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """Of two processes under ZeRO-3, whose shards are cut off."""
    shards = tmp_path / "checkpoint-3" / "global_step3"
    shards.mkdir(parents=True)
    for rank in (0, 1):
        (shards.parent / f"rng_state_{rank}.pth").touch()
        for kind in ("model", "optim"):
            (shards / f"zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt").write_bytes(b"PK" * 50)
    return shards.parent


def test_a_checkpoint_that_cannot_be_converted_stays_as_it_is(checkpoint, tmp_path):
    before = modified(checkpoint)
    with pytest.raises(
        RunError, match=r"checkpoint-3: DeepSpeed cannot convert it .*; continue with 2 process\(es\) as b"
    ):
        convert(checkpoint, tmp_path / "aside" / "universal")
    assert modified(checkpoint) == before


def test_room_for_the_numbers_of_the_optimizer_twice_is_asked_for(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=599))
    with pytest.raises(RunError, match="600 more bytes are needed until the first step, but 599 are free"):
        convert(checkpoint, tmp_path / "aside" / "universal")


@pytest.mark.parametrize("files", [["rng_state.pth"], ["rng_state_0.pth", "rng_state_1.pth"]])
def test_random_numbers_after_a_change_are_not_those_of_the_beginning(tmp_path, files):
    for file in files:
        (tmp_path / file).touch()
    assert processes_of(tmp_path) == len(files)
    drawn = [draw(tmp_path, step, process) for step, process in ((4, 0), (4, 0), (4, 1), (9, 0))]
    torch.manual_seed(1)
    assert drawn[0] == drawn[1]
    assert len({*drawn, torch.rand(()).item()}) == 4


def modified(folder: Path) -> dict[Path, tuple[int, int]]:
    return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in folder.rglob("*")}


def draw(checkpoint: Path, step: int, process: int) -> float:
    """The first number of a process of three."""
    trainer = UniversalMixin.__new__(UniversalMixin)
    trainer.args, trainer.state = SimpleNamespace(seed=1), SimpleNamespace(global_step=step)
    trainer.accelerator = SimpleNamespace(num_processes=3, process_index=process)
    trainer.is_deepspeed_enabled = False
    trainer._load_rng_state(str(checkpoint))
    return torch.rand(()).item()
