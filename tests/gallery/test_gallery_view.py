import json
import re
from io import BytesIO

import synthetic
from PIL import Image, ImageStat
from playwright.sync_api import expect

from embedlab.view.gallery import read, write
from gallery.page import WEIGHT, job_of, texts, until


def test_seeds_are_rows_and_the_numbers_are_columns_at_first(opened, index, sweep):
    page = opened(index)
    assert texts(page, ".across") == ["0", "0.25", "0.5", "0.75", "1"]
    assert texts(page, ".down") == ["0", "1", "2"]
    assert job_of(page, 1, 2) == "2/seed-1.png"
    held = json.loads((sweep / "0" / "result.json").read_text())["pictures"][0]
    expect(page.locator('[data-place="0,0"] .value')).to_have_text(f"{held['clip_score/puppy']:.1f}")
    expect(page.locator("#counts")).to_have_text("30 pictures · 15 shown")
    until(page, "[...document.querySelectorAll('.cell img')].every((i) => i.complete && i.naturalWidth === 128)")


def test_axes_change_places(opened, index):
    page = opened(index)
    page.get_by_label("toward").first.select_option("rows")
    assert texts(page, ".down") == ["skunk", "cat"]
    assert page.locator("#role-2").input_value() == "page"  # the seed gave up its rows and turns pages
    assert job_of(page, 1, 4) == "9/seed-0.png"
    page.get_by_role("button", name="Next seed").click()
    assert job_of(page, 1, 4) == "9/seed-1.png"
    page.locator("#role-2").select_option("columns")
    assert texts(page, ".across") == ["0", "1", "2"]


def test_a_slider_swaps_pictures_in_place(opened, index):
    page = opened(index)
    page.locator("#role-1").select_option("slider")
    slider = page.get_by_role("slider", name="weight")
    cell = page.locator('[data-place="0,2"]').element_handle()
    assert job_of(page, 0, 2) == "0/seed-2.png"
    slider.press("ArrowRight")
    assert job_of(page, 0, 2) == "1/seed-2.png"
    slider.fill("4")
    assert job_of(page, 0, 2) == "4/seed-2.png"
    assert slider.get_attribute("aria-valuetext") == "1"
    assert cell.evaluate("(cell) => cell.isConnected"), "the grid was built anew"
    page.locator("#place-0").select_option("1")
    assert job_of(page, 0, 2) == "9/seed-2.png"
    page.locator("h1").click()
    page.keyboard.press("[")
    assert job_of(page, 0, 2) == "8/seed-2.png"


def test_an_address_brings_a_view_back(opened, index):
    page = opened(index)
    page.locator("#role-1").select_option("slider")
    page.get_by_role("slider", name="weight").fill("3")
    page.locator("#score").select_option("change/ssim")
    page.locator("#unedited").check()
    page.locator('[data-place="0,1"]').click()
    again = opened(index, at="#" + page.url.split("#")[1])
    assert job_of(again, 0, 1) == "3/baseline-seed-1.png"
    assert again.locator("#score").input_value() == "change/ssim"
    expect(again.locator("#details h2")).to_contain_text("puppy → 0.75 skunk")
    expect(again.locator(".cell.opened")).to_have_attribute("data-key", "3/1")
    expect(opened(index, at="#open=7/2").locator(".cell.opened")).to_have_attribute("data-key", "7/2")


def test_a_list_holds_every_picture_in_the_order_of_a_score(opened, index):
    page = opened(index)
    page.locator("#layout").select_option("list")
    page.locator("#sort").select_option("high")
    assert page.locator(".cell").count() == 30
    values = [float(text) for text in texts(page, ".cell .value")]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]
    page.locator(".cell").last.scroll_into_view_if_needed()
    expect(page.locator(".cell .value").last).to_have_text(re.compile("^[0-9]"))
    assert float(page.locator(".cell .value").last.inner_text()) <= values[-1]


def test_a_filter_keeps_what_holds_its_words(opened, index):
    page = opened(index)
    page.keyboard.press("/")
    page.keyboard.type("0.5 skunk seed 1")
    expect(page.locator(".cell")).to_have_count(1)
    assert job_of(page) == "2/seed-1.png"
    page.keyboard.press("Escape")
    expect(page.locator(".cell")).to_have_count(15)
    page.locator("#filter").fill("zebra")
    expect(page.locator("#nothing")).to_be_visible()


def test_curves_are_means_with_their_spread_over_seeds(opened, index, sweep):
    page = opened(index)
    assert sorted(page.locator(".tag").all_text_contents()) == ["cat", "skunk"]
    assert page.locator(".line-0 circle").count() == 5
    rows = json.loads((sweep / "2" / "result.json").read_text())["pictures"]
    values = [row["clip_score/puppy"] for row in rows]
    mean = sum(values) / 3
    spread = (sum((v - mean) ** 2 for v in values) / 2) ** 0.5
    said = page.locator(".line-0 circle title").nth(2).text_content()
    assert f"{mean:.1f} ({mean - spread:.1f} to {mean + spread:.1f}, 3 seeds)" in said
    page.locator("#curve-spread").select_option("range")
    assert (
        f"{mean:.1f} ({min(values):.1f} to {max(values):.1f}"
        in page.locator(".line-0 circle title").nth(2).text_content()
    )
    page.locator("#show-curves").uncheck()
    expect(page.locator("#curves")).to_be_hidden()


def test_colours_follow_the_score(opened, index):
    page = opened(index)
    colour = "(e) => getComputedStyle(e).backgroundColor"
    before = [page.locator(f'[data-place="0,{n}"] .value').evaluate(colour) for n in (0, 4)]
    assert before[0] != before[1]
    page.locator("#score").select_option("change/pixels")
    after = page.locator('[data-place="0,4"] .value').evaluate(colour)
    assert after != before[1]
    assert texts(page, "#legend") == ["0\n0.25"]


def test_details_tell_tokens_neighbours_scores_settings_and_the_command(opened, index, sweep):
    page = opened(index, permissions=["clipboard-read", "clipboard-write"])
    page.locator('[data-place="1,2"]').click()
    panel = page.locator("#details")
    held = json.loads((sweep / "2" / "result.json").read_text())
    expect(panel.locator(".command")).to_have_text(held["command"])
    panel.get_by_role("button", name="Copy the command").click()
    expect(panel.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == held["command"]
    token = held["explain"]["tokens"][5]
    changed = " ".join(
        panel.locator("tr", has_text="puppy").filter(has=page.locator(".changed")).first.inner_text().split()
    )
    assert f"{', '.join(token['near'])} → {', '.join(token['near_after'])}" in changed
    assert panel.locator("h3", has_text="Tokens").count() == 1
    assert panel.locator(".pairs dd").first.inner_text() == f"{held['pictures'][1]['clip_score/prompt']:.1f}"
    whole = page.evaluate("Object.keys(Model.data.jobs.scores).map(Model.name)")
    assert whole, "scores that only the job has"
    assert not set(whole) & set(panel.locator(".pairs dt").all_inner_texts()), "the panel is of one picture"
    panel.get_by_text("All settings").click()
    expect(panel.locator("tr", has_text="sampler.steps")).to_contain_text("25")
    expect(panel.locator("tr", has_text="operators.interpolate.weight")).to_contain_text("0.5")
    panel.get_by_role("button", name="puppy → 0.75 skunk").click()
    expect(panel.locator(".command")).to_contain_text("weight=0.75")
    panel.get_by_role("button", name="puppy → 0.75 cat").click()
    expect(page.locator("#place-0")).to_have_value("1")  # the grid went along
    expect(page.locator(".cell.opened")).to_have_attribute("data-key", "8/1")


def test_two_are_compared_with_their_difference(opened, index):
    page = opened(index)
    page.locator('[data-place="0,0"]').focus()
    page.keyboard.press("c")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("c")
    dialog = page.locator("#compare")
    expect(dialog.locator("figure img")).to_have_count(4)
    row = dialog.locator("tr", has_text=WEIGHT)
    expect(row).to_have_text(re.compile(r"weight\s*0\s*0\.25"))
    dialog.locator("#amplify").fill("1")
    dark = dialog.locator(".blend").screenshot()
    dialog.locator("#amplify").fill("16")
    bright = dialog.locator(".blend").screenshot()
    assert mean_of(bright) > 1.5 * mean_of(dark) > 0
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.locator("#compare-clear").click()
    expect(page.locator(".cell.marked")).to_have_count(0)


def mean_of(png: bytes) -> float:
    picture = Image.open(BytesIO(png)).convert("RGB")
    middle = picture.crop((20, 20, picture.width - 20, picture.height - 20))  # its corners are round
    return sum(ImageStat.Stat(middle).mean)


def test_a_picture_and_itself_differ_in_nothing(opened, tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, [0], shared=1)
    page = opened(write(read(folder)).index)
    page.locator('[data-place="0,0"]').focus()
    page.keyboard.press("c")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("c")
    assert mean_of(page.locator(".blend").screenshot()) < 1


def test_the_unedited_pictures_show_while_a_key_is_held(opened, index):
    page = opened(index)
    page.keyboard.down("b")
    assert job_of(page, 2, 3) == "3/baseline-seed-2.png"
    page.keyboard.up("b")
    assert job_of(page, 2, 3) == "3/seed-2.png"


def test_all_of_it_goes_by_keyboard(opened, index):
    page = opened(index)
    key = "document.activeElement.dataset.key"
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(key) == "0/0"
    for press in ("ArrowRight", "ArrowDown", "End"):
        page.keyboard.press(press)
    assert page.evaluate(key) == "4/1"
    page.keyboard.press("PageDown")
    assert page.evaluate(key) == "9/1"
    page.keyboard.press("Enter")
    expect(page.locator("#details h2")).to_contain_text("puppy → 1 cat")
    assert page.evaluate("document.activeElement.id") == "details"
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()
    assert page.evaluate(key) == "9/1"
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.locator("#help button").click()
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
