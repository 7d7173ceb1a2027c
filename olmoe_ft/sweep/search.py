"""`--search tpe`: optuna chooses each point from the results so far, and stops those that are worse than the median."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from olmoe_ft.data.terminal import say
from olmoe_ft.recipe import Recipe, UserError
from olmoe_ft.report.comparison.ranking import direction
from olmoe_ft.report.files.run_files import read_run
from olmoe_ft.sweep.axes import Axis, Range, Values
from olmoe_ft.sweep.child import Judge
from olmoe_ft.sweep.plans import Planned, Where, plan_point
from olmoe_ft.sweep.points import Point, Points
from olmoe_ft.sweep.records import Record, number
from olmoe_ft.sweep.result import LOSS, SCORES
from olmoe_ft.sweep.run import Runner
from olmoe_ft.sweep.state import STOPPED, Entry
from olmoe_ft.sweep.watch import Verdict

if TYPE_CHECKING:
    from optuna import Study, Trial

STARTUP = 4  # points that finish before any is stopped for being worse than their median
UNJUDGED = 0.25  # of the steps, in which no point is stopped: warm-up says little


def check_installed() -> None:
    """Raises:
    UserError: optuna is not there.
    """
    if find_spec("optuna") is None:
        raise UserError(
            "--search tpe: needs the package optuna, which is not installed; `pip install 'olmoe_ft[sweep]'`, or "
            "choose --search random"
        )


def metric_of(by: str | None, recipe: Recipe) -> str:
    """The metric that is searched for, known before the first point has run.

    Raises:
        UserError: the recipe's tasks have several, and none was named.
    """
    last = recipe.runs[-1]
    if by is not None:
        return by
    if last.data.eval:
        return "eval_loss"
    if last.data.answers:
        return "eval/answers/exact_match"
    if last.evaluation.tasks or last.evaluation.suite:
        raise UserError(
            "--search tpe: name the metric to search for, such as --by eval/TASK/exact_match or --by loss/task"
        )
    return LOSS


def looks_for_more(metric: str) -> bool:
    """Whether the highest is searched for; where that is not known by the metric's name, it is, which is said."""
    better = direction(metric)
    if better is None:
        say(f"--search tpe: whether more of {metric} is better is not known by its name; the highest is searched for")
    return better is not False


class Searched:
    """A study of optuna in `runs/<sweep>/optuna.db`, which the same command continues.

    Args:
        count: points in all.
    """

    def __init__(self, runner: Runner, maker: Points, where: Where, count: int, metric: str) -> None:
        self.runner, self.maker, self.axes, self.where = runner, maker, maker.axes, where
        self.count, self.metric = count, metric
        self.higher = looks_for_more(metric)
        # scores come after training, so that the loss has to say during it
        self.during = LOSS if metric.startswith(SCORES) else metric
        self.study = self._study()

    def run(self) -> list[Entry]:
        """Points until there are enough of them; all points of the study.

        Raises:
            Stopped: the sweep was asked to stop.
            UserError: no run has the metric.
        """
        before = [self.maker.make(self._values(trial.params)) for trial in self._done()]
        entries = {point.name: self.runner.entry(point) for point in before}
        while (done := len(self._done())) < self.count:
            trial = self.study.ask({axis.key: _distribution(axis) for axis in self.axes})
            try:
                planned = plan_point(self.maker.make(self._values(trial.params)), self.where)
            except UserError as error:  # this combination alone: the ends of all axes were planned before
                say(f"point {done + 1} of {self.count} is left out: {error}")
                self._tell(trial, "FAIL")
                continue
            entries[planned.point.name] = self._run_one(trial, planned, f"point {done + 1} of {self.count}")
        return [*entries.values()]

    def _study(self) -> "Study":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name=self.maker.sweep,
            storage=f"sqlite:///{self.runner.state.folder / 'optuna.db'}",
            load_if_exists=True,
            direction="maximize" if self.higher else "minimize",
        )
        for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # of a sweep that was stopped
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
        # a launch that continues draws other numbers than those of the points that are there
        study.sampler = optuna.samplers.TPESampler(seed=self.runner.state.seed + len(study.trials))
        return study

    def _run_one(self, trial: "Trial", planned: Planned, which: str) -> Entry:
        import optuna

        warm_up = round(UNJUDGED * (planned.stages[-1].steps.count.steps if planned.stages[-1].steps else 0))
        self.study.pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=warm_up)
        entry = self.runner.entry(planned.point)
        if planned.refused:
            entry.state, entry.reason = "refused", planned.refused
            self.runner.state.write()
        else:
            entry = self.runner.run(planned, which, [lambda: self._judge(trial)])
        self._conclude(trial, planned.point, entry)
        return entry

    def _judge(self, trial: "Trial") -> Judge:
        sign = -1 if self.higher and self.during == LOSS else 1

        def judge(record: Record) -> Verdict | None:
            value = number(record.get(self.during))
            if value is None:
                return None
            step = record["step"]
            trial.report(sign * value, step)
            if not trial.should_prune():
                return None
            return Verdict("pruned", f"{self.during} {value:.4g} at step {step}, worse than the median so far", step)

        return judge

    def _conclude(self, trial: "Trial", point: Point, entry: Entry) -> None:
        if entry.state in STOPPED:
            self._tell(trial, "PRUNED")
            return
        if entry.state != "finished":
            self._tell(trial, "FAIL")
            return
        value = read_run(point.last_run).metrics.last(self.metric)
        assert value is not None  # the runner has looked for it
        self.study.tell(trial, value)

    def _tell(self, trial: "Trial", state: str) -> None:
        import optuna

        self.study.tell(trial, state=optuna.trial.TrialState[state])

    def _done(self) -> list[Any]:
        """The trials that are over, without those that were asked for once more."""
        again = {trial.user_attrs.get("again") for trial in self.study.trials}
        return [trial for trial in self.study.trials if trial.state.is_finished() and trial.number not in again]

    def _values(self, params: dict[str, Any]) -> Values:
        return tuple(axis.text(params[axis.key]) if isinstance(axis, Range) else params[axis.key] for axis in self.axes)


def _distribution(axis: Axis) -> Any:
    from optuna import distributions

    if not isinstance(axis, Range):
        return distributions.CategoricalDistribution(axis.values)
    if axis.whole:
        return distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return distributions.FloatDistribution(float(axis.low), float(axis.high), log=axis.log)
