"""What a chart needs in the browser, and what it says to those who do not see it: a sentence and a table."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from olmoe_ft.report.page.blocks import Block, Curves, HeatMap, HeatMaps, Histogram, Series
from olmoe_ft.report.page.numbers import number, rounded

TABLE_ROWS, TABLE_CELLS = 50, 1_000  # of a chart's table, at most; a table of fifty runs has fewer rows
DIGITS = 6
"""Significant digits of a value of a curve: as many as people compare."""
X_DIGITS = 15
DESCRIBED = 12  # maps: as many as are shown first


@dataclass(frozen=True)
class Chart:
    """A chart for the templates."""

    kind: str
    """Which script draws it: "curves", "histogram" or "heat-maps"."""
    data: dict[str, Any]
    """For JSON: no number in it that is not finite."""
    label: str
    """A sentence or two: what is to be seen."""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    """Its numbers as texts, under the columns; empty where a table would be of no help."""


def chart_of(block: Block) -> Chart | None:
    """The chart of a block; None of a block that is no chart."""
    match block:
        case Curves():
            return _curves(block)
        case Histogram():
            return _histogram(block)
        case HeatMaps():
            return _heat_maps(block)
    return None


def _curves(block: Curves) -> Chart:
    axes: list[list[float | int | None]] = []  # series often have the same x; it is written once
    series = []
    for one in block.series:
        x = rounded(one.x, X_DIGITS)
        if x not in axes:
            axes.append(x)
        series.append(
            {
                "name": one.name,
                "x": axes.index(x),
                "y": rounded(one.y, DIGITS),
                "points": one.points,
                "dashed": one.dashed,
                "errors": None if one.errors is None else rounded(one.errors, 3),
                "group": one.group,
            }
        )
    data = {"axes": axes, "series": series, "unit": block.unit, "xName": block.x_name}
    rows = _rows_of(block.series)
    return Chart(
        "curves",
        data | {"smooth": block.smooth, "log": block.log},
        " ".join([f"Line chart: {block.title}, over {block.x_name}.", *map(_about, block.series)]),
        [block.x_name, *(one.name for one in block.series)],
        rows,
    )


def _about(series: Series) -> str:
    """What a series does, in a sentence."""
    found = [(x, y) for x, y in zip(series.x, series.y, strict=False) if y is not None and math.isfinite(y)]
    if not found:
        return f"{series.name}: no values."
    values = [y for _, y in found]
    (first_x, first), (last_x, last) = found[0], found[-1]
    if len(found) == 1:
        return f"{series.name}: {number(first)} at {number(first_x)}."
    return (
        f"{series.name}: first {number(first)} at {number(first_x)}, last {number(last)} at {number(last_x)}, "
        f"lowest {number(min(values))}, highest {number(max(values))}."
    )


def _rows_of(all_series: Sequence[Series]) -> list[list[str]]:
    """Some values of x; of lines the newest value until there, of points only those exactly there."""
    most = min(TABLE_ROWS, max(4, TABLE_CELLS // max(1, len(all_series))))
    steps = sorted({x for one in all_series for x in one.x})
    exact = sorted({x for one in all_series if one.points for x in one.x})
    kept = set(_spread(exact, most // 2))
    kept |= set(_spread(steps, most - len(kept)))
    columns = []
    for one in all_series:
        values = dict(zip(one.x, one.y, strict=False))
        column, newest, place = [], None, 0
        for x in sorted(kept):
            while place < len(one.x) and one.x[place] <= x:
                newest = values.get(one.x[place])
                place += 1
            ended = not one.dashed and (not one.x or x > one.x[-1])
            column.append(number(values.get(x)) if one.points or ended else number(newest, 5))
        columns.append(column)
    return [[number(x, 12), *cells] for x, *cells in zip(sorted(kept), *columns, strict=True)]


def _spread(values: list[Any], most: int) -> list[Any]:
    """At most so many of the values, evenly chosen, the first and the last among them."""
    if len(values) <= most:
        return values
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def _histogram(block: Histogram) -> Chart:
    edges = rounded(block.edges, DIGITS)
    unit = f" {block.unit}" if block.unit else ""
    sentences = [f"Histogram: {block.title}."]
    for name, counts in block.counts.items():
        total = sum(counts)
        if total:
            most = max(range(len(counts)), key=lambda place: counts[place])
            between = f"{_edge(block.edges[most])} to {_edge(block.edges[most + 1])}{unit}"
            sentences.append(f"{name}: {number(total)} in all, most of them, {number(counts[most])}, from {between}.")
        else:
            sentences.append(f"{name}: none.")
    sentences += [f"{name}: {number(place)}{unit}." for name, place in block.marks.items()]
    rows = [
        [f"{_edge(start)} – {_edge(end)}", *(number(counts[place]) for counts in block.counts.values())]
        for place, (start, end) in enumerate(itertools.pairwise(block.edges))
    ]
    if len(rows) > TABLE_ROWS:  # empty ones say least
        rows = [row for row in rows if any(cell != "0" for cell in row[1:])]
    rows = _spread(rows, TABLE_ROWS)
    data = {
        "edges": edges,
        "counts": {name: [int(count) for count in counts] for name, counts in block.counts.items()},
        "unit": block.unit,
        "marks": dict(zip(block.marks, rounded(block.marks.values(), DIGITS), strict=True)),
    }
    return Chart("histogram", data, " ".join(sentences), [block.unit or "from – to", *block.counts], rows)


def _edge(value: float) -> str:
    return number(value) if math.isfinite(value) else "∞" if value > 0 else "-∞"


def _heat_maps(block: HeatMaps) -> Chart:
    maps = [
        {
            "subject": one.subject,
            "kind": one.kind,
            "difference": one.difference,
            "values": [rounded(row, 3) for row in one.values],
        }
        for one in block.maps
    ]
    data = {"maps": maps, "unit": block.unit, "rowName": block.row_name, "columnName": block.column_name}
    sentences = [f"Heat map: {block.title}, a {block.row_name} a row, an {block.column_name} a column."]
    shown = [one for one in block.maps if one.subject == block.maps[0].subject]
    sentences += [_extremes(block, one) for one in shown[:DESCRIBED]]
    return Chart("heat-maps", data, " ".join(sentences))


def _extremes(block: HeatMaps, shown: HeatMap) -> str:
    cells = [
        (float(value), row, column)
        for row, values in enumerate(shown.values)
        for column, value in enumerate(values)
        if value is not None and math.isfinite(value)
    ]
    if not cells:
        return f"{shown.subject}, {shown.kind}: no values."
    (low, *at_low), (high, *at_high) = min(cells), max(cells)
    return (
        f"{shown.subject}, {shown.kind}: lowest {number(low)} at {block.row_name} {at_low[0]}, "
        f"{block.column_name} {at_low[1]}; highest {number(high)} at {block.row_name} {at_high[0]}, "
        f"{block.column_name} {at_high[1]}."
    )
