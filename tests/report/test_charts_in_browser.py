"""What a person does with the charts of a page, in a real browser."""

import dataclasses
import json

from support.browser import open_page, undrawn
from support.report_pages import curves, heat_maps, one_section, two_histograms

from olmoe_ft.report.page.blocks import Curves, HeatMap, HeatMaps, Series
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


def test_a_cell_is_read_in_all_maps_of_a_subject(tmp_path, browser):
    """gsm8k has an "after" alone."""
    block = heat_maps(2, 3)
    before, after = block.maps[0].values[1][1], block.maps[1].values[1][1]
    with open_page(browser, one_section(tmp_path, block), 360) as page:
        assert page.locator(".panel p").all_text_contents() == ["before ", "after ", "difference "]
        assert page.locator(".plot").get_attribute("aria-label").count("lowest") == 3
        page.locator(".plot").focus()
        for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
            page.keyboard.press(key)
        reading = page.locator("#part .reading")
        values = f"before {before:.3g}, after {after:.3g}, difference {after - before:+.3g}"
        assert reading.text_content() == f"layer 1, expert 1: {values} x the balanced load"
        assert reading.get_attribute("aria-live") == "polite"
        assert page.locator(".panel b").all_text_contents() == [
            f"{before:.3g}",
            f"{after:.3g}",
            f"{after - before:+.3g}",
        ]
        assert page.locator(".map i:visible").count() == 3
        page.get_by_label("Tokens of").select_option("gsm8k")
        assert page.locator(".panel p").all_text_contents() == [f"after {after:.3g}"]
        assert reading.text_content() == f"layer 1, expert 1: after {after:.3g} x the balanced load"
        assert page.locator(".plot").get_attribute("aria-label").startswith("Heat maps, gsm8k: after: lowest ")


def test_a_cell_under_the_pointer_is_marked_in_all_maps(tmp_path, browser):
    """Three maps in a row, as wide as they are; the middle of the second one's last cell is pointed at."""
    with open_page(browser, one_section(tmp_path, heat_maps(16, 64)), 1440) as page:
        boxes = [one.bounding_box() for one in page.locator(".map canvas").all()]
        assert len({box["y"] for box in boxes}) == 1 and len({box["x"] for box in boxes}) == 3
        assert all(box["width"] / 64 >= 4 for box in boxes)
        box = boxes[1]
        page.mouse.move(box["x"] + box["width"] * 63.5 / 64, box["y"] + (box["height"] - 15) * 15.5 / 16)
        assert page.locator("#part .reading").text_content().startswith("layer 15, expert 63: before ")
        marks = [one.bounding_box() for one in page.locator(".map i:visible").all()]
        assert [round(mark["x"] - one["x"]) for mark, one in zip(marks, boxes, strict=True)] == [
            round(box["width"] * 63 / 64)
        ] * 3
        page.mouse.move(0, 0)
        assert page.locator(".map i:visible").count() == 0


def test_maps_stand_below_each_other_on_a_phone(tmp_path, browser):
    """All of 16 x 64 is seen without scrolling sideways; of 16 x 128 the keyboard scrolls to what it reads."""
    with open_page(browser, one_section(tmp_path, heat_maps(16, 64)), 360) as page:
        boxes = [one.bounding_box() for one in page.locator(".map canvas").all()]
        assert len({box["x"] for box in boxes}) == 1 and len({box["y"] for box in boxes}) == 3
        assert all(box["x"] + box["width"] <= 360 for box in boxes)
        assert page.locator(".over[tabindex]").count() == 0
    with open_page(browser, one_section(tmp_path, heat_maps(16, 128)), 360) as page:
        assert page.locator(".over[tabindex]").count() == 3
        page.locator(".plot").focus()
        for _ in range(128):
            page.keyboard.press("ArrowRight")
        assert page.evaluate("() => [...document.querySelectorAll('.over')].every((one) => one.scrollLeft > 100)")


def test_of_many_maps_a_part_is_shown(tmp_path, browser):
    """Of 8 loads and 7 differences twelve, the differences in a row of their own; then the other three."""
    maps = [HeatMap("all", f"run {number}", [[1.0, 2.0]]) for number in range(8)]
    maps += [HeatMap("all", f"{number} minus 0", [[0.0, 1.0]], difference=True) for number in range(1, 8)]
    with open_page(browser, one_section(tmp_path, HeatMaps("Load", maps))) as page:
        assert page.locator(".panel").count() == 12
        places = [one.bounding_box() for one in page.locator(".panel").all()]
        assert places[8]["x"] == places[0]["x"] and places[8]["y"] > places[7]["y"]
        assert page.locator(".scale").count() == 2
        page.get_by_label("Maps").select_option("13 to 15 of 15")
        assert page.locator(".panel p").all_text_contents() == ["5 minus 0 ", "6 minus 0 ", "7 minus 0 "]
        assert page.locator(".scale").count() == 1


def test_a_few_large_differences_do_not_hide_the_others(tmp_path, browser):
    """Of 200 values 199 are 1 and one is 50: the colours end at 1, and the legend says that there is more."""
    values = [[1.0] * 100, [50.0] + [1.0] * 99]
    block = HeatMaps("Load", [HeatMap("all", "difference", values, difference=True)])
    with open_page(browser, one_section(tmp_path, block)) as page:
        assert page.locator(".scale .ramp span").all_text_contents() == ["≤ -1", "0", "≥ +1"]


def test_many_lines_in_an_order_have_colours_in_an_order(tmp_path, browser):
    """Sixteen layers are solid lines of sixteen colours; eight lines have those that differ most."""
    for count, colours in ((16, 16), (8, 8)):
        series = [Series(f"layer {number}", [0, 1], [number, number]) for number in range(count)]
        with open_page(browser, one_section(tmp_path, Curves("Drift", series))) as page:
            assert page.locator(".swatch.line").count() == count
            found = page.locator(".swatch").evaluate_all(
                "(all) => all.map((one) => getComputedStyle(one).borderTopColor)"
            )
            assert len(set(found)) == colours
            assert undrawn(page) == [] and page.problems == []


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
