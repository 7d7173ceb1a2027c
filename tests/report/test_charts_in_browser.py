"""What a person does with the charts of a page, in a real browser."""

import dataclasses
import json

from olmoe_ft.report.page.render.blocks import Curves, Series
from support.browser import open_page, undrawn
from support.report_pages import curves, heat_maps, one_section, two_histograms

from olmoe_ft.report.page.numbers import number


def test_values_under_the_pointer(tmp_path, browser):
    """Pointing at the middle of x = 0..10 shows what is at 5; the other chart of the section shows its own there."""
    x = list(range(11))
    one, two = (Curves(name, [Series("a", x, [factor * i for i in x])]) for name, factor in (("One", 1), ("Two", 100)))
    with open_page(browser, one_section(tmp_path, one, two)) as page:
        values = page.locator(".series b")
        assert values.all_text_contents() == ["10", "1,000"]  # the last ones
        page.locator(".u-over").first.hover()
        assert values.all_text_contents() == ["5", "500"]
        assert page.locator("#part .reading").all_text_contents() == ["step 5", "step 5"]


def test_values_by_the_keyboard(tmp_path, browser):
    gaps = Series("a", [0, 1, 2, 3], [1.5, None, 2.5, 3.5])
    points = Series("b", [2], [7], points=True, errors=[0.5])
    with open_page(browser, one_section(tmp_path, Curves("One", [gaps, points]))) as page:
        page.locator(".plot").focus()
        read = []
        for key in ("ArrowRight", "ArrowRight", "ArrowRight", "End", "ArrowLeft"):
            page.keyboard.press(key)
            read.append(page.locator("#part figure .reading").text_content())
        assert read[:3] == ["step 0: a 1.5, b –", "step 1: a –, b –", "step 2: a 2.5, b 7"]
        assert read[3:] == ["step 3: a 3.5, b –", "step 2: a 2.5, b 7"]
        assert page.locator(".series .about").all_text_contents() == ["", "± 0.5"]
        assert page.locator("#part figure .reading").get_attribute("aria-live") == "polite"


def test_zoom_by_drag_for_all_charts_of_a_section(tmp_path, browser):
    x = list(range(101))
    one, two = (Curves(name, [Series("a", x, x)]) for name in ("One", "Two"))
    with open_page(browser, one_section(tmp_path, one, two)) as page:
        reset = page.get_by_role("button", name="Reset zoom")
        assert reset.count() == 0
        box = page.locator(".u-over").first.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 60, steps=4)
        page.mouse.up()
        assert reset.count() == 2
        page.locator(".plot").first.focus()
        page.keyboard.press("Home")  # the leftmost that is shown
        shown = int(page.locator("#part .reading").first.text_content().split()[1].rstrip(":"))
        assert 24 <= shown <= 26
        reset.first.click()
        page.locator(".u-over").nth(1).dblclick()
        assert reset.count() == 0


def test_smoothing_as_in_tensorboard(tmp_path, browser):
    """Of 1, 2, 3 with weight 0.5: averages from 0 are 0.5, 1.25, 2.125; over 1 - 0.5^3 = 0.875 the last is 2.42857.

    Values of few records are not smoothed until asked. A planned line never is.
    """
    block = Curves("One", [Series("a", [1, 2, 3], [1, 2, 3]), Series("plan", [1, 3], [9, 9], dashed=True)])
    with open_page(
        browser, one_section(tmp_path, block, Curves("Rate", [Series("r", [1, 2], [1, 2])], smooth=False))
    ) as page:
        about = page.locator(".series .about")
        assert about.all_text_contents() == ["", "", ""]
        page.get_by_label("Smoothing").fill("0.5")
        page.wait_for_timeout(100)
        assert about.all_text_contents() == ["≈ 2.429", "", ""]
        assert page.locator(".series b").all_text_contents() == ["3", "9", "2"]


def test_a_series_can_be_hidden_and_the_scale_be_logarithmic(tmp_path, browser):
    with open_page(browser, one_section(tmp_path, *curves())) as page:
        log = page.get_by_role("button", name="Log")
        pressed = [one.get_attribute("aria-pressed") for one in log.all()]
        assert pressed == ["false", "false", "true", "false", "false", "false", "false"]
        assert [one.is_disabled() for one in log.all()] == [False] * 4 + [True, True, False]  # no value above 0
        log.first.click()
        assert log.first.get_attribute("aria-pressed") == "true"
        series = page.locator(".series").first
        series.click()
        assert series.get_attribute("aria-pressed") == "false"
        assert series.locator("b").text_content() == "–"
        assert undrawn(page) == [] and page.problems == []


def test_series_of_a_group_have_one_colour(tmp_path, browser):
    with open_page(browser, one_section(tmp_path, curves()[-1])) as page:
        colours = page.locator(".swatch").evaluate_all(
            "(all) => all.map((one) => getComputedStyle(one).borderTopColor)"
        )
        assert colours[0] != colours[1] == colours[2]
        names = [text.split("–")[0] for text in page.locator(".series").all_text_contents()]
        assert [name.split(":")[0] for name in names] == ["first", "second", "second"]


def test_bins_are_read_out(tmp_path, browser):
    with open_page(browser, one_section(tmp_path, two_histograms())) as page:
        page.locator(".plot").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.locator(".reading").last.text_content() == "1 – 2 : chosen 1, rejected 8"
        box = page.locator(".plot").bounding_box()
        page.mouse.move(box["x"] + box["width"] - 12, box["y"] + 90)
        assert page.locator(".reading").last.text_content() == "9 – 10 : chosen 9, rejected 0"


def test_a_heat_map_is_chosen_and_read(tmp_path, browser):
    """gsm8k has an "after" alone, so another kind cannot be chosen for it."""
    with open_page(browser, one_section(tmp_path, heat_maps(2, 3)), 360) as page:
        subject, kind = page.locator("select").all()
        page.locator("canvas").focus()
        for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
            page.keyboard.press(key)
        reading = page.locator("#part .reading")
        block = heat_maps(2, 3)
        before, after = block.maps[0].values[1][1], block.maps[1].values[1][1]
        assert reading.text_content() == f"layer 1, expert 1: {before:.3g} x the balanced load"
        kind.select_option("difference")
        assert reading.text_content() == f"layer 1, expert 1: {after - before:+.3g} x the balanced load"
        subject.select_option("gsm8k")
        assert kind.input_value() == "after"
        assert page.locator("select").nth(1).locator("option:disabled").all_text_contents() == ["before", "difference"]
        assert reading.text_content() == f"layer 1, expert 1: {after:.3g} x the balanced load"


def test_an_even_share_is_the_middle_of_the_colours(tmp_path, browser):
    """Idle is blue, busy red, an even share neutral: its red, green and blue differ by less than 12."""
    block = heat_maps(1, 3)
    block = dataclasses.replace(block, maps=[dataclasses.replace(block.maps[0], values=[[0.0, 1.0, 8.0]])])
    for scheme in ("light", "dark"):
        with open_page(browser, one_section(tmp_path, block), 768, scheme) as page:
            cells = page.evaluate("""() => [15, 45, 75].map((x) => {
                const canvas = document.querySelector("canvas");
                const ratio = canvas.width / canvas.clientWidth;
                return [...canvas.getContext("2d").getImageData(x * ratio, 6 * ratio, 1, 1).data];
            })""")
            idle, even, busy = cells
            assert idle[2] > idle[0] + 60 and busy[0] > busy[2] + 60
            assert max(even[:3]) - min(even[:3]) < 12


def test_numbers_are_written_alike_in_both_languages(tmp_path, browser):
    """What a chart shows is what its table says."""
    values = [0, 1, -2, 999.5, 1234, 1234.5, 12345.6, 0.123456, 0.001, 1e-4, 9.99e-5, 3e-12, 1.5e9, 2e15, -0.5, 7.0]
    with open_page(browser, one_section(tmp_path, *curves()[:1])) as page:
        for digits in (3, 4, 5, 12):
            written = page.evaluate(f"(values) => values.map((value) => formatNumber(value, {digits}))", values)
            assert written == [number(value, digits) for value in values], json.dumps(written)
