"""`make gpu`: what it says of parts that fail, hang or lack time; what counts as right; the whole of it on a CPU."""

import io
import json
import os
import subprocess
import sys
from zipfile import ZipFile

import pytest
import torch
from gpu import mixtures, prepare, speed_lines
from gpu import run as gpu_run
from gpu import training as gpu_training
from gpu.exact import after_many, compare
from gpu.findings import DRY, Finding, exit_code, findings_table
from gpu.part import Part
from gpu.run import REPOSITORY, Run
from rich.console import Console
from sides import EQUAL, OURS, STOCK, Case
from speed_report import DOCUMENT, RESULTS, Line, Results, results_table

RIGHT = Finding("speed", "SFT", True, {"ms": 1.5})
WRONG = Finding("tests", "one", False, {"error": "AssertionError: 1 != 2"})


def text_of(findings, dry: bool) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(findings_table(findings, dry))
    return " ".join(console.file.getvalue().split())


@pytest.fixture
def part(tmp_path):
    return Part("correctness", 100, tmp_path, True, io.StringIO())


def reported(part) -> list[Finding]:
    return [Finding.from_json(line) for line in part.stream.getvalue().splitlines()]


def test_a_finding_is_one_line_and_the_table_has_them_all():
    assert Finding.from_json(WRONG.to_json()) == WRONG
    assert exit_code([RIGHT, Finding("speed", "x")]) == 0 and exit_code([RIGHT, WRONG]) == 1
    found = text_of([RIGHT, WRONG, Finding("waits", "places", None, {"places": [["a", 1]], "all": 3})], dry=False)
    assert "ms 1.5" in found and "WRONG" in found and "1 != 2" in found and "1 right, 1 wrong, 1 not judged" in found
    assert "all 3" in found and "[[" not in found and DRY not in found
    assert DRY in text_of([RIGHT], dry=True)


def test_work_that_fails_is_a_finding_and_the_next_goes_on(part):
    def fails():
        raise ValueError("first line\nsecond")

    part.attempt("one", fails)
    part.attempt("two", lambda: part.report("two", True))
    part.attempt("three", lambda: part.report("three", True), needs=1000)
    one, two, three = reported(part)
    assert one == Finding("correctness", "one", False, {"error": "ValueError: first line"})
    assert two.ok and three.ok is None and "no time left" in three.figures["skipped"]


SCRIPTS = {
    "fine": 'print(\'{"part": "fine", "what": "it", "ok": true}\')',
    "crashes": "import os, sys; print('not shown', file=sys.stderr); os.kill(os.getpid(), 11)",
    "hangs": "import time; time.sleep(60)",
}


def test_a_part_that_crashes_is_wrong_and_one_over_its_time_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_run, "LEAST", 0.5)
    shown: list[str] = []
    run = Run(tmp_path, 30, lambda name, limit: [sys.executable, "-c", SCRIPTS[name]], shown.append)
    run.go("fine", 20, {})
    run.go("crashes", 20, {})
    run.go("hangs", 1, {})
    run.ends = 0
    run.go("fine", 20, {})
    its, whole, crash, hung, late = run.findings
    assert its.ok and whole.ok is None and whole.figures["seconds"] < 20
    assert crash.ok is False and "code -11" in crash.figures["error"]
    assert hung.ok is None and hung.figures["error"] == "stopped, its 1 s were over"
    assert "no time left" in late.figures["skipped"]
    assert (tmp_path / "findings.jsonl").read_text().splitlines() == shown and len(shown) == 5
    assert "not shown" in (tmp_path / "log.txt").read_text()
    assert exit_code(run.findings) == 1


def test_one_element_off_is_wrong_whatever_the_others_are(part):
    exact = torch.ones(1000, dtype=torch.float64)
    allowed = torch.full_like(exact, 0.01)
    off, unwritten = exact.clone(), exact.clone()
    off[7] += 0.02
    unwritten[3] = torch.nan
    for found in (exact + 0.005, off, unwritten):
        compare(part, "it", found, exact, allowed)
    compare(part, "zeros", torch.zeros(2), torch.zeros(2).double(), torch.zeros(2).double())
    right, one, none, zeros = reported(part)
    assert right.ok and right.figures["worst_of_allowed"] == 0.5 and zeros.ok
    assert one.ok is False and one.figures["wrong_elements"] == 1 and one.figures["worst_of_allowed"] == 2
    assert none.ok is False and none.figures["nan"] == 1


def test_what_many_roundings_allow_by_hand():
    """2^-8 (4 |x| + 16 max(row's, column's root mean square)) of [[3, 0], [4, 0]]; the second column's is 0."""
    allowed = after_many(torch.tensor([[3.0, 0.0], [4.0, 0.0]], dtype=torch.float64)) * 256
    column, rows = 12.5**0.5, (4.5**0.5, 8**0.5)
    expected = [[12 + 16 * column, 16 * rows[0]], [16 + 16 * column, 16 * rows[1]]]
    torch.testing.assert_close(allowed, torch.tensor(expected, dtype=torch.float64))


def test_a_mixture_that_is_wrong_for_one_token_is_found(part, monkeypatch):
    """Its 64 numbers are 10% too large, of 3,072; the smallest of them are off by less than roundings may be."""

    def wrong(module, x, experts, weights):
        factor = torch.ones(len(x), 1, dtype=x.dtype)
        factor[5] = 1.1
        return mixtures.plain_experts(given_of(module, x, weights), experts) * factor

    def given_of(module, x, weights):
        return {"x": x, "weights": weights, "gate_up_proj": module.gate_up_proj, "down_proj": module.down_proj}

    torch.manual_seed(0)
    mixtures.check(part, "experts", rank=0)
    monkeypatch.setattr(mixtures, "grouped_experts", wrong)
    mixtures.check(part, "experts", rank=0)
    found = reported(part)
    assert [finding.ok for finding in found[:5]] == 5 * [True]
    assert found[5].ok is False and 10 < found[5].figures["wrong_elements"] <= 64


def test_tests_that_fail_are_named(tmp_path):
    """Of files with the marks alone; tests that compile for other cards are left out."""
    kernels = "import pytest; pytest.importorskip(\"triton\")\ndef test_one(): assert 1 == 2, 'not so'\n"
    files = {
        "test_a.py": kernels + "def test_two(): pass\ndef test_compiles(): assert False\n",
        "test_b.py": "import pytest\n@pytest.mark.gpu\ndef test_three(): pass\ndef test_four(): assert False\n",
        "test_c.py": "assert False, 'not collected'\n",
        "pytest.ini": "[pytest]\nmarkers = gpu\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    script = "from gpu import pytests, part; from pathlib import Path; import os, sys; pytests.TESTS = Path('.')\n"
    script += "pytests.run(part.Part('tests', 100, Path('.'), True, part.own_stdout()))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "benchmarks"), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    one, all_tests = map(Finding.from_json, done.stdout.splitlines())
    assert one.ok is False and one.what == "test_a.py::test_one" and "not so" in one.figures["error"]
    assert all_tests.ok is False
    assert all_tests.figures == {"code": 1, "not_run": 0, "passed": 2, "failed": 1, "skipped": 0}


def test_what_counts_as_going_on(tmp_path):
    def judged(resumed: str, steps, loss: float) -> bool:
        (tmp_path / "run.json").write_text(
            json.dumps({"launches": [{"resumed_from": None}, {"resumed_from": resumed}]})
        )
        before = [{"step": step, "loss": 2.0} for step in range(1, 6)]
        after = [{"step": step, "loss": loss} for step in steps]
        return gpu_training.going_on(tmp_path, before, after)["ok"]

    whole = range(1, 9)
    assert judged("checkpoint-4", whole, 2.001)
    assert not judged("checkpoint-4", whole, 2.1)  # step 5 was of other weights or rows
    assert not judged("checkpoint-4", whole, float("nan"))
    assert not judged("checkpoint-4", [1, 2, 3, 4, 5, 7, 8], 2.0)
    assert not judged("checkpoint-3", whole, 2.0)
    assert gpu_training.movement([{"optim/moved": 0.5}, {"optim/moved": 0.3}])["ok"]
    assert not gpu_training.movement([{"optim/moved": 0.5}, {"optim/moved": 0.001}])["ok"]
    assert not gpu_training.movement([{"loss": 1.0}])["ok"]


def test_results_are_those_of_a_card_alone(part, monkeypatch):
    case = Case("sft", False, "tiny", 64, 2)
    line = Line.of(case, {STOCK: 2.0, OURS: 1.0}, {STOCK: 2**21, OURS: 2**20}, 0.5, 1e-7, (STOCK, EQUAL, OURS))
    written: list[list[Line]] = []
    monkeypatch.setattr(speed_lines, "measure", lambda *arguments: [line])
    monkeypatch.setattr(Results, "write", lambda self: written.append(self.lines))
    results = Results("a device", "cuda", {}, 1e11)
    speed_lines._measure(part, case, results)
    figures = reported(part)[0].figures
    assert not written and figures["stock_over_ours"] == 2 and figures["equal"] == "out of memory"
    part.dry = False
    speed_lines._measure(part, case, results)
    assert written == [[line]]


def test_memory_is_in_the_documents_table():
    rows = [{"step with the optimizer": "SFT full", "predicted MiB": "52,838", "predicted / measured": "1.01"}]
    table = results_table([Results("a card", "cuda", {}, 1e15, memory=rows)])
    assert "| step with the optimizer | predicted MiB | predicted / measured |\n| --- | ---: | ---: |\n" in table
    assert "| SFT full | 52,838 | 1.01 |\n" in table


def wheel(folder, name: str, version: str, *requires: str, python: str = ">=3.9"):
    metadata = [f"Name: {name}", f"Version: {version}", f"Requires-Python: {python}"]
    metadata += [f"Requires-Dist: {one}" for one in requires]
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with ZipFile(file, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(metadata) + "\n\n")
    return file


def test_what_wheels_lack_is_told(tmp_path):
    first = wheel(tmp_path, "first", "1", "Other>=2", "torch>=2", "toml; python_version < '3.11'", "x; extra == 'all'")
    assert prepare.unmet([first, wheel(tmp_path, "other", "2.1")], {"torch": "2.11.0"}) == []
    assert prepare.unmet([first], {"torch": None}) == ["first asks for Other>=2, there is none"]
    assert "there is 1.9" in prepare.unmet([first, wheel(tmp_path, "other", "1.9")], {"torch": "2.11.0"})[0]
    newer = wheel(tmp_path, "newer", "1", python=">=3.13")
    assert prepare.unmet([newer], {}) == ["newer asks for python>=3.13, there is none"]


def test_what_is_carried_is_what_the_machine_lacks():
    names = prepare.missing()
    assert {"trl", "datasets", "pydantic-core", "wandb"} <= names and not names & prepare.THERE.keys()
    assert len(prepare.COMMAND) < 1500  # beside a few words of one's own


@pytest.mark.slow
def test_a_dry_run_from_its_first_part_to_its_table(tmp_path, capsys):
    """Every part on a CPU, in processes of their own; no results and no document are written."""
    before = DOCUMENT.read_text(), {file: file.read_text() for file in RESULTS.iterdir()}
    with pytest.raises(SystemExit) as ended:
        gpu_run.main(out=tmp_path, dry=True, minutes=8)
    found = [Finding.from_json(line) for line in (tmp_path / "findings.jsonl").read_text().splitlines()]
    missed = [finding for finding in found if "no time" in str(finding.figures.get("skipped"))]
    assert missed == [finding for finding in found if finding.ok is False] == []
    assert {finding.part for finding in found} == set(gpu_run.LIMITS) and ended.value.code == 0
    assert DRY in capsys.readouterr().out and (tmp_path / "profile.txt").stat().st_size > 1000
    assert before == (DOCUMENT.read_text(), {file: file.read_text() for file in RESULTS.iterdir()})
