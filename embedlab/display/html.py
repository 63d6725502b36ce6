"""Pieces of HTML: texts are escaped wherever they are put in, and secrets of the environment are blanked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from markupsafe import Markup

from embedlab.clean import redact

Html: TypeAlias = Markup  # text that is HTML already; `+`, `join` and `tag` escape any other text

MOST = 200  # chips, rows of a table
STYLE = Markup(
    "<style>"
    ".embedlab{font:13px/1.45 system-ui,sans-serif;max-width:100%}"
    ".embedlab .t{font-weight:600}.embedlab .n{opacity:.7;font-size:12px}.embedlab .s{margin:.35em 0}"
    ".embedlab .c{display:inline-block;vertical-align:top;margin:1px 2px;padding:1px 6px;border-radius:5px;"
    "border:1px solid #8886;background:#5b8def22;white-space:pre;text-align:center}"
    ".embedlab .c small{display:block;opacity:.65;font-size:10px}"
    ".embedlab .c.e{background:#8881;border-style:dotted}.embedlab .c.p{opacity:.55;background:none}"
    ".embedlab .c.m{background:#e8a33d44;border-color:#e8a33d}"
    ".embedlab .w{display:block;border-left:3px solid #8886;padding-left:6px;margin:3px 0}"
    # a class said three times is stronger than what JupyterLab and marimo say of tables in their outputs
    ".embedlab.embedlab.embedlab table{font:inherit;color:inherit;border-collapse:collapse;table-layout:auto;"
    "width:auto;margin:.3em 0;display:block;overflow-x:auto}"
    ".embedlab.embedlab.embedlab :is(td,th){padding:2px 8px;text-align:left;border:0;border-bottom:1px solid #8883;"
    "white-space:nowrap}.embedlab.embedlab.embedlab th{white-space:normal;vertical-align:bottom}"
    ".embedlab.embedlab.embedlab .r{text-align:right}"
    ".embedlab caption{text-align:left;opacity:.7;font-size:12px}"
    ".embedlab .g{display:grid;gap:6px;width:max-content;max-width:100%;overflow-x:auto}"
    ".embedlab .g img{display:block;border-radius:3px}.embedlab figure{margin:0}"
    ".embedlab figcaption,.embedlab .h{font-size:11px;opacity:.8;overflow-wrap:anywhere}"
    ".embedlab .k{display:flex;flex-wrap:wrap;gap:.6em 1.5em}"
    ".embedlab .h{align-self:end;justify-self:center;text-align:center}"
    ".embedlab .h.l{align-self:center;justify-self:end;text-align:right;max-width:150px}"
    ".embedlab .x{display:grid;place-items:center;border:1px dashed #8888;font-size:11px;opacity:.7;padding:4px;"
    "box-sizing:border-box;overflow:hidden}"
    ".embedlab svg text{fill:currentColor;font:10px system-ui,sans-serif}"
    "</style>"
)


def clean(value: Any) -> Any:
    """A value as it is put into HTML: a text without secrets, and HTML as it is."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else redact(value)


def tag(template: str, *values: Any) -> Html:
    """HTML with values in the places of `{}`; what is no HTML is escaped.

    >>> tag("<b>{}</b>{}", "<script>", tag("<i>x</i>"))
    Markup('<b>&lt;script&gt;</b><i>x</i>')
    """
    return Markup(template).format(*map(clean, values))


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Parts one after the other; what is no HTML is escaped.

    >>> join(["<", tag("<b>x</b>")])
    Markup('&lt;<b>x</b>')
    """
    return Markup(between).join(map(clean, parts))


def block(title: str, *parts: Any, note: str = "") -> str:
    """A whole display: a title, a note beside it, and what is shown below. Parts that are empty are left out.

    >>> "<script>" in block("a <script>", note="2 windows")
    False
    """
    head = tag('<span class="t">{}</span>', title)
    said = tag(' <span class="n">{}</span>', note) if note else Markup()
    below = join(tag('<div class="s">{}</div>', part) for part in parts if part)
    return str(tag('<div class="embedlab">{}<div>{}{}</div>{}</div>', STYLE, head, said, below))


@dataclass(frozen=True)
class Chip:
    """A token: its text, what stands small below it, what is said when the mouse is over it, and its kind.

    Kinds are of a word, of an end or padding, and of what is marked, because it was edited.
    """

    text: str
    below: str = ""
    title: str = ""
    kind: Literal["word", "end", "pad", "marked"] = "word"


def chips(lines: Sequence[Sequence[Chip]]) -> Html:
    """Tokens in a row, a line for each window; of very many the first.

    >>> chips([[Chip("puppy", "6829")]])
    Markup('<span class="w"><span class="c " title="">puppy<small>6829</small></span></span>')
    """
    kinds = {"word": "", "end": "e", "pad": "p", "marked": "m"}
    shown, left = [], MOST
    for line in lines:
        mine = [
            tag(
                '<span class="c {}" title="{}">{}{}</span>',
                kinds[chip.kind],
                chip.title,
                chip.text,
                tag("<small>{}</small>", chip.below) if chip.below else "",
            )
            for chip in line[:left]
        ]
        left -= len(mine)
        if mine:
            shown.append(tag('<span class="w">{}</span>', join(mine)))
    more = sum(map(len, lines)) - MOST
    return join([*shown, tag('<span class="n">and {} more</span>', more) if more > 0 else ""])


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], right: Iterable[str] = (), title: str = "") -> Html:
    """A table of texts, or of HTML; of very many rows the first. Columns in `right` stand to the right.

    >>> table(["x"], [["<b>"]])
    Markup('<table><tr><th>x</th></tr><tr><td>&lt;b&gt;</td></tr></table>')
    """
    more = f"{title} (the first {MOST} of {len(rows)} rows)".strip() if len(rows) > MOST else title
    sides = [Markup(' class="r"') if head in set(right) else "" for head in heads]

    def line(kind: str, values: Sequence[Any]) -> Html:
        cells = (tag(f"<{kind}{{}}>{{}}</{kind}>", side, value) for side, value in zip(sides, values, strict=True))
        return tag("<tr>{}</tr>", join(cells))

    caption = tag("<caption>{}</caption>", more) if more else ""
    return tag("<table>{}{}{}</table>", caption, line("th", heads), join(line("td", row) for row in rows[:MOST]))


def facts(pairs: Mapping[str, Any]) -> Html:
    """Names and values, a line each; what is None or an empty text is left out.

    >>> facts({"steps": 25, "start": None})
    Markup('<table><tr><th>steps</th><td>25</td></tr></table>')
    """
    rows = [tag("<tr><th>{}</th><td>{}</td></tr>", name, v) for name, v in pairs.items() if v is not None and v != ""]
    return tag("<table>{}</table>", join(rows)) if rows else Markup()
