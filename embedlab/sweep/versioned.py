"""The version of the files that a sweep leaves, and how one of them is read: of another version, it says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedlab import readers
from embedlab.errors import ConfigError

FORMAT = 1  # of result.json, sweep.json, results.parquet and the settings inside a PNG


class DamagedFileError(ConfigError):
    """A file that is cut short or none of ours: nothing in it is worth keeping."""


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of ours; one without a `format` is of the first.

    Raises ConfigError where there is no such file or it is of a newer embedlab, DamagedFileError where it is cut short
    or none of ours.
    """
    data = readers.read_bytes(file)
    try:
        value = readers.parsed(data.decode("utf-8"), repair=True)
    except UnicodeDecodeError:
        raise DamagedFileError(f"'{file}' cannot be read: it is no text in UTF-8.") from None
    except readers.JSONError as error:
        raise DamagedFileError(f"'{file}' cannot be read: {error}.") from None
    if not isinstance(value, dict):
        raise DamagedFileError(f"'{file}' cannot be read: it is a {type(value).__name__}, and no JSON object.")
    form = value.get("format", FORMAT)
    if isinstance(form, int) and form > FORMAT:
        raise ConfigError(
            f"'{file}' is of a newer embedlab (format {form!r:.20}, this one reads {FORMAT}); "
            "use that one, or another folder."
        )
    if wrong := wrong_format(value):
        raise DamagedFileError(f"'{file}' cannot be read: {wrong}.")
    return value


def wrong_format(value: Mapping[str, Any]) -> str | None:
    """Why a value is of another version than this embedlab writes; None where it is of the same."""
    form = value.get("format", FORMAT)
    same = isinstance(form, int) and form == FORMAT
    return None if same else f"its format is {form!r:.20}, and this embedlab reads {FORMAT}"
