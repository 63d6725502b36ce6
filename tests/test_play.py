"""The page of `embedlab play` in a real Chromium: what is set there, what it shows, and what it lets one take along."""

import argparse
import base64
import dataclasses
import io
import json
import shlex
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from browser import find
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from embedlab import operators
from embedlab.cli.commands import play
from embedlab.play.form import forms

WORDS = ["sampler.steps=8", "tracker=silent", "metrics.words=[puppy,skunk]"]
HOSTILE = "</textarea><img src=x onerror=\"document.title='pwned'\"> ${a} it's {{7*7}} \\"


@pytest.fixture(scope="module")
def server():
    """The page's server, with the default model, small pictures and few steps."""
    chosen = argparse.Namespace(port=0, preview=3, no_browser=True)
    served = play.opened(play.composed(WORDS), WORDS, chosen)
    ready = threading.Event()
    thread = threading.Thread(target=served.run, args=(ready.set,))
    thread.start()
    assert ready.wait(60)
    yield served
    served.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert not served.studio.thread.is_alive()


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=find(), args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, server):
    """Opens the page; at the end nothing was asked of anybody else, and nothing went wrong."""
    contexts, asked, wrong = [], [], []

    def open_(**settings):
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(server.address)
        whole(page, "unedited")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert asked
    assert not [url for url in asked if not url.startswith((server.address, "data:image/"))]
    assert not wrong


def whole(page, which="edited", label=None):
    """Wait for all steps of the pictures of the present state."""
    at = f'.shots[data-which="{which}"][data-stage="all"]:not(.old)'
    place = page.locator(at) if label is None else page.locator(at, has=page.locator(".label", has_text=label))
    place.first.wait_for()


def pictures(page, which="edited"):
    """The pixels of the pictures of a row."""
    sources = (
        page.locator(f'.shots[data-which="{which}"]')
        .first.locator("img")
        .evaluate_all("found => found.map((one) => one.src)")
    )
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one.partition(",")[2])))) for one in sources]


def files(folder, start="seed-"):
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.rglob(f"{start}*.png"))]


def equal(some, others):
    return len(some) == len(others) and all(map(np.array_equal, some, others))


def exported(page):
    page.locator("#export").click()
    page.locator("#exported pre").first.wait_for()
    found = {one.get_attribute("data-kind"): one.inner_text() for one in page.locator("#exported pre").all()}
    page.locator("#exports button", has_text="Close").click()
    return found


def ran(done):
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def drawn(kind, text, forks, folder):
    """The edited and the unedited pictures of what was exported, by running it."""
    folder.mkdir()
    if kind == "python":
        ran(forks.python(text, cwd=folder))
        return files(folder), None
    words = shlex.split(text)[1:] if kind == "command" else ["--config-dir", str(folder / "own"), "experiment=played"]
    if kind == "yaml":
        (folder / "own" / "experiment").mkdir(parents=True)
        (folder / "own" / "experiment" / "played.yaml").write_text(text)
    ran(forks.embedlab(*words, "tracker=silent", "hydra.run.dir=run", cwd=folder))
    return files(folder / "run"), files(folder / "run", "baseline-seed-")


def test_a_word_is_clicked_its_weight_dragged_and_what_is_exported_draws_the_same(opened, forks, tmp_path):
    page = opened()
    assert page.locator(".chip .word").all_inner_texts() == [
        *("start", "A", "picture", "of", "a", "puppy", "end", "padding")
    ]
    page.locator(".chip", has_text="puppy").click()
    whole(page, label="puppy → 0.5 skunk")
    expect(page.locator(".chip", has_text="puppy")).to_have_attribute("aria-pressed", "true")
    half = pictures(page)

    slider = page.locator("#edit-0-weight-slider")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] / 2, steps=6)
    page.locator('.shots[data-which="edited"][data-stage="few"]').wait_for()  # pictures follow while it is held
    page.mouse.move(box["x"] + box["width"], box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    whole(page, label="puppy → 1 skunk")
    skunks = pictures(page)
    assert not equal(half, skunks)
    expect(page.locator("#seen")).to_contain_text("of 4: skunk")
    expect(page.locator("#seen")).to_contain_text("CLIP of the prompt")

    page.locator("#keep").click()
    page.locator("#undo").click()
    whole(page, label="puppy → 0.5 skunk")
    assert equal(pictures(page), half)
    assert equal(pictures(page, "kept"), skunks)
    page.locator("#redo").click()
    whole(page, label="puppy → 1 skunk")
    assert equal(pictures(page), skunks)
    page.locator("#edit-0-toward").fill("cat")
    page.locator("#edit-0-toward").blur()
    whole(page, label="puppy → 1 cat")
    page.locator(".kept .back").click()
    whole(page, label="puppy → 1 skunk")
    assert equal(pictures(page), skunks)

    found, unedited = exported(page), pictures(page, "unedited")
    for kind in ("command", "yaml", "python"):
        edited, before = drawn(kind, found[kind], forks, tmp_path / kind)
        assert equal(edited, skunks), kind
        assert kind == "python" or equal(before, unedited), kind
    swept = shlex.split(found["sweep"])[1:]
    assert swept[0] == "-m"
    assert swept[-1] == "operators.interpolate.weight=0,0.25,0.5,0.75,1"
    ran(forks.embedlab(*swept[:-1], "operators.interpolate.weight=0.5,1", "hydra.sweep.dir=swept", cwd=tmp_path))
    halves, wholes = (files(folder) for folder in sorted((tmp_path / "swept").glob("[01]*")))
    assert equal(halves, half)
    assert equal(wholes, skunks)


def test_every_operator_has_a_form_of_its_own_fields():
    made = forms()
    kinds = {getattr(operators, name) for name in operators.__all__}
    assert {form.kind for form in made.values()} == {kind for kind in kinds if dataclasses.is_dataclass(kind)}
    for form in made.values():
        assert {field.name for field in form.fields} == {field.name for field in dataclasses.fields(form.kind)}


def asked(server, path="", **headers):
    """The status of an answer, by a client of its own."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_who_lacks_the_word_or_comes_by_another_name_is_refused(server):
    mine, here = f"{server.token}/", f"127.0.0.1:{server.port}"
    status, headers = asked(server, mine)
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert asked(server)[0] == asked(server, "wrong/")[0] == asked(server, f"{server.token[:-1]}/")[0] == 403
    assert asked(server, mine, Host=f"localhost:{server.port}")[0] == 200
    for host in ("example.org", f"example.org:{server.port}", "127.0.0.1", f"{here}.example.org"):
        assert asked(server, mine, Host=host)[0] == 403, host
    assert asked(server, f"{mine}about", Origin="http://example.org")[0] == 403
    assert asked(server, f"{mine}about", Origin=f"http://{here}")[0] == 200
    request = urllib.request.Request(f"{server.address}draw", data=b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=30)
    assert asked(server, f"{mine}..%2f..%2fserver.py")[0] in (403, 404)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", "seeds=[0],[1]"], "leave out -m"),
        (["sampler.steps=0"], "sampler.steps is 0"),
        (["stepz=3"], "there is no setting 'stepz'"),
        (["export=true"], "'export=true' is of a run"),
    ],
)
def test_a_wrong_word_is_a_line_before_a_model_is_read(words, says, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "embedlab", "play", *words], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_fault_is_said_at_its_field(opened):
    page = opened()
    page.locator(".chip", has_text="puppy").click()
    whole(page, label="puppy → 0.5 skunk")
    page.locator("#edit-0-weight").fill("much")
    expect(page.locator('[id="fault-edits.0.weight"]')).to_contain_text("weight is 'much'")
    expect(page.locator("#edit-0-weight")).to_have_attribute("aria-invalid", "true")
    page.locator("#edit-0-weight").fill("0.25")
    whole(page, label="puppy → 0.25 skunk")
    expect(page.locator(".fault:visible")).to_have_count(0)
    page.locator("#edit-0-toward").fill("hot dog stand")
    expect(page.locator('[id="fault-edits.0.toward"]')).to_contain_text("lengths")
    page.locator("#edit-0-toward").fill("cat")
    page.locator("#prompt").fill("A picture of a " + "very " * 16000)
    expect(page.locator("#fault-prompt")).to_contain_text("15,000")
    page.locator("#prompt").fill("A picture of a fox")
    expect(page.locator('[id="fault-edits.0.rows"]')).to_contain_text("'puppy' is not in the prompt")
    page.locator(".chip", has_text="fox").click()
    page.locator(".chip", has_text="puppy").wait_for(state="detached")


def test_a_hostile_prompt_is_text_and_comes_out_of_the_exports_as_it_was(opened, server, forks, tmp_path):
    page = opened()
    page.locator("#prompt").fill(HOSTILE)
    page.locator("#prompt").blur()
    page.locator('.shots img[alt*="onerror"]').first.wait_for()
    whole(page, "unedited")
    assert page.title() == "embedlab play"
    assert page.locator("img[src='x']").count() == 0
    found = exported(page)
    words = shlex.split(found["command"])[1:]
    ran(forks.embedlab(*words, "tracker=silent", "hydra.run.dir=run", cwd=tmp_path))
    assert json.loads((tmp_path / "run" / "result.json").read_text())["prompt"] == HOSTILE
    assert equal(files(tmp_path / "run"), pictures(page, "unedited"))
    ran(forks.python(found["python"], cwd=tmp_path))
