"""`evaluation.json` and `samples.jsonl`: what is written is read back, replaced, forgotten, and damaged."""

import json
import math
from dataclasses import replace

import pytest
from support.evaluations import evaluation, sample

from olmoe_ft.evaluation.files import add, forget_after, newest_evaluation, read_evaluations, read_samples
from olmoe_ft.evaluation.score import Outcome
from olmoe_ft.recipe import UserError


def times(folder) -> list[tuple]:
    return [(one.when, one.step) for one in read_evaluations(folder)]


def outputs(folder, **which) -> list[str]:
    return [one.output for one in read_samples(folder, **which)]


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_what_is_written_is_read_back(tmp_path):
    """JSON has no NaN: it is written as a text. Any text is one line: line ends, lone surrogates, U+2028."""
    first = evaluation("before", 0, [sample(1, output="a\nb\u2028c\udc80\x1b[2J"), sample(0)])
    first = replace(first, scores=[replace(first.scores[0], value=math.nan, clean_value=0.25, clean_n=4)])
    add(tmp_path, first)
    second = evaluation("training", 5, [sample(0, output="now", metrics={"exact_match": math.inf}, overlaps=True)])
    add(tmp_path, second)
    read = read_evaluations(tmp_path)
    assert math.isnan(read[0].scores[0].value)
    assert read[0].scores[0] == replace(first.scores[0], value=read[0].scores[0].value)
    assert read[1] == replace(second, samples=[])
    assert read_samples(tmp_path) == read_samples(tmp_path, step=5) == second.samples
    assert read_samples(tmp_path, step=0) == [first.samples[1], first.samples[0]]
    assert [(line["step"], line["when"], line["id"]) for line in lines(tmp_path)] == [
        (0, "before", 1),
        (0, "before", 0),
        (5, "training", 0),
    ]
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["version"] == 1 and written["evaluations"][1] == {**second.as_dict(), "samples": 1}


def test_the_experts_loads_are_kept_a_layer_a_line_and_older_files_have_none(tmp_path):
    loads = {"sums": [[0.5, 0.5, 0.0], [1.0, 0.0, 1e-05]]}
    add(tmp_path, replace(evaluation("before", 0, [sample(0, output="[1,\n 2]")]), loads=loads))
    add(tmp_path, evaluation("after", 5, [sample(0)]))
    assert [one.loads for one in read_evaluations(tmp_path)] == [loads, {}]
    file = tmp_path / "evaluation.json"
    assert "[ 0.5, 0.5, 0.0 ],\n" in file.read_text()
    content = json.loads(file.read_text())
    for one in content["evaluations"]:
        del one["loads"]
    file.write_text(json.dumps(content))
    assert [one.loads for one in read_evaluations(tmp_path)] == [{}, {}]
    content["evaluations"][0]["loads"] = {"sums": [["many"]]}
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="cannot be read"):
        read_evaluations(tmp_path)


def test_a_group_has_the_loads_of_its_members_together():
    """3 of 4 and 0 of 4 choices are 3 of 8. Of a task whose choices are not known there is nothing; members that have a
    group's score are not listed."""
    outcome = Outcome([], [], [], {"group": {"one", "two"}}, ["group", "alone", "unknown"])
    counts = {"one": [[3, 1, 0]], "two": [[0, 2, 2]], "alone": [[0, 0, 3]]}
    assert outcome.loads(counts) == {"group": [[0.375, 0.375, 0.25]], "alone": [[0.0, 0.0, 1.0]]}


def test_the_same_evaluation_replaces_the_older_one(tmp_path):
    """Same time, step and tasks. Another time at the same step, or other tasks, is another evaluation."""
    add(tmp_path, evaluation("after", 5, [sample(0, output="old")]))
    add(tmp_path, evaluation("command", 5, [sample(0, output="by hand")]))
    add(tmp_path, evaluation("after", 5, [sample(0, task="other", output="other")]))
    add(tmp_path, evaluation("after", 5, [sample(0, output="new"), sample(1, output="new")]))
    assert times(tmp_path) == [("command", 5), ("after", 5), ("after", 5)]
    assert outputs(tmp_path) == ["new", "new"] and outputs(tmp_path, task="other") == ["other"]
    assert sorted(line["output"] for line in lines(tmp_path)) == ["by hand", "new", "new", "other"]


def test_a_run_that_continues_from_an_older_checkpoint_loses_later_evaluations(tmp_path):
    forget_after(tmp_path, 3)  # nothing is there
    assert not list(tmp_path.iterdir())
    for when, step in [("before", 0), ("training", 5), ("training", 10), ("after", 12), ("command", None)]:
        add(tmp_path, evaluation(when, step, [sample(0, output=f"{when} {step}")]))
    forget_after(tmp_path, 12)  # the end is not the end any more
    assert times(tmp_path) == [("before", 0), ("training", 5), ("training", 10), ("command", None)]
    forget_after(tmp_path, 5)
    assert times(tmp_path) == [("before", 0), ("training", 5), ("command", None)]
    assert [line["output"] for line in lines(tmp_path)] == ["before 0", "training 5", "command None"]


@pytest.mark.parametrize("killed", ["while lines were added", "before evaluation.json was written"])
def test_what_was_cut_off_does_not_count_and_goes(tmp_path, killed):
    add(tmp_path, evaluation("training", 5, [sample(0, output="whole")]))
    listed, kept = (tmp_path / "evaluation.json").read_bytes(), lines(tmp_path)
    add(tmp_path, evaluation("training", 10, [sample(0, output="cut off"), sample(1, output="cut off")]))
    (tmp_path / "evaluation.json").write_bytes(listed)
    if killed == "while lines were added":
        content = (tmp_path / "samples.jsonl").read_bytes()
        (tmp_path / "samples.jsonl").write_bytes(content[:-20])
    assert outputs(tmp_path) == ["whole"]
    add(tmp_path, evaluation("training", 10, [sample(0, output="again")]))
    assert outputs(tmp_path) == ["again"] and outputs(tmp_path, step=5) == ["whole"]
    assert lines(tmp_path)[:1] == kept and len(lines(tmp_path)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "JSONDecodeError"),
        (b"\xff", "UnicodeDecodeError"),
        (b"[]", "TypeError"),
        (b'{"version": 2, "evaluations": [], "samples_bytes": 0}', "found version 2; allowed: 1"),
        (b'{"version": 1, "evaluations": [{}], "samples_bytes": 0}', "KeyError"),
        (b'{"version": 1, "evaluations": 3, "samples_bytes": 0}', "TypeError"),
        (b"[" * 100_000, "RecursionError|JSONDecodeError"),
    ],
)
def test_a_damaged_evaluation_file_is_refused_and_kept_aside_when_one_is_added(tmp_path, capsys, content, message):
    add(tmp_path, evaluation("training", 5, [sample(0, output="old")]))
    (tmp_path / "evaluation.json").write_bytes(content)
    for read in (read_evaluations, read_samples):
        with pytest.raises(UserError, match=f"evaluation.json: it cannot be read .*({message}).*olmoe-ft evaluate "):
            read(tmp_path)
    add(tmp_path, evaluation("training", 10, [sample(0, output="new")]))
    assert times(tmp_path) == [("training", 10)] and outputs(tmp_path) == ["new"]
    assert (tmp_path / "evaluation.json.damaged").read_bytes() == content
    assert "old" in (tmp_path / "samples.jsonl.damaged").read_text()
    assert capsys.readouterr().out.count("is kept as") == 2


def test_samples_that_are_lost_or_damaged_are_refused(tmp_path):
    add(tmp_path, evaluation("training", 5, [sample(0), sample(1)]))
    file = tmp_path / "samples.jsonl"
    first, second = file.read_text().splitlines(keepends=True)
    file.write_text(first)
    with pytest.raises(UserError, match=r"samples.jsonl: it is damaged \(found 1 of 2 samples\); evaluate again"):
        read_samples(tmp_path)
    file.write_text(first + second[:60] + "\n")
    with pytest.raises(UserError, match="damaged .a line of it is not a sample"):
        read_samples(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match="found 0 of 2"):
        read_samples(tmp_path)


def test_what_is_not_there_is_named_with_what_is(tmp_path):
    with pytest.raises(UserError, match=f"no evaluation so far; evaluate it first: olmoe-ft evaluate {tmp_path}"):
        read_samples(tmp_path)
    add(tmp_path, evaluation("training", 5, [sample(0, task="gsm8k"), sample(0, task="mmlu_law")]))
    add(tmp_path, evaluation("command", None, [sample(0, task="mmlu_art"), sample(0, task="mmlu_law")]))
    with pytest.raises(UserError, match="no evaluation of step 6; allowed: 5"):
        read_samples(tmp_path, step=6)
    with pytest.raises(
        UserError, match=r"the task gsm8 \(did you mean `gsm8k`\?\); allowed: gsm8k, mmlu_art, mmlu_law$"
    ):
        read_samples(tmp_path, task="gsm8")
    assert newest_evaluation(tmp_path, task="gsm8k").step == 5
    assert [one.task for one in read_samples(tmp_path, task="mmlu")] == ["mmlu_art", "mmlu_law"]
    assert [one.task for one in read_samples(tmp_path, task="mmlu", step=5)] == ["mmlu_law"]


def test_an_evaluation_is_added_without_writing_those_before_it_again(tmp_path):
    """The file with the samples is the same one, and only grows."""
    inodes = set()
    for step in range(4):
        add(tmp_path, evaluation("training", step, [sample(number) for number in range(100)]))
        inodes.add((tmp_path / "samples.jsonl").stat().st_ino)
    assert len(inodes) == 1
    assert len(lines(tmp_path)) == 400 and len(read_samples(tmp_path)) == 100
