"""Where weights lie, and what network they are of: checkpoint folders, adapters, run directories. Reads no weights."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from olmoe_ft.checkpoints.manifest import refuse_damaged
from olmoe_ft.checkpoints.safetensors_header import read_header
from olmoe_ft.hub import reach_hub, refusal, refuse_own_code
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import Unreachable, UserError
from olmoe_ft.recipe.paths import sought

if TYPE_CHECKING:  # torch takes seconds to import, and a folder that is not there is said before that
    from olmoe_ft.model import OlmoeConfig

BASE_KEY = "base_model_name_or_path"  # of PEFT's adapter_config.json; importing PEFT for it would take seconds


def resolve_checkpoint(path: str) -> str:
    """The folder (or Hub name) that holds the weights: `final/` of a run directory, otherwise the path itself.

    Raises:
        UserError: a local path is missing, the run has not finished, or the folder holds no weights.
    """
    folder = Path(path)
    if folder.is_file():
        raise UserError(f"{path} is a file; name the checkpoint folder, the run directory or the Hub name")
    begun = {
        folder / "data_report.json",
        folder / "lock",
    }  # all that is in a run directory before a launch writes to it
    if not folder.exists() or (any(folder.iterdir()) and {*folder.iterdir()} <= begun):
        if path.startswith((".", "/", "runs/")) or path.count("/") > 1:
            kind = Unreachable if path.startswith("runs/") else UserError  # a run may be to come
            raise kind(
                f"{path} does not exist; train it first (`olmoe-ft train tiny/sft` makes runs/tiny-sft) or correct the "
                f"path ({sought(path)})"
            )
        return path
    run = folder.parent if folder.name == "final" else folder
    if (run / "recipe.yaml").exists():
        if not ((run / "summary.json").exists() and (run / "final").exists()):
            raise UserError(f"{run}: that run has not finished; start it again to finish it")
        folder = run / "final"
    if not (is_adapter(str(folder)) or (folder / "config.json").exists()):
        raise UserError(f"{folder} holds neither config.json nor adapter_config.json; name a checkpoint folder")
    return str(folder)


def check_weights(checkpoint: str) -> None:
    """Whether the files of a checkpoint folder are there and whole; of a Hub name nothing is asked.

    By checksums in a folder that was written here, by the headers of its files in another.

    Raises:
        UserError: a weight file is missing, cut off or no safetensors file.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        return
    refuse_damaged(checkpoint)
    if is_adapter(checkpoint):
        from olmoe_ft.checkpoints.base_model import base_of

        check_weights(base_of(checkpoint))
    files = [folder / ("adapter_model" if is_adapter(checkpoint) else "model")]
    files = [file.with_suffix(".safetensors") for file in files]
    if (index := folder / "model.safetensors.index.json").exists() and not files[0].exists():
        try:
            files = [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            files = []
        if not files:
            raise UserError(f"{index}: no readable index of weight files; fetch the checkpoint again")
    for file in files:
        if not file.exists():
            raise UserError(f"{file} is missing; fetch the checkpoint again (only .safetensors are read)")
        read_header(file)


def is_adapter(path: str) -> bool:
    return (Path(path) / "adapter_config.json").exists()


def load_config(path: str) -> "OlmoeConfig":
    """The model configuration behind a checkpoint (an adapter's is its base's); reads no weights."""
    from olmoe_ft.model.config import OlmoeConfig

    if is_adapter(path):
        from olmoe_ft.checkpoints.base_model import base_of

        path = base_of(path)
    if not Path(path).exists():
        reach_hub(path, "model")
    try:
        values, _ = OlmoeConfig.get_config_dict(path)
        refuse_own_code(path, "config.json", values)
        kind = values.get("model_type")
        if kind == "olmoe":
            return OlmoeConfig.from_dict(values)
    except UserError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if not Path(path).exists():
            raise refusal(path, "model", error) from None
        raise UserError(
            f"{path}: no model can be loaded from there ({one_line(error)}); name a checkpoint folder, a run directory "
            "or a Hub name"
        ) from None
    raise UserError(f"{path}: its config.json has the model_type {kind!r}; this pipeline trains 'olmoe' only")
