"""Findings on how a run ended, what was accepted when it continued, and files that cannot be read."""

from collections.abc import Iterator

from olmoe_ft.report.files.data_report import mapping
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.files.state import state_of
from olmoe_ft.report.page.blocks import Finding

KEYS = 8  # changed keys of a launch that are named


def of_ending(run: RunFiles) -> Iterator[Finding]:
    """The state of the newest launch."""
    how, reason, step, seen = state_of(run)
    because = f": {reason}" if reason else ""
    least = f"at least step {step:,} ({seen})" if seen else f"step {step:,}"
    after = f" after {least}" if step else " before its first record"
    go_on = "; the same command continues it from its newest checkpoint"
    match how:
        case "failed":
            yield Finding("bad", f"The run failed{after}{because}", "machine")
        case "killed":
            yield Finding(
                "bad", f"The run was killed{after}: it recorded no end, and nobody trains here{go_on}", "cost"
            )
        case "stopped":
            yield Finding("warn", f"The run was stopped{after}{because}{go_on}", "cost")
        case "not known":
            where = "its lock is held on another computer, or names no process"
            yield Finding("warn", f"The run has not ended, as far as its files say{after}; {where}", "cost")
        case "training":
            yield Finding("", f"The run seems to be training now: {step:,} steps so far", "curves")
        case "finished":
            yield Finding("good", f"The run finished{after}", "cost")


def of_launches(run: RunFiles) -> Iterator[Finding]:
    """What was another when a launch continued the run, and code that no commit has."""
    for number, launch in enumerate(run.launches, 1):
        for name, what in mapping(launch.get("accepted")).items():
            yield Finding("warn", f"Launch {number} continued although this had changed: {name} ({what})", "cost")
        changed = launch.get("changed")
        if isinstance(changed, list) and changed:
            more = f" and {len(changed) - KEYS} more" if len(changed) > KEYS else ""
            keys = ", ".join(map(str, changed[:KEYS])) + more
            yield Finding("", f"Launch {number} continued with another recipe; these keys had changed: {keys}", "asked")
    if any(str(launch.get("git_revision")).endswith("-dirty") for launch in run.launches):
        yield Finding(
            "",
            "The code had changes that are in no commit, so its git revision alone does not repeat the run",
            "machine",
        )


def of_files(run: RunFiles) -> Iterator[Finding]:
    """Damaged files. Call it last: reading what others show may find more of them."""
    for sentence in run.unreadable:
        yield Finding("warn", sentence)
    if damaged := run.metrics.damaged:
        of = run.metrics.records + damaged
        # a launch that is killed while it writes leaves one, and so does one that writes just now
        finished = state_of(run).how == "finished"
        tone, why = ("warn", "") if damaged > 1 or finished else ("", "; a launch that is killed leaves one")
        yield Finding(
            "warn" if tone else "", f"{damaged:,} of {of:,} lines of metrics.jsonl are no records{why}", "curves"
        )
