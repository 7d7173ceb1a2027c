"""W&B by recipe, environment, key and network. wandb is real; servers are on this machine."""

import json
import os
import sys
import time
from contextlib import nullcontext

import psutil
import pytest
import wandb
from support.servers import answering, closed, silent, wandb_server
from wandb.sdk.lib import console_capture

from olmoe_ft.cli import main
from olmoe_ft.recipe import RecipeError, load_recipe
from olmoe_ft.training import tracking, wandb_mode
from olmoe_ft.training.router.pictures import LoadMap
from olmoe_ft.training.run_directory import RunDirectory
from olmoe_ft.training.tracking import Tracking
from olmoe_ft.training.wandb_mode import Choice, asked_by_environment, check_tracking, choose

KEY = "0123456789" * 4  # wandb asks for 40 characters


@pytest.fixture(autouse=True)
def no_login(monkeypatch, tmp_path):
    """No key, no mode and an address that has no server; wandb reads its settings anew."""
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_API_KEY", "WANDB_SILENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setattr(wandb_mode, "REACH", 1.0)
    tracking.tear_down()
    yield tmp_path / "netrc"
    tracking.tear_down()


def start(folder, setting: str = "auto") -> Tracking:
    run = RunDirectory(load_recipe("recipes/tiny/sft.yaml", [f"tracking.wandb='{setting}'"]))
    run.path = folder / "run"
    run.path.mkdir(exist_ok=True)
    run.untrained, run.stored = run.path / "UNTRAINED", run.path / "recipe.yaml"
    run.metrics = run.path / "metrics.jsonl"
    return Tracking(run.recipe, run)


def test_auto_is_offline_without_a_key_and_online_with_one(monkeypatch, no_login):
    assert choose("auto") == Choice("offline")
    no_login.write_text(f"machine elsewhere.example login user password {KEY}\n")
    assert choose("auto") == Choice("offline")
    no_login.write_text(f"machine wandb.example login user password {KEY}\n")
    assert choose("auto") == Choice("online")
    no_login.unlink()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert choose("auto") == choose("online") == Choice("online")


@pytest.mark.parametrize(
    ("name", "values", "mode"),
    [
        ("WANDB_MODE", ("disabled", "Disabled", " DISABLED"), "off"),
        ("WANDB_MODE", ("offline", "OFFLINE", "dryrun", "DryRun"), "offline"),
        ("WANDB_MODE", ("online", "run", "RUN", "shared"), "online"),
        ("WANDB_DISABLED", ("true", "True", "1", "yes", "on", "t"), "off"),
    ],
)
def test_the_environment_decides_auto_in_all_spellings(monkeypatch, name, values, mode):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    for value in values:
        monkeypatch.setenv(name, value)
        found = choose("auto")
        assert found.mode == mode
        assert found.why == (None if mode == "online" else f"{name}={value} is set")


@pytest.mark.parametrize("value", ["", "0", "false", "False", "no", "off"])
def test_disabled_said_with_no_is_not_disabled(value):
    assert asked_by_environment({"WANDB_DISABLED": value, "WANDB_MODE": ""}) is None


def test_the_environment_switches_less_on_never_more(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose("online") == Choice("offline", "WANDB_MODE=offline is set")
    assert choose("offline") == Choice("offline") and choose("off") == Choice("off")
    monkeypatch.setenv("WANDB_MODE", "online")
    assert choose("offline") == Choice("offline") and choose("off") == Choice("off")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose("offline").mode == choose("online").mode == "off"


def test_a_mode_or_key_that_wandb_refuses(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "maybe")
    with pytest.raises(
        RecipeError, match="WANDB_MODE: found 'maybe'; allowed: online, run, shared, offline, dryrun, dis"
    ):
        choose("auto")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    with pytest.raises(RecipeError, match="wandb refuses its key or settings .WANDB_API_KEY invalid") as refused:
        choose("online")
    assert "too-short" not in str(refused.value)
    assert choose("auto").mode == "offline" and "too-short" not in choose("auto").why


@pytest.mark.parametrize("command", ["validate", "train"])
def test_online_without_a_key_is_refused_before_anything_is_written(monkeypatch, tmp_path, capsys, command):
    (tmp_path / "my.yaml").write_text(load_recipe("recipes/tiny/sft.yaml", ["tracking.wandb=online"]).to_yaml())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["olmoe-ft", command, "my.yaml"])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 2
    assert "found online, but no key for https://wandb.example; run `wandb login`" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["my.yaml"]


def test_online_without_reach_is_refused(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with closed() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        with pytest.raises(RecipeError, match=f"found online, but {url} cannot be reached: .*refused"):
            check_tracking(load_recipe("recipes/tiny/sft.yaml", ["tracking.wandb=online"]))
    check_tracking(load_recipe("recipes/tiny/sft.yaml", ["tracking.wandb=auto"]))


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (closed(), "Connection refused"),
        (silent(), "no answer in 1 s"),
        (answering(503), "it answers with error 503 (Service Unavailable)"),
        (answering(401), "returned error 401"),
        (nullcontext("https://no.invalid"), "cannot be reached"),
        (nullcontext("no address"), "wandb refuses its key or settings"),
    ],
    ids=["a port that refuses", "no answer", "503", "a wrong key", "no such name", "no address"],
)
def test_auto_trains_without_a_server_and_says_so_once(monkeypatch, tmp_path, capfd, server, reason):
    """Offline, or off. A server that is silent would keep it for ever."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with server as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        found = start(tmp_path)
        found.record(1, {"loss": 2.0})
        found.finish({"steps": 1})
    assert json.loads(found.metrics_file.read_text()) == {"step": 1, "loss": 2.0}
    printed = capfd.readouterr().err
    said = [line for line in printed.splitlines() if line.startswith("W&B: offline for this run, as ")]
    assert len(said) == 1 and reason in said[0]
    assert bool([*tmp_path.glob("run/wandb/offline-run-*/*.wandb")]) == (url != "no address")
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert KEY not in printed and not [text for text in written if KEY.encode() in text]


@pytest.mark.parametrize("gone", ["the server", "wandb's own process"])
def test_what_fails_during_a_run_does_not_end_it(monkeypatch, tmp_path, capfd, gone):
    """The end waits for a server that is gone as long as FINISH says, and for a process that is gone not at all."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    finish = 2.0 if gone == "the server" else 120.0
    monkeypatch.setattr(tracking, "FINISH", finish)
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        before = set(psutil.Process().children())
        found = start(tmp_path)
        assert found.wandb_run.settings.mode == "online"
        found.record(1, {"loss": 2.0})
        if gone == "the server":
            server.shutdown()
            server.server_close()
        else:
            (core,) = set(psutil.Process().children()) - before
            core.kill()
            core.wait()
        for step in (2, 3):
            found.record(step, {"loss": 1.0})
            time.sleep(0.2)  # for the connection to break
        begun = time.monotonic()
        found.finish({"steps": 3})
        seconds = time.monotonic() - begun
        assert (seconds >= finish) == (gone == "the server")
    assert [json.loads(line)["step"] for line in found.metrics_file.read_text().splitlines()] == [1, 2, 3]
    said = [
        line for line in capfd.readouterr().err.splitlines() if line.startswith("W&B: off from here on, as it failed")
    ]
    assert len(said) == (gone == "wandb's own process")
    assert_nothing_is_captured()


def test_a_process_of_wandb_that_stands_still_is_not_waited_for(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(tracking, "PATIENCE", 1.0)
    monkeypatch.setattr(tracking, "TEAR_DOWN", 1.0)
    before = set(psutil.Process().children())
    found = start(tmp_path, "offline")
    (core,) = set(psutil.Process().children()) - before
    core.suspend()
    found.record(1, {"loss": 2.0})
    found.finish({"steps": 1})
    assert not core.is_running() or core.status() == psutil.STATUS_ZOMBIE
    assert capfd.readouterr().err.count("W&B: off from here on, as it failed: no answer in 1 s") == 1
    assert_nothing_is_captured()


def assert_nothing_is_captured() -> None:
    """No write to stdout or stderr goes through a run that is not there any more."""
    assert not console_capture._stdout_callbacks and not console_capture._stderr_callbacks


@pytest.mark.parametrize("content", [b"", b"\xff", b"a/b", b"0123456789abcdef"])
def test_a_damaged_id_is_made_anew(tmp_path, capfd, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/wandb_id").write_bytes(content)
    found = start(tmp_path, "offline")
    assert found.wandb_run is not None and (tmp_path / "run/wandb_id").read_text() == found.wandb_run.id
    assert "wandb_id is damaged; from here on this is a new run there" in capfd.readouterr().err
    found.finish({})
    assert start(tmp_path, "offline").wandb_run.id == found.metrics_file.with_name("wandb_id").read_text()


def test_a_picture_that_cannot_be_written_does_not_end_the_run(monkeypatch, tmp_path, capfd):
    """W&B writes it into TMPDIR, which may be full or gone."""

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LoadMap, "pixels", full)
    found = start(tmp_path, "offline")
    for step in (1, 2):
        found.record(step, {"router/load/layer_0": [1.0, 2.0]})
    found.finish({})
    assert [json.loads(line)["step"] for line in found.metrics_file.read_text().splitlines()] == [1, 2]
    assert capfd.readouterr().err.count("W&B: off from here on, as it failed: [Errno 28] No space left on device") == 1


def test_a_run_that_has_begun_goes_on_offline_where_online_cannot_be_had(monkeypatch, tmp_path, capfd):
    """Before its first step it is refused."""
    with pytest.raises(RecipeError, match="found online, but no key"):
        start(tmp_path, "online")
    (tmp_path / "run/recipe.yaml").write_text("name: run\n")
    assert start(tmp_path, "online").wandb_run.settings.mode == "offline"
    assert "W&B: offline for this run, as tracking.wandb: found online, but no key" in capfd.readouterr().err
    wandb.teardown()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with closed() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert start(tmp_path, "online").wandb_run.settings.mode == "offline"
    assert f"W&B: offline for this run, as {url} cannot be reached" in capfd.readouterr().err


def test_the_environment_is_the_one_there_is_now(monkeypatch):
    """`datasets` replaces `os.environ` by a copy when it maps rows in several processes."""
    monkeypatch.setattr(os, "environ", {"WANDB_MODE": "disabled"})
    assert choose("auto").mode == "off"
