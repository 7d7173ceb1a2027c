"""What a chart carries to the browser and what it says without one."""

import math

import pytest

from olmoe_ft.report.page.blocks import Curves, HeatMap, HeatMaps, Histogram, Prose, Series
from olmoe_ft.report.page.charts import TABLE_ROWS, chart_of
from olmoe_ft.report.page.numbers import number, rounded


def test_a_number_for_people():
    """Four significant digits, thousands apart, whole numbers whole, powers of ten only where it is huge or tiny."""
    written = {
        0: "0",
        0.1234567: "0.1235",
        1300: "1,300",
        2149839.0: "2,149,839",
        15147.555: "15,148",
        1.5: "1.5",
        -0.25: "-0.25",
        999.96: "1,000",
        3.1583e-9: "3.158e-9",
        0.0001: "0.0001",
        2.4e16: "2.400e+16",
        None: "–",
        math.nan: "–",
        -math.inf: "–",
    }
    assert {value: number(value) for value in written} == written


def test_numbers_for_the_browser():
    """Whole ones as integers, which are shorter; what is not finite has no place in JSON."""
    assert rounded([1.0, 0.123456789, math.nan, math.inf, None, -2], 3) == [1, 0.123, None, None, None, -2]


def test_series_of_the_same_steps_share_them():
    block = Curves("c", [Series("a", [1, 2], [0.5, math.nan]), Series("b", [1.0, 2.0], [3, 4]), Series("c", [1], [5])])
    data = chart_of(block).data
    assert data["axes"] == [[1, 2], [1]]
    assert [(one["x"], one["y"]) for one in data["series"]] == [(0, [0.5, None]), (0, [3, 4]), (1, [5])]


def test_what_curves_say():
    points = Series("held out", [2], [1.25], points=True)
    block = Curves("Loss", [Series("train", [1, 2, 3, 4], [4, math.nan, 0.5, 1]), points, Series("none", [1], [None])])
    assert chart_of(block).label == (
        "Line chart: Loss, over step. train: first 4 at 1, last 1 at 4, lowest 0.5, highest 4. "
        "held out: 1.25 at 2. none: no values."
    )


def test_a_short_table_has_every_step():
    """A line's newest value until there, as long as it lasts; points only where they are; a dashed line to the end."""
    block = Curves(
        "c",
        [
            Series("line", [1, 3], [0.5, None]),
            Series("points", [2], [7], points=True),
            Series("plan", [1, 2], [9, 9], dashed=True),
            Series("longer", [1, 4], [1, 2]),
        ],
        x_name="token",
    )
    chart = chart_of(block)
    assert chart.columns == ["token", "line", "points", "plan", "longer"]
    assert chart.rows == [
        ["1", "0.5", "–", "9", "1"],
        ["2", "0.5", "7", "9", "1"],
        ["3", "–", "–", "9", "1"],
        ["4", "–", "–", "9", "2"],
    ]


@pytest.mark.parametrize("evaluations", [0, 3, 200])
def test_a_long_table_is_thinned(evaluations):
    """The first and the last step are in it, and evaluations as long as there are few."""
    places = [7 + 13 * number for number in range(evaluations)]
    points = Series("held out", places, [1.0] * evaluations, points=True)
    chart = chart_of(Curves("c", [Series("a", list(range(5000)), list(range(5000))), points]))
    steps = [int(row[0].replace(",", "")) for row in chart.rows]
    assert TABLE_ROWS - 2 <= len(steps) <= TABLE_ROWS and steps == sorted(set(steps))
    assert steps[0] == 0 and steps[-1] == 4999
    assert sum(row[2] != "–" for row in chart.rows) >= min(evaluations, TABLE_ROWS // 2)
    assert all(row[0] == row[1] for row in chart.rows)


def test_what_a_histogram_says():
    block = Histogram("Lengths", [0, 10, 20, math.inf], {"rows": [5, 1, 0], "cut": [0, 0, 0]}, "tokens", {"limit": 20})
    chart = chart_of(block)
    assert chart.label == (
        "Histogram: Lengths. rows: 6 in all, most of them, 5, from 0 to 10 tokens. cut: none. limit: 20 tokens."
    )
    assert chart.data["edges"] == [0, 10, 20, None]
    assert chart.columns == ["tokens", "rows", "cut"]
    assert chart.rows == [["0 – 10", "5", "0"], ["10 – 20", "1", "0"], ["20 – ∞", "0", "0"]]


def test_a_long_histogram_leaves_out_empty_bins():
    counts = [3] + [0] * 98 + [4]
    chart = chart_of(Histogram("h", list(range(101)), {"a": counts}))
    assert chart.rows == [["0 – 1", "3"], ["99 – 100", "4"]]


def test_what_heat_maps_say():
    """Of the maps of the first subject, which are those that are shown first."""
    maps = [HeatMap("all", "before", [[0.5, 1.23456], [math.nan, 0.25]]), HeatMap("all", "after", [[math.nan]])]
    maps = HeatMaps("Load", [*maps, HeatMap("gsm8k", "after", [[2.0]])])
    chart = chart_of(maps)
    assert chart.label == (
        "Heat map: Load, a layer a row, an expert a column. all, before: lowest 0.25 at layer 1, expert 1; "
        "highest 1.235 at layer 0, expert 1. all, after: no values."
    )
    assert chart.data["maps"][0]["values"] == [[0.5, 1.23], [None, 0.25]]
    assert chart_of(HeatMaps("none", [])).label == "Heat map: none, a layer a row, an expert a column."


def test_other_blocks_are_no_charts():
    assert chart_of(Prose("a")) is None


@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("count", [50, 400])
def test_the_table_of_many_series_has_fewer_rows(count, points):
    """A thousand cells for fifty series are twenty rows; there are never fewer than four."""
    series = [Series(f"run {at}", range(100), [1.0] * 100, points=points) for at in range(count)]
    rows = chart_of(Curves("loss", series)).rows
    assert {50: 10, 400: 2}[count] <= len(rows) <= {50: 20, 400: 4}[count]
