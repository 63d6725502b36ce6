"""Compiled graphs on disk, by what they were made of: a sweep compiles once, and the next one reads."""

from __future__ import annotations

import atexit
import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

import embedlab
from embedlab.engines.graphs import Graph
from embedlab.errors import EngineError
from embedlab.files import cache, write_json
from embedlab.runtime import processor

WHOLE = "whole.json"  # sizes and hashes of the files beside it, written last
PACKAGES = ("torch", "diffusers", "transformers", "openvino", "onnxruntime", "onnxscript")


def key_of(engine: Any, graph: Graph) -> str:
    """What a compiled graph depends on: weights, inputs and the axes that are fixed, versions, machine, settings."""
    inputs = [
        (name, str(value.dtype), [None if n in graph.axes[name] else size for n, size in enumerate(value.shape)])
        for name, value in graph.inputs.items()
    ]
    threads = torch.get_num_threads()
    machine = [platform.machine(), processor(), torch.backends.cpu.get_cpu_capability(), threads]
    what = [repr(engine), graph.part, graph.content, inputs, versions(), machine, *engine.depends_on(graph)]
    return hashlib.sha256(json.dumps(what, default=str).encode()).hexdigest()[:24]


def versions() -> dict[str, str]:
    """Of the packages that a compiled graph depends on, those that are here."""
    found = {"embedlab": embedlab.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def folder() -> Path:
    """Where compiled graphs are kept."""
    return cache() / "engines"


class Entry:
    """The folder of one compiled graph: made once, whoever comes second waits, and read back whole or not at all."""

    def __init__(self, engine: Any, graph: Graph):
        self.folder = folder() / f"{engine.name}-{graph.part}-{key_of(engine, graph)}"

    @property
    def there(self) -> bool:
        """Whether it was made, without a look at what its files hold."""
        return (self.folder / WHOLE).is_file()

    @property
    def whole(self) -> bool:
        """Whether all of its files are as they were written."""
        try:
            files = json.loads((self.folder / WHOLE).read_text())
            return all(hash_of(self.folder / name) == known for name, known in files.items())
        except (OSError, ValueError, AttributeError):
            return False

    def ready(self, make: Callable[[Path], object], say: Callable[[str], None]) -> tuple[Path, bool]:
        """The folder with the files that `make` writes into a folder; and whether they were made now.

        Where the cache cannot be written to (full, read-only) a temporary folder serves, which `say` is told.
        """
        if self.whole:
            return self.folder, False
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.folder}.lock", timeout=3600):
                if self.whole:  # another process made it meanwhile
                    return self.folder, False
                if self.folder.exists():
                    say(f"the compiled graph in {self.folder} is not whole; it is made again")
                    shutil.rmtree(self.folder)
                self._make(make)
                return self.folder, True
        except (OSError, Timeout) as error:
            why = getattr(error, "strerror", None) or str(error)
            say(f"the compiled graph cannot be kept in {self.folder.parent} ({why}); it is made again next time")
        try:
            place = Path(tempfile.mkdtemp(prefix="embedlab-engine-"))
            atexit.register(shutil.rmtree, place, ignore_errors=True)
            make(place)
        except OSError as error:
            raise EngineError(
                f"a compiled graph has no place in {tempfile.gettempdir()} either ({error.strerror or error}): "
                "engine=eager."
            ) from error
        return place, True

    def _make(self, make: Callable[[Path], object]) -> None:
        place = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.", dir=self.folder.parent))
        try:
            make(place)
            write_json(place / WHOLE, {file.name: hash_of(file) for file in sorted(place.iterdir())})
            place.rename(self.folder)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise


def hash_of(file: Path) -> list[Any]:
    """Size and hash of a file."""
    with file.open("rb") as stream:
        return [file.stat().st_size, hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()]


def require(engine: str, package: str, extra: str | None = None) -> None:
    """Refuse an engine whose package is missing, by the extra that brings it."""
    try:
        version(package)
    except PackageNotFoundError:
        extra = extra or engine
        raise EngineError(
            f"engine={engine} needs the package {package}, which is not installed: pip install 'embedlab[{extra}]'."
        ) from None
