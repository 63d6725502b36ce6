"""The page of `embedlab play` in a real Chromium: what is set there, what it shows, and what it lets one take along."""

import argparse
import base64
import dataclasses
import io
import json
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from browser import find
from gallery.test_gallery_screens import CONTRAST, GROUND
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from embedlab import Auto, Cell, OpenVINO, Sampler, operators
from embedlab.cell import fingerprint
from embedlab.cli.commands import play
from embedlab.cli.compose import job_of
from embedlab.cli.main import opened as opened_words
from embedlab.errors import ConfigError
from embedlab.play import exports
from embedlab.play.exports import Studied
from embedlab.play.form import forms
from embedlab.play.opening import served
from embedlab.play.server import bound
from embedlab.play.state import cell_of, read, state_of
from embedlab.play.studio import Studio
from embedlab.schedule import varies
from embedlab.sweep.config import complete, conf_dir

WORDS = ["sampler.steps=6", "seeds=[0,1]", "tracker=silent", "metrics.words=[puppy,skunk]"]
FORMS = forms(play.known())
HOSTILE = "</textarea><img src=x onerror=\"document.title='pwned'\"> ${a} it's {{7*7}} \\"


@contextmanager
def serving(words):
    """The page's server, on a thread of its own."""
    chosen = argparse.Namespace(port=0, preview=3, no_browser=True)
    served = play.opened(play.composed(words), words, chosen)
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
def server():
    """The page's server, with the default model, small pictures and few steps."""
    with serving(WORDS) as served:
        yield served


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
    contexts, asked, wrong, served = [], [], [], []

    def open_(address=server.address, **settings):
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        served.append(address)
        page.goto(address)
        whole(page, "unedited")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert asked
    assert not [url for url in asked if not url.startswith((*served, "data:image/"))]
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
    expect(page.locator("#seen")).to_contain_text("2 of 2: skunk")
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


SCHEDULE = "embedlab.schedule."
LINE = {"_target_": f"{SCHEDULE}Ramp", "values": [0, 1], "at": [0.25, 0.75], "shape": "cosine"}
STEPS = {"_target_": f"{SCHEDULE}Switch", "values": [0, 1.5, 0.5], "at": [0.2, 0.6]}
NEEDED = {"rows": "puppy", "by": "picture"}  # of selectors that an operator has to be told
STATES = {
    **{name: [(name, {})] for name in FORMS},
    "again": [("scale", {"by": 2}), ("interpolate", {}), ("scale", {"rows": "picture", "by": 0.5})],
    "first again": [("scale", {}), ("scale", {}), ("interpolate", {})],
    "selectors": [("scale", {"rows": ["puppy", {"word": "a", "nth": 2}, 5], "stage": {"layer": 3}})],
    "sum": [("replace", {"by": {"a red cat": 1.0, "a cat": -1.0, "puppy": 1}, "lengths": "resample"})],
    "several": [
        ("interpolate", {"toward": ["cat", 'it\'s a "dog", ${x}'], "weight": [0.25, 0.5], "lengths": "repeat"})
    ],
    "prompts": [("blend", {"prompts": ["A picture of a (cat), \\${a}", "null"], "weight": [0.25, 0.5], "own": 1})],
    "blocks": [("scale", {"blocks": ["mid", "down.1"]}), ("drop", {"blocks": "up.0"})],
    "over time": [
        ("interpolate", {"weight": LINE, "toward": {**STEPS, "values": ["cat", 'a "dog", ${x}'], "at": 0.5}}),
        ("scale", {"by": STEPS}, {"begin": 2, "end": 5, "clock": "step"}),
        ("scale", {"by": {"_target_": f"{SCHEDULE}Alternate", "values": [1, 2], "every": 2}}),
    ],
}
BASES = {
    "plain": [],
    "settings": [
        "sampler=euler",
        "sampler.steps=9",
        "guidance.scale=4",
        "guidance.negative='a (dog), 1'",
        "size=[64,96]",
    ],
    "parts": [
        "language=a1111",
        "encoder.skip=1",
        "sampler=euler",
        "++sampler.options.s_churn=2",
        "engine=openvino",
        "start.variation.seed=3",
    ],
    "study": ["experiment=puppy_and_skunk"],
}


@pytest.fixture(scope="module")
def studied():
    """A page's beginning by the words of its command, without a model."""

    def begun(words):
        config = play.composed(words)
        words = play.without_study(words, config)
        job = job_of(config, folder=Path())
        return Studied(tuple(words), job.source, dataclasses.replace(job.cell, operators=()), job.engine, FORMS)

    made = {}
    return lambda name: made.setdefault(name, begun(BASES[name]))


def state_said(edits, made, prompt="A picture of a puppy"):
    """A state as a page sends it."""
    told = []
    for operator, settings, *part in edits:
        needed = {field.name: NEEDED[field.name] for field in made[operator].fields if field.default == "???"}
        told.append({"operator": operator, "settings": {**needed, **settings}, **({"during": part[0]} if part else {})})
    return {"prompt": prompt, "edits": told, "seeds": [3, 5]}


@pytest.mark.turns
@pytest.mark.parametrize(
    ("name", "base"),
    [*((name, "plain") for name in STATES), *((n, b) for b in BASES for n in ("again", "several") if b != "plain")],
)
def test_a_command_a_file_and_python_say_the_very_cell(name, base, studied, tmp_path):
    begun = studied(base)
    prompt = "A picture of a puppy" if name != "prompts" else "A picture, it's ${a} \\${b} {x: 1}, a puppy #"
    state = read(state_said(STATES[name], begun.forms, prompt), begun.forms)
    cell = cell_of(state, begun.base, begun.forms)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "played.yaml").write_text(exports.experiment(state, begun))
    words = shlex.split(exports.command(state, begun))[1:]
    for said in (words, ["experiment=played"]):
        with initialize_config_dir(config_dir=conf_dir(), version_base="1.3"):
            more = ["hydra.searchpath=[file://" + str(tmp_path) + "]"] if said is not words else []
            config = compose("config", overrides=[*opened_words(said), *more])
        job = job_of(complete(config), folder=Path())
        assert fingerprint(job.cell) == fingerprint(cell), said
        assert (job.seeds, job.at_once, job.source, job.engine) == ((3, 5), 2, begun.source, begun.engine)
    code = exports.python(state, begun, cell).partition("(edited,)")[0]
    found = {}
    exec(re.sub(r"^model = .*$", "", code, flags=re.M), found)
    assert fingerprint(found["cell"]) == fingerprint(cell)


def test_every_operator_has_a_form_of_its_own_fields():
    made = FORMS
    kinds = {getattr(operators, name) for name in operators.__all__}
    assert {form.kind for form in made.values()} == {kind for kind in kinds if dataclasses.is_dataclass(kind)}
    for form in made.values():
        assert {field.name for field in form.fields} == {field.name for field in dataclasses.fields(form.kind)}


@pytest.mark.parametrize("study", ["alternation", "when_placed", "when_decided"])
def test_a_study_that_changes_over_time_opens_with_that(study):
    config = play.composed([f"experiment={study}"])
    slots = OmegaConf.to_container(config.operators, resolve=True)
    job = job_of(config, folder=Path())
    begin = state_of(job.cell.prompt, slots, job.seeds, FORMS)
    base = dataclasses.replace(job.cell, operators=())
    assert varies(job.cell.operators)
    assert fingerprint(cell_of(begin, base, FORMS)) == fingerprint(job.cell)


@pytest.mark.parametrize(
    ("study", "prompt", "settings"),
    [
        ("demo", "a balloon above a house", {"rows": "balloon", "by": "house"}),
        ("when_decided", "A picture of a puppy", {"rows": "puppy", "by": "cat"}),
    ],
)
def test_a_study_that_sweeps_begins_with_the_first_value_of_each_axis(study, prompt, settings):
    config = play.composed([f"experiment={study}"])
    begin = state_of(config.prompt, OmegaConf.to_container(config.operators, resolve=True), config.seeds, FORMS)
    assert begin.prompt == prompt
    assert {name: begin.edits[0].settings[name] for name in settings} == settings
    assert (begin.edits[0].during or {}).get("begin") == (3 if study == "when_decided" else None)
    assert play.composed(["experiment=demo", "operators.swap.rows=fox"]).prompt == "a fox above a house"


@pytest.mark.turns
def test_a_setting_is_made_to_change_over_the_steps_and_comes_out_of_the_exports_so(opened, forks, tmp_path):
    page = opened()
    page.locator(".chip", has_text="puppy").click()
    whole(page, label="puppy → 0.5 skunk")
    still = pictures(page)
    page.locator("#edit-0-weight-way").select_option("Switch")
    whole(page, label="puppy → (0 until 0.5, then 0.5) skunk")
    page.locator("#edit-0-weight-values-0").fill("1")
    whole(page, label="puppy → (1 until 0.5, then 0.5) skunk")
    drawing = page.locator("#edits .over")
    box, edge = drawing.bounding_box(), page.locator("#edits .over .edge").bounding_box()
    x, y = (edge["x"] + edge["width"] / 2, edge["y"] + edge["height"] / 2)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + box["width"] * 0.12, y, steps=3)
    page.mouse.up()
    at = float(page.locator("#edit-0-weight-at-0").input_value())
    assert 0.6 < at < 0.7
    label = f"puppy → (1 until {at:g}, then 0.5) skunk"
    whole(page, label=label)
    drawn_over_time = pictures(page)
    assert not equal(drawn_over_time, still)
    page.locator("#edit-0-weight-way").select_option("Ramp")
    whole(page, label="puppy → (1 to 0.5 over fraction 0 to 1) skunk")
    assert page.locator("#edits .over polyline").get_attribute("points").count(" ") == 60
    page.locator("#undo").click()
    whole(page, label=label)
    assert equal(pictures(page), drawn_over_time)

    found = exported(page)
    for kind in ("command", "yaml", "python"):
        assert equal(drawn(kind, found[kind], forks, tmp_path / kind)[0], drawn_over_time), kind
    page.locator("summary").click()
    page.locator("#edit-0-during-way").select_option("part")
    whole(page, label=f"{label} from 0.2 until 0.6")
    page.locator(".sweep").last.click()
    expect(page.locator('#exported pre[data-kind="sweep"]')).to_contain_text("[1,0.25]")
    swept = shlex.split(page.locator('#exported pre[data-kind="sweep"]').inner_text())[1:]
    assert swept[-1] == ("operators.interpolate_1.operator.weight.values=[1,0],[1,0.25],[1,0.5],[1,0.75],[1,1]")
    one = swept[-1].partition("=")[0] + "=[1,0.5]"
    ran(forks.embedlab(*swept[:-1], one, "hydra.sweep.dir=swept", cwd=tmp_path))
    off = [
        np.abs(a.astype(int) - b).max() for a, b in zip(files(tmp_path / "swept" / "0"), pictures(page), strict=True)
    ]
    assert max(off) <= 1, (
        "a step that edited and unedited pictures have in common is drawn once, in calls of other sizes"
    )


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


@pytest.mark.turns
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", "seeds=[0],[1]"], "leave out -m"),
        (["sampler.steps=0"], "sampler.steps is 0"),
        (["stepz=3"], "there is no setting 'stepz'"),
        (["export=true"], "'export=true' is of a run"),
        (["--steps", "5"], "play has no flag --steps"),
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


# ── the thread that draws ──


@pytest.fixture
def studio(emoji):
    """Draws with the default model: eight steps, three at first."""
    made = Studio(emoji, Cell("", sampler=Sampler(steps=8)), FORMS, preview=3)
    yield made
    made.close()
    assert not made.thread.is_alive()


class Heard:
    """What one task was told, and what is done when it is told something for the first time."""

    def __init__(self, then=None):
        self.messages, self.over, self.then = [], threading.Event(), then

    def __call__(self, message):
        if message is None:
            assert not self.over.is_set(), "the end is told once"
            self.over.set()
            return
        assert not self.over.is_set(), "nothing comes after the end"
        self.messages.append(message)
        if self.then is not None and message["kind"] == "step" and message["stage"] == "all":
            then, self.then = self.then, None
            then()

    @property
    def stages(self):
        return [(m["which"], m["stage"]) for m in self.messages if m["kind"] == "pictures"]


WHOLE = [("edited", "few"), ("unedited", "few"), ("edited", "all"), ("unedited", "all")]


def half_a_skunk(weight=0.5, prompt="A picture of a puppy"):
    return state_said([("interpolate", {"weight": weight})], FORMS, prompt)


def test_few_steps_come_first_and_what_was_drawn_is_not_drawn_again(studio):
    first, again, more = Heard(), Heard(), Heard()
    studio.ask("one", half_a_skunk(), first)
    assert first.over.wait(120)
    assert first.stages == WHOLE
    assert studio.calls == 2 * (3 + 8)
    studio.ask("one", half_a_skunk(), again)
    assert again.over.wait(120)
    assert again.stages == [("edited", "all"), ("unedited", "all")]
    assert studio.calls == 2 * (3 + 8)
    studio.ask("one", half_a_skunk(0.75), more)
    assert more.over.wait(120)
    assert more.stages == [("edited", "few"), ("edited", "all"), ("unedited", "all")]
    assert studio.calls == 3 * (3 + 8)
    assert [m["pictures"] for m in more.messages if m["kind"] == "pictures"][2] == [
        m["pictures"] for m in first.messages if m["kind"] == "pictures"
    ][3]


def test_a_newer_state_ends_the_older_one_between_two_steps(studio):
    newer = Heard()
    older = Heard(lambda: studio.ask("one", half_a_skunk(0.9), newer))
    studio.ask("one", half_a_skunk(), older)
    assert newer.over.wait(120)
    assert older.over.is_set()
    assert older.stages == WHOLE[:2], "its first pictures, and one step of the others"
    assert newer.stages[-2:] == WHOLE[2:]
    assert studio.calls == 2 * 3 + 2 + 3 + 2 * 8


def test_another_page_gets_its_first_pictures_before_the_rest_of_this_ones(studio):
    order = []

    def named(name, heard):
        def tell(message):
            if message is not None and message["kind"] == "pictures":
                order.append((name, message["which"], message["stage"]))
            heard(message)

        return tell

    other = Heard()
    one = Heard(lambda: studio.ask("two", half_a_skunk(0.9), named("two", other)))
    studio.ask("one", half_a_skunk(), named("one", one))
    assert one.over.wait(120)
    assert other.over.wait(120)
    assert order.index(("two", "unedited", "few")) < order.index(("one", "unedited", "all"))
    assert one.stages == other.stages == WHOLE


def test_a_closed_page_ends_its_work_and_leaves_nothing(studio):
    heard = Heard(lambda: studio.forget("one"))
    studio.ask("one", half_a_skunk(), heard)
    assert heard.over.wait(120)
    assert heard.stages == WHOLE[:2]
    assert not studio.pages
    assert studio.calls == 2 * 3 + 2


def test_a_quiet_page_is_forgotten(studio, monkeypatch):
    heard = Heard()
    studio.ask("one", half_a_skunk(), heard)
    assert heard.over.wait(120)
    monkeypatch.setattr("embedlab.play.studio.QUIET", 0.0)
    later = Heard()
    studio.ask("two", {"prompt": "a cat"}, later)
    assert list(studio.pages) == ["two"]
    assert later.over.wait(120)


def test_what_fails_for_reasons_of_its_own_is_said_and_the_next_state_is_drawn(studio, monkeypatch, capsys):
    monkeypatch.setattr("embedlab.play.studio.sample_batch", lambda *given: 1 / 0)
    heard = Heard()
    studio.ask("one", half_a_skunk(), heard)
    assert heard.over.wait(120)
    assert heard.messages[-1] == {"kind": "fault", "field": "", "text": "ZeroDivisionError: division by zero"}
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.undo()
    heard = Heard()
    studio.ask("one", half_a_skunk(), heard)
    assert heard.over.wait(120)
    assert heard.stages == WHOLE


def during(said, part):
    """A state whose first edit works in a part of the steps."""
    said["edits"][0]["during"] = part
    return said


FAULTS = {
    "a field": (half_a_skunk("much"), "edits.0.weight", "weight is 'much'"),
    "a word": (half_a_skunk(prompt="a fox"), "edits.0.rows", "'puppy' is not in the prompt"),
    "yaml": (state_said([("interpolate", {"toward": "[cat"})], FORMS), "edits.0.toward", "cannot be read as YAML"),
    "a schedule": (
        state_said([("scale", {"by": "{_target_: embedlab.Ramp, start: 0, stop: 1}"})], FORMS),
        "edits.0.by",
        "a Ramp has no 'start'; it has values, at, clock, shape",
    ),
    "its times": (
        state_said([("interpolate", {"weight": {**LINE, "at": [0.6, 0.2]}})], FORMS),
        "edits.0.weight",
        "out of order",
    ),
    "its end": (
        state_said([("interpolate", {"weight": {**LINE, "at": [0, 30], "clock": "step"}})], FORMS),
        "edits.0.weight",
        "step 30 is past the end",
    ),
    "its values": (
        state_said([("scale", {"by": {**STEPS, "values": [1, 2, "b"]}})], FORMS),
        "edits.0.by",
        "it has to be a finite number",
    ),
    "a part of the steps": (
        during(half_a_skunk(), {"begin": 0.5, "end": "late"}),
        "edits.0.during",
        "'late' is no time",
    ),
    "no part": (during(half_a_skunk(), {"from": 0.5}), "edits.0.during", "begin, end and clock"),
    "code": (
        state_said([("replace", {"by": "{_target_: os.system, command: ls}"})], FORMS),
        "edits.0.by",
        "'os.system' is no setting that changes over time",
    ),
    "the second": (
        state_said([("scale", {}), ("replace", {"by": "hot dog"})], FORMS),
        "edits.1.by",
        "'hot dog' has 2",
    ),
    "seeds": ({"prompt": "a cat", "seeds": [0, 0]}, "seeds", "seed 0 is there twice"),
    "many seeds": ({"prompt": "a cat", "seeds": [*range(17)]}, "seeds", "16 pictures"),
    "a prompt": ({"prompt": "very " * 16000}, "prompt", "15,000"),
    "blocks": (state_said([("scale", {"blocks": "[nowhere]"})], FORMS), "edits.0.blocks", "nowhere"),
    "no page": ({"edits": 5}, "", "a state has a prompt"),
    "no operator": ({"prompt": "a cat", "edits": [{"operator": "os", "settings": {}}]}, "", "no operator 'os'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_is_said_at_its_field(name, studio):
    said, field, text = FAULTS[name]
    heard = Heard()
    studio.ask("one", said, heard)
    assert heard.over.wait(120)
    assert heard.messages[-1]["kind"] == "fault"
    assert heard.messages[-1]["field"] == field
    assert text in heard.messages[-1]["text"]
    assert not heard.stages


def test_models_of_all_kinds_are_drawn_with(model):
    made = Studio(model, Cell("", sampler=Sampler(steps=2), size=64), FORMS)
    try:
        heard = Heard()
        made.ask("one", half_a_skunk(), heard)
        assert heard.over.wait(120)
        assert heard.stages == WHOLE[2:], "two steps are few"
        assert heard.messages[-1]["kind"] == "seen"
    finally:
        made.close()


def test_what_two_text_encoders_read_is_told_and_one_of_them_can_be_edited_alone(opened, folders):
    words = [f"model.name={folders['sdxl']}", "size=64", "sampler.steps=2", "seeds=[0]", "tracker=silent"]
    with serving(words) as alike, serving([*words, "prompt_2=a house"]) as apart:
        page = opened(alike.address)
        expect(page.locator(".reader")).to_have_text(
            "read alike by text encoders 1 (text_encoder, rows of 16) and 2 (text_encoder_2, rows of 24); "
            "padding has id 49407 in one and 0 in the other"
        )
        page.locator(".chip", has_text="puppy").click()
        page.locator("#edit-0-encoder").select_option("2")
        whole(page)
        assert "operators.interpolate.encoder=2" in exported(page)["command"]
        page = opened(apart.address)
        assert page.locator(".reader").count() == 2
        page.locator(".chip", has_text="house").click()
        whole(page, label="house → 0.5 skunk")
        expect(page.locator("#edit-0-encoder")).to_have_value("2")
        page.locator(".window").first.locator(".chip", has_text="puppy").click()
        expect(page.locator("#edit-0-encoder")).to_have_value("1")
        whole(page, label="puppy → 0.5 skunk")


def test_auto_is_exported_as_what_it_chose_and_what_needs_eager_says_so(server, monkeypatch):
    words = (*WORDS, "engine=auto")
    job = job_of(play.composed(list(words)), folder=Path())
    monkeypatch.setattr(Auto, "choose", lambda self, model, work, say: OpenVINO())
    with bound(0) as place:
        made = served(job, {}, words, FORMS, place)
        try:
            assert made.studio.model.engine == "openvino"
            said = {"state": half_a_skunk(), "slider": {"edit": 0, "name": "weight", "from": -1, "to": 3}}
            found = made._exported(said)
            assert " engine=openvino " in found["command"]
            assert "engine=auto" not in found["command"]
            assert "override /engine: openvino" in found["yaml"]
            assert "lab.with_engine(model, lab.OpenVINO())" in found["python"]
            assert found["sweep"].endswith("operators.interpolate.weight=-1,0,1,2,3")
            blocks = made._exported({"state": state_said([("scale", {"blocks": ["mid"]})], FORMS)})
            assert " engine=eager " in blocks["command"]
            assert "with_engine" not in blocks["python"]
        finally:
            made.studio.close()


# ── as a process ──


def test_it_says_where_it_is_in_one_line_and_ctrl_c_ends_it(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "play.md").read_text()
    commands = [line for line in page.splitlines() if line.startswith("embedlab play")]
    assert len(commands) == 3
    for command in commands:
        play.composed(shlex.split(command)[2:])
    words = [*shlex.split(commands[-1])[1:], "--port", "0", "--no-browser"]
    process = subprocess.Popen(
        [sys.executable, "-m", "embedlab", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        line = process.stdout.readline()
        address = re.fullmatch(r"embedlab play is at (http://127\.0\.0\.1:\d+/[\w-]{32}/) \(Ctrl-C ends it\)\n", line)[
            1
        ]
        with urllib.request.urlopen(f"{address}about", timeout=30) as answer:
            begin = json.load(answer)["state"]
        assert (begin["prompt"], begin["edits"][0]["settings"]["rows"]) == ("A red fox", "fox")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert (out, err) == ("", "")
    finally:
        process.kill()
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_gives_way_to_the_next_and_a_named_one_is_refused():
    with bound(0) as first:
        first.listen()
        port = first.getsockname()[1]
        with bound(port) as second:
            assert port < second.getsockname()[1] < port + 20
        with pytest.raises(ConfigError, match=f"port {port} is taken"):
            bound(port, exactly=True)


# ── tabs, sizes, colours ──


def test_two_tabs_see_nothing_of_each_other_and_a_closed_one_is_forgotten(opened, server):
    one = opened()
    before = set(server.studio.pages)
    two = one.context.new_page()
    two.goto(server.address)
    whole(two, "unedited")
    two.locator("#prompt").fill("A picture of a skunk")
    two.locator("#prompt").blur()
    two.locator('.shots[data-stage="all"]:not(.old) img[alt*="skunk"]').first.wait_for()
    assert one.locator("#prompt").input_value() == "A picture of a puppy"
    assert one.locator('.shots img[alt*="skunk"]').count() == 0
    assert not equal(pictures(one, "unedited"), pictures(two, "unedited"))
    assert len(server.studio.pages) == len(before) + 1
    assert one.url == two.url == server.address, "nothing of a tab is in its address"
    two.close()
    while set(server.studio.pages) != before:  # for ever, were it never given up: pytest's limit ends it
        time.sleep(0.05)


LOOKS = [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")]


@pytest.mark.parametrize(("wide", "scheme"), LOOKS)
def test_it_fits_and_can_be_read_on_a_screen_and_on_a_phone(wide, scheme, opened):
    page = opened(
        viewport={"width": wide, "height": 900 if wide > 500 else 844}, color_scheme=scheme, has_touch=wide < 500
    )
    page.locator(".chip", has_text="puppy").click()
    whole(page, label="puppy → 0.5 skunk")
    page.locator("#keep").click()
    page.locator("#edit-0-weight").fill("much")
    page.locator('[id="fault-edits.0.weight"]:visible').wait_for()
    page.locator("details summary").click()
    assert (page.evaluate(GROUND) < 150) == (scheme == "dark")
    seen = page.evaluate(
        CONTRAST, "h1, h2, h3, label, button, select, summary, .note, .about, .fault, .ids, .word, .seen, .label"
    )
    assert len(seen) > 30
    assert min(seen)[0] >= 4.5, min(seen)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    page.locator("#export").click()
    expect(page.locator("#fault-export")).to_contain_text("weight is 'much'")
    page.locator("#exports button", has_text="Close").click()
    page.locator("#theme").click()
    assert (page.evaluate(GROUND) < 150) == (scheme == "light")


def test_two_edits_and_two_selections_by_clicks(opened):
    page = opened()
    page.locator(".chip", has_text="picture").click()
    page.locator("#edit-0").select_option("swap")
    page.locator(".chip", has_text="puppy").click()  # fills what is still missing
    whole(page, label="picture ↔ puppy")
    page.locator("#add").click()
    page.locator("#edit-1").select_option("noise")
    page.locator(".chip .word", has_text=re.compile("^A$")).click()
    page.locator(".chip", has_text="puppy").click()
    whole(page, label="picture ↔ puppy (position rows), 'A', nth 1 + puppy + 0.5 noise 0")
    page.locator('[aria-label="Remove edit 1"]').click()
    whole(page, label="'A', nth 1 + puppy + 0.5 noise 0")
    page.keyboard.press("Control+z")
    whole(page, label="picture ↔ puppy")
    page.locator("#seeds").fill("7, 8")
    page.locator("#seeds").blur()
    page.locator('.shots[data-stage="all"]:not(.old) img[alt*="seed 8"]').first.wait_for()
    assert len(pictures(page)) == 2
