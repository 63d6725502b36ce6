"""The gallery in one text, in a frame of a host page, and as a widget that a small host draws."""

import base64
import html
import json
import sys

import pytest
import synthetic
from PIL import Image
from playwright.sync_api import expect

from embedlab.display import Picture, block, picture, table
from embedlab.errors import ConfigError
from embedlab.view.gallery import page_of, widget
from embedlab.view.gallery.widget import kind
from gallery.page import WEIGHT

HOST = "<!doctype html><meta charset=utf-8><body style='margin:0'>"
BYTES = "(text) => new DataView(Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer)"
RENDER = """async ([source, traits, pictures]) => {
  const bytes = BYTES;
  const held = {...traits, pictures: bytes(pictures)}, heard = {};
  const set = (name, value) => { held[name] = value; for (const call of heard[`change:${name}`] ?? []) call(); };
  window.host = {held, saved: 0, set};
  const model = {
    get: (name) => held[name], set: (name, value) => { held[name] = value; }, save_changes: () => { host.saved += 1; },
    on: (event, call) => { (heard[event] ??= []).push(call); },
    off: (event, call) => { heard[event] = (heard[event] ?? []).filter((other) => other !== call); },
  };
  const address = URL.createObjectURL(new Blob([source], {type: "text/javascript"}));
  window.end = (await import(address)).default.render({model, el: document.body});
}""".replace("BYTES", BYTES)
LOADED = "[...document.querySelectorAll('.cell img')].every((i) => i.complete && i.naturalWidth === 128)"


@pytest.fixture
def host(browser):
    """A page that holds a frame; at the end nothing was asked of a network and nothing went wrong."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, permissions=[])
    page, wrong, asked = context.new_page(), [], []
    page.set_default_timeout(8000)
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    assert not wrong
    assert not [url for url in asked if not url.startswith(("data:", "blob:", "about:"))]


def inside(page):
    """The frame's own document, once its pictures are there."""
    page.frame_locator("iframe").locator(".cell img").first.wait_for()
    frame = page.frames[1]
    assert frame.evaluate(
        f"async () => {{ while (!({LOADED})) await new Promise(requestAnimationFrame); return true; }}"
    )
    return frame


def test_one_text_is_a_whole_gallery_in_a_frame(host, sweep):
    text = page_of(sweep)
    assert "<script src" not in text
    host.set_content(f'{HOST}<iframe srcdoc="{html.escape(text)}" style="width:100%;height:800px"></iframe>')
    frame = inside(host)
    expect(frame.locator("#counts")).to_contain_text("30 pictures")
    frame.locator("#score").select_option("change/ssim")
    frame.locator('[data-place="0,3"]').click()
    held = json.loads((sweep / "2" / "result.json").read_text())
    expect(frame.locator("#details .command")).to_have_text(held["command"])
    with host.expect_download() as caught:
        frame.locator("#details figure a").first.click()
    assert caught.value.path().read_bytes() == (sweep / "2" / "seed-0.png").read_bytes()
    assert host.url == "about:blank", "a frame leaves the address of its host alone"


def test_the_text_saved_as_a_file_is_a_gallery_too(opened, sweep, tmp_path):
    (tmp_path / "it.html").write_text(page_of(sweep))
    page = opened(tmp_path / "it.html", root=tmp_path)
    page.locator('[data-place="1,3"]').click()
    page.locator("#details .command").wait_for()
    assert "open=2%2F1" in page.url


def test_a_picture_that_several_share_is_carried_once_and_large_ones_are_smaller(tmp_path):
    folder = tmp_path / "sweep"
    for n in (0, 1):
        synthetic.put(folder / str(n), synthetic.result(n, {WEIGHT: n}, [0]), side=600)
    (folder / "1" / "baseline-seed-0.png").write_bytes((folder / "0" / "baseline-seed-0.png").read_bytes())
    text = page_of(folder)
    assert text.count("data:image/webp;base64,") == 3
    assert "4 pictures made smaller, to 512 pixels a side" in text
    assert len(text) < 700_000


def test_texts_of_others_stay_texts_in_one_text(host, tmp_path):
    bad = "</script><script>document.title='pwned'</script><!--"
    job = synthetic.result(0, {"prompt": bad, WEIGHT: 1}, [0, 1], prompt=bad) | {"label": bad, "command": bad}
    text = page_of(synthetic.put(tmp_path / "sweep" / "0", job).parent)
    host.set_content(f'{HOST}<iframe srcdoc="{html.escape(text)}"></iframe>')
    frame = inside(host)
    assert frame.evaluate("document.title") == "sweep · embedlab gallery"
    assert frame.locator("#prompt").text_content() == bad


def test_a_folder_that_is_no_sweep_is_one_line(tmp_path):
    for make in (page_of, widget):
        with pytest.raises(ConfigError, match="is not there; give the folder that a sweep wrote"):
            make(tmp_path / "nowhere")


def test_a_missing_anywidget_names_the_extra_that_brings_it(monkeypatch, sweep):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    kind.cache_clear()
    with pytest.raises(ConfigError, match=r"needs the package anywidget, .*pip install 'embedlab\[notebook\]'"):
        widget(sweep)


# ── the widget ──


def draw(page, own):
    """Draw a widget as a notebook does: its module is imported, and `render` is called with its traits."""
    traits = {name: getattr(own, name) for name in ("content", "height", "view", "picked", "marked")}
    page.set_content(HOST)
    page.evaluate(RENDER, [own._esm, traits, base64.b64encode(own.pictures).decode()])
    return inside(page)


def test_the_widget_shows_the_same_page_and_tells_what_is_looked_at(host, sweep):
    own = widget(sweep, height=700)
    frame = draw(host, own)
    assert host.locator("iframe").bounding_box()["height"] == 700
    frame.locator('[data-place="1,3"]').click()
    frame.locator("#details .command").wait_for()
    assert host.evaluate("host.held.picked") == "2/1"
    assert host.evaluate("host.held.view") == "open=2%2F1"
    host.evaluate("host.set('view', 'layout=list&mark=3%2F0')")
    expect(frame.locator(".cell")).to_have_count(30)
    assert host.evaluate("host.held.marked") == ["3/0"]
    assert host.evaluate("host.saved") > 0


def test_a_widget_that_is_read_again_keeps_its_view(host, tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, [0, 1])
    own = widget(folder)
    frame = draw(host, own)
    frame.locator('[data-place="1,2"]').click()
    synthetic.put(folder / "2", synthetic.result(2, {"operators": ["interpolate"], WEIGHT: 0.5}, [0, 1]))
    own.refresh()
    arrive = f"(text) => {{ host.held.pictures = ({BYTES})(text); }}"
    host.evaluate(arrive, base64.b64encode(own.pictures).decode())
    host.evaluate("(text) => host.set('content', text)", own.content)
    expect(frame.locator(".across")).to_have_text(["unedited", "0", "0.5", "1"])
    assert host.evaluate("host.held.picked") == "1/1"
    host.evaluate("end()")
    expect(host.locator("iframe")).to_have_count(0)


def test_a_widget_is_as_dark_as_its_notebook_and_lays_itself_out_when_it_is_seen(host, sweep):
    own = widget(sweep)
    traits = {name: getattr(own, name) for name in ("content", "height", "view", "picked", "marked")}
    host.set_content(HOST.replace("margin:0", "display:none; color:oklch(0.93 0 0)"))
    host.evaluate(RENDER, [own._esm, traits, base64.b64encode(own.pictures).decode()])
    frame = host.frames[1]
    frame.wait_for_function("document.querySelector('.cell')", polling=50)
    host.evaluate("document.body.style.display = 'block'")
    expect(frame.locator(".across")).to_have_count(1 + 2 + 2 * 5)  # both targets side by side, as where it is seen
    shade = "getComputedStyle(document.documentElement).colorScheme"
    assert frame.evaluate(shade) == "dark"
    host.evaluate("document.body.style.color = 'rgba(0, 0, 0, 0.87)'")
    frame.wait_for_function(f"{shade} === 'light'")


JUPYTERLAB = """<!doctype html><style>
.x:not(.y) { td, th, tr { text-align: right; white-space: normal; padding: .5em; border: none } }
.x { table { table-layout: fixed; border: none } img { max-width: 100%; height: auto } }
</style><div class="x" style="width: 300px">"""  # what it says of tables in outputs


def test_tables_look_the_same_where_a_notebook_has_styles_of_its_own(host):
    shown = Picture(Image.new("RGB", (128, 128)))
    rows = [[picture(shown, 72), "a word or two", "1"], [picture(shown, 72), "words " * 9, "2"]]
    host.set_content(JUPYTERLAB + block("", table(("", "words", "figure"), rows, ["figure"])))
    of = "(of) => [...document.querySelectorAll('tr:last-child td')].map((td) => getComputedStyle(td)[of])"
    assert host.evaluate(of, "textAlign") == ["left", "left", "right"]
    assert host.locator("img").first.bounding_box() | {"x": 0, "y": 0} == {"x": 0, "y": 0, "width": 72, "height": 72}
