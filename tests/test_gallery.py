import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import synthetic
from browser import find
from playwright.sync_api import Error, expect, sync_playwright

import embedlab
from embedlab.cli.commands.gallery import main
from embedlab.errors import ConfigError
from embedlab.view.gallery import read, write
from embedlab.view.gallery.content import content

WEIGHT, TOWARD = "operators.interpolate.weight", "operators.interpolate.toward"
WEIGHTS, SEEDS = [0, 0.25, 0.5, 0.75, 1], [0, 1, 2]
HOSTILE = {
    "script": "</script><script>document.title='pwned'</script>",
    "image": "<img src=x onerror=\"document.title='pwned'\"> <svg onload=alert(1)> <a href='javascript:alert(1)'>a</a>",
    "quotes": "\"'`${alert(1)}{{ 7*7 }}{% raw %}<!-- & &lt;b&gt; \\u003cb\\u003e ]]>\u2028\u2029",
    "letters": "\u202eright to left\u202c مرحبا 👩‍👩‍👧 \ud83d café\u0000 \x1b[31m",
    "long": "<b>" + "word " * 2000,
}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
CONTRAST = """(selector) => {
  const pen = Object.assign(document.createElement("canvas"), {width: 1, height: 1})
    .getContext("2d", {willReadFrequently: true});
  const light = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const clear = (e) => ["transparent", "rgba(0, 0, 0, 0)"].includes(getComputedStyle(e).backgroundColor);
  const ratio = (e) => {
    let under = e;
    while (under && clear(under)) under = under.parentElement;
    const [a, b] = [getComputedStyle(e).color, getComputedStyle(under).backgroundColor].map(light);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const seen = [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility() && e.textContent.trim());
  return seen.map((e) => [ratio(e), e.className || e.tagName]);
}"""
GROUND = """() => getComputedStyle(document.body).backgroundColor
  .match(/[0-9]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0)"""
PICTURE = """() => new Promise((yes, no) => {
  const refused = () => no(new Error("refused"));
  Object.assign(new Image(), {onload: yes, onerror: refused}).src = "https://example.org/a.png";
})"""


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync"]
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=find(), args=flags)
        yield started
        started.close()


@pytest.fixture
def opened(browser):
    """Opens a gallery; at the end nothing was asked of anything but its sweep's files, and nothing went wrong."""
    contexts, asked, wrong, roots = [], [], [], []

    def open_(index: Path, at: str = "", root: Path | None = None, ready=".cell img, .reason", **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **settings})
        contexts.append(context)
        roots.append((root or index.parent.parent).resolve().as_uri())
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(index.as_uri() + at)
        page.locator(ready).first.wait_for()
        return page

    yield open_
    for context in contexts:
        context.close()
    assert asked
    outside = [url for url in asked if not url.startswith((*(f"{root}/" for root in roots), "data:image/"))]
    assert not outside
    assert not wrong


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two targets by five weights by three seeds, all done."""
    folder = tmp_path_factory.mktemp("gallery") / "sweep"
    return synthetic.sweep(folder, {TOWARD: ["skunk", "cat"], WEIGHT: WEIGHTS}, SEEDS)


@pytest.fixture(scope="module")
def index(sweep):
    return write(read(sweep)).index


def job_of(page, line: int = 0, column: int = 0) -> str:
    """Which picture a place of the grid shows, as `job/file`."""
    return page.locator(f'[data-place="{line},{column}"] img').get_attribute("src").removeprefix("../")


def until(page, condition: str) -> None:
    """Wait for a condition without `eval`, which the page's policy forbids."""
    page.evaluate(
        f"async () => {{ const began = performance.now(); while (!({condition})) {{"
        "  if (performance.now() - began > 8000) throw new Error('this did not come true');"
        "  await new Promise(requestAnimationFrame); } }"
    )


def texts(page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


# ── looking ──


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
    from io import BytesIO

    from PIL import Image, ImageStat

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


# ── other screens ──


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_the_light_and_in_the_dark(scheme, opened, unlucky):
    page = opened(write(read(unlucky)).index, color_scheme=scheme)
    page.locator('.cell[data-state="done"]').first.click()
    page.locator("#details .command").wait_for()
    assert (page.evaluate(GROUND) < 150) == (scheme == "dark")
    seen = page.evaluate(
        CONTRAST,
        "h1, h2, h3, label, button, select, td, th, dt, dd, .head, .value, .reason, .prompt, .note, kbd, pre, summary",
    )
    assert len(seen) > 60
    assert min(seen)[0] >= 4.5, min(seen)
    page.locator("#theme").click()
    assert (page.evaluate(GROUND) < 150) == (scheme == "light")


def test_a_phone_scrolls_down_only(opened, index):
    page = opened(index, **PHONE)
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) == 360
    page.get_by_role("button", name="Axes").click()
    expect(page.locator("#layout")).to_be_visible()
    page.locator("#role-1").select_option("slider")
    page.locator("#show-curves").check()
    assert page.evaluate(wide) == 360
    page.locator('[data-place="0,1"]').click()
    page.locator("#details .command").wait_for()
    assert page.locator("#details").bounding_box()["width"] == 360
    assert page.evaluate("document.getElementById('details').scrollWidth") <= 360
    page.locator("#details-close").click()
    expect(page.locator("#details")).to_be_hidden()


# ── what goes wrong ──


@pytest.fixture
def unlucky(tmp_path):
    """A sweep with a job that failed, a picture that failed, one that is gone and two jobs to come."""
    folder = tmp_path / "sweep"
    jobs = [{"operators": ["interpolate"], WEIGHT: weight} for weight in (0, 0.2, 0.4, 0.6, 0.8)]
    folder.mkdir()
    synthetic.plan(folder, jobs)
    synthetic.put(folder / "0", synthetic.result(0, jobs[0], [0, 1]))
    broken = synthetic.result(1, jobs[1], [0, 1])
    broken["pictures"][1] = {"seed": 1, "error": "NaN in the latents after step 3"}
    synthetic.put(folder / "1", broken)
    lost = {
        "status": "failed",
        "error": "'kitten' is not in the prompt <b>",
        "job": 2,
        "overrides": jobs[2],
        "pictures": [],
    }
    synthetic.put(folder / "2", lost)
    (folder / "0" / "seed-1.png").unlink()
    return folder


def test_failed_and_coming_cells_say_why(opened, unlucky):
    page = opened(write(read(unlucky)).index)
    assert texts(page, ".across") == ["0", "0.2", "0.4", "0.6", "0.8"]
    reasons = texts(page, ".reason")
    assert sorted(reasons) == sorted(
        [
            "failed\nits picture is not there: seed-1.png",
            "failed\nNaN in the latents after step 3",
            *["failed\n'kitten' is not in the prompt <b>"] * 2,
            *["pending"] * 4,
        ]
    )
    expect(page.locator("#counts")).to_have_text("2 pictures · 4 failed · 2 jobs to come · 10 shown")
    page.locator('[data-place="0,2"]').click()
    expect(page.locator("#details .why")).to_contain_text("'kitten' is not in the prompt <b>")


def test_a_picture_that_cannot_be_read_says_so(opened, tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, [0])
    (folder / "1" / "seed-0.png").write_bytes(b"no picture")
    page = opened(write(read(folder)).index)
    expect(page.locator(".cell.broken")).to_have_count(1)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_stay_texts(name, opened, tmp_path):
    text = HOSTILE[name]
    folder = tmp_path / "sweep </script><b> 'q' #1 %41 ؟"[:60]
    jobs = [synthetic.result(n, {"prompt": text, WEIGHT: n}, [0, 1], prompt=text) for n in (0, 1)]
    for n, job in enumerate(jobs):
        job |= {"label": f"{text} {n}", "name": f"x={text}", "command": text, "notes": [text], "key": text}
        job["explain"]["tokens"][1] |= {"piece": text, "near": [text], "near_after": [text, "b"]}
        job["config"]["prompt"] = job["versions"]["torch"] = text
        for row in job["pictures"]:
            row[f"clip_score/{text[:40]}"] = 1.5 * n
        synthetic.put(folder / f"{n} #%41'", job)
    synthetic.put(
        folder / "9", {"status": "failed", "error": text, "overrides": {WEIGHT: text}, "prompt": text, "pictures": []}
    )
    page = opened(write(read(folder)).index, at="#layout=list")
    title = page.title()
    page.locator('.cell[data-state="failed"]').first.click()
    expect(page.locator("#details .why")).to_be_visible()
    page.locator('.cell[data-state="done"]').first.click()
    panel = page.locator("#details")
    panel.locator(".command").wait_for()
    for summary in panel.locator("summary").all():
        summary.click()
    shown = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert panel.locator(".command").text_content() in (text, shown)
    assert page.locator("#prompt").text_content() in (text, shown)
    page.keyboard.press("c")
    page.locator('.cell[data-state="done"]').last.click()
    page.keyboard.press("c")
    page.locator("#compare table").first.wait_for()
    assert "pwned" not in page.title()
    assert page.title() == title == f"{folder.name} · embedlab gallery"
    assert page.locator("main script, main b b, main svg[onload], dialog script, main a[href^=javascript]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_the_policy_of_the_page_stops_scripts_and_requests(browser, index):
    context = browser.new_context()
    page = context.new_page()
    asked = []
    page.on("requestfailed", lambda request: asked.append((request.url, request.failure)))
    page.goto(index.as_uri())
    page.locator(".cell img").first.wait_for()
    page.evaluate("document.body.insertAdjacentHTML('beforeend', `<img src='x:' onerror=\"document.title='pwned'\">`)")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: \"document.title='pwned'\"}))"
    )
    with pytest.raises(Error, match="fetch"):
        page.evaluate("fetch('https://example.org/')")
    with pytest.raises(Error, match="refused"):
        page.evaluate(PICTURE)
    assert "pwned" not in page.title()
    assert set(asked) <= {("https://example.org/a.png", "csp"), ("https://example.org/", "csp"), ("x:", "csp")}
    context.close()


# ── files ──


def test_with_copies_the_folder_needs_nothing_else(opened, tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, SEEDS)
    written = write(read(folder), tmp_path / "away")
    shutil.rmtree(folder)
    page = opened(written.index, root=tmp_path / "away")
    until(page, "[...document.querySelectorAll('.cell img')].every((i) => i.naturalWidth === 128)")
    page.locator(".cell").first.click()
    page.locator("#details .command").wait_for()


def test_large_pictures_get_thumbnails_and_keep_their_own(opened, tmp_path):
    folder = tmp_path / "sweep"
    for n in (0, 1):
        synthetic.put(folder / str(n), synthetic.result(n, {WEIGHT: n}, [0]), side=512)
    index = write(read(folder)).index
    page = opened(index)
    until(page, "document.querySelector('.cell img').naturalWidth === 256")
    page.locator(".cell").first.click()
    until(page, "document.querySelector('#details figure img').naturalWidth === 512")
    made = sorted((index.parent / "thumbnails").rglob("*.webp"))
    times = [path.stat().st_mtime_ns for path in made]
    write(read(folder))
    assert [path.stat().st_mtime_ns for path in made] == times, "thumbnails were made again"


def test_two_thousand_cells_are_small_and_load_few(opened, tmp_path):
    weights, steps = [round(n / 49, 4) for n in range(50)], list(range(5, 45))
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: weights, "sampler.steps": steps}, [0], shared=8)
    index = write(read(folder)).index
    size = sum(path.stat().st_size for path in index.parent.rglob("*") if path.is_file())
    assert size <= 2_000_000
    page = opened(index)
    until(page, "[...document.querySelectorAll('.cell img')].every((i) => i.complete)")
    assert page.locator(".cell").count() == 2000
    assert 20 < page.locator(".cell img").count() < 150
    page.locator(".cell").first.focus()
    page.keyboard.press("End")
    until(page, "document.activeElement.querySelector('img')?.naturalWidth === 128")
    assert page.evaluate("document.activeElement.dataset.key") == "1960/0"


def test_duplicates_and_scattered_settings_are_all_reachable(opened, tmp_path):
    folder = tmp_path / "sweep"
    spots = [(0.1, 2), (0.1, 2), (0.35, 9), (0.7, 4), (0.9, 7), (0.2, 8)]
    for n, (weight, scale) in enumerate(spots):
        synthetic.put(folder / str(n), synthetic.result(n, {WEIGHT: weight, "guidance.scale": scale}, [0]))
    page = opened(write(read(folder)).index)
    assert page.locator("#layout").input_value() == "list"
    assert page.locator(".cell").count() == 6
    page.locator("#layout").select_option("grid")
    page.locator("#role-1").select_option("slider")
    page.get_by_role("slider", name="scale").fill("4")  # nothing lies there at the weight of before
    expect(page.locator(".cell img")).to_have_count(1)
    assert job_of(page) == "2/seed-0.png"


def test_results_that_say_less_have_places_of_their_own(tmp_path):
    folder = tmp_path / "sweep"
    for n, weight in enumerate((0.5, 1)):
        job = synthetic.result(n, {WEIGHT: weight}, [0])
        for key in ("overrides", "job", "format", "command"):
            del job[key]
        synthetic.put(folder / str(n), job)
    shown = content(read(folder))
    assert [axis["key"] for axis in shown["axes"]] == ["repeat"]
    assert shown["cells"]["at"] == [[0], [1]]
    assert shown["jobs"]["number"] == [0, 1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: None, "is not there; give the folder that a sweep wrote"),
        (lambda f: f.write_text(""), "is a file; give the folder"),
        (lambda f: f.mkdir(), "holds no finished job .*embedlab -m wrote"),
        (lambda f: synthetic.sweep(f / "DATE" / "TIME", {WEIGHT: [0]}, [0]), "there is a sweep in '.*TIME'"),
        (lambda f: synthetic.put(f, synthetic.result(0, {}, [0])), "is one job, no sweep; the folder above"),
        (lambda f: (f.mkdir(), synthetic.plan(f, [{WEIGHT: 0}])), "1 job planned and none done; .*--watch"),
        (
            lambda f: (f.joinpath("0").mkdir(parents=True), (f / "0" / "result.json").write_text('{"a":')),
            "no finished job",
        ),
        (
            lambda f: (f.joinpath("0").mkdir(parents=True), (f / "0" / "result.json").write_text("[1]")),
            "no finished job",
        ),
    ],
)
def test_a_folder_that_is_no_sweep_is_one_clear_line(make, said, tmp_path):
    make(tmp_path / "it")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=said):
        main([str(tmp_path / "it")])
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_of_others_is_overwritten(sweep, tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else already"):
        main([str(sweep), "--to", str(tmp_path)])
    with pytest.raises(ConfigError, match="is a file"):
        main([str(sweep), "--to", str(tmp_path / "index.html")])
    with pytest.raises(ConfigError, match="something else"):
        main([str(sweep), "--to", str(sweep)])
    assert (tmp_path / "index.html").read_text() == "mine"


def test_files_elsewhere_are_neither_shown_nor_copied(tmp_path):
    secret = synthetic.picture(tmp_path / "secret.png", 1, 16)
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0]}, [0, 1])
    path = folder / "0" / "result.json"
    held = json.loads(path.read_text())
    held["pictures"][0]["file"], held["pictures"][1]["file"] = "../../secret.png", str(secret)
    path.write_text(json.dumps(held))
    written = write(read(folder), tmp_path / "away")
    assert (written.pictures, written.failed) == (0, 2)
    assert not list((tmp_path / "away").rglob("secret.png"))


def test_a_torn_result_is_a_notice_and_the_rest_is_shown(tmp_path, capsys):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, [0])
    (folder / "1" / "result.json").write_text('{"status": "do')
    main([str(folder)])
    said = capsys.readouterr().out
    assert "result.json' cannot be read: it is no JSON, or cut short" in said
    assert "1 job, 1 picture" in said


def test_a_page_of_a_finished_sweep_needs_no_hydra(tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, [0])
    code = (
        "import sys; from pathlib import Path; from embedlab.view.gallery import read, write; "
        "write(read(Path(sys.argv[1]))); assert not {'hydra', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    assert (folder / "gallery" / "index.html").is_file()


def test_the_command_line_answers_in_one_line(tmp_path):
    def call(*words):
        code = "from embedlab.cli.main import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, "gallery", *words], capture_output=True, text=True, cwd=tmp_path
        )

    for words in (["nowhere"], [], ["a", "--bogus"], ["a", "--every", "0"]):
        refused = call(*words)
        assert refused.returncode == 2
        assert refused.stderr.startswith("embedlab: ")
        assert refused.stderr.count("\n") == 1


# ── a sweep that still runs ──


def test_a_page_follows_a_running_sweep_and_keeps_its_view(opened, tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    jobs = [{"operators": ["interpolate"], WEIGHT: weight} for weight in (0, 0.5, 1)]
    synthetic.plan(folder, jobs)
    environment = {**os.environ, "PYTHONPATH": str(Path(embedlab.__file__).parent.parent)}
    code = "import sys; from embedlab.cli.commands.gallery import main; main(sys.argv[1:])"
    words = [sys.executable, "-c", code, str(folder), "--watch", "--every", "0.2"]
    watcher = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        synthetic.put(folder / "0", synthetic.result(0, jobs[0], [0, 1]))
        index = folder / "gallery" / "index.html"
        said = watcher.stdout.readline()
        while "2 jobs to come" not in said:
            assert said
            said = watcher.stdout.readline()
        page = opened(index)
        expect(page.locator('[data-state="done"]')).to_have_count(2)
        page.locator("#score").select_option("change/ssim")
        page.locator('[data-place="1,0"]').click()
        page.locator("#details .command").wait_for()
        synthetic.put(folder / "1", synthetic.result(1, jobs[1], [0, 1]))
        expect(page.locator('[data-state="done"]')).to_have_count(4, timeout=60_000)
        assert page.locator("#score").input_value() == "change/ssim"
        expect(page.locator(".cell.opened")).to_have_attribute("data-key", "0/1")
        synthetic.put(folder / "2", {**synthetic.result(2, jobs[2], []), "status": "failed", "error": "too late"})
        expect(page.locator('[data-state="failed"]')).to_have_count(2)
        assert watcher.wait(20) == 0, "the sweep is finished and nobody looks on"
    finally:
        watcher.kill()
        watcher.wait()


def test_a_page_that_was_opened_before_the_first_job_fills_itself(opened, tmp_path):
    (tmp_path / "sweep").mkdir()
    index = write(read(tmp_path / "sweep", wait=True), watched=True).index
    page = opened(index, ready="#nothing")
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, [0, 1])
    write(read(folder))
    expect(page.locator(".cell img")).to_have_count(4, timeout=60_000)
    assert texts(page, ".across") == ["0", "1"]


def test_ctrl_c_ends_watching_with_a_whole_gallery(tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0]}, [0])
    synthetic.plan(folder, [{WEIGHT: 0}, {WEIGHT: 1}])
    listens = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # also where CI's shell does not
    )
    code = listens + "import sys; from embedlab.cli.commands.gallery import main; main(sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(Path(embedlab.__file__).parent.parent)}
    words = [sys.executable, "-c", code, str(folder), "--watch"]
    watcher = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    assert "1 job to come" in watcher.stdout.readline()
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(20) == 0
    assert '"watched":false' in (folder / "gallery" / "data.js").read_text()


def test_an_unchanged_sweep_is_written_alike(tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, [0])
    index = write(read(folder)).index
    held = {path: path.read_bytes() for path in index.parent.rglob("*.js")}
    time.sleep(0.01)  # another time of writing
    write(read(folder))
    assert {path: path.read_bytes() for path in index.parent.rglob("*.js")} == held
