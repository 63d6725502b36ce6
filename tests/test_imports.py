import ast
import subprocess
import sys
from pathlib import Path

import pytest

import embedlab

HOUSE = Path(embedlab.__file__).parent
ORDER = [
    *(
        "errors",
        "files",
        "clean",
        "readers",
        "prompt",
        "schedule",
        "select",
        "clip",
        "checkpoint",
        "fits",
        "models",
        "embeddings",
        "encoder",
        "operators",
        "explanation",
        "export",
        "guidance",
        "infotext",
        "images",
        "sampler",
        "metrics",
    ),
    *(
        "tracker",
        "experiment",
        "store",
        "build",
        "settings",
        "usage",
        "job",
        "batch",
        "progress",
        "crew",
        "trust",
        "launch",
        "replay",
        "sweep",
    ),
    *("contact", "film", "gallery", "sync", "app", "pretrain", "__main__"),
]


def test_every_public_name_is_there_and_sorted():
    assert embedlab.__all__ == sorted(embedlab.__all__)
    for name in embedlab.__all__:
        assert getattr(embedlab, name).__doc__, name


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(AttributeError, match="embedlab has no 'Replacement'; its public names are .*Replace"):
        embedlab.Replacement  # noqa: B018


def test_importing_the_library_brings_neither_hydra_nor_wandb_nor_torch():
    code = (
        "import sys, embedlab, embedlab.app\n"
        "assert 'torch' not in sys.modules and 'wandb' not in sys.modules, 'the command line must answer fast'\n"
        "embedlab.Replace, embedlab.render, embedlab.Sampler\n"
        "assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    subprocess.run(
        [sys.executable, "-c", "import sys, embedlab; embedlab.render; assert 'hydra' not in sys.modules"], check=True
    )


def steps_of(path: Path) -> set[str]:
    """Which modules of the house a file imports, those imported late left out."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "embedlab":
            parts = node.module.split(".")[1:] or [alias.name for alias in node.names]
            found.add(parts[0])
    return found


def test_a_file_imports_only_from_the_steps_before_it():
    for path in HOUSE.rglob("*.py"):
        mine = path.relative_to(HOUSE).parts[0].removesuffix(".py")
        if mine == "__init__":
            continue
        later = [other for other in steps_of(path) if ORDER.index(other) > ORDER.index(mine)]
        assert not later, f"{path.name} imports {later}, which come after it"
