"""Everything written down is run: each block of the README and of the manual's pages, in an empty folder."""

import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
from turns import mine

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "studies.md")
BLOCKS = [
    (page.stem, kind, block)
    for page in PAGES
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.S | re.M)
]
PYTHON = [(page, block) for page, kind, block in BLOCKS if kind == "python"]
COMMANDS = [
    (page, line.split("  #")[0].strip())
    for page, kind, block in BLOCKS
    if kind == "bash"
    for line in block.splitlines()
    if line.strip()
]
FAST = ["sampler.steps=2", "seeds=[0]", "tracker=silent"]
VIEWS = ("gallery", "sheet", "film", "replay", "sync", "anatomy", "play")
RUNS = [c for _, c in COMMANDS if c.startswith("embedlab") and c.split()[1] not in VIEWS and "resume=" not in c]
AFTERWARDS = [c for _, c in COMMANDS if c.startswith("embedlab") and c not in RUNS]
AFTERWARDS = [c for c in AFTERWARDS if c.split()[1] not in ("anatomy", "play")]
SESSION = """
import os, sys

os.environ["TQDM_DISABLE"] = "1"
for n, block in enumerate(sys.argv[1:]):
    try:
        exec(compile(block, f"block {n}", "exec"), {"__name__": "__main__"})
    except BaseException:
        sys.stderr.write(block)
        raise
"""


def ended_well(done):
    assert done.returncode == 0, f"{' '.join(done.args)}\n{done.stdout}\n{done.stderr}"


def shortened(command):
    """The words of a command, with fewer steps and images."""
    words = shlex.split(command)[1:]
    if "--help" not in words:
        words += [word for word in FAST if word.split("=")[0] not in command or word.startswith("sampler.steps")]
    return words


@pytest.fixture(scope="module")
def session(forks, tmp_path_factory):
    """A folder in which the pages' sweeps have been run where the pages say."""
    folder, sweeps = tmp_path_factory.mktemp("session"), [c for c in RUNS if "-m" in c.split()]
    named = [c for c in sweeps if "hydra.sweep.dir=" in c]
    first, *others = [c for c in sweeps if c not in named]
    others = [c for n, c in enumerate(others) if mine(n)]  # no line that comes later asks for them
    for command in [*named, *(c for c in RUNS if "hydra.run.dir=" in c)]:
        ended_well(forks.embedlab(*shortened(command), cwd=folder))
    for name, command in zip(["DATE/TIME", *map(str, range(len(others)))], [first, *others], strict=True):
        ended_well(forks.embedlab(*shortened(command), f"hydra.sweep.dir=multirun/{name}", cwd=folder))
    pages = list(folder.rglob("gallery/index.html"))
    assert len(pages) == len(named) + 1 + len(others), "a page each; blocks of Python make more here"
    return folder


def test_there_is_nothing_in_them_that_this_file_does_not_run():
    assert {kind for _, kind, _ in BLOCKS} == {"bash", "python", "text"}
    assert {command.split()[0] for _, command in COMMANDS} == {"make", "embedlab"}
    assert {page for page, c in COMMANDS if c.startswith("embedlab anatomy")} == {"inside"}, "run by test_anatomy"
    assert {page for page, c in COMMANDS if c.startswith("embedlab play")} == {"play"}, "run by test_play"
    assert [page for page, kind, _ in BLOCKS if kind == "text"] == ["architecture"]
    assert len(PAGES[0].read_text().splitlines()) <= 150, "the README is for a first look; the rest has pages"


LEFT = {  # files that blocks of Python write
    "library": {"between.png", "study.png"},
    "models": {"my-rocket.safetensors"},
    "profile": {"parts.json"},
    "schedules": {"from-puppy-to-cat.png"},
}


def check_blocks(page, forks, session):
    ended_well(forks.python(SESSION, *(block for name, block in PYTHON if name == page), cwd=session))
    assert LEFT.get(page, set()) <= {path.name for path in session.iterdir()}


def test_the_block_of_python_in_the_readme_runs(forks, session):
    check_blocks("README", forks, session)


@pytest.mark.turns
@pytest.mark.parametrize("page", sorted({page for page, _ in PYTHON} - {"README"}))
def test_blocks_of_python_run(page, forks, session):
    check_blocks(page, forks, session)


@pytest.mark.turns
@pytest.mark.parametrize("command", [c for c in RUNS if "-m" not in c.split()])
def test_commands_run(command, forks, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat, sitting\na dog\n")
    (tmp_path / "animals.csv").write_text("animal,colour\ncat,red\ndog,blue\n")
    ended_well(forks.embedlab(*shortened(command), cwd=tmp_path))
    if "--help" not in command and "explain" not in command and "profile" not in command:
        assert list(tmp_path.rglob("sheet.png"))
        sweep = any(word in command for word in ("experiment=puppy_and_skunk", "experiment=weightings", "prompts"))
        assert len(list(tmp_path.rglob("gallery/index.html"))) == sweep


def test_commands_on_a_finished_sweep_run(forks, session):
    made = {path: path.stat().st_mtime_ns for path in session.rglob("seed-*.png")}
    for command in AFTERWARDS:
        ended_well(forks.embedlab(*shlex.split(command)[1:], cwd=session))
    assert len(AFTERWARDS) >= 4
    assert {path: path.stat().st_mtime_ns for path in session.rglob("seed-*.png")} == made, "nothing was missing"
    assert list(session.rglob("film-weight.gif"))


@pytest.mark.parametrize("command", [c for _, c in COMMANDS if c.startswith("make")])
def test_make_knows_the_targets(command):
    done = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tree_names_what_is_there():
    (tree,) = (block for _, kind, block in BLOCKS if kind == "text")
    named = set()
    for line in tree.splitlines():
        name = line.split()[0]
        base = ROOT / "embedlab" if line.startswith("  ") else ROOT
        assert (base / name).exists(), name
        if line.startswith("  "):
            named.add(name.rstrip("/"))
    there = {p.name for p in (ROOT / "embedlab").iterdir() if p.name[0] not in "_." and p.suffix in ("", ".py")}
    assert named == there - {"pictures"}


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / "docs" / "extending").glob("*.md")], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_page_of_studies_is_what_the_configs_say_and_has_every_picture():
    page = runpy.run_path(str(ROOT / "docs" / "studies.py"))["page"]()
    assert (ROOT / "docs" / "studies.md").read_text() == page, "run `python docs/studies.py --page`"
    for picture in re.findall(r"\]\((studies/.*?\.jpg)\)", page):
        assert (ROOT / "docs" / picture).is_file(), picture


def test_the_drawing_of_the_rooms_is_what_the_code_says():
    drawing = runpy.run_path(str(ROOT / "docs" / "rooms.py"))["drawing"]()
    assert (ROOT / "docs" / "rooms.svg").read_text() == drawing, "run `python docs/rooms.py`"
