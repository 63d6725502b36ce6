"""What a job leaves of itself in `result.json`: a frozen type, its one reader and its one writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from embedlab import readers
from embedlab.errors import ConfigError
from embedlab.files import write_json
from embedlab.sweep.versioned import FORMAT, read_object, wrong_format

FILE = "result.json"
STATES = ("done", "failed")
TEXTS = ("label", "prompt", "name", "error", "log_error", "command", "key")
KINDS: dict[str, type] = {
    "scores": dict,
    "overrides": dict,
    **dict.fromkeys(TEXTS, str),
    "job": int,
    "config": dict,
    "versions": dict,
    "parameters": dict,
    "notes": list,
    "schedule": list,
    "explain": dict,
}


class WrongResultError(ConfigError):
    """A result with something of another kind than ours; `key` is that of its job, where it has one."""

    def __init__(self, text: str, key: Any = None):
        super().__init__(text)
        self.key = key


@dataclass(frozen=True)
class PictureResult:
    """One picture of a job: its seed, its files by their names in the job's folder, and what was measured of it.

    >>> row = {"seed": 3, "clip_score/cat": 20.5, "closest": "cat", "file": "seed-3.png", "key": "0a"}
    >>> picture = PictureResult.from_dict(row)
    >>> picture.measured, picture.as_dict() == row
    ({'clip_score/cat': 20.5, 'closest': 'cat'}, True)
    """

    seed: int
    measured: Mapping[str, Any] = field(default_factory=dict)  # scores by name, and the word it is closest to
    file: str | None = None
    baseline: str | None = None  # the unedited picture of the seed
    key: str | None = None
    error: str | None = None  # why there is no picture
    batch: tuple[int, ...] | None = None  # its position in a batch, and the size of that
    runtime: Mapping[str, Any] | None = None
    maps: tuple[str, ...] | None = None  # heat maps of words, laid over it
    strip: str | None = None  # its kept steps, side by side

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], folder: Path | None = None) -> PictureResult:
        """A picture as it is written; a file that is none, or lies outside of `folder`, is an error of it."""
        own = {name: _frozen(row[name]) for name in PICTURE if row.get(name) is not None}
        for name in ("file", "baseline", "strip"):
            if folder is not None and name in own and (wrong := readers.why_not_inside(folder, own[name])):
                del own[name]
                own["error"] = own.get("error") or wrong
        if folder is not None and any(readers.why_not_inside(folder, name) for name in own.get("maps") or ()):
            del own["maps"]
        return cls(row["seed"], {key: v for key, v in row.items() if key != "seed" and key not in PICTURE}, **own)

    @property
    def shown(self) -> str | None:
        """The name of its file, where it came out."""
        return None if self.error else self.file

    def as_dict(self) -> dict[str, Any]:
        """The picture as it is written; what it has not is left out."""
        own = {name: _listed(getattr(self, name)) for name in PICTURE}
        return {"seed": self.seed, **self.measured} | {name: v for name, v in own.items() if v is not None}


PICTURE = tuple(one.name for one in fields(PictureResult) if one.name not in ("seed", "measured"))


@dataclass(frozen=True)
class Result:
    """What became of a job. None, or empty, is what its file does not say: one that failed early, or is older.

    >>> result = Result.from_dict({"status": "done", "job": 2, "pictures": [{"seed": 0}], "format": 1})
    >>> result.job, [picture.seed for picture in result.pictures]
    (2, [0])
    >>> Result.from_dict({"status": "broken", "pictures": []})
    Traceback (most recent call last):
    ...
    embedlab.sweep.result.WrongResultError: its status is 'broken', neither done nor failed
    """

    status: str
    error: str | None = None
    key: str | None = None  # a hash of all that it depends on
    job: int | None = None  # its number in the sweep
    name: str = ""
    label: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    prompt: str = ""
    notes: tuple[str, ...] | None = None
    explain: Mapping[str, Any] | None = None
    schedule: tuple[Mapping[str, Any], ...] | None = None  # a row a call of the UNet
    scores: Mapping[str, float | None] = field(default_factory=dict)
    pictures: tuple[PictureResult, ...] = ()
    logged: bool | None = None  # whether the tracker knows of it
    config: Mapping[str, Any] | None = None
    versions: Mapping[str, str] | None = None
    parameters: Mapping[str, int] | None = None  # how many each part of the model has
    concluded: Mapping[str, Any] | None = None  # what was found out of the model's files
    start: Any = None  # the start picture
    log_error: str | None = None  # why the tracker does not know of it
    more: Mapping[str, Any] = field(default_factory=dict)  # what else the file says
    folder: Path = Path()  # where its files are; not written

    @classmethod
    def from_dict(cls, value: Any, folder: Path | None = None) -> Result:
        """A result as it is written, its files looked for in `folder`; WrongResultError where something is amiss."""
        if wrong := _wrong_with(value):
            raise WrongResultError(wrong, value.get("key") if isinstance(value, Mapping) else None)
        own = {name: _frozen(value[name]) for name in RESULT if value.get(name) is not None}
        own["pictures"] = tuple(PictureResult.from_dict(row, folder) for row in value["pictures"])
        more = {key: v for key, v in value.items() if key not in RESULT and key != "format"}
        return cls(**own, more=more, folder=folder or Path())

    @property
    def has_pictures(self) -> bool:
        """Whether any of its pictures has a file."""
        return any(row.file for row in self.pictures)

    def as_dict(self) -> dict[str, Any]:
        """The result as it is written; what it has not is left out."""
        own = {name: _listed(getattr(self, name)) for name in RESULT} | {
            "pictures": [one.as_dict() for one in self.pictures]
        }
        return {"format": FORMAT} | {name: v for name, v in own.items() if v is not None} | dict(self.more)


RESULT = tuple(one.name for one in fields(Result) if one.name not in ("more", "folder"))


def read_result(folder: Path) -> Result:
    """The result in a job's folder.

    Raises what `read_object` raises, and WrongResultError where something in it is of another kind than ours.
    """
    file = folder / FILE
    value = read_object(file)
    try:
        return Result.from_dict(value, folder)
    except WrongResultError as error:
        raise WrongResultError(f"'{file}' cannot be read: {error}.", error.key) from None


def write_result(folder: Path, result: Result) -> None:
    """Write a job's result into its folder, whole or not at all."""
    write_json(folder / FILE, result.as_dict())


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _wrong_with(value: Any) -> str | None:
    """What is of another kind than in a result that embedlab writes; None where all is well."""
    if not isinstance(value, Mapping):
        return f"it is a {type(value).__name__}, not a result"
    if wrong := wrong_format(value):
        return wrong
    if (status := value.get("status")) not in STATES:
        return f"its status is {status!r:.40}, neither done nor failed"
    for name, kind in KINDS.items():
        one = value.get(name)
        if one is not None and (not isinstance(one, kind) or isinstance(one, bool)):
            return f"its {name} is a {type(one).__name__}"
    explain = value.get("explain") or {}
    for name, kind in (("tokens", list), ("layers", list), ("shifts", dict)):
        if not isinstance(explain.get(name, kind()), kind):
            return f"the {name} of its explain are a {type(explain[name]).__name__}"
    for name in ("label", "prompt", "scores", "overrides"):
        if name in value and value[name] is None:
            return f"its {name} is null"
    if strange := [key for key, one in value.get("scores", {}).items() if not _is_score(one)]:
        return f"its score {strange[0]:.40} is no number"
    return _wrong_pictures(value.get("pictures"))


def _wrong_pictures(rows: Any) -> str | None:
    if not isinstance(rows, list):
        return "it has no list of pictures"
    for row in rows:
        if not isinstance(row, Mapping) or type(row.get("seed")) is not int:
            return "one of its pictures has no seed"
        if not isinstance(row.get("error"), str | None):
            return f"the error of a picture is a {type(row['error']).__name__}"
    return None


def _is_score(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
