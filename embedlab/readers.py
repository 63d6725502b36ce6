"""Files from elsewhere, read within limits. What cannot be taken is one of our errors, which names the file and why.

A file is a regular file: a pipe or a device would be read for ever. JSON has a largest size, a deepest nesting and no
numbers of hundreds of digits; a picture has no more pixels than Pillow thinks safe.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import warnings
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from embedlab.errors import ConfigError, EmbedlabError, PictureError, brief

if TYPE_CHECKING:
    from PIL import Image

LARGEST = 256 * 2**20  # bytes of a file that is read as a whole
DEEPEST = 100  # levels of JSON
DIGITS = 40  # of a whole number in JSON


def path_of(text: str | Path, what: str = "the path") -> Path:
    """A path as a user writes it, `~` included; ConfigError for what is none.

    >>> path_of("")
    Traceback (most recent call last):
    ...
    embedlab.errors.ConfigError: the path is ''; it has to be the name of a file or a folder.
    """
    if not isinstance(text, str | Path):
        raise ConfigError(f"{what} is {brief(text)}; it has to be the name of a file or a folder.")
    name = str(text)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what} is {name!r}, which is no text in UTF-8.") from None
    if not name.strip() or "\0" in name:
        raise ConfigError(f"{what} is {name!r}; it has to be the name of a file or a folder.")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise ConfigError(f"{what} is '{name}', and there is no user '{name[1:].partition('/')[0]}' here.") from None


def word(text: str) -> Path:
    """The same for a word of a command line (the `type` of argparse)."""
    try:
        return path_of(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def check_file(path: Path | str, kind: type[EmbedlabError] = ConfigError) -> None:
    """Refuse what is no regular file that is there."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise kind(f"'{path}' cannot be read: {error.strerror}.") from None
    except ValueError:  # NUL, or half of a pair
        raise kind(f"{str(path)!r} is no name of a file.") from None
    if stat.S_ISDIR(mode):
        raise kind(f"'{path}' cannot be read: it is a folder.")
    if not stat.S_ISREG(mode):
        raise kind(f"'{path}' cannot be read: it is a pipe or a device.")


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """All of a regular file that is not too large."""
    check_file(path)
    try:
        if (size := path.stat().st_size) > most:
            raise ConfigError(f"'{path}' has {size} bytes, and {most} are the most that are read.")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}.") from None


class NoPictureError(PictureError):
    """A file that is no picture of the formats that are read."""


class JSONError(ValueError):
    """Why a text is no JSON, or more than is taken."""


def parsed(text: str, repair: bool = False) -> Any:
    """The value of a JSON text; JSONError says why there is none. `repair` puts U+FFFD for what is no text in it.

    >>> parsed('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> parsed("[" * 1000 + "]" * 1000)
    Traceback (most recent call last):
    ...
    embedlab.readers.JSONError: it is nested more than 100 levels deep
    """
    try:
        value = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise JSONError(f"it is nested more than {DEEPEST} levels deep") from None
    except JSONError:
        raise
    except ValueError as error:
        raise JSONError(f"it is no JSON, or cut short ({error})") from None
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise JSONError(f"it is nested more than {DEEPEST} levels deep")
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        depth += 1
    if re.search(r"\\u[dD][89a-fA-F]", text):
        again = json.dumps(value, ensure_ascii=False)
        whole = again.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if whole != again and not repair:
            raise JSONError("it holds half of a pair of code units, which is no text")
        value = json.loads(whole)
    return value


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise JSONError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def why_not_inside(folder: Path, name: Any) -> str | None:
    """Why a name is none of a regular file in a folder, or None; a file that is not there yet may come."""
    if not isinstance(name, str) or not name or "\0" in name:
        return f"{name!r:.80} is no name of a file"
    path = PurePosixPath(name)
    try:
        target = (folder / name).resolve()
        outside = not target.is_relative_to(folder.resolve())
        mode = target.stat().st_mode if target.exists() else stat.S_IFREG
    except (OSError, ValueError, RuntimeError):
        return f"{name!r:.80} is no name of a file"
    if path.is_absolute() or ".." in path.parts or outside:
        return f"'{name:.80}' lies outside of the folder of its job"
    return None if stat.S_ISREG(mode) else f"'{name:.80}' is no file"


def open_picture(path: Path | str, formats: Collection[str] | None = None) -> Image.Image:
    """A picture from a regular file, read to its end; PictureError says why there is none."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415  most files are no images

    check_file(path, PictureError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=None if formats is None else list(formats))
            with picture:
                picture.load()
            return picture
    except UnidentifiedImageError:
        kinds = f" ({' or '.join(formats)})" if formats else ""
        raise NoPictureError(f"'{path}' is not a picture that can be read{kinds}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(f"'{path}' has more pixels than are read: {Image.MAX_IMAGE_PIXELS} are the most.") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble on
        raise PictureError(f"'{path}' cannot be read to its end: {error}.") from None
