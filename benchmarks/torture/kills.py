"""Ends that a run does not choose: signals to all of its processes, to one, to its launcher."""

import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torture.configurations import Configuration
from torture.launcher import Launch
from torture.watch import AT_ANY_TIME, LOOK_EVERY, MOMENTS, Moment, Watch

IMPORTS = 10.0  # seconds that a real launch takes longer
TWICE = 2.0  # seconds within which the second of two signals comes, as terminals and launchers send theirs
REAL = 10  # every so many goes through `accelerate launch`

ALL_PROCESSES, ONE_RANK, LAUNCHER, AGAIN = (
    "SIGKILL to all processes",
    "SIGKILL to one rank",
    "SIGKILL to the launcher",
    "SIGKILL, and SIGKILL in the restart",
)
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
HOW = (
    ALL_PROCESSES, ONE_RANK, LAUNCHER, AGAIN, *(number.name for number in SIGNALS),
    *(f"{number.name} twice" for number in SIGNALS[:2]),
)  # fmt: skip


@dataclass(frozen=True)
class Kill:
    """One end of one launch.

    Args:
        when: where within the moment, from 0 to 1.
        second: as much, of what comes second: a second signal, or the end of the restart.
        rank: the one that is killed alone.
        real: through `accelerate launch`.
    """

    configuration: Configuration
    how: str
    moment: Moment
    when: float
    second: float
    rank: int
    real: bool

    @property
    def kinds(self) -> tuple[tuple[str, str], ...]:
        return (("kill", self.how), ("moment", self.moment.name))

    def __str__(self) -> str:
        real = ", accelerate launch" if self.real else ""
        return (
            f"{self.configuration.name}{real}: {self.how} {self.moment.name} ({self.moment.begins} + {self.when:.0%})"
        )

    def strike(self, launch: Launch, watch: Watch, timeline: dict[str, float]) -> bool:
        """Wait for the moment, and strike; whether it was in time, rather than behind the end of the launch.

        Args:
            timeline: of a run of the same configuration that nothing broke.
        """
        if not watch.wait_for(self.moment.begins, launch):
            return False
        span = timeline[self.moment.ends] - timeline[self.moment.begins]
        if self.real and self.moment.begins == "launched":
            span += IMPORTS
        _sleep(self.when * max(0.0, span), launch)
        if launch.code() is not None:
            return False
        if self.how == ONE_RANK:
            while len(ranks := launch.ranks()) <= self.rank and launch.code() is None:
                time.sleep(LOOK_EVERY)  # its launcher has not come to start it
            return launch.code() is None and launch.send(signal.SIGKILL, ranks[self.rank])
        if self.how == LAUNCHER:
            return launch.send(signal.SIGKILL, launch.pid)
        if self.how in (ALL_PROCESSES, AGAIN):
            return launch.end()
        name, _, twice = self.how.partition(" ")
        in_time = launch.send(signal.Signals[name], launch.pid)
        if twice:
            _sleep(self.second * TWICE, launch)
            launch.send(signal.Signals[name], launch.pid)
        return in_time

    def strike_again(self, launch: Launch, timeline: dict[str, float]) -> bool:
        """End the restart too; whether it was in time."""
        _sleep(self.second * timeline["ended"], launch)
        return launch.code() is None and launch.end()

    def sooner(self) -> "Kill":
        """The same, where it came too late."""
        return replace(self, when=self.when / 2, second=self.second / 2)


def _sleep(seconds: float, launch: Launch) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and launch.code() is None:
        time.sleep(min(left, 0.02))


def choose_kills(count: int, chosen: Sequence[Configuration], seed: int) -> Iterator[Kill]:
    """So many kills: each way at each kind of moment in turn, on configurations in turn, and the rest by the seed.

    Args:
        chosen: the configurations to torture, at least one.
    """
    draw = random.Random(seed)
    pool = list(chosen)
    draw.shuffle(pool)
    names = [*dict.fromkeys(moment.name for moment in MOMENTS), *[AT_ANY_TIME.name] * 3]
    pairs: list[tuple[str, str]] = []
    used: dict[Configuration, int] = dict.fromkeys(pool, 0)
    made = 0
    while made < count:
        if not pairs:
            pairs = [(how, name) for how in HOW for name in names]
            draw.shuffle(pairs)
        how, name = pairs.pop()
        real = made % REAL == REAL - 1
        possible = [
            (configuration, moment)
            for configuration in pool
            for moment in (AT_ANY_TIME, *MOMENTS)
            if moment.name == name
            and moment.is_of(configuration)
            and (how != ONE_RANK or configuration.processes > 1)
            and (how != LAUNCHER or configuration.processes > 1 or real)
        ]
        if not possible:
            continue
        fewest = min(used[configuration] for configuration, _ in possible)
        configuration, moment = draw.choice([pair for pair in possible if used[pair[0]] == fewest])
        used[configuration] += 1
        made += 1
        yield Kill(
            configuration, how, moment, draw.random(), draw.random(), draw.randrange(configuration.processes), real
        )
