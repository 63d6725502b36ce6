"""Tables of texts, for a terminal and for a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from embedlab.clean import one_line, redact

WIDEST = 1000  # letters of a line where nobody's terminal has to hold it


@dataclass(frozen=True)
class Table:
    """A title, names of columns, rows of texts; what is in `right` stands to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()
    total: bool = False


# ── in a terminal ─────────────────────────────────────────────────────────────────────────────────────────────────


def rich_table(table: Table, without: Sequence[str] = ()) -> RichTable:
    """A table for rich, perhaps without some columns."""
    made = RichTable(box=None, pad_edge=False)
    kept = [n for n, column in enumerate(table.columns) if column not in without]
    for n in kept:
        side: Literal["left", "right"] = "right" if table.columns[n] in table.right else "left"
        made.add_column(table.columns[n], justify=side, no_wrap=True, header_style="dim")
    for k, row in enumerate(table.rows):
        style = "bold" if table.total and k + 1 == len(table.rows) else None
        made.add_row(*(Text(one_line(redact(row[n]))) for n in kept), style=style)
    return made


def show(tables: Sequence[Table], console: Console, spare: Sequence[str] = ()) -> None:
    """Print tables; on a narrow terminal without those of the spare columns that it has no room for."""
    free = console.options.update_width(WIDEST)
    for n, table in enumerate(tables):
        if n:
            console.print()
        without: list[str] = []
        for column in spare:
            if console.measure(rich_table(table, without), options=free).maximum > console.width:
                without.append(column)
        console.print(Text(one_line(redact(table.title)), style="bold"), soft_wrap=True)
        console.print(rich_table(table, without))


def in_terminal(tables: Sequence[Table]) -> str:
    """Tables as text, as wide as they are."""
    out = io.StringIO()
    show(tables, Console(file=out, width=WIDEST))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


# ── on a page ─────────────────────────────────────────────────────────────────────────────────────────────────────


def fragment(tables: Sequence[Table]) -> str:
    """Tables as HTML, every text escaped.

    >>> fragment([Table("a <b>", ("x",), (("1 & 2",),))])
    '<table><caption>a &lt;b&gt;</caption><tr><th>x</th></tr><tr><td>1 &amp; 2</td></tr></table>'
    """
    made = []
    for table in tables:
        sides = [' class="r"' if column in table.right else "" for column in table.columns]

        def line(kind: str, texts: Sequence[str], sides: Sequence[str] = sides) -> str:
            return "".join(
                f"<{kind}{side}>{escape(redact(text))}</{kind}>" for text, side in zip(texts, sides, strict=True)
            )

        last = len(table.rows) - 1
        starts = ['<tr class="all">' if table.total and n == last else "<tr>" for n in range(last + 1)]
        rows = "".join(f"{start}{line('td', row)}</tr>" for start, row in zip(starts, table.rows, strict=True))
        head = f"<tr>{line('th', table.columns)}</tr>"
        caption = f"<caption>{escape(redact(table.title))}</caption>" if table.title else ""
        made.append(f"<table>{caption}{head}{rows}</table>")
    return "\n".join(made)
