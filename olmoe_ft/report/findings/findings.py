"""What a person should know of a run first: a list of sentences, the most serious on top."""

from collections.abc import Callable, Iterator

from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.findings.of_launches import of_ending, of_files, of_launches
from olmoe_ft.report.findings.of_results import of_data, of_scores
from olmoe_ft.report.findings.of_training import of_curves, of_memory, of_routers
from olmoe_ft.report.page.blocks import Finding, Tone

ORDER: tuple[Tone, ...] = ("bad", "warn", "", "good")
KINDS: tuple[Callable[[RunFiles], Iterator[Finding]], ...] = (
    of_ending,
    of_curves,
    of_routers,
    of_scores,
    of_data,
    of_memory,
    of_launches,
    of_files,  # last: the others note what they could not read
)


def findings(run: RunFiles) -> list[Finding]:
    """All of a run: what is bad first, then what is to be checked, what is worth knowing, and what went well."""
    found = [finding for kind in KINDS for finding in kind(run)]
    return sorted(found, key=lambda finding: ORDER.index(finding.tone))
