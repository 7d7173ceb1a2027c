"""Pages in a headless Chromium, the system's: does all of one work, at every width, in both schemes?"""

import functools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDTHS = (360, 768, 1440)
SCHEMES = ("light", "dark")
HEIGHT = 900
UNDRAWN = "() => [...document.querySelectorAll('figure.chart:not([data-drawn=yes])')].map((one) => one.textContent)"
AXE_RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")


def chromium() -> str | None:
    """The system's browser; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@contextmanager
def open_browser() -> Iterator[Any]:
    """A browser of playwright's, in which pages are opened one after the other."""
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
    """A file in the browser, in a context of its own, with all folds open.

    Args:
        how: of playwright's `new_context`, such as `java_script_enabled=False`.
    Returns:
        playwright's page; whatever goes wrong in it is in its `problems`.
    """
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


def check_page(file: Path, browser: Any = None) -> None:
    """A page works at every width in both schemes.

    Nothing fails, nothing is asked of a network, every chart is drawn, nothing hangs over, the keyboard comes to every
    control, and axe-core finds nothing against WCAG 2 A and AA.

    Args:
        file: the page.
        browser: the fixture of tests/report/conftest.py; None opens one for this page.
    """
    if browser is None:
        with open_browser() as opened:
            return check_page(file, opened)
    for width in WIDTHS:
        for scheme in SCHEMES:
            with open_page(browser, file, width, scheme) as page:
                found = all_problems(page, keyboard=scheme == "light")  # it is the same in both
            assert not found, f"{file.name} at {width} px, {scheme}: " + "\n".join(found)


def all_problems(page: Any, keyboard: bool = True) -> list[str]:
    """What is wrong with an open page; empty where nothing is."""
    charts = [f"not drawn: {text[:200]}" for text in undrawn(page)]
    hanging = [f"wider than the window: {one}" for one in overhanging(page)]
    missed = [f"not reached by keyboard: {one}" for one in unreached(page)] if keyboard else []
    return [*charts, *hanging, *missed, *axe_violations(page), *page.problems]


def undrawn(page: Any) -> list[str]:
    """The charts that have not drawn after three seconds."""
    for _ in range(30):
        if not (found := page.evaluate(UNDRAWN)):
            return []
        page.wait_for_timeout(100)
    return found


def overhanging(page: Any) -> list[str]:
    """What makes the page wider than the window; empty where it fits."""
    return page.evaluate("""() => {
        const room = document.documentElement.clientWidth;
        if (document.scrollingElement.scrollWidth <= room) return [];
        const boxed = (one) => one !== document.body && (getComputedStyle(one).overflowX !== "visible"
            || boxed(one.parentElement));
        const all = [...document.querySelectorAll("body *")]
            .filter((one) => one.getBoundingClientRect().right > room && !boxed(one.parentElement));
        return all.map((one) => `${one.tagName}.${one.className}: ${one.getBoundingClientRect().right}`).slice(0, 9);
    }""")


def unreached(page: Any) -> list[str]:
    """Controls that the tab key does not come to."""
    count = page.evaluate("""() => {
        document.activeElement.blur();
        const all = "a[href], button:not([disabled]), select, input, summary, [tabindex='0']";
        window.wanted = new Set([...document.querySelectorAll(all)].filter((one) => one.checkVisibility()));
        addEventListener("focusin", (event) => window.wanted.delete(event.target), true);
        return window.wanted.size;
    }""")
    for _ in range(count + 2):
        page.keyboard.press("Tab")
    return page.evaluate("() => [...window.wanted].map((one) => one.outerHTML.slice(0, 200))")


def axe_violations(page: Any) -> list[str]:
    """What axe-core finds against WCAG 2, levels A and AA."""
    page.evaluate(_axe())
    found = page.evaluate("(rules) => axe.run({runOnly: rules, resultTypes: ['violations']})", list(AXE_RULES))
    return [
        f"axe: {rule['id']}: {node['html'][:200]}: {node['failureSummary'][:300]}"
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
        undrawn(page)
        page.evaluate("() => document.querySelectorAll('details.fold').forEach((fold) => { fold.open = false; })")
        page.screenshot(path=to, full_page=full)


@functools.cache
def _axe() -> str:
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
