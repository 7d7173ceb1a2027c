"""What a launch makes of an error: before its first step and behind it, of the user's and of ours."""

import errno

import pytest
import torch
from safetensors.torch import save_file
from transformers import TrainerControl, TrainerState

from olmoe_ft.model import OlmoeConfig
from olmoe_ft.recipe import RecipeError, RunError, load_recipe
from olmoe_ft.training.launch_guard import LaunchGuard
from olmoe_ft.training.run_directory import RunDirectory

OVERRIDES = ("name=pipe/sft", "training.per_device_train_batch_size=3")


@pytest.fixture
def run(recipe) -> RunDirectory:
    return RunDirectory(recipe(*OVERRIDES))


def end_with(run: RunDirectory, fail, stepped: bool = False) -> None:
    """A launch that writes, takes a step if asked to, and then fails."""
    launch = LaunchGuard(run)
    with launch.in_order():
        run.mark_untrained()
        run.create()
        run.base.mkdir()
        if stepped:
            launch.on_step_end(None, TrainerState(), TrainerControl())
        fail()


def raising(error: BaseException):
    def fail():
        raise error

    return fail


def library_refuses():
    torch.optim.AdamW([], lr=1.0)


@pytest.mark.parametrize(
    ("fail", "before", "later"),
    [
        (library_refuses, RecipeError, ValueError),
        (lambda: OlmoeConfig(num_experts_per_tok=999), ValueError, ValueError),  # raised in our code
        (raising(KeyError("ours")), KeyError, KeyError),
        (raising(OSError(errno.ENOSPC, "full", "base")), RecipeError, RunError),
        (raising(torch.OutOfMemoryError("CUDA out of memory.\n Tried to")), RunError, RunError),
        (raising(MemoryError()), RunError, RunError),
        (raising(RunError("a loss of nan")), RunError, RunError),
        (raising(KeyboardInterrupt()), KeyboardInterrupt, KeyboardInterrupt),
        (raising(SystemExit(143)), SystemExit, SystemExit),
    ],
)
def test_the_directory_stays_from_the_first_step_on(run, fail, before, later):
    with pytest.raises(before) as error:
        end_with(run, fail)
    assert type(error.value) is before and "\n" not in str(error.value)
    assert not run.path.parents[1].exists()  # runs/, runs/pipe/ and runs/pipe/sft/ were this launch's
    with pytest.raises(later) as error:
        end_with(run, fail, stepped=True)
    assert type(error.value) is later
    assert run.begun() and run.base.exists()


def test_out_of_memory_says_what_to_lower(run):
    with pytest.raises(RunError, match=r"lower training.per_device_train_batch_size \(now 3\)"):
        end_with(run, raising(RuntimeError("DefaultCPUAllocator: can't allocate memory")))


def test_out_of_memory_says_nothing_that_the_stage_refuses(recipe):
    """Two rows are the fewest of KTO's estimate."""
    run = RunDirectory(recipe("stage=kto", "training.per_device_train_batch_size=2"))
    with pytest.raises(RunError, match=r"t allocate memory\); lower training.max_length"):
        end_with(run, raising(RuntimeError("DefaultCPUAllocator: can't allocate memory")))


def test_folders_and_reports_of_others_stay(run):
    run.write_data_report({})
    (run.path.parent / "dpo").mkdir()
    with pytest.raises(KeyError):
        end_with(run, raising(KeyError()))
    assert [path.name for path in run.path.iterdir()] == ["data_report.json"]
    assert (run.path.parent / "dpo").exists()


def test_a_run_that_has_trained_is_no_launch_s_to_remove(run):
    """A run of another day, from before there was a mark: a launch that goes on with it and fails leaves it."""
    run.create()
    with pytest.raises(KeyError):
        end_with(run, raising(KeyError()))
    assert run.begun()


@pytest.mark.parametrize("steps", [0, 1])
def test_what_was_killed_before_its_first_step_is_replaced(run, steps):
    """Killed: nothing of `in_order` runs. With a step trained, another recipe is refused."""
    launch = LaunchGuard(run)
    run.mark_untrained()
    run.create()
    run.base.mkdir()
    for _ in range(steps):
        launch.on_step_end(None, TrainerState(), TrainerControl())
    other = RunDirectory(load_recipe("recipe.yaml", [*OVERRIDES, "training.seed=3"]))
    if steps:
        with pytest.raises(RecipeError, match=r"differs in training.seed"):
            other.check()
        return
    other.check()
    other.mark_untrained()
    assert not run.base.exists() and not (run.path / "recipe.yaml").exists()


def test_a_disk_error_of_a_rust_library_is_the_system_s(run, tmp_path):
    """safetensors raises no OSError: the code is in its text, the folder is the run's."""
    full = tmp_path / "a" / "file"
    with pytest.raises(
        RecipeError, match=r"^runs/pipe/sft: .*\(os error 20\).*; there is a file where a folder should be"
    ):
        (tmp_path / "a").touch()
        end_with(run, lambda: save_file({"x": torch.zeros(1)}, full))


def test_a_run_directory_that_is_moved_away_ends_the_run_in_a_sentence(run, tmp_path):
    """At the next step, before a checkpoint is saved under its name; or at whatever fails first."""
    for fail in (
        lambda launch: launch.on_step_end(None, TrainerState(), TrainerControl()),
        lambda _: run.metrics.open(),
    ):
        launch = LaunchGuard(run)
        with pytest.raises(RunError, match="runs/pipe/sft is not there any more: it was removed or moved"):
            with launch.in_order():
                run.mark_untrained()
                run.create()
                launch.on_step_end(None, TrainerState(), TrainerControl())
                run.path.rename(tmp_path / f"moved-{id(fail)}")
                fail(launch)
        assert not run.path.exists()
