"""The page of several runs and that of a pipeline in a real browser, with hostile names and answers."""

import pytest
from support.browser import check_page, open_page, undrawn
from support.evaluations import sample
from support.side_by_side import RECIPE, asked, run_of, write_probe

from olmoe_ft.report.comparison.comparison import comparison
from olmoe_ft.report.files.run_files import read_run
from olmoe_ft.report.page.render import write_page
from olmoe_ft.report.pipeline_page import pipeline_page
from olmoe_ft.report.private.private import private_here

HOSTILE = "</script><img src=x onerror='window.pwned=1'>{{7*7}}\x1b[2J"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Three runs, one of a hostile name; then two of them as the stages of a pipeline."""
    folder = tmp_path_factory.mktemp("compared")
    names = ("sft", "dpo", "<b>x")
    for number, name in enumerate(names):
        recipe = {**RECIPE, "name": f"p/{name}", "training": {"learning_rate": 10.0**-number, "run_name": HOSTILE}}
        samples = [sample(at, right=at % 3 != number, output=HOSTILE) for at in range(30)]
        losses = [3.0 / (step + number + 1) for step in range(60)]
        entropy = {"router__entropy": losses}
        run_of(folder / "p" / name, losses, recipe, evaluations=[asked(samples)], **(entropy if number else {}))
        write_probe(folder / "p" / name, [0, 1, 2, 3], [number, 1, 2, 3])
        (folder / "p" / name / "report.html").touch()  # a stage without a page is not linked
    runs = [folder / "p" / name for name in names]
    files = {"comparison": folder / "compare.html", "pipeline": folder / "pipeline.html"}
    write_page(comparison([read_run(run) for run in runs], "loss"), files["comparison"], private_here(runs))
    write_page(pipeline_page(folder / "p"), files["pipeline"], private_here(runs))
    return files


@pytest.mark.parametrize("kind", ["comparison", "pipeline"])
def test_a_page_works_at_every_width_in_both_schemes(browser, pages, kind):
    check_page(pages[kind], browser)


def test_texts_are_texts(browser, pages):
    with open_page(browser, pages["comparison"]) as page:
        assert undrawn(page) == []
        assert page.evaluate("() => window.pwned") is None
        assert HOSTILE.replace("\x1b", "\\x1b") in page.evaluate("() => document.querySelector('main').textContent")


def test_a_stage_is_linked(browser, pages):
    with open_page(browser, pages["pipeline"]) as page:
        links = page.evaluate(
            "() => [...document.querySelectorAll('#stages a')].map((one) => one.getAttribute('href'))"
        )
        assert links == ["#stages", "./sft/report.html", "./dpo/report.html", "./%3Cb%3Ex/report.html"]


def test_a_run_has_one_colour_in_all_charts(browser, pages):
    """The first run has no entropy, so that the second is the first line of that chart."""
    with open_page(browser, pages["comparison"]) as page:
        assert undrawn(page) == []
        colours = page.evaluate("""() => {
            const found = {};
            for (const swatch of document.querySelectorAll("#curves .swatch")) {
                const name = swatch.nextSibling.textContent;
                (found[name] ||= new Set()).add(swatch.style.borderColor);
            }
            return Object.entries(found).map(([name, seen]) => [name, [...seen]]);
        }""")
    assert len(colours) == 3 and all(len(seen) == 1 for _, seen in colours), colours
    assert len({seen[0] for _, seen in colours}) == 3
