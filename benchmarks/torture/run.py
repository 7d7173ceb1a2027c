"""`make torture`: runs are killed and their files damaged; each has to end as if nothing had happened.

PYTHONPATH=.:benchmarks python -m torture.run                                      all, half an hour on 2 cores
PYTHONPATH=.:benchmarks python -m torture.run --only "lora zero3, dpo one" --kills 5 --damages 5 --keep /tmp/lost
"""

import re
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from torture import trial
from torture.configurations import ALL, Configuration
from torture.damages import Damage, choose_damages
from torture.kills import choose_kills
from torture.launcher import end_all, prepare
from torture.table import screen_table, write_document
from torture.trial import Reference, Verdict, make_reference

KILLS, DAMAGES = 100, 150  # of a whole torture
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed")
UNITS = {"s": 1, "m": 60, "h": 3600}
STARTS_FROM = Configuration("sft", "full", "one", "accumulation")  # its model is what DPO and KTO start from


def main(
    kills: Annotated[int, typer.Option(help="Runs to kill.", min=0)] = KILLS,
    damages: Annotated[int, typer.Option(help="Runs to damage.", min=0)] = DAMAGES,
    seed: Annotated[int, typer.Option(help="What is chosen by chance is chosen by this.")] = 0,
    only: Annotated[
        str, typer.Option(help="Words that a configuration has, or others: 'lora zero3, dpo one'.", show_default="all")
    ] = "",
    budget: Annotated[str, typer.Option(help="No case begins after this time, e.g. 90s, 40m, 1h.")] = "40m",
    jobs: Annotated[int, typer.Option(help="Runs at the same time.", min=1)] = 2,
    keep: Annotated[
        Path | None, typer.Option(help="A folder for the runs that were lost.", show_default="none")
    ] = None,
) -> None:
    """Kill runs and damage their files; exits with 1 unless every one of them survives."""
    if (found := re.fullmatch(r"(\d+)([smh])", budget)) is None:
        raise typer.BadParameter(f"found {budget}; allowed: a number and s, m or h, e.g. 40m", param_hint="--budget")
    ends = time.monotonic() + int(found[1]) * UNITS[found[2]]
    chosen = [configuration for configuration in ALL if _has_words(configuration, only)]
    if not chosen:
        raise typer.BadParameter(f"found {only!r}, which none has; one is {ALL[0].name!r}", param_hint="--only")
    console = Console()
    with TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder:
        torture = Torture(Path(folder), chosen, seed, jobs, ends, keep, console)
        prepare(Path(folder) / "cache")
        try:
            verdicts, untried = torture.run(kills, damages)
        finally:
            end_all()
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    title = f"{kills} kills and {damages} damages, seed {seed}; {versions}"
    console.print(screen_table(verdicts, title))
    if not only and kills >= KILLS and damages >= DAMAGES and not untried:
        write_document(verdicts, title)
    if untried:
        console.print(f"{untried} were not tried: the time of --budget {budget} was over", highlight=False)
    raise typer.Exit(int(untried > 0 or any(verdict.faults for verdict in verdicts)))


class Torture:
    """The references, then all kills and damages, several at a time.

    Args:
        chosen: what is tortured.
        folder: for everything that runs.
        ends: when no further case begins, by `time.monotonic()`.
        keep: gets the folder of every run that is lost.
    """

    def __init__(
        self,
        folder: Path,
        chosen: list[Configuration],
        seed: int,
        jobs: int,
        ends: float,
        keep: Path | None,
        console: Console,
    ) -> None:
        self.folder, self.chosen, self.seed, self.jobs = folder, chosen, seed, jobs
        self.ends, self.keep, self.console = ends, keep, console
        self.references: dict[Configuration, Reference] = {}

    def run(self, kills: int, damages: int) -> tuple[list[Verdict], int]:
        """What became of all that were tried, and how many were not."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress, ThreadPoolExecutor(self.jobs) as pool:
            try:
                self._make_references(pool, progress)
                return self._try_all(pool, progress, kills, damages)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                end_all()
                raise

    def _make_references(self, pool: ThreadPoolExecutor, progress: Progress) -> None:
        bar = progress.add_task("unbroken runs", total=len(self.chosen))
        first = make_reference(self.folder / "start", STARTS_FROM, None)
        start = first.whole / STARTS_FROM.runs[0] / "final"
        made = [
            pool.submit(make_reference, self.folder / _slug(configuration.name), configuration, start)
            for configuration in self.chosen
        ]
        for future in as_completed(made):
            reference = future.result()
            self.references[reference.configuration] = reference
            progress.advance(bar)

    def _try_all(
        self, pool: ThreadPoolExecutor, progress: Progress, kills: int, damages: int
    ) -> tuple[list[Verdict], int]:
        stopped = {configuration: self.references[configuration].stopped for configuration in self.chosen}
        finished = {configuration: self.references[configuration].whole for configuration in self.chosen}
        cases: list[trial.Case] = [
            *choose_kills(kills, self.chosen, self.seed),
            *choose_damages(damages, stopped, finished, self.seed),
        ]
        bars = {kind: progress.add_task(kind, total=total) for kind, total in (("kills", kills), ("damages", damages))}
        futures: list[Future[Verdict | None]] = [
            pool.submit(self._try, number, case) for number, case in enumerate(cases)
        ]
        verdicts = []
        for future in as_completed(futures):
            if (verdict := future.result()) is None:
                continue
            verdicts.append(verdict)
            progress.advance(bars["damages" if isinstance(verdict.case, Damage) else "kills"])
            said = [f"lost: {verdict.case}: {fault}" for fault in verdict.faults]
            said += [f"refused: {verdict.case}: {verdict.refused}"] if verdict.refused else []
            for line in said:
                self.console.print(line, highlight=False, markup=False)
        return verdicts, len(cases) - len(verdicts)

    def _try(self, number: int, case: trial.Case) -> Verdict | None:
        if time.monotonic() > self.ends:
            return None
        folder = self.folder / f"case-{number:03}"
        reference = self.references[case.configuration]
        verdict = (
            trial.damage(case, reference, folder) if isinstance(case, Damage) else trial.kill(case, reference, folder)
        )
        if verdict.faults and self.keep is not None:
            shutil.copytree(folder, self.keep / folder.name, symlinks=True, dirs_exist_ok=True)
            (self.keep / folder.name / "faults.txt").write_text("\n".join([str(case), *verdict.faults, ""]))
        shutil.rmtree(folder)
        return verdict


def _has_words(configuration: Configuration, only: str) -> bool:
    """Whether a configuration has all words of one of the groups, between which there are commas."""
    return any({*words.split()} <= {*configuration.name.split()} for words in only.split(","))


def _slug(name: str) -> str:
    return name.replace(" ", "-")


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
