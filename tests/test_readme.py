"""Everything written down is run: each block of the README, in an empty folder."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)
COMMANDS = [
    line.split("  #")[0].strip()
    for kind, block in BLOCKS
    if kind == "bash"
    for line in block.splitlines()
    if line.strip()
]
FAST = ["sampler.steps=2", "seeds=[0]", "tracker=silent"]


def test_there_is_nothing_in_it_that_this_file_does_not_run():
    assert {kind for kind, _ in BLOCKS} == {"bash", "python", "text"}
    assert {command.split()[0] for command in COMMANDS} == {"make", "embedlab"}


PYTHON = [block for kind, block in BLOCKS if kind == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=["table", "pipeline", "operator"])
def test_python_blocks_run(block, tmp_path):
    if "multirun/DATE/TIME" in block:  # what the first sweep of the page leaves
        (command,) = [c for c in COMMANDS if c.startswith("embedlab -m operators")]
        words = [*shlex.split(command)[1:], *FAST, "hydra.sweep.dir=multirun/DATE/TIME"]
        subprocess.run([sys.executable, "-m", "embedlab", *words], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("embedlab")])
def test_commands_run(command, tmp_path):
    words = shlex.split(command)[1:]
    if "--help" not in words:
        words += [word for word in FAST if word.split("=")[0] not in command or word.startswith("sampler.steps")]
    done = subprocess.run([sys.executable, "-m", "embedlab", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "--help" not in words and "explain" not in words:
        assert list(tmp_path.rglob("sheet.png"))
        assert len(list(tmp_path.rglob("gallery/index.html"))) == (
            "-m" in words or "experiment=puppy_and_skunk" in words
        )


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_knows_the_targets(command):
    done = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tree_names_what_is_there():
    tree = next(block for kind, block in BLOCKS if kind == "text")
    for line in tree.splitlines():
        name = line.split()[0]
        base = ROOT / "embedlab" if line.startswith("  ") else ROOT
        assert (base / name).exists(), name


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_the_page_of_studies_is_what_the_configs_say_and_has_every_picture():
    page = runpy.run_path(str(ROOT / "docs" / "studies.py"))["page"]()
    assert (ROOT / "docs" / "studies.md").read_text() == page, "run `python docs/studies.py --page`"
    for picture in re.findall(r"\]\((studies/.*?\.jpg)\)", page):
        assert (ROOT / "docs" / picture).is_file(), picture
