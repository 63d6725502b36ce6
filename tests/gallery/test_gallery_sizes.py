"""The page at a desk, on a tablet and on a phone, in the light and in the dark: all is there and nothing is cut."""

import pytest
import synthetic
from playwright.sync_api import expect

from embedlab.view.gallery import read, together, write
from gallery.page import SEEDS, TOWARD, WEIGHT

SIZES = {"desk": (1440, 900), "tablet": (768, 1024), "phone": (390, 844)}
CUT = """() => {
  const wide = document.documentElement.clientWidth, scroller = document.getElementById("scroller");
  const seen = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility());
  const beyond = ({right, left}) => right > wide + 1 || left < -1;
  const out = seen("body *:not(.skip, .unseen)").filter((e) => beyond(e.getBoundingClientRect()));
  const words = seen("button, .across span, .value, label").filter((e) => e.scrollWidth > e.clientWidth + 1);
  return {
    out: out.map((e) => e.outerHTML.slice(0, 80)),
    words: words.filter((e) => getComputedStyle(e).display !== "inline").map((e) => e.textContent),
    sideways: scroller.scrollWidth - scroller.clientWidth,
  };
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A sweep of two axes; one whose unedited pictures differ from column to column; two sweeps on one page."""
    home = tmp_path_factory.mktemp("sizes")
    two = synthetic.sweep(home / "two", {TOWARD: ["skunk", "cat"], WEIGHT: [0, 0.25, 0.5, 0.75, 1]}, SEEDS)
    prompts = home / "prompts"
    for n, word in enumerate(("balloon", "fox", "cat")):
        job = synthetic.result(n, {"prompt": f"a {word} above a house"}, SEEDS, prompt=f"a {word} above a house")
        synthetic.put(prompts / str(n), job)
    other = synthetic.sweep(home / "other", {WEIGHT: [0, 0.5, 1]}, SEEDS[:2])
    return {
        "two axes": write(read(two)).index,
        "prompts": write(read(prompts)).index,
        "two sweeps": write(together([two, other])).index,
    }


@pytest.mark.parametrize("name", ["two axes", "prompts", "two sweeps"])
@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_cut_and_everything_is_there(size, name, opened, pages):
    wide, high = SIZES[size]
    scheme = "dark" if name == "prompts" else "light"
    page = opened(
        pages[name],
        root=pages[name].parent.parent.parent,
        viewport={"width": wide, "height": high},
        color_scheme=scheme,
        has_touch=size != "desk",
        is_mobile=size == "phone",
    )
    counts = page.locator("#counts").inner_text().split(" · ")
    assert counts[0].split()[0] == counts[1].split()[0], "some pictures are not on the page"
    assert page.locator(".cell.plain").count() > 0, "the unedited pictures are there"
    found = page.evaluate(CUT)
    assert found == {"out": [], "words": [], "sideways": 0}
    assert page.locator(".cell").first.bounding_box()["width"] >= 44
    assert page.locator("kbd").first.is_visible() == (size == "desk"), "keys are told where there are keys"
    if size == "phone":
        page.get_by_role("button", name="View").click()
    page.locator("#axis-0").click()
    expect(page.locator("#values-0")).to_be_visible()
    box = page.locator("#values-0").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= wide
    page.keyboard.press("Escape")
    page.locator("#help-button").click()
    expect(page.locator("#help .keys")).to_be_visible(visible=size == "desk")
    assert page.evaluate("document.getElementById('help').scrollWidth <= document.getElementById('help').clientWidth")
