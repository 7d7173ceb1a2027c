"""What the documents promise is there: links, anchors, files, targets of make, commands and their options."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from olmoe_ft.cli import app
from olmoe_ft.recipe import load_recipe

REPOSITORY = Path(__file__).parents[1]
PATTERNS = ("*.md", "docs/*.md", "data/*.md", "recipes/**/*.md", "benchmarks/**/*.md")
DOCUMENTS = sorted(path for pattern in PATTERNS for path in REPOSITORY.glob(pattern))
NAMES = [path.relative_to(REPOSITORY).as_posix() for path in DOCUMENTS]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
TOP = "olmoe_ft|tests|docs|recipes|configs|data|benchmarks"
PACKAGES = "adapters|checkpoints|data|doctor|evaluation|model|objective|planning|recipe|stages|training"
FILE = re.compile(rf"(?:{TOP}|{PACKAGES})(?:/\w[\w.*-]*)*/?")
ROOTS = ("", "olmoe_ft")  # docs/architecture.md names files from the package


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def prose(name: str) -> str:
    """A document without its blocks of code."""
    return FENCE.sub("", text_of(name))


def anchors(name: str) -> set[str]:
    """The anchors of a document's headings, as code hosts and mkdocs name them."""
    headings = re.findall(r"^#+ (.+)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def commands(name: str) -> Iterator[str]:
    """Lines of blocks without a language, and code within the text, each without its comment."""
    for block in re.findall(r"^```\n(.*?)^```$", text_of(name), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield re.sub(r"\s# .*", "", line).strip().removeprefix(".venv/bin/")
    yield from CODE.findall(prose(name))


@pytest.mark.parametrize("name", NAMES)
def test_links_and_anchors_lead_somewhere(name):
    for _, _, target in LINK.findall(CODE.sub("", prose(name))):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        place = (REPOSITORY / name).parent / path if path else REPOSITORY / name
        assert place.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(place.resolve().relative_to(REPOSITORY).as_posix()), f"{name}: {target}"


@pytest.mark.parametrize("name", NAMES)
def test_pictures_say_what_they_show(name):
    for is_picture, alternative, target in LINK.findall(prose(name)):
        assert not is_picture or len(alternative) > 20, f"{name}: {target} has no text for those who do not see it"


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_are_there(name):
    named = {code for code in CODE.findall(prose(name)) if "/" in code and FILE.fullmatch(code) and "NAME" not in code}
    missing = {file for file in named if not any(any(REPOSITORY.glob(f"{root}/{file}".strip("/"))) for root in ROOTS)}
    assert not missing, name


@pytest.mark.parametrize("name", NAMES)
def test_targets_of_make_are_there(name):
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    for command in commands(name):
        if command.startswith("make "):
            asked = [word for word in shlex.split(command)[1:] if re.fullmatch("[a-z-]+", word)]
            assert set(asked) <= targets, f"{name}: {command}"


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_their_options_are_there(name):
    known = typer.main.get_command(app).commands
    for command in commands(name):
        words = command.split()
        place = next((at for at, word in enumerate(words) if word in ("olmoe-ft", "olmoe_ft")), None)
        if place is None or len(words) == place + 1 or words[0] not in ("olmoe-ft", "accelerate"):
            continue
        asked = known.get(words[place + 1])
        assert asked is not None, f"{name}: {command}"
        if words[place + 1 : place + 3] == ["recipes", "copy"]:
            asked = asked.commands["copy"]
        options = {option for parameter in asked.params for option in parameter.opts}
        given = {word.partition("=")[0] for word in words[place + 2 :] if word.startswith("--")}
        assert given <= options, f"{name}: {command}"


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= 130


def test_every_document_is_in_the_index():
    linked = {target.partition("#")[0] for _, _, target in LINK.findall(prose("docs/index.md"))}
    documents = {path.name for path in (REPOSITORY / "docs").glob("*.md")} - {"index.md"}
    assert documents <= linked


def test_the_readmes_recipe_is_right(tmp_path):
    [recipe] = re.findall(r"^```yaml\n(.*?)^```$", text_of("README.md"), re.MULTILINE | re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert load_recipe(tmp_path / "recipe.yaml").name == "my-sft"


@pytest.mark.parametrize("start", ["olmoe-1b-7b-0924/sft/lora", "tiny/sft"])
def test_the_readmes_commands_make_a_recipe_for_ones_own_file(start, tmp_path):
    """Those up to `validate`, as typed; with the tiny recipe as the README says of machines without a GPU."""
    block = text_of("README.md").split("## My file on one GPU")[1].split("```\n")[1]
    lines = block.replace("olmoe-1b-7b-0924/sft/lora", start).splitlines()
    typed = lines[: 1 + next(at for at, line in enumerate(lines) if "validate" in line)]
    program = tmp_path / "olmoe-ft"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m olmoe_ft "$@"\n')
    program.chmod(0o755)
    script = "\n".join([f"set -e; export PATH={tmp_path}:$PATH PYTHONPATH={REPOSITORY}", *typed])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert recipe.name == "mine" and [source.path for source in recipe.data.train] == ["my.jsonl"]


def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path):
    """Strict: a page outside of the navigation, a broken link or a missing anchor fails (not with `--quiet`)."""
    pytest.importorskip("mkdocs", reason="`make setup` installs it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(DOCUMENTS)  # each document and the page for what is not found
    loaded = re.compile(r"<(?:script|img|iframe|link)[^>]+(?:src|href)=[\"']?(?:https?:)?//[^>]+")
    assert not [found for page in pages for found in loaded.findall(page.read_text(encoding="utf-8"))]
