"""An anatomy as tables: for a terminal, for files of rows, and several beside each other."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from embedlab.arguments import check_fields
from embedlab.checks import is_list
from embedlab.clean import redact
from embedlab.display import Html, Shown, block
from embedlab.errors import ConfigError, brief
from embedlab.models.source import NAMES
from embedlab.tables import Table, fragment, in_terminal

if TYPE_CHECKING:
    from embedlab.structure.anatomy import Anatomy
    from embedlab.structure.values import Part

DEPTH = 2  # of a table that is looked at; files have all layers
SPARE = (
    "library",
    "dtype",
    "multiply-adds",
    "activations",
    "weights",
    "kernel",
    "input",
)  # columns that a narrow terminal goes without
LAYER = {  # a column of a file of rows → what stands in it
    "name": "name",
    "class": "kind",
    "depth": "depth",
    "input": "input",
    "output": "output",
    "kernel": "kernel",
    "stride": "stride",
    "parameters": "parameters",
    "own_parameters": "own_parameters",
    "multiply_adds": "multiply_adds",
    "flops": "flops",
    "own_flops": "own_flops",
    "weight_bytes": "weights",
    "activation_bytes": "activations",
}


def short(number: float) -> str:
    """A large number with three or four figures and its prefix.

    >>> short(1_606_546_882_560), short(11_840), short(640), short(0)
    ('1.607 T', '11.84 k', '640', '0')
    """
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.4g} {letter}"
    return f"{number:.4g}"


def size_of(number: float) -> str:
    """Bytes, in powers of ten.

    >>> size_of(3_438_083_856), size_of(0)
    ('3.438 GB', '0 B')
    """
    text = short(number)
    return f"{text}B" if " " in text else f"{text} B"


def across(shape: Sequence[int]) -> str:
    """A shape.

    >>> across((2, 4, 64, 64)), across(())
    ('2 × 4 × 64 × 64', '')
    """
    return " × ".join(map(str, shape))


# ── one ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def tables_of(anatomy: Anatomy, depth: int = DEPTH) -> list[Table]:
    """Totals, every part to a depth, components, scheduler, tokenizers."""
    found = [totals(anatomy), *(layers(part, depth) for part in anatomy.parts), components(anatomy)]
    words = tuple(anatomy.scheduler.items())
    found.append(Table("scheduler", ("setting", "value"), words))
    rows = tuple(
        (
            words.name,
            words.kind,
            f"{words.entries:,}",
            str(words.window),
            ", ".join(f"{role} {token} {n}" for role, (token, n) in words.special.items()),
        )
        for words in anatomy.tokenizers
    )
    right = frozenset({"entries", "window"})
    found.append(
        Table("tokenizers", ("name", "class", "entries", "window", "special tokens and their ids"), rows, right)
    )
    return found


def heading(anatomy: Anatomy) -> str:
    """What was asked, in a line."""
    high, wide = anatomy.size
    what = "a picture" if anatomy.pictures == 1 else f"{anatomy.pictures} pictures"
    guided = "guided" if anatomy.guided else "not guided"
    name = NAMES.get(anatomy.name, anatomy.name)
    return (
        f"{name}: {what} of {wide} × {high} pixels, {anatomy.steps} steps, {guided}, {anatomy.tokens} rows of text, "
        f"{anatomy.dtype}"
    )


def totals(anatomy: Anatomy) -> Table:
    """What each part costs, and all of them together."""
    rows = [
        (
            part.name,
            f"{part.whole.parameters:,}",
            size_of(part.whole.weights),
            part.dtype,
            str(part.rows),
            short(part.whole.flops),
            str(part.called),
            short(part.called * part.whole.flops),
            f"{part.called * part.whole.flops / anatomy.flops:.1%}",
            size_of(part.peak),
        )
        for part in anatomy.parts
    ]
    peak = max(part.peak for part in anatomy.parts if part.called)
    end = (
        "in all",
        f"{anatomy.parameters:,}",
        size_of(anatomy.weights),
        "",
        "",
        "",
        "",
        short(anatomy.flops),
        "100.0%",
    )
    columns = ("part", "parameters", "weights", "dtype", "rows", "FLOPs a call", "calls", "FLOPs", "share", "live peak")
    right = frozenset(columns) - {"part", "dtype"}
    return Table(heading(anatomy), columns, (*rows, (*end, size_of(peak))), right, total=True)


def layers(part: Part, depth: int) -> Table:
    """The layers of a part."""
    rows = tuple(
        (
            layer.name.removeprefix(f"{part.layers[0].name}.") if layer.depth else part.name,
            layer.kind,
            across(layer.input),
            across(layer.output),
            across(layer.kernel),
            f"{layer.parameters:,}",
            short(layer.multiply_adds),
            short(layer.flops),
            size_of(layer.weights),
            size_of(layer.activations),
        )
        for layer in part.to_depth(depth)
    )
    figures = ("parameters", "multiply-adds", "FLOPs", "weights", "activations")
    columns = ("layer", "class", "input", "output", "kernel", *figures)
    title = f"{part.name}: {part.kind}, {part.dtype}, {part.rows} in a call"
    return Table(title, columns, rows, frozenset(figures))


def components(anatomy: Anatomy) -> Table:
    """The pipeline and its files."""
    rows = []
    for one in anatomy.components:
        first, *more = one.files or (None,)
        for n, file in enumerate((first, *more)):
            about = (file.path.name, size_of(file.bytes), file.dtype, file.sha256[:12]) if file else ("", "", "", "")
            named = ("", "", "") if n else (one.name, one.library, one.kind)
            rows.append((*named, *about))
    columns = ("name", "library", "class", "file", "bytes", "dtype", "sha256")
    return Table("components", columns, tuple(rows), frozenset({"bytes"}))


def records(anatomy: Anatomy, depth: int | None = None) -> list[dict[str, Any]]:
    """A row for each layer, numbers as numbers."""
    every = [layer for part in anatomy.parts for layer in part.layers if depth is None or layer.depth <= depth]
    return [{column: getattr(layer, field) for column, field in LAYER.items()} for layer in every]


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV; a shape is written 2x4x64x64."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: "x".join(map(str, v)) if isinstance(v, tuple) else v for k, v in row.items()})
    return out.getvalue()


def as_json(anatomy: Anatomy, depth: int | None = None) -> str:
    """All that there is to know, as JSON."""
    parts = [
        {
            "name": part.name,
            "class": part.kind,
            "dtype": part.dtype,
            "rows": part.rows,
            "calls": part.called,
            "parameters": part.whole.parameters,
            "flops": part.whole.flops,
            "weight_bytes": part.whole.weights,
            "peak_bytes": part.peak,
        }
        for part in anatomy.parts
    ]
    asked = {key: getattr(anatomy, key) for key in ("name", "size", "pictures", "guided", "tokens", "dtype", "steps")}
    whole = {key: getattr(anatomy, key) for key in ("parameters", "weights", "flops", "peak")}
    value = asked | {
        "total": {
            "weight_bytes" if k == "weights" else "peak_bytes" if k == "peak" else k: v for k, v in whole.items()
        },
        "parts": parts,
        "layers": records(anatomy, depth),
        "components": [asdict(one) for one in anatomy.components],
        "scheduler": dict(anatomy.scheduler),
        "tokenizers": [asdict(words) for words in anatomy.tokenizers],
        "notices": list(anatomy.notices),
    }
    return json.dumps(redact(json.loads(json.dumps(value, default=str))), indent=1) + "\n"


# ── several ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _part(name: str, field: str) -> Callable[[Anatomy], int | None]:
    def measure(anatomy: Anatomy) -> int | None:
        part = next((part for part in anatomy.parts if part.name == name), None)
        return None if part is None else part.peak if field == "peak" else getattr(part.whole, field)

    return measure


def _attention(ending: str) -> Callable[[Anatomy], int]:
    """FLOPs of the UNet's attention layers of a kind."""
    return lambda anatomy: sum(layer.flops for layer in anatomy.part("unet").layers if layer.name.endswith(ending))


@dataclass(frozen=True)
class Comparison(Shown):
    """Several anatomies beside each other: each row is a measure, with its ratio to the first.

    labels: what stands above each. anatomies: one or more. Raises ConfigError for others than anatomies, and for labels
    that are not one each.

    >>> from embedlab import anatomy
    >>> both = Comparison(("77", "227"), (anatomy("sd1"), anatomy("sd1", tokens=227)))
    >>> next(row for row in both.table.rows if row[0] == "unet FLOPs a call")
    ('unet FLOPs a call', '1.607 T', '1.632 T (×1.016)')
    """

    labels: tuple[str, ...]
    anatomies: tuple[Anatomy, ...]

    def __post_init__(self) -> None:
        if (
            not is_list(self.anatomies)
            or not self.anatomies
            or not all(hasattr(one, "parts") for one in self.anatomies)
        ):
            raise ConfigError(f"anatomies is {brief(self.anatomies)}; it has to be a list of what lab.anatomy gives.")
        check_fields(self)
        if len(self.labels) != len(self.anatomies):
            raise ConfigError(f"there are {len(self.labels)} labels for {len(self.anatomies)} anatomies; one each.")

    @property
    def measures(self) -> dict[str, tuple[Callable[[Anatomy], Any], Callable[[Any], str] | None]]:
        """What is compared: how it is read, and how a number is written; None for texts."""
        most = max(self.anatomies, key=lambda anatomy: len(anatomy.parts))
        names = [part.name for part in most.parts]
        found: dict[str, tuple[Callable[[Anatomy], Any], Callable[[Any], str] | None]] = {
            "pixels": (lambda a: across(a.size[::-1]), None),
            "pictures": (lambda a: str(a.pictures), None),
            "rows of text": (lambda a: across(a.part("unet").layers[0].input[:1] + _text(a)), None),
            "latents": (lambda a: across(a.part("unet").whole.input[1:]), None),
            "predicts": (lambda a: a.scheduler["predicts"].partition("(")[2].rstrip(")"), None),
        }
        for name in names:
            found[f"{name} parameters"] = _part(name, "parameters"), lambda n: f"{n:,}"
        for name in names:
            found[f"{name} FLOPs a call"] = _part(name, "flops"), short
            if name == "unet":
                found["… of self-attention"] = _attention(".attn1"), short
                found["… of cross-attention, which reads the text"] = _attention(".attn2"), short
        for name in names:
            found[f"{name} live peak"] = _part(name, "peak"), size_of
        found["weights"] = (lambda a: a.weights), size_of
        found["steps"] = (lambda a: str(a.steps)), None
        found["FLOPs in all"] = (lambda a: a.flops), short
        return found

    @property
    def table(self) -> Table:
        """The comparison as texts."""
        rows = []
        for name, (read, write) in self.measures.items():
            values = [read(anatomy) for anatomy in self.anatomies]
            texts = [
                _beside(value, values[0], write) if n else _beside(value, None, write) for n, value in enumerate(values)
            ]
            rows.append((name, *texts))
        return Table("beside each other", ("", *self.labels), tuple(rows), frozenset(self.labels))

    @property
    def records(self) -> list[dict[str, Any]]:
        """A row for each measure, numbers as numbers."""
        return [
            {"measure": name} | {label: read(a) for label, a in zip(self.labels, self.anatomies, strict=True)}
            for name, (read, _) in self.measures.items()
        ]

    def as_json(self) -> str:
        """The same as JSON."""
        return json.dumps({"labels": self.labels, "measures": self.records}, indent=1) + "\n"

    def __str__(self) -> str:
        return in_terminal([self.table])

    def __repr__(self) -> str:
        return f"Comparison({', '.join(map(repr, self.labels[:8]))})"

    def _repr_html_(self) -> str:
        return block("beside each other", Html(fragment([replace(self.table, title="")])))


def _text(anatomy: Anatomy) -> tuple[int, ...]:
    return next((layer.input[1:] for layer in anatomy.part("unet").layers if layer.name.endswith(".attn2.to_k")), ())


def _beside(value: Any, first: Any, write: Callable[[Any], str] | None) -> str:
    if value is None:
        return "–"
    if write is None:
        return str(value)
    return write(value) + (f" (×{value / first:.4g})" if first else "")
