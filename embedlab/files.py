"""Files, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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
