"""Which rank counts as hanging, as gone, as at work."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest
import torch.distributed as dist

from olmoe_ft.training import signs
from olmoe_ft.training.signs import Sign, work_of
from olmoe_ft.training.watch import IDLE, Peer, Watch


def sign(begun: int = 1, work: float = 0.0, pid: int = 1) -> Sign:
    return Sign("host", signs.computer(), pid, begun, False, work, "file.py:1 wait")


def seen(*signs: tuple[float, Sign], limit: float = 10) -> bool:
    """Whether a rank counts as still after these signs, each at its time."""
    peer = Peer(1)
    for at, one in signs:
        peer.see(one, at, limit)
    return peer.is_still(limit)


def test_still_is_who_neither_begins_a_collective_nor_works_for_the_whole_time():
    idle = [(float(at), sign()) for at in range(12)]
    assert seen(*idle) and not seen(*idle[:10]) and not seen()
    assert not seen(*idle[:6], *[(at, sign(begun=2)) for at, _ in idle[6:]])
    assert not seen(*[(at, sign(work=2 * IDLE * at)) for at, _ in idle])
    assert seen(*[(at, sign(work=IDLE * at / 2)) for at, _ in idle])  # threads that do little, all the time
    worked_once = [(at, sign(work=9.0 if at else 0.0)) for at, _ in idle]
    assert not seen(*worked_once[:11]) and seen(*worked_once)


def test_work_is_that_of_a_process_and_its_children():
    """A compiler that a rank has started works for it."""
    spins = "while True: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spins!r}])"
    with subprocess.Popen([sys.executable, "-c", child]) as process:
        try:
            while work_of(process.pid) < 1.0:
                pass
            assert psutil.Process(process.pid).cpu_times().user < 0.5
        finally:
            for one in [*psutil.Process(process.pid).children(), process]:
                one.kill()
    assert work_of(process.pid) == 0


def test_a_process_is_gone_also_before_its_parent_has_asked_for_it():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        one = sign(pid=process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        assert not one.gone()
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert one.gone() and not replace(one, computer="another").gone()
    assert one.gone()


@pytest.mark.parametrize("says_goodbye", [False, True])
def test_who_ends_in_order_is_not_missed(says_goodbye):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    peer = Peer(1)
    peer.see(sign(pid=process.pid), 0.0, 10)
    assert not peer.has_gone()  # its goodbye may be read now
    peer.left_in_order = says_goodbye
    assert peer.has_gone() is not says_goodbye


@pytest.mark.parametrize(
    ("error", "goes_on"), [(dist.DistStoreError("timed out"), True), (dist.DistNetworkError("Broken pipe"), False)]
)
def test_a_store_that_is_slow_to_answer_is_asked_again(monkeypatch, error, goes_on):
    """A rank that said no more of itself would count as hanging. One whose launcher has ended need not."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        watch = Watch()
        with monkeypatch.context() as patched:
            patched.setattr(watch, "read", lambda: raises(error))
            watch.exchange()
        watch.store.delete_key("sign/0")
        watch.exchange()
        assert watch.store.check(["sign/0"]) is goes_on
    finally:
        dist.destroy_process_group()


def raises(error: Exception) -> None:
    raise error
