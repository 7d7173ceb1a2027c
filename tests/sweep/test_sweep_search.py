"""`--search tpe` with optuna itself; the runs are files that a stand-in for training writes."""

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from olmoe_ft.recipe import UserError, load_recipe  # noqa: E402
from olmoe_ft.report.files.run_files import read_run  # noqa: E402
from olmoe_ft.stopping import Stopped  # noqa: E402
from olmoe_ft.sweep import search  # noqa: E402
from olmoe_ft.sweep.axes import parse_space  # noqa: E402
from olmoe_ft.sweep.plans import Planned, Where  # noqa: E402
from olmoe_ft.sweep.points import Points  # noqa: E402
from olmoe_ft.sweep.result import check_metric, default_metric  # noqa: E402
from olmoe_ft.sweep.run import Runner  # noqa: E402
from olmoe_ft.sweep.search import Searched, looks_for_more, metric_of  # noqa: E402
from olmoe_ft.sweep.state import Entry, open_state  # noqa: E402

LR = "training.learning_rate"
WHERE = Where("configs/accelerate/cpu.yaml", None, 80)


class Written(Runner):
    """Writes ten records: the loss falls to the distance of the learning rate from 1e-4, in decades."""

    stopped_at: int | None = None
    trained = 0

    def run(self, planned: Planned, which: str, more=()) -> Entry:
        point, entry = planned.point, self.entry(planned.point)
        if self.stopped_at == self.trained:
            raise Stopped("asked")
        self.trained += 1
        point.last_run.mkdir(parents=True, exist_ok=True)
        (point.last_run / "recipe.yaml").write_text(point.recipe.to_yaml())
        distance = abs(math.log10(point.recipe.training["learning_rate"]) + 4)
        judges = [make() for make in more]
        with (point.last_run / "metrics.jsonl").open("w") as stream:
            for step in range(1, 11):
                record = {"step": step, "loss/task": distance + 1 / step}
                stream.write(json.dumps(record) + "\n")
                if any(judge(record) for judge in judges):
                    return self._mark(entry, "pruned", "worse", step)
        return self._mark(entry, "finished", None)


class Ten(Planned):
    """A plan of ten steps."""

    refused = None

    @property
    def stages(self):
        class Stage:
            steps = type("Schedule", (), {"count": type("Steps", (), {"steps": 10})})

        return [Stage]

    def __init__(self, point) -> None:
        object.__setattr__(self, "point", point)


@pytest.fixture
def searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search, "plan_point", lambda point, where: Ten(point))

    def make(count: int, seed: int = 0, stopped_at: int | None = None, name: str = "s") -> Searched:
        space = parse_space([f"{LR}=1e-6..1e-2:log"], search=True)
        folder = Path("runs") / name
        folder.mkdir(parents=True, exist_ok=True)
        state = open_state(folder, "tiny/sft", [], [f"{LR}=1e-6..1e-2:log"], "tpe", seed)
        runner = Written(state, None, "loss/task", False)
        runner.stopped_at = stopped_at
        return Searched(runner, Points("tiny/sft", (), space.axes, name), WHERE, count, "loss/task")

    return make


def rates(found: Searched) -> list[float]:
    return [trial.params[LR] for trial in found.study.trials]


def test_points_are_chosen_near_the_best_and_bad_ones_are_stopped(searched):
    """Of 20 uniform draws over four decades a quarter would be within half a decade of 1e-4."""
    found = searched(30)
    points = found.run()
    states = [entry.state for entry in found.runner.state.points]
    assert len(states) == len(points) == 30 and 3 <= states.count("pruned") <= 25
    near = [rate for rate in rates(found)[10:] if abs(math.log10(rate) + 4) < 0.5]
    assert len(near) > 20 / 4
    assert abs(math.log10(found.study.best_params[LR]) + 4) < 0.3
    assert json.loads((Path("runs/s/sweep.json")).read_text())["points"][0]["state"] == "finished"


def test_the_same_seed_chooses_the_same_points(searched):
    one, same, other = searched(6, name="a"), searched(6, name="b"), searched(6, seed=1, name="c")
    for found in (one, same, other):
        found.run()
    assert rates(one) == rates(same) != rates(other)


def test_a_search_that_was_stopped_goes_on_with_the_same_point_and_others(searched):
    first = searched(6, stopped_at=3)
    with pytest.raises(Stopped):
        first.run()
    assert len(rates(first)) == 4
    second = searched(6)
    points = second.run()
    assert len(points) == 6 and second.runner.trained == 3
    asked = rates(second)
    assert asked[:4] == rates(first)[:4] and asked[4] == asked[3]  # the one that was stopped, once more
    assert len(set(asked)) == 6
    assert searched(6).run() and len(searched(6).study.trials) == 7  # nothing is left


@pytest.mark.parametrize(
    ("overrides", "by", "metric"),
    [
        ([], None, "eval/answers/exact_match"),
        (["data.answers=null"], None, "loss/task"),
        (["data.eval=[{path: data/skills/train.jsonl}]"], None, "eval_loss"),
        ([], "router/entropy", "router/entropy"),
    ],
)
def test_the_metric_that_is_searched_for(overrides, by, metric):
    assert metric_of(by, load_recipe("tiny/sft", overrides)) == metric


def test_a_metric_of_tasks_has_to_be_named():
    recipe = load_recipe("tiny/sft", ["data.answers=null", "evaluation.tasks=[skills]"])
    with pytest.raises(UserError, match="--by"):
        metric_of(None, recipe)


def run_with(folder: Path, **metrics: float):
    folder.mkdir()
    names = {name.replace("__", "/"): value for name, value in metrics.items()}
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, **names}) + "\n")
    return read_run(folder)


def test_the_metric_that_finished_runs_are_sorted_by(tmp_path):
    both = run_with(tmp_path / "a", loss__task=1.0, eval__answers__exact_match=0.5, eval_loss=2.0)
    score = run_with(
        tmp_path / "b", loss__task=1.0, eval__answers__exact_match_stderr=0.1, eval__answers__exact_match=0.5
    )
    loss = run_with(tmp_path / "c", loss__task=1.0)
    assert default_metric([both, both]) == "eval_loss"
    assert default_metric([both, score]) == "eval/answers/exact_match"
    assert default_metric([both, loss]) == default_metric([]) == "loss/task"
    with pytest.raises(UserError, match=r"found eval_lss \(did you mean `eval_loss`\?\); allowed: "):
        check_metric("eval_lss", both)


def test_which_way_is_searched_is_said_where_the_name_does_not_say_it(capsys):
    assert looks_for_more("eval/a/acc") and not looks_for_more("eval/regex_rows/timed_out")
    assert not looks_for_more("loss/task") and looks_for_more("perf/tokens_per_second")
    assert capsys.readouterr().out == ""
    assert looks_for_more("eval/a/length")
    assert "eval/a/length is better is not known by its name; the highest is searched for" in capsys.readouterr().out
