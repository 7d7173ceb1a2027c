"""Code that was planted in a checkpoint does not run: the file that it would write is not there."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from olmoe_ft.checkpoints.pickles import refuse_code, without_code
from olmoe_ft.recipe import RecipeError


class Planted:
    """What writes a file when it is read from a pickle."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def archive(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as written:
        for name, content in files.items():
            written.writestr(name, content)
    return stream.getvalue()


def legacy(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


PLANTS = {
    "global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt": lambda bad: saved({"state": [bad]}),
    "optimizer.pt": legacy,
    "scheduler.pt": pickle.dumps,
    "rng_state_0.pth": lambda bad: archive({"a/data.pkl": saved({}), "a/data/0.pkl": pickle.dumps(bad)}),
    "scaler.pt": lambda bad: archive({"a/data.pkl": pickle.dumps(bad, 2)}, zipfile.ZIP_DEFLATED),
    "pytorch_model.bin": lambda bad: archive({"a/data.pkl": pickle.dumps(bad, 2), "a/constants.pkl": b"\x80\x02)."}),
    "notes": lambda bad: pickle.dumps(bad),  # no ending
    "optimizer.bin": lambda bad: saved([bad])[:-30],  # cut off
    "old.pkl": lambda bad: pickle.dumps(bad, 0),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_file_is_refused_by_name_and_not_read(name, tmp_path):
    trace, checkpoint = tmp_path / "trace", tmp_path / "checkpoint-4"
    (file := checkpoint / name).parent.mkdir(parents=True)
    file.write_bytes(PLANTS[name](Planted(trace)))
    with pytest.raises(RecipeError) as refused:
        refuse_code(checkpoint)
    assert name in str(refused.value) and "could run code" in str(refused.value)
    assert not trace.exists()


def test_a_linked_folder_is_looked_at(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    torch.save(Planted(tmp_path / "trace"), tmp_path / "elsewhere/shard.pt")
    (checkpoint := tmp_path / "checkpoint-4").mkdir()
    (checkpoint / "global_step4").symlink_to(tmp_path / "elsewhere")
    (checkpoint / "round").symlink_to(checkpoint)
    with pytest.raises(RecipeError, match=r"global_step4/shard\.pt: the file calls"):
        refuse_code(checkpoint)


def test_what_is_called_is_named(tmp_path):
    torch.save(Planted(tmp_path / "trace"), tmp_path / "optimizer.pt")
    with pytest.raises(RecipeError, match=r"optimizer\.pt: the file calls posix\.mkdir"):
        refuse_code(tmp_path)


def test_a_planted_shard_is_not_read_by_a_loader_that_asks_for_everything(tmp_path):
    """DeepSpeed's engine and its converter load with `weights_only=False`."""
    torch.save(Planted(tmp_path / "trace"), tmp_path / "shard.pt")
    with without_code(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "shard.pt", weights_only=False)
    assert not (tmp_path / "trace").exists()
    torch.load(
        tmp_path / "shard.pt", weights_only=False
    )  # the plant is a real one, and behind the block all is as before
    assert (tmp_path / "trace").exists()


def test_what_deepspeed_and_transformers_write_passes_both(tmp_path):
    loss_scaler = pytest.importorskip("deepspeed.runtime.fp16.loss_scaler")
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    shard = {
        "loss_scaler": loss_scaler.LossScaler(scale=1),
        "zero_stage": ZeroStageEnum(3),
        "param_slice_mappings": [{"w": fragment_address(numel=4, start=0)}],
        "fp32": torch.arange(4.0),
    }
    torch.save(shard, tmp_path / "shard.pt")
    (tmp_path / "training_args.bin").write_bytes(saved(Path("of people")))  # read by nobody
    (tmp_path / "README.md").write_text("words")
    refuse_code(tmp_path)
    with without_code():
        found = torch.load(tmp_path / "shard.pt", weights_only=False)
    assert found["zero_stage"] == 3 and found["loss_scaler"].loss_scale == 1
    assert torch.equal(found["fp32"], shard["fp32"])
    assert found["param_slice_mappings"][0]["w"].numel == 4
