"""`olmoe-ft doctor`: every part is there, none stops the others, and no secret is printed."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from support.servers import closed, silent

from olmoe_ft.doctor import report
from olmoe_ft.doctor.environment import folders, variables
from olmoe_ft.doctor.machine import devices
from olmoe_ft.doctor.software import versions

SECRETS = {
    "HF_TOKEN": "hf_" + "a1" * 17,
    "WANDB_API_KEY": "0123456789" * 4,
    "OPENAI_API_KEY": "a-key-of-another",
    "HTTP_PROXY": "http://me:my-password@127.0.0.1:1",
    "NCCL_COMMENT": "see hf_" + "b2" * 17,
}


@pytest.mark.parametrize("server", [closed(), silent()], ids=["a port that refuses", "no answer"])
def test_all_is_said_without_a_network_and_no_secret_is(tmp_path, server):
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "WANDB_MODE")}
    with server as url:
        environment = {**kept, **SECRETS, "HF_ENDPOINT": url, "WANDB_BASE_URL": url, "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-m", "olmoe_ft", "doctor"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,  # the server that is silent would keep it for ever
        )
    assert done.returncode == 0 and not done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) < 80
    assert [line[:-1] for line in lines if not line.startswith(" ")] == [
        *report.PARTS,
        "what will slow down or break a run",
    ]
    assert "not known:" not in done.stdout
    for secret in ("a1a1", "b2b2", "0123456789", "a-key-of", "my-password"):
        assert secret not in done.stdout
    for said in (f"torch {torch.__version__}", "HF_TOKEN=(set, not shown)", "HTTP_PROXY=http://***@127.0.0.1:1"):
        assert said in done.stdout
    assert "Hub: " in done.stdout and "found a token, cannot be reached" in done.stdout
    assert "found a key, tracking.wandb: auto is online, but the server cannot be reached" in done.stdout
    assert "the Hub cannot be reached" in lines[-1] or "the Hub cannot be reached" in lines[-2]
    assert not [*tmp_path.iterdir()]


def test_a_part_that_fails_is_a_line_and_the_others_go_on(monkeypatch, capsys):
    def broken(findings):
        yield "a line"
        raise OSError("the driver\nis gone")

    def finds(findings):
        findings.append("a finding")
        return ["fine"]

    monkeypatch.setattr(report, "PARTS", {"first": broken, "second": finds})
    report.print_report()
    assert capsys.readouterr().out == (
        "first:\n  a line\n  unknown: the driver is gone\nsecond:\n  fine\n"
        "what will slow down or break a run:\n  1. a finding\n"
    )


def test_versions_outside_of_the_range_and_missing_ones_are_found(monkeypatch):
    """torch stands at what is installed here; the ranges are made up around it."""
    wanted = ["torch<1.0", "no-such-package>=2", "numpy>=1", 'triton>=99; extra == "dev"']
    monkeypatch.setattr("olmoe_ft.doctor.software.distribution", lambda name: SimpleNamespace(requires=wanted))
    findings: list[str] = []
    list(versions(findings))
    assert len(findings) == 2
    assert f"torch: found version {torch.__version__}" in findings[0] and "pip install 'torch<1.0'" in findings[0]
    assert findings[1] == "no-such-package is not installed; run pip install 'no-such-package>=2'"


def test_a_lock_of_a_build_and_a_folder_that_cannot_be_written_are_found(monkeypatch, tmp_path):
    lock = tmp_path / "extensions/py311_cu128/cpu_adam/lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", "/proc/self/fd")
    findings: list[str] = []
    lines = list(folders(findings))
    assert any(line.startswith(f"DeepSpeed's builds: {tmp_path}/extensions (") for line in lines)
    assert any(
        finding.startswith(f"{lock}: no process here holds this lock of DeepSpeed's cpu_adam") for finding in findings
    )
    with lock.open():  # as torch does while it builds
        list(folders(findings := []))
    assert (
        f"{lock}: process {os.getpid()} is building an operator of DeepSpeed, and launches wait until it is done"
        in findings
    )


def test_cards_are_named_with_what_is_wrong_with_them(monkeypatch):
    """An old card of 16 GiB of which 12 are free, and 4 taken: two findings."""
    card = SimpleNamespace(name="Tesla T4", major=7, minor=5, multi_processor_count=40)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (12 * 2**30, 16 * 2**30))
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 3))
    findings: list[str] = []
    lines = list(devices(findings))
    assert lines[1] == "cuda:0 Tesla T4, 16.0 GiB (12.0 free), capability 7.5, 40 multiprocessors"
    assert lines[2].endswith("NCCL 2.27.3")
    assert findings == [
        "cuda:0: other processes use 4.0 GiB; nvidia-smi lists them",
        "cuda:0 does not support bf16 (capability below 8.0); set model.dtype: float32",
    ]


def test_variables_that_matter_and_no_others(monkeypatch):
    for name in os.environ:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("HOME_PHONE", "1")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    findings: list[str] = []
    assert list(variables(findings)) == [
        "CUDA_LAUNCH_BLOCKING=1",
        "NCCL_DEBUG=INFO",
        "TOKENIZERS_PARALLELISM=false",
        "WANDB_API_KEY=(set, not shown)",
    ]
    assert len(findings) == 1
