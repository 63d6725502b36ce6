"""What the pages of docs/extending say is done, word by word, in a copy of the checkout."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "extending").glob("*.md"))


def blocks(page):
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.S | re.M)


def place(checkout, kind, block):
    """Do what a block says: write a file, named in its first line, or change one by lines with + and -."""
    name, rest = block.split("\n", 1)
    if kind in ("python", "yaml"):
        file = checkout / name.removeprefix("# ")
        assert not file.exists(), file
        file.write_text(rest)
        return
    file, lines = checkout / name, rest.splitlines()
    before = "".join(f"{line[1:]}\n" for line in lines if line[0] != "+")
    after = "".join(f"{line[1:]}\n" for line in lines if line[0] != "-")
    text = file.read_text()
    assert text.count(f"\n{before}") == 1, f"{name} does not hold these lines once:\n{before}"
    file.write_text(text.replace(f"\n{before}", f"\n{after}"))


@pytest.fixture
def checkout(tmp_path):
    """A copy of the checkout, without weights."""
    copy = tmp_path / "embedlab"
    ignore = shutil.ignore_patterns("weights", "__pycache__", "fixtures")
    for folder in ("embedlab", "conf", "hydra_plugins", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignore)
    (copy / "embedlab" / "weights").symlink_to(ROOT / "embedlab" / "weights")
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


# a module of the copied checkout, run where torch and diffusers are imported already and nothing of ours is
IN_THE_COPY = """
import runpy, sys
OURS = ("embedlab", "hydra_plugins", "hydra", "omegaconf", "tests", "conftest", "table", "trials")
for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
    del sys.modules[name]
module, *words = sys.argv[1:]
sys.argv = [module, *words]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.turns
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_followed_literally(page, checkout, forks):
    assert {kind for kind, _ in blocks(page)} <= {"python", "yaml", "diff", "bash"}
    for kind, block in blocks(page):
        if kind != "bash":
            place(checkout, kind, block)
    env = {"PYTHONPATH": str(checkout), "COLUMNS": "120"}
    commands = [line for kind, block in blocks(page) if kind == "bash" for line in block.splitlines()]
    said = ""
    for command in commands:
        done = forks.python(IN_THE_COPY, *shlex.split(command.removeprefix("python -m ")), cwd=checkout, env=env)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said += done.stdout
    ruff = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "-q", "embedlab", "tests", *checkout.glob("*.py")],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ruff.returncode == 0, ruff.stdout
    assert {"operator": "Cap", "metric": "colour", "viewer": "seed-0.png"}.get(page.stem, "") in said
    if page.stem == "tracker":
        (lines,) = checkout.glob("outputs/**/scores.jsonl")
        assert "clip_score/prompt" in lines.read_text()
