"""How often a page is written while a run trains, by a clock of the test's own."""

from pathlib import Path

import pytest

from olmoe_ft.report import of_run
from olmoe_ft.report.of_run import PageCallback


class Clock:
    """Seconds that pass only where the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize(("cost", "pages"), [(0.5, 33), (5.0, 5), (25.0, 1)])
def test_a_page_takes_a_small_part_of_the_time(monkeypatch, cost, pages):
    """A record every 10 s of training for 10,000 s. The first page is due at 300 s.

    A page of 0.5 s would allow the next one after 200 s, but none comes before 300 s: one every 300.5 s, so 33. One of
    5 s allows the next 2,000 s later: 300, 2,305, 4,310, 6,315, 8,320. One of 25 s 10,000 s later: none more.
    """
    clock, written = Clock(), []

    def write(folder: Path) -> None:
        written.append(clock.now)
        clock.now += cost

    monkeypatch.setattr(of_run, "time", clock)
    monkeypatch.setattr(of_run, "write_report", write)
    callback = PageCallback(Path("runs/none"))
    while clock.now < 10_000:
        clock.now += 10
        callback.on_log(None, None, None)
    assert len(written) == pages
    assert written[0] == 300
    assert cost * len(written) / clock.now <= 0.0035


def test_a_page_that_fails_ends_no_training(monkeypatch, capsys):
    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(of_run, "write_report", fail)
    callback = PageCallback(Path("runs/none"))
    callback.due = 0.0
    callback.on_log(None, None, None)
    assert capsys.readouterr().out == ("check: its page could not be written: [Errno 28] No space left on device\n")
