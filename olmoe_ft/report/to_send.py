"""What of a run goes to the Hub: weights, card and page. Everything is looked at before anything is sent."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from olmoe_ft.checkpoints import manifest
from olmoe_ft.checkpoints.folders import BASE_KEY, is_adapter, resolve_checkpoint
from olmoe_ft.checkpoints.manifest import CARD, files_of, refuse_damaged
from olmoe_ft.checkpoints.run_checkpoints import NAMED, read_object
from olmoe_ft.checkpoints.safetensors_header import read_header
from olmoe_ft.recipe import UserError
from olmoe_ft.report.card import may_be_replaced, model_card
from olmoe_ft.report.origin import base_on_hub
from olmoe_ft.report.private import Private, private_here
from olmoe_ft.report.run_files import read_run, stages_of

PAGE = "report.html"
ADAPTER = "adapter_config.json"
WEIGHTS = ".safetensors"
NEVER = {  # by the end of a name
    (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"): "a pickle, or a state of the training",
    (manifest.NAME,): "checksums of this folder; the Hub keeps its own",
    ("trainer_state.json", "stood_on.json"): "a state of the training",
    (".partial", ".damaged", ".before"): "kept aside",
}
HAS_LINES = 2**26  # bytes; no file with text is larger


@dataclass(frozen=True)
class File:
    """A file as it will be in the repository."""

    name: str
    content: Path | bytes
    note: str = ""

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @property
    def text(self) -> str | None:
        """None of weights."""
        if self.name.endswith(WEIGHTS) or self.size > HAS_LINES:
            return None
        content = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        return content.decode("utf-8", "replace")


@dataclass(frozen=True)
class ToSend:
    """All that goes into a repository, in one commit."""

    repository: str
    files: list[File]
    left: dict[str, str]
    """Files of the folder that are not sent, each with the reason."""
    checks: list[str]
    """What to look at before it is sent."""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def collect(model: str, repository: str) -> ToSend:
    """What a push of a run, or of a merged folder, sends.

    Raises:
        UserError: the name is none of a repository, the run has not finished, a file is damaged or holds a key, or an
            adapter's base is not on the Hub.
    """
    check_name(repository)
    folder = _folder(model)
    run = folder.parent if folder.name == "final" and (folder.parent / "recipe.yaml").exists() else None
    private = private_here([run] if run is not None else [])
    left = {name: why for name in files_of(folder) if (why := _why_never(name)) is not None}
    files = [File(name, folder / name) for name in files_of(folder) if name not in left]
    _check_weights(folder, files)
    files = [_with_base(file, folder, model) if file.name == ADAPTER else file for file in files]
    files += _card(folder, run, repository)
    if run is not None and (run / PAGE).is_file():
        files.append(File(PAGE, run / PAGE, "shows rows of the training data and answers of the model"))
    checks = [*_missing(model, run, files), *_look_through(files, private)]
    return ToSend(repository, files, left, checks)


def check_name(repository: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        UserError: it is none, or has no owner.
    """
    allowed = "allowed: owner/name, of letters, digits, `-`, `_` and `.`"
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"found {repository!r} as the repository ({error}); {allowed}") from None
    if "/" not in repository:
        raise UserError(f"found {repository!r} as the repository, without its owner; {allowed}")


def _folder(model: str) -> Path:
    """`final/` of a run, or a folder of weights that is no part of a run.

    Raises:
        UserError: it is another part of a run, or none of both.
    """
    path = Path(model)
    if path.is_dir() and (stages := stages_of(path)):
        raise UserError(f"{model} is a pipeline; push one of its stages: {', '.join(map(str, stages))}")
    folder = Path(resolve_checkpoint(model))
    if not folder.is_dir():
        raise UserError(f"{model}: there is no such folder; name a run directory, as runs/tiny-sft, or a merged folder")
    inside = folder.resolve()
    if NAMED.fullmatch(inside.name) or (inside.name == "base" and (inside.parent / "recipe.yaml").exists()):
        raise UserError(
            f"{model} is a part of a run and not its end; push the run, or write these weights into a folder of their "
            f"own: olmoe-ft merge {model} --to DIR"
        )
    refuse_damaged(str(folder))
    return folder


def _why_never(name: str) -> str | None:
    parts = name.split("/")
    if any(part.startswith(".") for part in parts):
        return "hidden"
    if any(NAMED.fullmatch(part) or part.startswith("global_step") for part in parts):
        return "a state of the training"
    return next((why for ends, why in NEVER.items() if parts[-1].endswith(ends)), None)


def _check_weights(folder: Path, files: list[File]) -> None:
    weights = [file for file in files if file.name.endswith(WEIGHTS)]
    if not weights:
        raise UserError(f"{folder} holds no {WEIGHTS} file, so there are no weights to send")
    for file in weights:
        read_header(folder / file.name)


def _with_base(file: File, folder: Path, model: str) -> File:
    """The adapter's configuration with the Hub name of its base.

    Raises:
        UserError: the base is a local folder, so nobody else could load the adapter.
    """
    values = read_object(folder / ADAPTER) or {}
    if (hub := base_on_hub(folder)) is None:
        raise UserError(
            f"{model}: its adapter's base is the local folder {values.get(BASE_KEY)}, which nobody else has; fold the "
            f"adapter in, and push that: olmoe-ft merge {model} --to DIR, then olmoe-ft push DIR owner/name"
        )
    if values.get(BASE_KEY) == hub:
        return file
    text = json.dumps(values | {BASE_KEY: hub}, indent=2, sort_keys=True) + "\n"
    return File(ADAPTER, text.encode("utf-8"), f"names {hub} as its base")


def _card(folder: Path, run: Path | None, repository: str) -> Iterator[File]:
    """The card: as a person has written it, or made anew with the name of the repository in its examples."""
    if run is not None and may_be_replaced(folder / CARD):
        text = str(model_card(read_run(run), folder, repository))
        yield File(CARD, text.encode("utf-8"), "the model card")
    elif (folder / CARD).is_file():
        changed = not may_be_replaced(folder / CARD)
        yield File(CARD, folder / CARD, "the model card, as it was edited" if changed else "the model card")


def _missing(model: str, run: Path | None, files: list[File]) -> Iterator[str]:
    names = {file.name for file in files}
    if CARD not in names:
        yield f"there is no {CARD}, so the repository gets no model card"
    if run is not None and PAGE not in names:
        yield f"there is no {PAGE}; to send one, write it first: olmoe-ft report {model}"
    if is_adapter(str(run / "final" if run else model)) and "adapter_model.safetensors" not in names:
        yield "there is no adapter_model.safetensors beside adapter_config.json"


def _look_through(files: list[File], private: Private) -> Iterator[str]:
    """Names of folders and hosts in texts.

    Raises:
        UserError: a text holds what looks like a key.
    """
    held = []
    for file in files:
        text = file.text
        if text is None:
            continue
        if private.has_key(text):
            line = next((n for n, one in enumerate(text.splitlines(), 1) if private.has_key(one)), 1)
            held.append(
                f"{file.name}, line {line}: holds what looks like a key or a password; remove it (a hash "
                "of 40 digits looks like one too: shorten it)"
            )
        elif private.row(text) != text:
            yield f"{file.name} names a folder or a computer of yours"
    if held:
        raise UserError(held)
