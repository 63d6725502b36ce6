"""Files, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from embedlab.clean import check_name, redact
from embedlab.errors import ConfigError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError say which file it is about: of a full disk Python tells the reason alone."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, also when the power fails.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write(folder / "new" / "file", b"all of it")
    >>> [file.name for file in (folder / "new").iterdir()]
    ['file']
    """
    written(path, lambda file: file.write(data), sync=True)


def written(path: Path, fill: Callable[[BinaryIO], object], sync: bool = False) -> None:
    """Write a file by what `fill` puts into it, whole or not at all; an OSError names the file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                fill(file)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def append(path: Path, text: str) -> None:
    """Add lines to a file in one go, so that a kill leaves whole lines."""
    with naming(path), path.open("ab", buffering=0) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON without secrets, whole or not at all."""
    write(path, json.dumps(redact(value), indent=1, ensure_ascii=False, default=str).encode())


def redact_files(files: Iterable[Path]) -> None:
    """Blank the secrets in text files that others wrote, such as Hydra."""
    for file in files:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        if (blanked := redact(text)) != text:
            write(file, blanked.encode("utf-8", "surrogateescape"))


def make_folder(folder: Path) -> None:
    """Make a folder, and see that files can be written in it."""
    check_name(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        why = "it is a file" if folder.is_file() else error.strerror
        raise ConfigError(f"the folder '{folder}' cannot be written: {why}.") from None


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder."""
    for path in folder.glob(".*.*[0-9]"):
        if path.is_file():
            path.unlink()


def cache() -> Path:
    """Where embedlab keeps what it found out: `EMBEDLAB_CACHE`, else `embedlab` in `XDG_CACHE_HOME` or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("EMBEDLAB_CACHE") or Path(base) / "embedlab")
