"""The page of one run: its sections in order, and above them what matters most."""

from dataclasses import replace
from datetime import datetime

from olmoe_ft import __version__
from olmoe_ft.report.files.run_files import RunFiles
from olmoe_ft.report.files.state import How, state_of
from olmoe_ft.report.findings.findings import findings
from olmoe_ft.report.page.blocks import Cell, Page, Tone
from olmoe_ft.report.page.numbers import WITHOUT_WARNINGS
from olmoe_ft.report.sections.answers import samples
from olmoe_ft.report.sections.asked import asked
from olmoe_ft.report.sections.cost import cost
from olmoe_ft.report.sections.curves import curves
from olmoe_ft.report.sections.data import data
from olmoe_ft.report.sections.experts import experts
from olmoe_ft.report.sections.machine import machine
from olmoe_ft.report.sections.planned import planned
from olmoe_ft.report.sections.scores import scores
from olmoe_ft.report.tiles import tiles

SECTIONS = (asked, data, curves, experts, scores, samples, planned, cost, machine)
TONES: dict[How, Tone] = {"finished": "good", "failed": "bad", "killed": "bad", "stopped": "warn"}


@WITHOUT_WARNINGS
def run_page(run: RunFiles) -> Page:
    """The page of a run, as far as its files go."""
    sections = [found for section in SECTIONS if (found := section(run)) is not None]
    shown = {section.id for section in sections}
    state = state_of(run)
    return Page(
        title=run.name,
        kind=f"{run.stage} run".strip(),
        status=Cell(state.how, f"{'at least ' if state.seen else ''}{state.step:,} steps", TONES.get(state.how, "")),
        tiles=tiles(run),
        findings=[one if one.section in shown else replace(one, section="") for one in findings(run)],
        sections=sections,
        foot=foot(),
    )


def foot() -> str:
    """Who wrote a page, and when."""
    return f"Written by olmoe-ft {__version__}, {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}."
