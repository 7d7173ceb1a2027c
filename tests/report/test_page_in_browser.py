"""A page in a real browser: it works at every width, its texts are texts, and what a person does with it."""

import re

import pytest
from support.browser import all_problems, check_page, open_page, undrawn
from support.report_pages import HOSTILE, every_block, hostile_page, one_section

from olmoe_ft.data.terminal import printable
from olmoe_ft.report.page.blocks import Code, Column, Fold, Table
from olmoe_ft.report.page.render import write_page
from olmoe_ft.report.private.private import private_here

VISIBLE_TEXTS = """() => {
    const copy = document.body.cloneNode(true);
    copy.querySelectorAll("script").forEach((one) => one.remove());
    return copy.textContent;
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Files by name."""
    folder = tmp_path_factory.mktemp("pages")
    for name, page in (("every_block", every_block()), ("hostile", hostile_page())):
        write_page(page, folder / f"{name}.html", private_here([]))
    return folder


def test_a_page_works_at_every_width_in_both_schemes(pages, browser):
    check_page(pages / "every_block.html", browser)


def test_a_page_of_hostile_texts_works_too(pages, browser):
    """It is as long as 60 screens, so not every combination: what texts do depends on the width alone."""
    check_page(pages / "hostile.html", browser, widths=(360, 1440), schemes=("light",))


def test_hostile_texts_are_texts(pages, browser):
    """Every one is on the page as it was written, and nothing of it became an element or ran."""
    with open_page(browser, pages / "hostile.html") as page:
        assert undrawn(page) == []
        shown = page.evaluate(VISIBLE_TEXTS)
        for text in HOSTILE:
            assert shown.count(printable(text)) > 50, text
        assert page.evaluate("() => window.pwned") is None
        assert page.evaluate("() => document.querySelectorAll('img, iframe, base, textarea, [onload]').length") == 0
        assert page.evaluate("() => document.querySelectorAll('main script:not([type])').length") == 0
        here = f"{pages.as_uri()}/"  # a link of a cell leads to a file beside the page, whatever its text
        assert all(one.startswith(here) for one in page.evaluate("() => [...document.links].map((one) => one.href)"))
        assert not re.search("[\u0000-\u0008\u202e\u2028\u200b]", shown)


def test_what_is_wrong_is_found(tmp_path, browser):
    """A page with one fault of each kind that `check_page` looks for."""
    file = tmp_path / "bad.html"
    file.write_text(
        "<!doctype html><html lang=en><title>t</title><main><h1>h</h1><figure class=chart>chart</figure>"
        "<div style='width: 2000px; height: 9px'></div><p style='color: #ccc; background: white'>pale</p>"
        "<button onfocus='this.blur()' style='display: block' inert>b</button>"
        "<img alt='' src='https://example.invalid/x.png'><script>nothing()</script></main>"
    )
    with open_page(browser, file) as page:
        found = "\n".join(all_problems(page))
    for what in ("not drawn", "wider than", "not reached", "axe: color-contrast", "request: https", "error: nothing"):
        assert what in found


def test_the_scheme_can_be_changed(pages, browser):
    with open_page(browser, pages / "every_block.html", 1440, "dark") as page:
        background = "() => getComputedStyle(document.documentElement).backgroundColor"
        assert page.evaluate(background) == "rgb(21, 23, 26)"
        page.get_by_role("button", name="Light").click()
        assert page.evaluate(background) == "rgb(251, 250, 247)"
        assert undrawn(page) == []
        page.get_by_role("button", name="Dark").click()
        assert page.evaluate(background) == "rgb(21, 23, 26)"


def test_contents_are_beside_the_page_or_folded_above_it(pages, browser):
    with open_page(browser, pages / "every_block.html", 1440) as page:
        page.get_by_role("link", name="Data", exact=True).click()
        page.wait_for_timeout(100)
        assert page.locator("[aria-current]").all_text_contents() == ["Data"]
    with open_page(browser, pages / "every_block.html", 360) as page:
        link = page.locator(".contents").get_by_role("link", name="Experts")
        assert not link.is_visible()
        page.get_by_text("Contents", exact=True).click()
        link.click()
        assert not link.is_visible()
        assert page.locator("#experts h2").bounding_box()["y"] < 200


def test_long_texts_are_cut_until_asked(pages, browser):
    with open_page(browser, pages / "every_block.html") as page:
        answer = page.locator(".said.cut")
        assert answer.count() == 1 and answer.bounding_box()["height"] < 250
        page.get_by_role("button", name="Show all").click()
        assert page.locator(".said.cut").count() == 0


def test_a_text_is_copied_or_selected(tmp_path, browser):
    text = 'line 1\n  line <2> & "3"'
    with open_page(
        browser, one_section(tmp_path, Code("Command", text)), permissions=["clipboard-read", "clipboard-write"]
    ) as page:
        page.get_by_role("button", name="Copy").click()
        page.get_by_role("button", name="Copied").wait_for()
        assert page.evaluate("() => navigator.clipboard.readText()") == text
        page.reload()
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed')); }")
        page.get_by_role("button", name="Copy").click()
        page.get_by_role("button", name="Selected").wait_for()
        assert page.evaluate("() => getSelection().toString()") == text


def test_on_paper_all_is_light_and_open(pages, browser):
    with open_page(browser, pages / "every_block.html", 1440, "dark") as page:
        page.evaluate("() => document.querySelectorAll('.fold').forEach((fold) => { fold.open = false; })")
        page.evaluate("""() => addEventListener("beforeprint", () => { window.seen = {
            open: [...document.querySelectorAll(".fold")].every((fold) => fold.open),
            scheme: getComputedStyle(document.documentElement).colorScheme,
            widest: Math.max(...[...document.querySelectorAll(".uplot")].map((one) => one.clientWidth)) }; })""")
        page.pdf(format="A4")
        assert page.evaluate("() => window.seen") == {"open": True, "scheme": "light", "widest": 670}
        page.wait_for_timeout(100)
        assert page.evaluate("() => getComputedStyle(document.documentElement).colorScheme") == "light dark"
        assert page.locator(".fold[open]").count() == 0
        assert page.problems == []


def test_no_table_is_cut_off_on_paper(tmp_path, browser):
    """A4 without its margins is 688 pixels wide. Forty columns of numbers become smaller, a long text is broken."""
    columns = [Column("run"), *(Column(f"column {number}", number=True) for number in range(40))]
    wide = Table("Wide", columns, [["a", *["123,456.7"] * 40]])
    text = Table("Text", [Column("key"), Column("value")], [["evaluation.every_steps", "word " * 50]])
    with open_page(browser, one_section(tmp_path, wide, text, Fold("More", [wide])), 688) as page:
        page.emulate_media(media="print")
        page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
        widths = [one.bounding_box()["width"] for one in page.locator(".scroll table").all()]
        assert 600 < max(widths) <= 688 and page.evaluate("() => document.scrollingElement.scrollWidth") == 688
        page.evaluate("() => dispatchEvent(new Event('afterprint'))")
        page.emulate_media(media="screen")
        assert page.locator("table").first.bounding_box()["width"] > 2000


def test_where_a_line_may_break(tmp_path, browser):
    """After dots, underscores and slashes within names: not in a number, a version, "e.g." or before a space."""
    written = {
        "evaluation.every_steps": "evaluation.<wbr>every_<wbr>steps",
        "data/skills/a_b.jsonl": "data/<wbr>skills/<wbr>a_b.<wbr>jsonl",
        "<b>one.two</b> & 3": "&lt;b&gt;one.<wbr>two&lt;/b&gt; &amp; 3",
        **{text: text for text in ("0.1277 of 3/4", "torch 2.13.0", "e.g. this", "it ended. Then", "self._x", "a/b")},
    }
    table = Table("", [Column("key")], [[key] for key in written])
    with open_page(browser, one_section(tmp_path, table)) as page:
        cells = page.locator("tbody th")
        assert cells.evaluate_all("(all) => all.map((one) => one.innerHTML.trim())") == [*written.values()]
        assert [text.strip() for text in cells.all_text_contents()] == [*written]


def test_long_keys_break_between_their_words_on_a_phone(tmp_path, browser):
    """Each line of the first column is as long as a word of it, or some: no word is cut."""
    key = "training.per_device_train_batch_size"
    table = Table("", [Column("key"), Column("value")], [[key, "a value that takes some room, as they do " * 3]])
    with open_page(browser, one_section(tmp_path, table), 360) as page:
        lines = page.locator("tbody th").inner_text().split("\n")
        tops = page.evaluate("""() => {
            const range = document.createRange();
            const parts = [...document.querySelector("tbody th").childNodes].filter((one) => one.nodeType === 3);
            return parts.map((part) => { range.selectNodeContents(part); return range.getClientRects().length; });
        }""")
        assert "".join(lines) == key and set(tops) == {1}
        assert page.locator("tbody th").bounding_box()["height"] > 40  # it was broken


def test_without_javascript_texts_and_tables_are_there(pages, browser):
    with open_page(browser, pages / "every_block.html", java_script_enabled=False) as page:
        assert "Charts need JavaScript" in page.locator("noscript").text_content()
        assert page.locator("figure").first.locator("tbody tr").count() > 40
        assert page.locator(".said").first.text_content() == "2 + 2 ="
        assert page.locator("button:visible").count() == 0
