"""`summary.json`: what a run has come to, and how it is printed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from olmoe_ft.data.terminal import Console
from olmoe_ft.evaluation.answered import Answered, answered_table
from olmoe_ft.evaluation.answers import answered
from olmoe_ft.evaluation.score import Evaluation, Score
from olmoe_ft.evaluation.table import scores_table
from olmoe_ft.evaluation.wanted import ANSWERS
from olmoe_ft.recipe import Recipe
from olmoe_ft.training.run_directory import RunDirectory

if TYPE_CHECKING:  # torch and the trainers take seconds to import
    from olmoe_ft.training.train import Trained

console = Console()


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a finished run is summed up in; files of older versions may lack what has a default here."""

    name: str
    stage: str | None = None
    steps: int
    started_from: str | None = None
    """The fingerprint of the weights that it started from."""
    train_loss: float
    train_seconds: float
    last: dict[str, Any] = field(default_factory=dict)
    """The last value of every metric of the task and of the routers that is one number for all layers."""
    others: dict[str, Any] = field(default_factory=dict)
    """The figures of the evaluation rows by name (`eval_loss` and so on), and keys of a file that are unknown here."""
    before: Answered | None = None
    """Of the answers to held-out prompts, before training."""
    after: Answered | None = None
    scores: dict[str, list[Score]] = field(default_factory=dict)
    """Of all tasks, `before` and `after` training."""

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        started_from: str,
        trained: "Trained",
        before: Evaluation | None,
        after: Evaluation | None,
    ) -> "Summary":
        """Of a run that has just been trained.

        Args:
            started_from: the fingerprint of its starting weights.
        """
        return cls(
            name=recipe.name,
            stage=recipe.stage,
            steps=trained.steps,
            started_from=started_from,
            train_loss=trained.train_loss,
            train_seconds=trained.train_seconds,
            last=trained.last,
            others=trained.evaluation,
            before=answered(ANSWERS, before.scores) if before else None,
            after=answered(ANSWERS, after.scores) if after else None,
            scores={one.when: one.headline for one in (before, after) if one is not None},
        )

    @classmethod
    def read(cls, values: dict[str, Any]) -> "Summary":
        """What a `summary.json` holds that `RunDirectory.finished` has accepted."""
        known = {
            "name",
            "stage",
            "steps",
            "started_from",
            "train_loss",
            "train_seconds",
            "last",
            "before",
            "after",
            "scores",
        }
        return cls(
            name=str(values["name"]),
            stage=values.get("stage"),
            steps=values["steps"],
            started_from=values.get("started_from"),
            train_loss=float(values["train_loss"]),  # "NaN" is a text in JSON
            train_seconds=float(values["train_seconds"]),
            last=values.get("last") or {},
            others={name: value for name, value in values.items() if name not in known},
            before=Answered.read(values.get("before")),
            after=Answered.read(values.get("after")),
            scores={when: [Score.read(one) for one in ones] for when, ones in (values.get("scores") or {}).items()},
        )

    def as_dict(self) -> dict[str, Any]:
        """As it is written: every key in its place in the file."""
        values: dict[str, Any] = {
            "name": self.name,
            "stage": self.stage,
            "steps": self.steps,
            "started_from": self.started_from,
            "train_loss": self.train_loss,
            "train_seconds": self.train_seconds,
            "last": self.last,
            **self.others,
        }
        both = {"before": self.before, "after": self.after}
        values |= {when: one.as_dict() for when, one in both.items() if one is not None}
        if self.scores:
            values["scores"] = {when: [score.as_dict() for score in ones] for when, ones in self.scores.items()}
        return values


def print_finished(run: RunDirectory, summary: Summary) -> None:
    """Of a run that had finished before this launch."""
    print_summary(run, summary)
    console.print(f"{run.path}/ had finished before; `--fresh` trains again and keeps it aside")


def print_summary(run: RunDirectory, summary: Summary) -> None:
    """A run's figures in two lines, and its answers before and after training as a table."""
    console.print(
        f"{escape(summary.name)}: {summary.steps} steps in {summary.train_seconds:.0f} s, "
        f"loss {summary.train_loss:.4f}; the model is in {run.final}/",
        soft_wrap=True,
    )
    if "router/entropy" in summary.last:
        console.print(f"routing at the end: {_routing_line(summary.last)}; see {run.routing_picture}", soft_wrap=True)
    if summary.before is not None and summary.after is not None:
        console.print(answered_table(summary.before, summary.after))
    tasks = {when: [score for score in ones if score.task != ANSWERS] for when, ones in summary.scores.items()}
    if any(tasks.values()):
        console.print(scores_table(tasks))


def _routing_line(last: dict[str, Any]) -> str:
    busiest, agreement = 1 + last["router/max_violation"], last["router/drift_agreement"]
    return (
        f"entropy {last['router/entropy']:.2f} nats, busiest expert at {busiest:.1f} times the mean, "
        f"{last['router/dead_experts']} dead, {agreement:.0%} of the choices as at the start"
    )


def print_comparison(stages: Sequence[Recipe], summaries: Sequence[Summary]) -> None:
    """The stages of a pipeline side by side: what each did to its routers, and how well the task went."""
    table = Table(title=f"{escape(stages[0].name.rpartition('/')[0])}: the stages side by side")
    for column in ("run", "balance\ncoef", "routers"):
        table.add_column(column)
    for column in ("task\nloss", "exact\nmatch", "entropy\n(nats)", "max\nviolation", "dead\nexperts"):
        table.add_column(column, justify="right")
    for stage, summary in zip(stages, summaries, strict=True):
        values = dict(summary.last) | ({"exact_match": summary.after.exact_match} if summary.after else {})
        shown = {"loss/task": ".4f", "exact_match": ".1%", "router/entropy": ".3f", "router/max_violation": ".2f"}
        table.add_row(
            stage.name.rpartition("/")[2],
            f"{stage.router.load_balancing_coef:g}",
            stage.router.train,
            # a stage may have no held-out prompts, or end before its first record
            *(format(values[name], form) if name in values else "" for name, form in shown.items()),
            str(values.get("router/dead_experts", "")),
        )
    console.print(table)
