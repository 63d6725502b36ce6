"""Build the site of the documentation into build/docs/html: the manual, reference, mistakes, studies, notebooks.

    python docs/site.py           # all of it: studies checked against fresh results, notebooks executed (both kept)
    python docs/site.py --fast    # every page; studies as they were last seen, notebooks as they are written

Pages are laid out in build/docs/source as they stand in the tree, so that their links are those that a code host
follows. A warning is an error. Nothing is fetched, and the pages ask for nothing from elsewhere.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import mistakes
import reference

ROOT = Path(__file__).parent.parent
CARD = "embedlab/weights/emoji/README"
NAVIGATION: Mapping[str, tuple[str, ...]] = {
    "Prompts and weights": ("docs/prompts", "docs/weighting", "docs/parity"),
    "Edits": ("docs/operators", "docs/schedules"),
    "Sampling": ("docs/starts", "docs/schedulers", "docs/guidance", "docs/compvis"),
    "Attention": ("docs/attention",),
    "Sweeps and dashboards": ("docs/sweeps", "docs/play", "docs/trackers", "docs/files"),
    "Python and notebooks": ("docs/library", "docs/notebooks/*"),
    "Studies": ("docs/studies",),
    "Models and machines": ("docs/models", CARD, "docs/engines", "docs/gpu", "docs/profile"),
    "Reference": ("docs/reference/python", "docs/reference/settings", "docs/reference/commands", "docs/mistakes"),
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


def pages() -> dict[str, str | Path]:
    """Every file of the source tree by its place: a text, or the file that is copied."""
    found: dict[str, str | Path] = {name: ROOT / name for name in ALONE}
    for pattern in COPIED:
        found |= {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.glob(pattern))}
    found |= reference.pages()
    below = [f"mistakes/{mistake.name}" for mistake in mistakes.MISTAKES]
    found["docs/mistakes.md"] = (
        f"{(ROOT / 'docs/mistakes.md').read_text(encoding='utf-8')}\n{reference.toctree(below)}\n"
    )
    return {**found, "index.md": home([name.rpartition(".")[0] for name in found if name.endswith((".md", ".ipynb"))])}


def home(there: list[str]) -> str:
    """README, with the navigation under it; a page of docs/ that no part of the navigation names comes last."""
    parts = [(ROOT / "README.md").read_text(encoding="utf-8").rstrip()]
    listed = {
        caption: [page for name in names for page in fnmatch.filter(there, name)]
        for caption, names in NAVIGATION.items()
    }
    named = {page for names in listed.values() for page in names}
    listed["More"] = [page for page in there if page.count("/") == 1 and page not in named]
    for caption, names in listed.items():
        if names:
            parts.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```")
    return "\n\n".join(parts) + "\n"


def lay_out(source: Path) -> None:
    """The source tree; what is the same as before is left alone, so that Sphinx reads again what has changed."""
    wanted = pages()
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
    lay_out(folder / "source")
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
    code = build(given.out, given.fast)
    if not code:
        print(given.out / "html" / "index.html")
    sys.exit(code)
