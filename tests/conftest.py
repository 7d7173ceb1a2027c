import atexit
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

# before any library reads them: no network, no telemetry, deterministic single-thread maths in every child process too
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# DeepSpeed builds its kernel anew, which takes a minute, where another `ninja` is found than by the launches before
BIN = str(Path(sys.executable).parent)
if os.environ["PATH"].split(os.pathsep)[0] != BIN:
    os.environ["PATH"] = os.pathsep.join((BIN, os.environ["PATH"]))
# rows that another state of the code has prepared are none of these tests'; the workers take the folder over
if "OLMOE_FT_TEST_CACHE" not in os.environ:
    os.environ["OLMOE_FT_TEST_CACHE"] = os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="olmoe_ft-rows-")
    atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)
if (
    shutil.which("nvidia-smi") is None
):  # Triton's kernels then run in its interpreter, which is chosen when it is imported
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def seeded():
    import torch

    torch.manual_seed(0)


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., str]:
    """`command("samples", "runs/one", columns=60)` is what the command line prints; of a mistake the message."""
    from rich.console import Console, ConsoleDimensions

    from olmoe_ft.cli import main

    def printed(*arguments: str, columns: int = 100) -> str:
        # not by COLUMNS: rich keeps the environment it was imported with, which `datasets` replaces by another one
        monkeypatch.setattr(Console, "size", property(lambda _: ConsoleDimensions(columns, 25)))
        monkeypatch.setattr(sys, "argv", ["olmoe-ft", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        found = capsys.readouterr()
        assert exit.value.code == (2 if found.err else 0)
        return found.err or found.out

    return printed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests launch runs go first: a long one that begins last would keep one worker while others rest."""
    launching = ("benchmarks", "end_to_end", "planning", "training")
    items.sort(key=lambda item: launching.index(folder) if (folder := _folder(item)) in launching else len(launching))


def pytest_collection_finish() -> None:
    """What has been imported stays: else the collection that ends every training looks through millions of objects."""
    gc.collect()
    gc.freeze()


def _folder(item: pytest.Item) -> str:
    """The folder of `tests/` that a test is in."""
    return item.path.relative_to(Path(__file__).parent).parts[0]


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else bindings call what is left at the end a leak
