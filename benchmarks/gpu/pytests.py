"""Do the tests pass that only a GPU can run, and those of the Triton kernels, which elsewhere its interpreter runs?"""

from pathlib import Path

import pytest

from gpu.part import Part

TESTS = Path(__file__).parents[2] / "tests"
ON_GPUS, OF_KERNELS = "mark.gpu", 'importorskip("triton"'  # how test files say so
COMPILING = "compile"  # in the names of tests that compile for other cards, which takes long and needs none
LAST = 4  # seconds, with which no further test is begun


def run(part: Part) -> None:
    """Files that hold neither mark are not collected: that would take most of the time."""
    files = [str(file) for file in sorted(TESTS.rglob("test_*.py")) if marks(file)]
    reports = Reports(part)
    code = pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", *files], plugins=[reports])
    reports.finish(int(code))


def marks(file: Path) -> list[str]:
    text = file.read_text()
    return [mark for mark in (ON_GPUS, OF_KERNELS) if mark in text]


class Reports:
    """Chooses tests, and makes a finding of each that fails as it does."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.chosen = 0
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Kernels first, whose failures explain others'."""
        of_kernels = [item for item in items if OF_KERNELS in marks(item.path) and COMPILING not in item.name]
        on_gpus = [item for item in items if item.get_closest_marker("gpu") and item not in of_kernels]
        items[:] = of_kernels + on_gpus
        self.chosen = len(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            said = str(getattr(report.longrepr, "reprcrash", report.longrepr)).splitlines()
            self.part.report(report.nodeid, False, error=said[0][:300])
        if report.when == "call" or report.outcome != "passed":  # of set-up and clean-up only what went wrong
            self.counts[report.outcome] += 1

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        if self.part.left() < LAST:
            item.session.shouldstop = "no time left"

    def finish(self, code: int) -> None:
        not_run = self.chosen - sum(self.counts.values())
        right = None if not_run or not self.counts["passed"] else code == 0
        if code not in (0, 2) and not self.counts["failed"]:  # tests could not be collected, say
            right = False
        self.part.report("all tests", right, code=code, not_run=not_run, **self.counts)
