"""`embedlab anatomy`: a model layer by layer, from its configs alone; several values of a setting beside each other."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException

from embedlab import readers
from embedlab.checks import whole_number
from embedlab.clean import drawn_on, one_line
from embedlab.cli import settings
from embedlab.cli.messages import unparsed
from embedlab.cli.progress import aside
from embedlab.errors import ConfigError, brief, listed, nearest
from embedlab.files import make_folder
from embedlab.limits import check_ending, check_settings

HELP = """\
usage: embedlab anatomy [KEY=VALUE ...]

anatomy: look inside a model: layers, sizes, FLOPs, memory, components; no weights are read.

  embedlab anatomy model=sdxl size=1024 steps=50
  embedlab anatomy model=sd1 depth=4 out=sd1.csv
  embedlab anatomy model=sd1,sd2,sdxl
  embedlab anatomy model=sd1 out=unet.svg

{settings}

Several values with commas are set beside each other. Besides: model.name and all else of `model` as in a run.
`model=sd1`, `sd2` and `sdxl` are looked at by the configs that embedlab ships, where the hub's cache has none."""
KEYS = {
    "model": "emoji, sd1, sd2, sdxl, or custom with model.name=PATH (emoji)",
    "size": "pixels: one side, or [height, width] (the model's own)",
    "pictures": "in one call of the UNet, all of one prompt (1)",
    "guided": "whether the UNet sees each picture twice, with the prompt and without (true)",
    "tokens": "rows of the prompt: 77 a window (77, 154, 231), or one run of windows (152, 227) (77)",
    "dtype": "float32, float16 or bfloat16 (the model's; the VAE is always float32)",
    "steps": "calls of the UNet (25)",
    "depth": "how deep the layers are shown; 9 is all (2; in files all)",
    "out": "a file: layers as .csv, everything as .json or .html, the UNet drawn as .svg or .png",
    "onnx": "a folder: each part as ONNX, checked against torch in ONNX Runtime",
}
TEXTS = ("out", "onnx", "model.name", "model.config", "model.scorer", "model.vae", "model.text_encoder")
MOST = 24  # columns of a comparison


def main(argv: list[str]) -> None:
    """Print the tables, or write the file that was asked for and print where it is."""
    if {"-h", "--help"} & set(argv):
        wide = max(map(len, KEYS))
        print(HELP.format(settings="\n".join(f"  {key.ljust(wide)}  {what}" for key, what in KEYS.items())))
        return
    asked: dict[str, list[Any]] = {}
    for word in argv:
        key, values = parsed(word)
        if key in asked:
            raise ConfigError(f"anatomy: {key} is given twice; several values are one list: {key}=A,B.")
        asked[key] = values
    out, onnx = (readers.path_of(asked.pop(key)[0], key) if key in asked else None for key in ("out", "onnx"))
    several = [key for key, values in asked.items() if len(values) > 1]
    check(asked, out, onnx, several)
    depth = asked.pop("depth", [None])[0]
    if (many := math.prod(map(len, asked.values()))) > MOST:
        raise ConfigError(
            f"anatomy: {listed(several)} make {many} columns; {MOST} are the most that stand beside each other."
        )
    named = [dict(zip(asked, values, strict=True)) for values in itertools.product(*asked.values())]
    for one in named:
        model_of(one)
    aside("looking inside " + ", ".join(dict.fromkeys(str(model_of(one)["name"]) for one in named)))

    from embedlab.models import Source
    from embedlab.structure.anatomy import anatomy
    from embedlab.structure.pages import save
    from embedlab.structure.tables import DEPTH, SPARE, Comparison, tables_of
    from embedlab.tables import show

    if onnx is not None:
        from embedlab.structure.onnx_export import export, exportable

        exportable(Source(**model_of(named[0])))
        make_folder(onnx)
    found = [
        anatomy(Source(**model_of(one)), **{key: value for key, value in one.items() if key.split(".")[0] != "model"})
        for one in named
    ]
    if several:
        labels = tuple(", ".join(_label(key, one[key]) for key in several) for one in named)
        result: Any = Comparison(labels, tuple(found))
        tables = [result.table]
    else:
        (result,) = found
        tables = tables_of(result, DEPTH if depth is None else depth)
    saved = None if out is None else save(result, out, depth)
    show(tables if out is None and onnx is None else tables[:1], console(), SPARE)
    for line in dict.fromkeys(line for one in found for line in one.notices):
        print(f"notice: {one_line(line)}.", file=sys.stderr)
    if saved is not None:
        print(saved)
    if onnx is not None:
        for exported in export(Source(**model_of(named[0])), result, onnx):
            print(exported)


def console() -> Any:
    """The terminal at its width; elsewhere, lines as long as they are."""
    from rich.console import Console

    from embedlab.tables import WIDEST

    wide = None if sys.stdout.isatty() else WIDEST
    return Console(file=drawn_on(sys.stdout), width=wide, highlight=False, emoji=False)


def parsed(word: str) -> tuple[str, list[Any]]:
    """A word as key and values; ConfigError for what is no setting of `anatomy`."""
    key, sign, value = word.partition("=")
    if word in ("-m", "--multirun"):
        raise ConfigError("anatomy: leave out -m; several values are written with commas: tokens=77,227.")
    if not sign:
        name = next((k for k in ("depth", "steps", "size") if word.lstrip("-") == k), "KEY")
        raise ConfigError(f"anatomy: '{word}' is no setting; it takes {name}=VALUE, and --help says which.")
    if key not in KEYS and not key.startswith("model."):
        near = nearest(settings.OTHERS.get(key, key), list(KEYS), 0.7)
        near = {"at_once": "pictures", "seeds": "pictures", "sampler.steps": "steps"}.get(key, near)
        hint = f"; try: embedlab anatomy {near}={value}" if near else f"; it has {listed(KEYS)}"
        raise ConfigError(f"anatomy: there is no setting '{key}'{hint}.")
    if not value:
        raise ConfigError(f"anatomy: {key} is empty; give it a value, or leave it out.")
    if key in TEXTS:
        return key, [None if value == "null" and key.startswith("model.") else value]
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        raise ConfigError(unparsed(word)) from None
    if not override.is_sweep_override():
        return key, [override.value()]
    if not override.is_choice_sweep() and not override.is_range_sweep():
        raise ConfigError(f"anatomy: '{word}' is no list of values; write them with commas.")
    values: list[Any] = []
    for item in override.sweep_iterator():
        one = item.text if isinstance(item, QuotedString) else item
        if one not in values:
            values.append(one)
        if len(values) > MOST:
            raise ConfigError(
                f"anatomy: {key} has more than {MOST} values, which is the most that stand beside each other."
            )
    return key, values


def check(asked: Mapping[str, list[Any]], out: Path | None, onnx: Path | None, several: list[str]) -> None:
    """Refuse what cannot be, before torch is imported."""
    for key, values in asked.items():
        for value in values:
            check_settings("embedlab.anatomy", {key: value})
    for value in asked.get("depth", []):
        whole_number(value, "depth", ConfigError, most=99)
    if "depth" in several:
        raise ConfigError("depth is one number: it says how deep the layers are shown.")
    if out is not None:
        check_ending(out, bool(several))
    for key, path, wrong in (("out", out, Path.is_dir), ("onnx", onnx, Path.is_file)):
        if path is not None and wrong(path):
            raise ConfigError(f"{key} is '{path}', which is a {'folder' if key == 'out' else 'file'}.")
    if onnx is not None and several:
        raise ConfigError("onnx=FOLDER exports one model at one size; leave out the lists of values.")


def model_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the model that was chosen, as its YAML file and the words have them."""
    option = asked.get("model", "emoji")
    known = settings.options("model")
    if not isinstance(option, str):
        raise ConfigError(f"model is {brief(option)}; it has to be the name of an option: {listed(known)}.")
    if option not in known:
        near = nearest(str(option), list(known), 0.6)
        hint = f"; try: embedlab anatomy model={near}" if near else f"; there are {listed(known)}"
        raise ConfigError(
            f"there is no model={option}{hint}; a folder, file or hub id is model=custom model.name={option}."
        )
    has = {s.name: s.default for s in settings.of_option("model", option)}
    for key, value in asked.items():
        name = key.removeprefix("model.")
        if name != key:
            if name not in has:
                raise ConfigError(f"model={option} has no setting '{name}'; it has {listed(has)}.")
            has[name] = value
    if has["name"] == "???":
        raise ConfigError("model.name has to be given: a hub id (owner/name), a folder or a file.")
    return has


def _label(key: str, value: Any) -> str:
    return str(value) if key in ("model", "model.name") else f"{key} {value}"
