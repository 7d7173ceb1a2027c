"""What a run has cost: device-hours, tokens, energy, launches."""

from collections import Counter

from olmoe_ft.report.amounts import duration, finite, hours
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.files.time_spent import (
    LaunchTime,
    device_hours,
    device_word,
    ended,
    launch_times,
    seconds_in_steps,
    steps_known,
    tokens_trained,
)
from olmoe_ft.report.page.blocks import Cell, Column, Facts, Section, Table, Tone

KWH = 3.6e6  # joules


def cost(run: RunFiles) -> Section | None:
    """What the run has cost so far; None where neither launches nor records are known."""
    times = launch_times(run)
    facts = _facts(run, times)
    if not facts:
        return None
    blocks = [Facts("", facts)]
    return Section("cost", "Cost", [*blocks, _launches(run, times)] if times else blocks)


def _facts(run: RunFiles, times: list[LaunchTime]) -> list[tuple[str, Cell | str]]:
    found: list[tuple[str, Cell | str]] = []
    word, spent = device_word(run), device_hours(run)
    tokens, in_steps = tokens_trained(run), seconds_in_steps(run)
    if spent is not None:
        found.append((f"{word}-hours", Cell(hours(spent), _how_known(times))))
    if in_steps is not None:
        found.append(("time in training steps", _in_steps(run, in_steps, times)))
    if tokens is not None:
        found.append(("tokens trained on", Cell(f"{tokens:,.0f}", "prompts are counted, and of a pair both sides")))
        if spent:
            found.append((f"tokens per {word}-hour", f"{tokens / spent:,.0f}"))
    if times:
        found.append(("energy", energy(run)))
        how = Counter(_how(run, index) for index in range(len(times)))
        found.append(("launches", Cell(str(len(times)), ", ".join(f"{count} {what}" for what, count in how.items()))))
    return found


def _in_steps(run: RunFiles, seconds: float, times: list[LaunchTime]) -> Cell:
    return Cell(duration(seconds), "; ".join(filter(None, (steps_known(run), _of_all(seconds, times)))))


def energy(run: RunFiles) -> Cell:
    """The energy of all devices, where they report it."""
    found = [finite(ended(launch).get("energy_joules")) for launch in run.launches]
    known = [joules for joules in found if joules is not None]
    if not known:
        reported = any("energy_joules" in ended(launch) for launch in run.launches)
        return Cell("not reported by this device" if reported else "not recorded")
    missing = len(found) - len(known)
    note = "of the devices, from the start to the end of each launch"
    if missing:
        note = f"at least: {missing} of {len(found)} launches recorded none"
    return Cell(f"{sum(known) / KWH:,.3g} kWh", note)


def _how_known(times: list[LaunchTime]) -> str:
    """What the hours are made of."""
    if all(time.known == "end" for time in times):
        return "of all processes, from the start to the end of each launch"
    if times[0].known == "summary":
        return "training alone, as the end of its launch was not recorded"
    lacking = [str(number) for number, time in enumerate(times, 1) if time.known == "records"]
    which = f"launch {lacking[0]} has" if len(lacking) == 1 else f"launches {', '.join(lacking)} have"
    return f"at least: {which} no recorded end, so that only steps in the records are counted"


def _of_all(in_steps: float, times: list[LaunchTime]) -> str:
    """The share of the time, where that is known."""
    if any(time.known == "records" for time in times):
        return ""
    if not (total := sum(time.seconds for time in times)) or in_steps > total:
        return ""
    rest = "loading, evaluation and saving" if times[0].known == "end" else "evaluation and saving"
    if len(times) > 1:
        rest += ", and steps that a later launch trained again"
    return f"{in_steps / total:.0%} of {duration(total)}; the rest is {rest}"


def _how(run: RunFiles, index: int) -> str:
    launch = run.launches[index]
    if isinstance(how := ended(launch).get("how"), str):
        return how
    if "started" not in launch:  # of a version that recorded no end
        newest = index == len(run.launches) - 1
        return "finished" if newest and run.summary is not None else "end not recorded"
    return "killed" if index < len(run.launches) - 1 else "without an end: killed, or still training"


def _end(run: RunFiles, index: int) -> Cell:
    how, reason = _how(run, index), str(ended(run.launches[index]).get("reason") or "")
    tone: dict[str, Tone] = {"failed": "bad", "killed": "warn"}
    return Cell(how, reason.removeprefix(f"{how} "), tone.get(how, ""))  # "stopped by SIGTERM"


def _launches(run: RunFiles, times: list[LaunchTime]) -> Table:
    columns = [
        Column("launch"),
        Column("started"),
        Column("processes", number=True),
        Column("continued from step", number=True),
        Column("ended"),
        Column("at step", number=True),
        Column("time", number=True),
    ]
    rows: list[list[Cell | str]] = []
    for index, (launch, time) in enumerate(zip(run.launches, times, strict=True)):
        began, step = time.first_step, finite(ended(launch).get("step"))
        at_least = "" if time.known == "end" else "training alone" if time.known == "summary" else "at least"
        rows.append(
            [
                str(index + 1),
                str(launch.get("started") or "not recorded"),
                str(time.processes or "not recorded"),
                Cell(f"{began:,}", "" if began else "the beginning"),
                _end(run, index),
                "" if step is None else f"{step:,.0f}",
                Cell(duration(time.seconds), at_least),
            ]
        )
    return Table("Launches", columns, rows)
