"""Pages in a headless Chromium, the system's: does all of one work, at every width, in both schemes?"""

import functools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (360, 768, 1440)
SCHEMES = ("light", "dark")
HEIGHT = 900
DRAWN = "() => document.querySelectorAll('figure.chart:not([data-drawn=yes])').length === 0"


def chromium() -> str | None:
    """The system's browser; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


needs_browser = pytest.mark.skipif(chromium() is None, reason="needs a browser: chromium or google-chrome")


@contextmanager
def open_browser() -> Iterator[Any]:
    """A browser of playwright's; each page of it is in a context of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Any, file: Path, width: int = 1440, scheme: str = "light", **how: Any) -> Iterator[Any]:
    """A file in the browser with all folds open and all charts drawn; whatever went wrong is in `page.problems`."""
    context = browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme, **how)
    page = context.new_page()
    page.problems = []
    page.on("console", lambda said: said.type in ("error", "warning") and page.problems.append(f"console: {said.text}"))
    page.on("pageerror", lambda error: page.problems.append(f"error: {error}"))
    page.on("request", lambda asked: asked.url != file.as_uri() and page.problems.append(f"request: {asked.url[:200]}"))
    try:
        page.goto(file.as_uri())
        page.evaluate("() => document.querySelectorAll('details.fold').forEach((fold) => { fold.open = true; })")
        yield page
    finally:
        context.close()


def check_page(browser: Any, file: Path, width: int, scheme: str) -> None:
    """Nothing fails, nothing is asked of a network, every chart is drawn, nothing hangs over, axe-core agrees."""
    with open_page(browser, file, width, scheme) as page:
        wait_for_charts(page)
        assert page.problems == []
        assert overhanging(page) == []
        assert unreached(page) == []
        assert axe_violations(page) == []
        assert page.problems == []


def wait_for_charts(page: Any) -> None:
    """Wait until every chart has drawn; after ten seconds those that have not are an error."""
    page.wait_for_function(DRAWN, timeout=10_000)


def overhanging(page: Any) -> list[str]:
    """What makes the page wider than the window; empty where it fits."""
    return page.evaluate("""() => {
        if (document.scrollingElement.scrollWidth <= innerWidth) return [];
        return [...document.querySelectorAll("body *")]
            .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
            .map((one) => `${one.tagName}.${one.className}: ${one.getBoundingClientRect().right}`).slice(0, 10);
    }""")


def unreached(page: Any) -> list[str]:
    """Controls that the tab key does not come to."""
    page.evaluate("() => { document.activeElement.blur(); window.reached = new Set(); }")
    wanted = page.evaluate("""() => {
        const all = "a[href], button:not([disabled]), select, input, summary, [tabindex='0']";
        window.wanted = [...document.querySelectorAll(all)].filter((one) => one.checkVisibility());
        addEventListener("focusin", (event) => window.reached.add(event.target), true);
        return window.wanted.length;
    }""")
    for _ in range(wanted + 2):
        page.keyboard.press("Tab")
    return page.evaluate("""() => window.wanted.filter((one) => !window.reached.has(one))
        .map((one) => one.outerHTML.slice(0, 200))""")


def axe_violations(page: Any) -> list[str]:
    """What axe-core finds against WCAG 2, levels A and AA."""
    page.evaluate(_axe())
    found = page.evaluate("() => axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})")
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for rule in found["violations"]
        for node in rule["nodes"][:3]
    ]


def screenshot(file: Path, to: Path, width: int = 1440, scheme: str = "light", full: bool = True) -> None:
    """A picture of a page.

    Args:
        file: the page.
        to: a PNG.
        full: all of its length; else as much as a window shows.
    """
    with open_browser() as browser, open_page(browser, file, width, scheme, device_scale_factor=2) as page:
        wait_for_charts(page)
        page.screenshot(path=to, full_page=full)


@functools.cache
def _axe() -> str:
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
