"""What a notebook shows of every public value: a short repr, and HTML in which texts of users stay texts."""

import dataclasses
import inspect
import io
from html.parser import HTMLParser

import pytest
import tiny
import torch
from PIL import Image

import embedlab as lab
from embedlab import display
from embedlab.timing import Times

HOSTILE = "a puppy <script>alert(1)</script> \"'&"
VOID = {"img", "br", "hr", "input", "meta", "link"}
OPERATORS = [
    *tiny.OPERATORS,
    lab.Average("puppy"),
    lab.Concatenate(HOSTILE),
    lab.Drop("puppy"),
    lab.Subtract("puppy", HOSTILE),
    lab.Truncate(4),
]
HALF = lab.Interpolate("puppy", "skunk", 0.5)
# protocols, and what is raised; values of every other public class are looked at
TEXTS_ALONE = {"Auto", "CUDAGraph", "Compile", "Eager", "ONNXRuntime", "OpenVINO", "Rows", "Store", "TensorRT", "Texts"}
NO_VALUES = {"Operator", "Engine", "EmbedlabError", "Sweep"}  # a sweep: tests/test_notebook.py


@pytest.fixture(scope="module")
def made(emoji, tmp_path_factory):
    """One of every public value, of a hostile prompt where it has a prompt."""
    folder = tmp_path_factory.mktemp("display")
    towers = emoji.towers
    cell = lab.Cell(HOSTILE, [HALF], sampler=lab.Sampler(steps=2, keep="all"), attention=lab.Attention(maps=True))
    rows = lab.embed_all(HOSTILE, towers)
    _, rendered = lab.render(emoji, [cell.baseline(), cell], [0, 1])
    looked = lab.Detection("cat", 1.0, 2.0, 3.0, 0.9, {"red": 1.0}, "dog")
    found = lab.Detections((looked,), {"white": 1.0})
    job = lab.Job(
        lab.Source("emoji"), dataclasses.replace(cell, attention=lab.Attention()), (0,), folder / "job", name=HOSTILE
    )
    inside = lab.anatomy("emoji")
    values = {
        "Anatomy": inside,
        "Attention": lab.Attention(maps=True, words=[HOSTILE]),
        "Add": lab.Add("puppy", HOSTILE, 0.3),
        "Alternate": lab.Alternate([HOSTILE, "a cat"]),
        "Blend": lab.Blend([HOSTILE], [0.3]),
        "Cell": cell,
        "Colour": lab.Colour(blue=0.9),
        "Comparison": lab.Comparison((HOSTILE,), (inside,)),
        "Concept": lab.Concept("<script>", (torch.ones(2, 96),)),
        "Conditioning": lab.encode([rows], towers)[0],
        "Confine": lab.Confine("puppy", box=(0, 0, 0.5, 1)),
        "CopyCross": lab.CopyCross(),
        "CopySelf": lab.CopySelf(),
        "Detection": looked,
        "Detections": found,
        "Distance": lab.Distance("puppy.png"),
        "During": lab.During(lab.Replace(HOSTILE, torch.ones(96)), 0.5),
        "Embeddings": lab.edit(rows, [HALF], towers)[0],
        "Encoder": lab.Encoder(skip=1),
        "Grid": lab.show({HOSTILE: rendered.pictures}, columns=["<b>", "b"], title=HOSTILE),
        "Guidance": lab.Guidance(7.5, negative=HOSTILE),
        "Interpolate": lab.Interpolate("puppy", HOSTILE, lab.Ramp([0, 1])),
        "Inversion": lab.Inversion("puppy.png", prompt=HOSTILE),
        "Job": job,
        "Learned": lab.learn(emoji, "<script>", text="a rocket", begin="puppy", steps=2),
        "Likeness": lab.Likeness(text=HOSTILE),
        "Lookup": lab.lookup_of(towers[0]),
        "Loss": lab.Loss(lab.Likeness(text=HOSTILE)),
        "Maps": dataclasses.replace(rendered.maps, words=(HOSTILE, *rendered.maps.words[1:])),
        "Mass": lab.Mass("puppy"),
        "Metrics": lab.Metrics([HOSTILE]),
        "Model": dataclasses.replace(emoji, name=HOSTILE),
        "Moment": lab.Moment(0, 0, 4, 999.0, 14.6),
        "Profile": profile_of(),
        "Ramp": lab.Ramp([0, 1, 0.5], at=[0, 0.5, 1], shape="cosine"),
        "Rendered": rendered,
        "Replace": lab.Replace("puppy", torch.ones(3000, 96)),
        "Rows": lab.Rows(word=HOSTILE),
        "Reweight": lab.Reweight("puppy", 2.0),
        "Sampler": lab.Sampler("euler", steps=9),
        "Start": lab.Start("puppy.png", step=3),
        "Store": lab.Store(folder / "store"),
        "Switch": lab.Switch([HOSTILE, "a cat"], at=600, clock="timestep"),
        "Texts": lab.texts_of(towers),
        "Tokens": rows[0].tokens,
        "Tower": towers[0],
    }
    for name in ("Auto", "CUDAGraph", "Compile", "Eager", "ONNXRuntime", "OpenVINO", "TensorRT", "Source", "Variation"):
        values[name] = getattr(lab, name)()
    for one in OPERATORS:
        values.setdefault(type(one).__name__, one)
    return values


def profile_of():
    about = {"title": HOSTILE, "model": "emoji", "engine": "eager", "device": "cpu", "dtype": "float32"}
    numbers = {"threads": 1, "images": 1, "size": (8, 8), "rows": 77, "load": None, "loading": 0.0, "rate": 1.0}
    return lab.Profile(**about, **numbers, times=Times(), flops={}, operations=())


def public_values():
    return [name for name in lab.__all__ if inspect.isclass(getattr(lab, name)) and name not in NO_VALUES]


class Page(HTMLParser):
    """Reads a display, and refuses tags that are not closed, scripts, and whatever is run or fetched."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "iframe", "object", "embed", "link"), tag
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name not in ("src", "href") or value.startswith(
                ("data:image/png;base64,", "data:image/webp;base64,")
            ), value
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(html):
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open
    return "".join(page.texts)


@pytest.mark.parametrize("name", public_values())
def test_every_public_value_has_a_short_repr_and_html_in_which_texts_are_texts(name, made):
    value = made[name]
    assert type(value).__name__ == name
    assert len(repr(value)) < 400
    assert "\n" not in repr(value)
    if name in (
        "Auto",
        "CUDAGraph",
        "Compile",
        "Eager",
        "ONNXRuntime",
        "OpenVINO",
        "Rows",
        "Store",
        "TensorRT",
        "Texts",
    ):
        return
    text = read(value._repr_html_())
    if "<script>" in repr(value):
        assert "<script>" in text


def test_pictures_before_and_after_an_edit_stand_one_above_the_other(made):
    rendered = made["Rendered"]
    assert rendered.before.cell.label == "as written"
    shown = rendered._repr_html_()
    assert shown.count("<img") == 2 * 2 + 2 + 2 * len(rendered.maps.words)  # both rows, the steps, the maps
    assert [text in shown for text in ("as written", "seed 1", "step 0")] == [True] * 3
    picture = Image.open(io.BytesIO(rendered._repr_png_()))
    assert picture.width > 2 * 128
    assert picture.height > 2 * 128


def test_what_was_edited_is_marked_and_named(made):
    shown = made["Embeddings"]._repr_html_()
    assert shown.count('class="c m"') == 1
    assert "skunk" in read(shown)
    assert made["Embeddings"].edited == [2]


def test_secrets_are_blanked_wherever_they_are_shown(monkeypatch, emoji):
    monkeypatch.setenv("A_SECRET", "swordfish-in-a-jar")
    cell = lab.Cell("a swordfish-in-a-jar", [lab.Replace("a", "swordfish-in-a-jar", lengths="repeat")])
    for value in (cell, lab.embed_all(cell.prompt, emoji.towers)[0], lab.explain(cell, emoji.towers), *cell.operators):
        assert "swordfish" not in repr(value)
        assert "swordfish" not in value._repr_html_()


def test_a_display_of_very_much_is_short(emoji):
    rows = lab.embed_all("a puppy, " * 1000, emoji.towers)[0]
    assert len(rows._repr_html_()) < 200_000
    assert len(rows.tokens._repr_html_()) < 100_000
    pictures = [display.Picture(Image.new("RGB", (512, 512)))] * 300
    assert len(display.gallery(pictures)) < 300_000
    assert "and 172 more" in display.gallery(pictures)


def test_curves_hold_numbers_that_are_none():
    assert "nan" not in display.curves({"a": [(0.0, float("nan")), (1.0, 2.0), (2.0, float("inf"))]}, "x")
    assert display.curves({"a": []}) == ""
    assert "nan" not in display.strip([float("nan"), 1.0, 0.0])
