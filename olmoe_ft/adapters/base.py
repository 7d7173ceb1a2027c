"""The base of an adapter: where it is, and whether it is the one the adapter was trained on."""

import hashlib
import json
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from peft import PeftConfig

from olmoe_ft.model.checkpoint import weight_files
from olmoe_ft.recipe import RecipeError

NOTE = "base.json"  # in an adapter's folder, beside PEFT's files
SAMPLE = 4096  # bytes of each tensor


def is_adapter(path: str) -> bool:
    return (Path(path) / "adapter_config.json").exists()


def base_of(adapter: str) -> str:
    """The checkpoint an adapter was trained on; a run that was moved still finds its own `base/`.

    Raises:
        RecipeError: it is a local folder that is no longer there, or its weights are not those of the training.
    """
    named = PeftConfig.from_pretrained(adapter).base_model_name_or_path or ""
    beside = Path(adapter).resolve().parent / "base"
    base = str(beside) if not Path(named).exists() and beside.exists() else named
    if Path(base).is_absolute() and not Path(base).exists():
        raise RecipeError(f"{adapter}: its base {base} is gone; an adapter is nothing without it")
    note = Path(adapter) / NOTE
    if note.exists() and json.loads(note.read_text())["fingerprint"] != fingerprint(base):
        raise RecipeError(
            f"{adapter} was trained on other weights than those in {base} now: bring its base back, or mend "
            "base_model_name_or_path in its adapter_config.json"
        )
    return base


def note_base(adapter: Path, base: str) -> None:
    """Keep beside an adapter which weights it was trained on, for `base_of`."""
    (adapter / NOTE).write_text(json.dumps({"fingerprint": fingerprint(base)}, indent=2) + "\n")


def fingerprint(checkpoint: str) -> str:
    """A hash of every tensor's name, type, shape and first 4 KiB: training moves some of them. Seconds for 14 GB.

    Args:
        checkpoint: folder or Hub name.
    """
    digest = hashlib.sha256()
    for file in weight_files(local_folder(checkpoint)):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")  # the safetensors format: size, header, data
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            for name, entry in sorted(header.items()):
                begin, end = entry["data_offsets"]
                stream.seek(8 + length + begin)
                digest.update(f"{name} {entry['dtype']} {entry['shape']} ".encode())
                digest.update(stream.read(min(end - begin, SAMPLE)))
    return digest.hexdigest()


def local_folder(checkpoint: str) -> Path:
    """The files of a checkpoint: its folder, or those of the Hub, fetched where they are not in the cache.

    Raises:
        RecipeError: no such repository, or no network.
    """
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    try:
        return Path(snapshot_download(checkpoint, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"{checkpoint} is neither a folder here nor a model that can be fetched: {reason}") from None
