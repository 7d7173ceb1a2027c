"""One launch in a run directory: who is refused, who takes over, and what is left."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from olmoe_ft.recipe import RecipeError
from olmoe_ft.training import lock
from olmoe_ft.training.lock import Holder, only_launch, refuse_second

fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "WATCH", 1.0)
    monkeypatch.setattr(lock, "WATCH_DAMAGED", 0.5)
    monkeypatch.setattr(lock, "BEAT", 0.1)
    monkeypatch.setattr(lock, "LOOK", 0.02)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "runs/here"


def write(folder: Path, **changed) -> Holder:
    holder = Holder.here().model_copy(update=changed)
    folder.mkdir(parents=True)
    (folder / "lock").write_text(holder.model_dump_json())
    return holder


def launch(folder: Path, sign, end) -> None:
    """A launch of its own process: says whether it holds the lock, and does until it is told to end."""
    try:
        with only_launch(folder):
            sign.put(os.getpid())
            end.wait()
    except RecipeError as error:
        sign.put(str(error))


def start(folder: Path, sign, end):
    process = fork.Process(target=launch, args=(folder, sign, end))
    process.start()
    return process


def test_a_second_launch_is_refused_and_told_who_trains(folder):
    sign, end = fork.Queue(), fork.Event()
    first = start(folder, sign, end)
    assert sign.get() == first.pid
    content = (folder / "lock").read_bytes()
    for act in (lambda: only_launch(folder).__enter__(), lambda: refuse_second(folder)):
        with pytest.raises(RecipeError, match=rf"{folder} is being trained by process {first.pid} on .* since .*-.*:"):
            act()
    assert [file.read_bytes() for file in folder.iterdir()] == [content]
    end.set()
    first.join()
    assert not [*folder.iterdir()]
    refuse_second(folder)


def test_the_lock_of_a_killed_launch_is_taken_over_at_once(folder, capsys, monkeypatch):
    monkeypatch.setattr(lock, "WATCH", 1000.0)
    sign, end = fork.Queue(), fork.Event()
    first = start(folder, sign, end)
    sign.get()
    os.kill(first.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has asked how
    with only_launch(folder):
        assert in_lock(folder).pid == os.getpid()
    first.join()
    assert capsys.readouterr().err == (
        f"{folder}: process {first.pid} on {Holder.here().host} is gone; this launch takes over\n"
    )


def test_a_process_that_has_the_number_of_a_gone_one_holds_nothing(folder):
    started = Holder.here().started
    assert started is not None
    write(folder, started=started - 1)
    refuse_second(folder)
    with only_launch(folder):
        pass


@pytest.mark.parametrize("moves", [True, False])
def test_a_launch_elsewhere_is_watched(folder, capsys, moves):
    """In another computer or container this process number may be anybody's; a file that has moved is somebody's."""
    holder = write(folder, machine="another boot", host="far")
    refuse_second(folder)  # that is not known at once
    ended = threading.Event()
    if moves:
        threading.Thread(target=lock._beat, args=(folder / "lock", holder, ended), daemon=True).start()
        with pytest.raises(RecipeError, match=rf"is being trained by process {holder.pid} on far since"):
            only_launch(folder).__enter__()
    else:
        with only_launch(folder):
            assert in_lock(folder) == Holder.here().model_copy(update={"since": in_lock(folder).since})
    ended.set()
    said = capsys.readouterr().err.splitlines()
    assert f"lock names process {holder.pid} on far; watching it for 1 s" in said[0]
    assert [line for line in said[1:] if "on far is gone" in line] == said[1:] and len(said) == (1 if moves else 2)


def in_lock(folder: Path) -> Holder:
    found = lock._look(folder / "lock")
    assert found is not None and found.holder is not None
    return found.holder


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', None])
def test_a_damaged_lock_is_watched_and_taken_over(folder, capsys, content):
    folder.mkdir(parents=True)
    if content is None:
        (folder / "lock").symlink_to("nowhere")
    else:
        (folder / "lock").write_text(content)
    with only_launch(folder):
        assert in_lock(folder)
    assert "its lock names no process, and nobody renews it; this launch takes over" in capsys.readouterr().err


def test_a_lock_that_is_just_being_written_is_no_damaged_one(folder):
    folder.mkdir(parents=True)
    (folder / "lock").touch()

    def write_rest():
        time.sleep(0.2)
        (folder / "lock").write_text(Holder.here().model_dump_json())

    threading.Thread(target=write_rest).start()
    with pytest.raises(RecipeError, match=rf"by process {os.getpid()} on"):
        only_launch(folder).__enter__()


def test_who_takes_over_is_named_while_it_still_writes(folder):
    """The lock of a launch elsewhere is replaced by one that is empty for a moment."""
    holder = write(folder, machine="another boot", host="far")

    def take_over():
        time.sleep(0.1)
        (folder / "lock").write_text("")
        time.sleep(0.2)
        (folder / "lock").write_text(Holder.here().model_dump_json())

    threading.Thread(target=take_over).start()
    with pytest.raises(RecipeError, match=rf"by process {holder.pid} on {Holder.here().host}"):
        only_launch(folder).__enter__()


def test_a_folder_in_its_place_is_named(folder):
    (folder / "lock").mkdir(parents=True)
    with pytest.raises(RecipeError, match="lock: found a folder; .*move the folder away"):
        only_launch(folder).__enter__()


@pytest.mark.parametrize(
    "stale", [{}, {"pid": 2**22 + 1}, {"machine": "another boot", "host": "far"}], ids=["none", "dead", "far"]
)
@pytest.mark.parametrize("apart", [0.0, 0.03])
def test_of_launches_at_the_same_instant_one_trains(folder, monkeypatch, stale, apart):
    """Or a moment apart: two that watch the lock of a third one, which is gone, see so one after the other."""
    monkeypatch.setattr(lock, "WATCH", 0.3)
    for _ in range(5):
        if stale:
            write(folder, **stale)
        sign, end = fork.Queue(), fork.Event()
        launches = []
        for _ in range(6):
            launches.append(start(folder, sign, end))
            time.sleep(apart)
        said = [sign.get() for _ in launches]
        (holder,) = [answer for answer in said if isinstance(answer, int)]
        assert all(f"by process {holder} on" in answer for answer in said if answer != holder)
        end.set()
        for one in launches:
            one.join()
        folder.rmdir()


def test_a_launch_that_was_taken_for_dead_ends_where_another_trains(folder):
    """It could not be seen to move, for instance since its computer slept. The lock of the other one stays."""
    sign, end = fork.Queue(), fork.Event()
    first = start(folder, sign, end)
    sign.get()
    other = Holder.here().model_copy(update={"host": "far"})
    (folder / "new").write_text(other.model_dump_json())
    (folder / "new").replace(folder / "lock")
    first.join()
    assert first.exitcode == 1
    assert in_lock(folder) == other


def test_what_was_put_there_since_it_was_looked_at_stays(folder):
    write(folder, pid=2**22 + 1)
    found = lock._look(folder / "lock")
    assert found is not None
    (folder / "lock").unlink()
    (folder / "lock").write_text(Holder.here().model_dump_json())
    assert not lock._remove(folder / "lock", found)
    assert in_lock(folder).pid == os.getpid()
