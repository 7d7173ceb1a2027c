"""The base of an adapter: where it is, and whether it is the one the adapter was trained on."""

import hashlib
import json
from pathlib import Path

from huggingface_hub import snapshot_download

from olmoe_ft.checkpoints.folders import BASE_KEY
from olmoe_ft.checkpoints.safetensors_header import read_header
from olmoe_ft.hub import reach_hub, refusal
from olmoe_ft.model.checkpoint import weight_files
from olmoe_ft.recipe import UserError

NOTE = "base.json"  # in an adapter's folder, beside PEFT's files
SAMPLE = 4096  # bytes of each tensor


def base_of(adapter: str) -> str:
    """The checkpoint an adapter was trained on; a run that was moved still finds its own `base/`.

    Raises:
        UserError: it is a local folder that is no longer there, or its weights are not those of the training.
    """
    try:
        named = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8")).get(BASE_KEY)
    except (ValueError, AttributeError, OSError, RecursionError) as error:
        raise UserError(f"{adapter}: its adapter_config.json cannot be read ({error}); correct it") from None
    if not isinstance(named, str) or not named:
        raise UserError(f"{adapter}: its adapter_config.json names no {BASE_KEY}; write it there")
    folder, places = Path(adapter).resolve(), [named]
    if Path(named).is_absolute() and Path(named).name == "base":  # of a run, whose final/ or checkpoints/*/ this is
        places += [str(folder.parent / "base"), str(folder.parents[1] / "base")]
    found = [place for place in places if Path(place).exists() or not Path(place).is_absolute()]
    if not found:
        raise UserError(
            f"{adapter}: there is no {named}, its base; bring it back, or correct {BASE_KEY} in its adapter_config.json"
        )
    if not (note := folder / NOTE).exists():
        return found[0]
    trained_on = json.loads(note.read_text())["fingerprint"]
    for place in found:
        if fingerprint(place) == trained_on:
            return place
    raise UserError(
        f"{adapter} was trained on other weights than those in {found[0]} now: bring its base back, or correct "
        "base_model_name_or_path in its adapter_config.json"
    )


def note_base(adapter: Path, trained_on: str) -> None:
    """Keep beside an adapter the fingerprint of the weights it was trained on, for `base_of`."""
    (adapter / NOTE).write_text(json.dumps({"fingerprint": trained_on}, indent=2) + "\n")


def fingerprint(checkpoint: str) -> str:
    """A hash of every tensor's name, type, shape and first 4 KiB: training moves some of them. Seconds for 14 GB.

    Of an adapter its own tensors.

    Args:
        checkpoint: folder or Hub name.
    Raises:
        UserError: a file is cut off or no safetensors file.
    """
    folder = local_folder(checkpoint)
    tensors = {
        name: (file, stored)
        for file in (*weight_files(folder), *folder.glob("adapter_model.safetensors"))
        for name, stored in read_header(file).items()
    }
    digest = hashlib.sha256()
    for name, (file, stored) in sorted(tensors.items()):
        with file.open("rb") as stream:
            stream.seek(stored.start)
            first = stream.read(min(stored.size, SAMPLE))
        digest.update(f"{name} {stored.dtype} {stored.shape} ".encode() + first)
    return digest.hexdigest()


def local_folder(checkpoint: str) -> Path:
    """The files of a checkpoint: its folder, or those of the Hub, fetched where they are not in the cache.

    Raises:
        UserError: no such repository, or no network.
    """
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    reach_hub(checkpoint, "model")
    try:
        return Path(snapshot_download(checkpoint, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # of the Hub, the network, the disk
        raise refusal(checkpoint, "model", error) from None
