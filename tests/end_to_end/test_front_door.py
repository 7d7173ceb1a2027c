"""`import olmoe_ft`: its names, what it costs, and that nothing in the process is another afterwards."""

import importlib.metadata
import subprocess
import sys

import pytest
from support.launches import make_workspace

import olmoe_ft
from olmoe_ft.evaluation.answers import answered

# Libraries set loggers and the environment as they please: all that our modules import is imported first.
QUIET = """
import ast, csv, importlib, logging, os, pathlib

ROOT = pathlib.Path("olmoe_ft")
files = [file for file in ROOT.rglob("*.py") if file.name != "__main__.py"]

def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((one.name, None) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, one.name) for one in node.names)

for module, name in sorted({pair for file in files for pair in imports(file)}, key=str):
    if module.partition(".")[0] != "olmoe_ft":
        try:
            found = importlib.import_module(module)
            if name is not None and not hasattr(found, name):
                importlib.import_module(f"{module}.{name}")
        except (ImportError, OSError):  # an extra that is not installed; a module that fetches a metric
            pass

def state():
    loggers = {name: logger.level for name, logger in logging.root.manager.loggerDict.items()
               if isinstance(logger, logging.Logger) and logger.level}
    return dict(os.environ), loggers, logging.root.level, csv.field_size_limit()

before = state()
for file in files:
    importlib.import_module(".".join(file.with_suffix("").parts).removesuffix(".__init__"))
for old, new in zip(before, state()):
    assert old == new, (old, new)
print(len(files))
"""


def in_a_new_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_importing_any_module_leaves_the_process_as_it_is():
    assert int(in_a_new_process(QUIET).splitlines()[-1]) > 150  # behind what libraries say


def test_the_import_brings_no_library():
    libraries = "torch transformers pydantic numpy datasets rich yaml".split()
    program = f"import olmoe_ft, sys; print([name for name in {libraries} if name in sys.modules])"
    assert in_a_new_process(program) == "[]\n"


def test_its_names_are_those_of_the_public_surface():
    assert set(olmoe_ft.__all__) == {"load_recipe", "plan", "run", "evaluate", "__version__"}
    assert set(olmoe_ft.__all__) <= set(dir(olmoe_ft))
    assert all(callable(getattr(olmoe_ft, name)) for name in olmoe_ft.__all__ if name != "__version__")
    with pytest.raises(AttributeError, match="module 'olmoe_ft' has no attribute 'trian'"):
        _ = olmoe_ft.trian


def test_the_version_is_the_installed_one():
    assert olmoe_ft.__version__ == importlib.metadata.version("olmoe_ft")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(make_workspace(tmp_path))


def test_a_recipe_is_planned_trained_and_evaluated_from_python(workspace, capsys):
    """Three steps of the tiny recipe; the score of its final/ is the one that the run has written down."""
    recipe = olmoe_ft.load_recipe(
        "tiny/sft",
        ["training.max_steps=3", "data.train.0.max_rows=300", "data.answers.limit=4", "tracking.wandb='off'"],
    )
    (forecast,) = olmoe_ft.plan(recipe, devices=1)
    assert "tiny-sft" not in capsys.readouterr().out  # libraries may say something of their own
    assert forecast.steps.count.steps == 3
    assert forecast.fits and forecast.memory[forecast.machine].peak > 0
    (summary,) = olmoe_ft.run(recipe)
    assert (summary.name, summary.steps) == ("tiny-sft", 3)
    answers = recipe.data.answers
    found = olmoe_ft.evaluate("runs/tiny-sft", answers.path, max_new_tokens=answers.max_new_tokens, limit=4)
    assert answered("heldout", found.scores) == summary.after and summary.after.count == 4
    assert found.exact_match == summary.after.exact_match and len(found.samples) == 4
    (again,) = olmoe_ft.run(recipe)
    assert again == summary  # it had finished
