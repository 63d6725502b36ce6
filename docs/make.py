"""Build the site of the documentation into build/docs/html: the manual, reference, mistakes, studies, notebooks.

    python docs/make.py           # all of it: studies checked against fresh results, notebooks executed (both kept)
    python docs/make.py --fast    # every page; studies as they were last seen, notebooks as they are written

Pages are laid out in build/docs/source as they stand in the tree, so that their links are those that a code host
follows. A warning is an error. Nothing is fetched, and the pages ask for nothing from elsewhere.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import mistakes
import reference
import studies

ROOT = Path(__file__).parent.parent
CARD = "embedlab/weights/emoji/README"
NAVIGATION: Mapping[str, tuple[str, ...]] = {
    "First steps": ("docs/terms", "docs/mistakes"),
    "Prompts and weights": ("docs/prompts", "docs/weighting", "docs/compare", "docs/parity"),
    "Edits": ("docs/operators", "docs/schedules"),
    "Sampling": ("docs/starts", "docs/schedulers", "docs/guidance", "docs/compvis"),
    "Attention": ("docs/attention",),
    "Sweeps and dashboards": ("docs/sweeps", "docs/play", "docs/trackers", "docs/files"),
    "Python and notebooks": ("docs/library", "docs/notebooks/*"),
    "Studies": ("docs/studies",),
    "Models and machines": ("docs/models", CARD, "docs/engines", "docs/gpu", "docs/profile"),
    "Reference": ("docs/reference/python", "docs/reference/settings", "docs/reference/commands"),
    "Inside": (
        "docs/architecture",
        "docs/inside",
        "docs/training",
        "CONTRIBUTING",
        "docs/extending/*",
        "CHANGELOG",
        "docs/next",
    ),
}
COPIED = (
    "docs/**/*.md",
    "docs/**/*.ipynb",
    "docs/**/*.jpg",
    "docs/studies/*.csv",
    "docs/**/*.svg",
    "docs/**/*.png",
    "embedlab/weights/emoji/*.md",
    "embedlab/weights/emoji/*.jpg",
)
ALONE = ("CONTRIBUTING.md", "CHANGELOG.md", "NOTICE", "LICENSE")


def pages(fresh: Path | None) -> dict[str, str | Path]:
    """Every file of the source tree by its place: a text, or the file that is copied; studies from fresh results."""
    found: dict[str, str | Path] = {name: ROOT / name for name in ALONE}
    for pattern in COPIED:
        found |= {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.glob(pattern))}
    found |= reference.pages()
    if fresh is not None:
        found |= {f"docs/studies/{path.name}": path for path in sorted(fresh.iterdir())}
        found["docs/studies.md"] = studies.page(fresh)
        run = mistakes.pages(mistakes.as_process, os.cpu_count() or 1)
        found |= {f"docs/{name}": text for name, text in run}
    listed = found["docs/mistakes.md"]
    text = listed.read_text(encoding="utf-8") if isinstance(listed, Path) else listed
    below = [f"mistakes/{mistake.name}" for mistake in mistakes.MISTAKES]
    found["docs/mistakes.md"] = f"{text}\n{reference.toctree(below)}\n"
    for name, content in found.items():
        if isinstance(content, Path) and content.suffix == ".md":
            found[name] = through_folders(content.read_text(encoding="utf-8"), content.parent)
    return {**found, "index.md": home([name.rpartition(".")[0] for name in found if name.endswith((".md", ".ipynb"))])}


def through_folders(text: str, folder: Path) -> str:
    """A page whose links to a folder, which a code host lists, lead to the first page in it."""

    def first(link: re.Match[str]) -> str:
        inside = sorted((folder / link[1]).glob("*.md")) if (folder / link[1]).is_dir() else []
        return f"]({link[1].rstrip('/')}/{inside[0].name})" if inside else link[0]

    return re.sub(r"\]\(([\w./-]+)\)", first, text)


def home(there: list[str]) -> str:
    """README, with the navigation under it; a page of docs/ that no part of the navigation names comes last."""
    parts = [through_folders((ROOT / "README.md").read_text(encoding="utf-8").rstrip(), ROOT)]
    listed = {
        caption: [page for name in names for page in fnmatch.filter(there, name)]
        for caption, names in NAVIGATION.items()
    }
    named = {page for names in listed.values() for page in names}
    listed["More"] = [page for page in there if page.count("/") == 1 and page not in named]
    listed["First steps"].insert(0, "Start here <self>")
    for caption, names in listed.items():
        if names:
            parts.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```")
    return "\n\n".join(parts) + "\n"


def results(folder: Path) -> Path:
    """The folder of pictures and tables of all studies; one of which nothing has changed is not run again.

    Where the code has changed, pictures that it would draw alike still come from the store.
    """
    fresh = folder / "results"
    fresh.mkdir(parents=True, exist_ok=True)
    files = [path for room in ("embedlab", "conf", "hydra_plugins") for path in sorted((ROOT / room).rglob("*"))]
    state = hashlib.sha256()
    for path in [*files, ROOT / "docs" / "studies.py"]:
        if path.is_file() and path.suffix != ".pyc" and path.parent.name != "experiment":
            state.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    for package in ("torch", "diffusers", "transformers"):
        state.update(version(package).encode())

    def one(study: Path) -> None:
        name, mine = study.stem, state.copy()
        mine.update(study.read_bytes())
        stamp = folder / "studies" / f"{name}.state"
        if not (stamp.is_file() and stamp.read_text() == mine.hexdigest() and (fresh / f"{name}.jpg").is_file()):
            made = folder / "studies" / name
            studies.run(name, made, folder / "store")
            studies.draw(made, fresh / f"{name}.jpg")
            studies.tabulate(made, fresh / f"{name}.csv")
            stamp.write_text(mine.hexdigest())
            print(name, flush=True)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(one, studies.STUDIES))
    stamp = folder / "studies" / "rates.state"
    if not (stamp.is_file() and stamp.read_text() == state.hexdigest()):
        subprocess.run([sys.executable, str(ROOT / "docs" / "rates.py"), str(fresh / "rates.csv")], check=True)
        stamp.write_text(state.hexdigest())
    return fresh


def lay_out(source: Path, fresh: Path | None) -> None:
    """The source tree; what is the same as before is left alone, so that Sphinx reads again what has changed."""
    wanted = pages(fresh)
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.relative_to(source).as_posix() not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = source / name
        data = content.read_bytes() if isinstance(content, Path) else content.encode()
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def build(folder: Path, fast: bool) -> int:
    """Lay out, and let Sphinx write `folder`/html; its exit code."""
    lay_out(folder / "source", None if fast else results(folder))
    cores = str(min(os.cpu_count() or 1, 4))
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", cores, "-c", str(ROOT / "docs")]
    words += ["-d", str(folder / "doctrees"), str(folder / "source"), str(folder / "html")]
    kept = {"EMBEDLAB_NOTEBOOKS": "off" if fast else "cache", "EMBEDLAB_NOTEBOOK_CACHE": str(folder / "notebooks")}
    return subprocess.run(words, env={**os.environ, **kept}, check=False).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the site of the documentation.")
    parser.add_argument("--fast", action="store_true", help="run no study and no notebook")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs", help="the folder, build/docs left out")
    parser.add_argument("--new", action="store_true", help="forget the pages of before")
    given = parser.parse_args()
    if given.new:
        for part in ("source", "doctrees", "html"):
            shutil.rmtree(given.out / part, ignore_errors=True)
    try:
        code = build(given.out.resolve(), given.fast)
    except (RuntimeError, ValueError) as error:  # a study or a command that failed, a sentence that does not hold
        sys.exit(str(error))
    if not code:
        print(given.out / "html" / "index.html")
    sys.exit(code)
