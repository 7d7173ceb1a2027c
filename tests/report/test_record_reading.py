"""What is read of `metrics.jsonl` is what json.loads reads of its lines, but for what is logged of every layer."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmoe_ft.report.metrics import read_metrics

LAYERS = re.compile(r"router/(load|entropy|max_violation|dead_experts)/layer_\d+")
TEXTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
LOAD = '"router/load/layer_00": [0.5, 0.25, 0.25]'


def expected(lines: list[bytes]) -> tuple[dict[str, dict[int, float]], int]:
    """Name, step and value of every number, by json alone; and how many lines are no records."""
    found: dict[str, dict[int, float]] = {}
    damaged = 0
    for line in lines:
        try:
            record = json.loads(line)
            steps = [record["step"]]
        except (ValueError, KeyError, TypeError):
            damaged += 1
            continue
        if type(steps[0]) is not int:
            damaged += 1
            continue
        for name, value in record.items():
            number = TEXTS.get(value) if isinstance(value, str) else value
            if name != "step" and type(number) in (int, float) and not LAYERS.fullmatch(name):
                found.setdefault(name, {})[steps[0]] = float(number)
    return found, damaged


def check(folder, lines: list[bytes]) -> None:
    file = folder / "metrics.jsonl"
    file.write_bytes(b"\n".join(lines) + (b"" if lines[-1] else b"\n"))
    found, (wanted, damaged) = read_metrics(file), expected(lines)
    assert (found.damaged, found.records) == (damaged, len(lines) - damaged)
    assert set(found.of) == set(wanted)
    for name, values in wanted.items():
        assert found[name].steps.tolist() == sorted(values)
        np.testing.assert_array_equal(found[name].values, [values[step] for step in sorted(values)])


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "loss": 2.5, ' + LOAD + ', "grad_norm": 0.5}',
        '{"step": 1, "loss": 2.5, ' + LOAD + "}",
        "{" + LOAD + ', "step": 1, "loss": 2.5}',
        '{"loss": 2.5, ' + LOAD + ', "step": 1}',
        '{"step":1,"loss":2.5,"router/load/layer_00":[0.5,0.5],"router/entropy/layer_00":2.5,"x":1}',
        '{"step": 1, "router/entropy/layer_00": "NaN", "router/load/layer_00": ["NaN", "Infinity"], "x": "NaN"}',
        '{"step": 1, "router/entropy/layer_00": NaN, "router/max_violation/layer_00": -1.5e-05, "x": -1.5E+05}',
        '{"step": 1, "router/dead_experts/layer_00": null, "router/dead_experts/layer_01": true, "y": true, "z": null}',
        '{"step": 1, "router/load/layer_00": [[1, 2], [3]], "x": 1}',
        '{"step": 1, "router/load/layer_00": ["a],", 1], "x": 1}',
        '{"step": 1, "router/load/layer_00": {"a": [1, 2], "b": 1}, "x": 1}',
        '{"step": 1, "router/entropy/layer_00": "a, b", "x": 1}',
        '{"step": 1, "router/entropy/layer_00": "a\\", b", "x": 1}',
        '{"step": 1, "note": "\\"router/load/layer_00\\": [1], ", "x": 1}',
        '{"step": 1, "note": ", }", "inner": {"loss": 5, ' + LOAD + ', "router/entropy/layer_01": 1}, "x": 1}',
        '{"step": 1, "a/b/c": 1, "eval/gsm8k/exact_match": 0.5, "router/drift_agreement/layer_00": 0.5}',
        '{"step": 1, "router/entropy/layer_00/other": 5, "router/other/layer_00": 6, "x router/entropy/layer_0": 7}',
        '{"step": 1, "x": 1e999, "y": -1e999, "z": 12345678901234567890}',
        '{"step": 1, "loss": 2.5, "router/load/layer_00": [0.5, 0.2',
        '{"step": 1, "loss": 2.5, "router/load/layer_00": [0.5, 0.2{"step": 2, "loss": 1.5}',
        '{"step": 1, "loss": 2.5, }',
        '{"step": 1.0, "loss": 2.5}',
        '{"step": true, "loss": 2.5}',
        '{"loss": 2.5}',
        '["step", 1]',
        "5",
        '"step"',
        "",
        "\0\0\0\0",
        '{"step": 1, "loss": 2.5}\xff',
    ],
)
def test_a_line_is_read_as_json_reads_it(tmp_path, line):
    check(tmp_path, [b'{"step": 0, "loss": 3}', line.encode("latin-1"), b'{"step": 2, "loss": 1}'])


NAMES = st.sampled_from(
    [
        "router/load/layer_00",
        "router/entropy/layer_07",
        "router/dead_experts/layer_15",
        "loss",
        "loss/task",
        "a, b",
        '"',
    ],
)
SMALL = (
    st.integers(-3, 3) | st.floats(width=32) | st.sampled_from(["NaN", "-Infinity", "a], ", "x, ", ", }", None, True])
)
VALUES = SMALL | st.lists(SMALL, max_size=3) | st.lists(st.lists(SMALL, max_size=2), max_size=2)
OBJECTS = st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES, max_size=2), max_size=6)


@given(record=OBJECTS, step=st.integers(1, 5), first=st.booleans(), spaces=st.booleans(), cut=st.integers(0, 30))
def test_any_line_is_read_as_json_reads_it(tmp_path_factory, record, step, first, spaces, cut):
    """Whole and cut off, in either order of keys, with and without spaces."""
    whole = {"step": step, **record} if first else {**record, "step": step}
    text = json.dumps(whole, separators=(", ", ": ") if spaces else (",", ":"))
    check(tmp_path_factory.mktemp("lines"), [text.encode(), text[: len(text) - cut].encode()])


def test_numbers_that_no_float_holds_are_not_finite(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "x": {10**400}, "y": {-(10**400)}}}\n')
    found = read_metrics(tmp_path / "metrics.jsonl")
    assert (found.last("x"), found.last("y")) == (math.inf, -math.inf)


@pytest.mark.parametrize("step", [-1, 2**63, 10**30])
def test_a_step_that_cannot_be_is_damage(tmp_path, step):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": {step}, "x": 1}}\n{{"step": 3, "x": 2}}\n')
    found = read_metrics(tmp_path / "metrics.jsonl")
    assert (found.damaged, found.records, found["x"].steps.tolist()) == (1, 1, [3])


def test_of_one_step_the_newest_value_counts(tmp_path):
    """As after a resume, whose records come behind those of a killed launch."""
    steps = [10, 20, 30, 20, 30]
    lines = [json.dumps({"step": step, "loss": place}) for place, step in enumerate(steps)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    found = read_metrics(tmp_path / "metrics.jsonl")["loss"]
    assert (found.steps.tolist(), found.values.tolist()) == ([10, 20, 30], [0, 3, 4])
