import json
import re
from io import BytesIO

import synthetic
from PIL import Image, ImageStat
from playwright.sync_api import expect

from embedlab.view.gallery import read, write
from gallery.page import ONE, WEIGHT, job_of, texts, until


def test_seeds_are_rows_and_the_numbers_are_columns_at_first(opened, index, sweep):
    page = opened(index, at=ONE)
    assert texts(page, ".across") == ["0", "0.25", "0.5", "0.75", "1"]
    assert texts(page, ".down") == ["0", "1", "2"]
    assert job_of(page, 1, 2) == "2/seed-1.png"
    held = json.loads((sweep / "0" / "result.json").read_text())["pictures"][0]
    expect(page.locator('[data-place="0,0"] .value')).to_have_text(f"{held['clip_score/puppy']:.1f}")
    expect(page.locator("#counts")).to_have_text("30 pictures · 15 shown")
    until(page, "[...document.querySelectorAll('.cell img')].every((i) => i.complete && i.naturalWidth === 128)")


def test_all_that_fits_is_there_at_first_with_the_unedited_pictures(opened, index):
    page = opened(index)
    expect(page.locator("#counts")).to_have_text("30 pictures · 30 shown")
    assert texts(page, ".across") == ["unedited", "0", "0.25", "0.5", "0.75", "1"]
    assert texts(page, ".group-head") == ["toward skunk", "toward cat"]
    assert texts(page, ".down") == ["0", "1", "2"] * 2
    assert job_of(page, 4, 0) == "5/baseline-seed-1.png"
    assert job_of(page, 4, 5) == "9/seed-1.png"
    right = page.locator('[data-place="0,5"]').bounding_box()
    scroller = page.locator("#scroller").bounding_box()
    assert 0 <= scroller["x"] + scroller["width"] - right["x"] - right["width"] < 40, "the pictures fill the width"


def test_axes_change_places_and_are_nested(opened, index):
    page = opened(index)
    page.locator("#role-0").select_option("columns")
    assert texts(page, ".outer") == ["skunk", "cat"]
    assert texts(page, ".across:not(.outer):not(.lead)") == ["0", "0.25", "0.5", "0.75", "1"] * 2
    assert texts(page, ".down") == ["0", "1", "2"]
    assert job_of(page, 1, 10) == "9/seed-1.png"
    page.locator("#axis-0").click()
    page.locator("#values-0").get_by_role("button", name="Inwards").click()
    assert texts(page, ".outer") == ["0", "0.25", "0.5", "0.75", "1"]
    assert job_of(page, 1, 2) == "5/seed-1.png"
    page.keyboard.press("Escape")
    page.locator("#role-2").select_option("page")
    page.get_by_role("button", name="Next seed").click()
    assert job_of(page, 0, 2) == "5/seed-1.png"
    again = opened(index, at="#" + page.url.split("#")[1])
    assert texts(again, ".outer") == ["0", "0.25", "0.5", "0.75", "1"]
    assert job_of(again, 0, 2) == "5/seed-1.png"


def test_curves_give_way_to_nested_columns_that_would_be_scrolled_beside_them(opened, index):
    page = opened(index, viewport={"width": 1100, "height": 900})
    page.locator("#role-0").select_option("columns")
    expect(page.locator("#main")).to_have_class(re.compile(r"\bbelow\b"))
    assert page.evaluate(
        "document.getElementById('scroller').scrollWidth <= document.getElementById('scroller').clientWidth"
    )
    left, curves = (page.locator(at).bounding_box() for at in ('[data-place="2,10"]', "#curves"))
    assert curves["y"] >= left["y"] + left["height"]


def test_values_are_hidden_and_shown(opened, index):
    page = opened(index)
    page.locator("#axis-1").click()
    panel = page.locator("#values-1")
    expect(panel).to_contain_text("0 stays, 1 lands exactly on it")
    panel.get_by_role("button", name="Every second").click()
    assert texts(page, ".across") == ["unedited", "0", "0.5", "1"]
    panel.get_by_label("0.5", exact=True).uncheck()
    assert texts(page, ".across") == ["unedited", "0", "1"]
    expect(page.locator("#axis-1")).to_have_text("weight 2/5")
    expect(page.locator(".line-0 circle")).to_have_count(2)
    page.keyboard.press("Escape")
    again = opened(index, at="#" + page.url.split("#")[1])
    assert texts(again, ".across") == ["unedited", "0", "1"]
    again.locator("#axis-1").click()
    again.locator("#values-1").get_by_role("button", name="Show all").click()
    assert len(texts(again, ".across")) == 6
    again.locator("#values-1").get_by_role("button", name="Only 0.25").click()
    assert texts(again, ".across") == ["unedited", "0.25"]


def test_the_unedited_pictures_stand_where_they_differ(opened, tmp_path):
    folder = tmp_path / "sweep"
    for n, (prompt, weight) in enumerate((p, w) for p in ("a cat", "a dog") for w in (0, 1)):
        job = synthetic.result(n, {"prompt": prompt, WEIGHT: weight}, [0, 1], prompt=prompt)
        synthetic.put(folder / str(n), job)
    index = write(read(folder)).index
    page = opened(index, at=f"#role.prompt=columns&role.{WEIGHT}=columns&role.seed=rows")
    expect(page.locator("[data-state=done] .soft")).to_have_count(8)  # each beside its own
    assert [job_of(page, 1, n) for n in (4, 5)] == ["2/baseline-seed-1.png", "2/seed-1.png"]
    page = opened(index, at=f"#role.prompt=columns&role.{WEIGHT}=rows&role.seed=page")
    assert texts(page, ".down") == ["unedited", "0", "1"]
    assert [job_of(page, n, 1) for n in (0, 1)] == ["2/baseline-seed-0.png", "2/seed-0.png"]
    page.locator('[data-place="0,1"]').click()
    expect(page.locator("#details h2")).to_have_text("unedited")
    page.keyboard.press("c")
    page.locator("#details-close").click()
    page.locator('[data-place="1,1"]').focus()
    page.keyboard.press("c")
    expect(page.locator("#compare figcaption").first).to_contain_text("unedited")
    expect(page.locator("#compare tr", has_text="edit").first).to_have_text(
        re.compile(r"edit\s*none\s*puppy → 0 skunk")
    )
    assert "mark=2%2F0%2Funedited" in page.url


def test_captions_are_cut_where_they_agree(opened, tmp_path):
    long = "A photograph of a {} that sits on the old stone wall of a garden in the evening {}"
    prompts = [long.format(*words) for words in (("puppy", "light"), ("kitten", "light"), ("puppy", "rain"))]
    folder = synthetic.sweep(tmp_path / "sweep", {"prompt": prompts, WEIGHT: [0, 1]}, [0])
    page = opened(write(read(folder)).index, at=f"#role.prompt=rows&role.{WEIGHT}=columns")
    heads = texts(page, ".down")
    assert heads == [
        "… a puppy that … evening light",
        "… a kitten that … evening light",
        "… a puppy that … evening rain",
    ]
    assert page.locator(".down").first.get_attribute("title") == f"prompt {prompts[0]}"


def test_everything_explains_itself_on_hover_and_in_a_panel(opened, index):
    page = opened(index)
    page.locator("#axis-1").hover()
    expect(page.locator("#tip")).to_have_text("0 stays, 1 lands exactly on it; of several ends a list")
    page.locator("#score-name").hover()
    expect(page.locator("#tip")).to_contain_text("CLIP's features of the picture and of a text with 'puppy'")
    page.locator('[data-place="1,2"]').click()
    page.locator("#details th", has_text="kept").focus()
    expect(page.locator("#tip")).to_contain_text("its projection on that row")
    assert page.locator("#details th", has_text="kept").get_attribute("aria-describedby") == "tip"
    page.locator("#help-button").click()
    for text in (
        "operators.interpolate.weight",
        "Structural similarity",
        "nearest words",
        "begins with the same noise",
    ):
        expect(page.locator("#help")).to_contain_text(text)
    expect(page.locator("#help .keys")).to_be_visible()


def test_the_view_is_saved_as_one_picture_with_its_labels(opened, index, sweep):
    page = opened(index)
    cell = page.locator('[data-place="4,3"] img').bounding_box()
    with page.expect_download() as caught:
        page.locator("#save").click()
    assert caught.value.suggested_filename == "sweep.png"
    made = Image.open(caught.value.path()).convert("RGB")
    side = 2 * cell["width"]
    assert made.width >= 6 * side
    assert made.height >= 6 * side
    own = Image.open(sweep / "7" / "seed-1.png").convert("RGB").resize((int(side), int(side)))
    left, top = next(  # where it lies: the heads are as wide as their texts
        (x, y)
        for y in range(int(4 * side), int(made.height - side), 2)
        for x in range(int(3.5 * side), int(made.width - side), 2)
        if alike(made, own, x, y, 3) and alike(made, own, x, y, 12)
    )
    assert alike(made, own, left, top, 40), "all of it is this picture"


def alike(whole, part, left, top, points) -> bool:
    """Whether a picture lies at a place of another, by some of its pixels."""
    spots = [(int((n * 0.618 % 1) * part.width), int((n * 0.382 % 1) * part.height)) for n in range(points)]
    pairs = [(whole.getpixel((left + x, top + y)), part.getpixel((x, y))) for x, y in spots]
    return max(abs(p - q) for a, b in pairs for p, q in zip(a, b, strict=True)) < 34


def test_a_link_says_all_of_the_view(opened, index):
    page = opened(index, permissions=["clipboard-read", "clipboard-write"])
    page.locator("#link").click()
    expect(page.locator("#link")).to_have_text("Copied")
    link = page.evaluate("navigator.clipboard.readText()")
    narrow = opened(index, at="#" + link.split("#")[1], viewport={"width": 390, "height": 800})
    assert texts(narrow, ".group-head") == ["toward skunk", "toward cat"]
    assert len(texts(narrow, ".across")) == 6


def test_a_slider_swaps_pictures_in_place(opened, index):
    page = opened(index, at=ONE)
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
    page = opened(index, at=ONE)
    page.locator("#role-1").select_option("slider")
    page.get_by_role("slider", name="weight").fill("3")
    page.locator("#score").select_option("change/ssim")
    page.locator("#unedited").select_option("instead")
    page.locator('[data-place="0,1"]').click()
    again = opened(index, at="#" + page.url.split("#")[1])
    assert job_of(again, 0, 1) == "3/baseline-seed-1.png"
    assert again.locator("#score").input_value() == "change/ssim"
    expect(again.locator("#details h2")).to_contain_text("puppy → 0.75 skunk")
    expect(again.locator(".cell.opened")).to_have_attribute("data-key", "3/1")
    expect(opened(index, at="#open=7/2").locator(".cell.opened")).to_have_attribute("data-key", "7/2")


def test_a_list_holds_every_picture_in_the_order_of_a_score(opened, index):
    page = opened(index, at=ONE)
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
    page = opened(index, at=ONE)
    page.keyboard.press("/")
    page.keyboard.type("0.5 skunk seed 1")
    expect(page.locator(".cell")).to_have_count(1)
    assert job_of(page) == "2/seed-1.png"
    page.keyboard.press("Escape")
    expect(page.locator(".cell")).to_have_count(15)
    page.locator("#filter").fill("zebra")
    expect(page.locator("#nothing")).to_be_visible()


def test_curves_are_means_with_their_spread_over_seeds(opened, index, sweep):
    page = opened(index, at=ONE)
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
    page = opened(index, at=ONE)
    colour = "(e) => getComputedStyle(e).backgroundColor"
    before = [page.locator(f'[data-place="0,{n}"] .value').evaluate(colour) for n in (0, 4)]
    assert before[0] != before[1]
    page.locator("#score").select_option("change/pixels")
    after = page.locator('[data-place="0,4"] .value').evaluate(colour)
    assert after != before[1]
    assert texts(page, "#legend") == ["0\n0.25"]


def test_details_tell_tokens_neighbours_scores_settings_and_the_command(opened, index, sweep):
    page = opened(index, at=ONE, permissions=["clipboard-read", "clipboard-write"])
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
    page = opened(index, at=ONE)
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
    page = opened(index, at=ONE)
    page.keyboard.down("b")
    assert job_of(page, 2, 3) == "3/baseline-seed-2.png"
    page.keyboard.up("b")
    assert job_of(page, 2, 3) == "3/seed-2.png"


def test_all_of_it_goes_by_keyboard(opened, index):
    page = opened(index, at=ONE)
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
