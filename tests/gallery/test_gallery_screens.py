import pytest
import synthetic
from playwright.sync_api import Error, expect

from embedlab.view.gallery import read, write
from gallery.page import ONE, WEIGHT, texts

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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_the_light_and_in_the_dark(scheme, opened, unlucky):
    page = opened(write(read(unlucky)).index, color_scheme=scheme)
    page.locator('.cell[data-state="done"]').first.click()
    page.locator("#details .command").wait_for()
    assert (page.evaluate(GROUND) < 150) == (scheme == "dark")
    seen = page.evaluate(
        CONTRAST,
        "h1, h2, h3, label, button, select, td, th, dt, dd, .head, .group-head, .value, .reason, .prompt, .note, kbd, "
        "pre, summary",
    )
    assert len(seen) > 50
    assert min(seen)[0] >= 4.5, min(seen)
    page.locator("#theme").click()
    assert (page.evaluate(GROUND) < 150) == (scheme == "light")


def test_a_phone_scrolls_down_only(opened, index):
    page = opened(index, at=ONE, **PHONE)
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) == 360
    page.get_by_role("button", name="View").click()
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


@pytest.mark.parametrize(("wide", "panel"), [(1200, 372), (1400, 434)])
def test_the_panel_gives_way_to_the_last_column(wide, panel, opened, index):
    page = opened(index, at=ONE, viewport={"width": wide, "height": 860})
    page.locator('[data-place="0,1"]').click()
    page.locator("#details .command").wait_for()
    last, side = (page.locator(selector).bounding_box() for selector in ('[data-place="0,4"]', ".side"))
    assert last["x"] + last["width"] <= side["x"]
    assert abs(side["width"] - panel) < 20
    assert page.evaluate("document.documentElement.scrollWidth") == wide


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
    page = opened(write(read(unlucky)).index, at="#unedited=none")
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
