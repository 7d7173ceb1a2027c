"""Locks of DeepSpeed's builds: held, let go, left behind."""

import os
import threading

import pytest
from torch.utils.file_baton import FileBaton

from olmoe_ft.recipe import RecipeError
from olmoe_ft.training import builds
from olmoe_ft.training.builds import check_builds


@pytest.fixture
def lock(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(builds, "LETS_GO", 0.2)
    (tmp_path / "cpu_adam").mkdir()
    return tmp_path / "cpu_adam/lock"


def test_a_lock_that_a_killed_build_has_left_is_named(lock):
    check_builds()
    lock.touch()
    with pytest.raises(RecipeError, match=f"^{lock}: a build of DeepSpeed's cpu_adam was ended .* remove the file"):
        check_builds()


def test_a_build_that_goes_on_is_waited_for(lock, capsys):
    baton = FileBaton(str(lock))
    assert baton.try_acquire()
    check_builds()
    assert capsys.readouterr().err == (
        f"{lock}: process {os.getpid()} builds DeepSpeed's cpu_adam; waiting for the file to go\n"
    )
    baton.release()


def test_a_build_that_ends_in_this_moment_has_left_nothing(lock):
    lock.touch()  # closed, and not yet removed
    threading.Timer(0.05, lock.unlink).start()
    check_builds()


def test_of_several_computers_another_may_build(lock, monkeypatch, capsys):
    lock.touch()
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    check_builds()
    assert "another computer may build DeepSpeed's cpu_adam" in capsys.readouterr().err
