"""Each rank of a launch watches the others, in a thread: if one fails or hangs, the launch ends and names that rank.

The launcher ends the ranks of its own computer when one of them fails. It cannot see that a rank hangs, that one on
another computer has failed, or that a rank which was asked to stop waits in C++ for one that has ended.

A rank hangs if another is in a collective that it has not begun, and it neither begins one nor works for
`training.ddp_timeout` seconds. Long work that others wait for is not a hang: it uses a processor or a disk.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn

import torch.distributed as dist
from torch.distributed import distributed_c10d

from olmoe_ft.data.terminal import say
from olmoe_ft.ending import FAILURE, farewells, tell_launcher
from olmoe_ft.stopping import PATIENCE, asked, end_at_once, leaving
from olmoe_ft.training.signs import Sign, work_of

STILL = 600  # seconds, if the recipe does not say; NCCL's own limit
IDLE = 0.05  # share of the time; a rank that works less counts as idle
ALONE = 10.0  # seconds for a launcher, or a library, to end a rank whose peer has ended

_watch: "Watch | None" = None


def watch_ranks(still: float) -> None:
    """Watch the other ranks, and let them watch this one, until its process ends.

    Args:
        still: seconds after which an idle rank that others wait for counts as hanging.
    """
    global _watch
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    if _watch is None:
        _watch = Watch()
        farewells.append(_watch.say_goodbye)
        threading.Thread(target=_watch.run, name="watch of the ranks", daemon=True).start()
    _watch.limit = still


def lost_rank() -> int | None:
    """A rank that has ended too early; None if there is none."""
    return None if _watch is None else _watch.lost


class Seen(NamedTuple):
    at: float
    work: float


class Peer:
    """Another rank, as this rank sees it."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.sign: Sign | None = None
        self.left_in_order = False
        self.absent = False
        self.seen: deque[Seen] = deque()  # since it began its last collective

    def see(self, sign: Sign, now: float, limit: float) -> None:
        if self.sign is None or sign.begun != self.sign.begun:
            self.seen.clear()
        self.sign = sign
        self.seen.append(Seen(now, sign.work))
        while len(self.seen) > 1 and self.seen[1].at <= now - limit:
            self.seen.popleft()

    def is_still(self, limit: float) -> bool:
        if not self.seen:
            return False
        first, last = self.seen[0], self.seen[-1]
        return last.at - first.at >= limit and last.work - first.work < IDLE * (last.at - first.at)

    @property
    def reached(self) -> tuple[int, bool]:
        return (0, False) if self.sign is None else self.sign.reached

    def has_gone(self) -> bool:
        """Whether its process has ended without saying so. It must be seen twice, since the farewell may come later."""
        before, self.absent = self.absent, self.sign is not None and not self.left_in_order and self.sign.gone()
        return before and self.absent

    def described(self, limit: float) -> str:
        assert self.sign is not None
        return (
            f"rank {self.rank} ({self.sign.host}, process {self.sign.pid}) has not moved for {limit:g} s "
            f"(training.ddp_timeout); it is at {self.sign.place}, and the others wait for it"
        )

    def end(self) -> None:
        """Kill it if it does not end by itself; a stopped process cannot."""
        time.sleep(PATIENCE)
        if self.sign is not None and self.sign.near and not self.sign.gone():
            with suppress(OSError):
                os.kill(self.sign.pid, signal.SIGKILL)

    def works_now(self) -> bool:
        """Whether its process works now. A long call in C blocks the thread that would report it."""
        if self.sign is None or not self.sign.near:
            return False
        before = work_of(self.sign.pid)
        time.sleep(2)
        return work_of(self.sign.pid) - before > 2 * IDLE


class Watch:
    """Publishes and reads signs in the store that the launcher keeps for its ranks."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        store: Any = distributed_c10d._get_default_store()
        # a separate connection: the main thread may wait on the other one
        self.store = dist.PrefixStore("olmoe_ft/watch", store.clone())
        self.store.set_timeout(timedelta(seconds=10))
        self.peers = {rank: Peer(rank) for rank in range(self.size) if rank != self.rank}
        self.limit = float(STILL)
        self.interval = max(1.0, self.size / 64)  # with 64 ranks or more, each reads 64 signs per second
        self.reachable = True
        self.now = 0.0  # seconds, without those in which this rank itself was stopped
        self.reached = (0, False)
        self.own_work = Seen(-60, 0)
        self.hanging: tuple[int, str] | None = None  # a hanging rank, and the sentence about it
        self.lost: int | None = None
        self.lost_at = 0.0

    def run(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(self.interval)
            elapsed, before = time.monotonic() - before, time.monotonic()
            self.now += min(elapsed, 2 * self.interval)
            self.exchange()
            self.judge()

    def exchange(self) -> None:
        """Publish where this rank is, and read where the others are."""
        sign = self.own_sign()
        if not self.reachable:
            return
        try:
            self.store.set(f"sign/{self.rank}", json.dumps(asdict(sign)))
            self.read()
        except dist.DistNetworkError:  # the store ended with its launcher
            self.reachable = False
        except RuntimeError:  # the store is slow; a rank that gave up here would count as hanging
            pass

    def own_sign(self) -> Sign:
        if self.now - self.own_work.at > min(5, self.limit / 4):  # it scans all processes of the computer
            self.own_work = Seen(self.now, work_of(os.getpid()))
        sign = Sign.own(self.own_work.work)
        self.reached = sign.reached
        return sign

    def read(self) -> None:
        for peer, text in self._values("sign"):
            peer.see(Sign(**json.loads(text)), self.now, self.limit)
        for peer, code in self._values("left"):
            if code == "0":
                peer.left_in_order = True
            else:
                self._lose(peer)
        if self.store.check(["hanging"]):
            self.hanging = json.loads(self.store.get("hanging"))

    def _values(self, name: str) -> list[tuple[Peer, str]]:
        there = [peer for peer in self.peers.values() if self.store.check([f"{name}/{peer.rank}"])]
        values = self.store.multi_get([f"{name}/{peer.rank}" for peer in there]) if there else []
        return [(peer, value.decode()) for peer, value in zip(there, values, strict=True)]

    def say_goodbye(self, code: int) -> None:
        self._say(f"left/{self.rank}", str(code))

    def _say(self, key: str, value: str) -> None:
        with suppress(RuntimeError):  # nobody is left to read it
            self.store.set(key, value)

    def judge(self) -> None:
        if leaving():  # the main thread reports it
            return
        for peer in self.peers.values():
            if peer.has_gone() and self.lost is None:
                self._lose(peer)
                self._say(f"left/{peer.rank}", "gone")  # ranks of other computers cannot see it
        if self.lost is not None:
            if self.now - self.lost_at > (PATIENCE if asked() else ALONE):
                self._end_without(self.peers[self.lost])
        elif self.hanging is not None:
            self._end_for(*self.hanging)
        elif (still := self._still()) is not None and not still.works_now():
            self._say("hanging", json.dumps([still.rank, still.described(self.limit)]))

    def _lose(self, peer: Peer) -> None:
        if self.lost is None:
            self.lost, self.lost_at = peer.rank, self.now

    def _still(self) -> Peer | None:
        """The rank that the others wait for, if it is idle."""
        there = [peer for peer in self.peers.values() if not peer.left_in_order]
        most = max([self.reached, *(peer.reached for peer in there)])
        still = [peer for peer in there if peer.reached < most and peer.is_still(self.limit)]
        return min(still, key=lambda peer: peer.reached, default=None)

    def _end_for(self, rank: int, sentence: str) -> None:
        """End this rank because one hangs; the first of the others prints why, and all tell the launcher."""
        tell_launcher(sentence)
        if rank != self.rank:
            if self.rank == min(other for other in range(self.size) if other != rank):
                say(f"\n{sentence}", file=sys.stderr)  # there may be a progress bar on this line
            self.peers[rank].end()
        time.sleep(1.5 * self.interval)  # the others should read it before the launcher ends them
        self._end()

    def _end_without(self, peer: Peer) -> None:
        """End this rank because another one has ended. That rank's launcher says why."""
        if peer.sign is not None and not peer.sign.near:
            where = f"({peer.sign.host}, process {peer.sign.pid})"
            sentence = f"rank {peer.rank} {where} has failed; the output on {peer.sign.host} says why"
            tell_launcher(sentence)
            say(f"\n{sentence}", file=sys.stderr)
        self._end()

    def _end(self) -> NoReturn:
        self.say_goodbye(FAILURE)
        end_at_once(FAILURE)
