"""What trackers get of a job or a sweep as config and tables: the same keys and columns in every tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from embedlab import readers
from embedlab.sweep.axes import short_names
from embedlab.sweep.result import Result
from embedlab.sweep.roles import OF_NO_RESULT
from embedlab.sweep.tables import Row, plain_cell

SIDE = 256  # pixels of the longer side of a picture in a table
UNSAID = {*OF_NO_RESULT} - {"engine"}  # settings that say nothing of what a run came to
FILES = ("file", "baseline", "key", "maps", "prompt")  # columns of results.csv that a table with pictures needs not

Table = tuple[list[str], list[list[Any]]]  # names of columns, and rows


def run_config(
    config: Mapping[str, Any] | None,
    axes: Mapping[str, Any],
    versions: Mapping[str, str] | None,
    parameters: Mapping[str, int] | None,
) -> dict[str, Any]:
    """The config of a run, of one shape for jobs and sweeps: settings, `axes` by short names, versions, sizes.

    >>> run_config({"size": 64, "store": "x"}, {"operators.shift.by": 1}, {"torch": "2"}, {"unet": 5, "vae": 2})
    {'size': 64, 'axes': {'shift.by': 1}, 'versions': {'torch': '2'}, 'parameters': {'unet': 5, 'vae': 2, 'all': 7}}
    """
    found = {key: value for key, value in (config or {}).items() if key not in UNSAID}
    names = short_names(axes)
    found["axes"] = {names[key]: value for key, value in axes.items()}
    if versions:
        found["versions"] = dict(versions)
    if parameters:
        found["parameters"] = {**parameters, "all": sum(parameters.values())}
    return found


def shared_config(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What configs have in common: a setting that differs is left out, since it stands among the axes.

    >>> shared_config([{"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "d": 3}])
    {'a': {'b': 1}, 'd': 3}
    """
    first, *others = configs or [{}]
    found: dict[str, Any] = {}
    for key, value in first.items():
        theirs = [other.get(key) for other in others]
        if isinstance(value, Mapping) and all(isinstance(one, Mapping) for one in theirs):
            if (inner := shared_config([value, *theirs])) or not value:  # type: ignore[list-item]
                found[key] = inner
        elif all(one == value and type(one) is type(value) for one in theirs):
            found[key] = value
    return found


def edited_tokens(result: Result) -> str | None:
    """The tokens whose rows an edit changed, as they stand in the prompt; None where no row was.

    >>> token = {"piece": "puppy", "kept": 0.7, "norm": 3.1, "norm_after": 2.7, "moved": 0.0}
    >>> same = {**token, "piece": "a", "kept": 1.0, "norm_after": 3.1}
    >>> edited_tokens(Result("done", explain={"tokens": [same, token]}))
    'puppy'
    """
    tokens = (result.explain or {}).get("tokens", ())
    changed = [
        str(token["piece"])
        for token in tokens
        if token.get("kept") != 1 or token.get("norm") != token.get("norm_after") or token.get("moved")
    ]
    return " ".join(changed) or None


def picture_table(folder: Path, rows: Sequence[Row], results: Sequence[Result]) -> Table:
    """A row for each picture: it, the unedited one of its seed, what varies, the edited tokens, and every score.

    `folder` is that which the rows name their files from.
    """
    axes = short_names(dict.fromkeys(key for row in rows for key in row.axes))
    tokens = {result.job: edited_tokens(result) for result in results}
    lines = []
    for row in rows:
        line = {key: value for key, value in row.as_dict().items() if key not in (*FILES, *row.axes)}
        shown = {"picture": _small(folder, row.picture.file), "unedited": _small(folder, row.picture.baseline)}
        set_ = {name: row.axes.get(key) for key, name in axes.items()}
        lines.append({**shown, **set_, "seed": row.picture.seed, "edited tokens": tokens.get(row.job), **line})
    columns = list(dict.fromkeys(key for line in lines for key in line))
    if not any(line["unedited"] for line in lines):
        columns = [key for key in columns if key not in ("unedited", "edited tokens")]
    return columns, [[_cell(line.get(key)) for key in columns] for line in lines]


def token_table(result: Result) -> Table | None:
    """The tokens of a job's prompt, a row each; None where it does not say."""
    tokens = (result.explain or {}).get("tokens")
    if not tokens:
        return None
    rows = [[", ".join(map(str, v)) if isinstance(v, list | tuple) else v for v in token.values()] for token in tokens]
    return list(tokens[0]), rows


def _small(folder: Path, file: str | None) -> Image.Image | None:
    if file is None:
        return None
    picture = readers.open_picture(folder / file).convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    return picture


def _cell(value: Any) -> Any:
    return value if isinstance(value, Image.Image) else plain_cell(value)
