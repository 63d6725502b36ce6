"""An anatomy as files: HTML that opens from disk, rows, JSON, the drawing."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from embedlab.clean import redact
from embedlab.files import make_folder, write
from embedlab.limits import check_ending
from embedlab.structure.drawing import draw, drawn
from embedlab.structure.tables import Comparison, as_csv, as_json, heading, records, tables_of
from embedlab.tables import fragment

if TYPE_CHECKING:
    from embedlab.structure.anatomy import Anatomy

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = (
    "body{font:14px system-ui,sans-serif;color:#1f2933;margin:2em}table{border-collapse:collapse;margin:.3em 0 1.6em}"
    "th,td{padding:.15em .8em .15em 0;text-align:left;white-space:nowrap}th{font-weight:normal;color:#66717d}"
    "td.r,th.r{text-align:right;font-variant-numeric:tabular-nums}caption{text-align:left;font-weight:bold}"
    "tr.all td{font-weight:bold;border-top:1px solid #9aa5b1}svg{max-width:100%;height:auto}"
)


def page(title: str, body: str) -> str:
    """A whole page that asks for nothing outside of it."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(redact(title))}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def save(what: Anatomy | Comparison, path: Path, depth: int | None = None) -> Path:
    """Write an anatomy or a comparison, as the ending of the name says."""
    ending = check_ending(path, several=isinstance(what, Comparison))
    make_folder(path.parent)
    if isinstance(what, Comparison):
        text = as_csv(what.records) if ending == ".csv" else page("beside each other", fragment([what.table]))
        text = what.as_json() if ending == ".json" else text
    elif ending in (".svg", ".png"):
        return draw(what, path)
    elif ending == ".csv":
        text = as_csv(records(what, depth))
    elif ending == ".json":
        text = as_json(what, depth)
    else:
        picture = drawn(what).decode()
        notices = "".join(f"<p>{escape(redact(line))}.</p>" for line in what.notices)
        tables = tables_of(what, 99 if depth is None else depth)
        body = f"{fragment(tables[:1])}\n{notices}\n{picture[picture.index('<svg') :]}\n{fragment(tables[1:])}"
        text = page(heading(what), body)
    write(path, text.encode())
    return path
