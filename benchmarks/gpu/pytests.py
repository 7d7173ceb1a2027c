"""Do the tests pass that only a GPU can run, and those of the Triton kernels, which elsewhere its interpreter runs?"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from gpu.part import Part

TESTS = Path(__file__).parents[2] / "tests"
ON_GPUS, OF_KERNELS = "mark.gpu", 'importorskip("triton"'  # how test files say so
OPTIONS = ("-q", "-p", "no:cacheprovider", "--no-header")


def run(part: Part) -> None:
    part.attempt("tests of kernels", lambda: report_tests(part, files_with(OF_KERNELS), "-k", "not compile"))
    part.attempt("tests marked gpu", lambda: report_tests(part, files_with(ON_GPUS), "-m", "gpu"), needs=10)


def files_with(text: str) -> list[str]:
    """Test files that hold a text: collecting all others would take most of the time."""
    return [str(file) for file in sorted(TESTS.rglob("test_*.py")) if text in file.read_text()]


def report_tests(part: Part, files: list[str], *chosen: str) -> None:
    """A finding for each test that failed, and one for the rest of the call."""
    assert files, f"no test file of {TESTS} was found"
    label = " ".join(chosen)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", *OPTIONS, f"--junitxml={report}", *files, *chosen]
        code = subprocess.run(command, cwd=TESTS.parent, check=False).returncode
        counts = {"passed": 0, "failed": 0, "skipped": 0}
        for case in ET.parse(report).iter("testcase"):
            broken = next((child for child in case if child.tag in ("failure", "error")), None)
            skipped = case.find("skipped") is not None
            counts["skipped" if skipped else "passed" if broken is None else "failed"] += 1
            if broken is not None:
                said = (broken.get("message") or "").strip().splitlines() or [""]
                part.report(f"{case.get('classname')}::{case.get('name')}", False, error=said[0][:300])
    right = code == 0 and counts["passed"] > 0
    part.report(
        f"pytest {label}", right if code != 0 or counts["passed"] else None, files=len(files), code=code, **counts
    )
