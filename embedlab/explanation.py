"""What will be told to the UNet, as a table, before it is touched: tokens, lengths, neighbours, drift, what to mind."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.cell import changes
from embedlab.checks import whole_number
from embedlab.clean import BLANK, redact
from embedlab.clip import Tower
from embedlab.condition import CallConditioning, condition
from embedlab.display import Chip, Html, Shown, block, chips, join, short, tag
from embedlab.embeddings import Embeddings, Lookup, lookup_of
from embedlab.encoder import Conditioning, check_cell
from embedlab.errors import ConfigError, OperatorError, counted, listed
from embedlab.memo import once_per_table
from embedlab.models import Model, TextEncoders, text_encoders_of
from embedlab.parsed_prompt import text_of
from embedlab.prompt import PromptPiece, shown_text
from embedlab.schedule import value_of, within
from embedlab.select import roles
from embedlab.selector import ROLES
from embedlab.tables import Table, fragment, in_terminal
from embedlab.token_ids import concepts_of

UNCHANGED = "the edit changes nothing that reaches the UNet"  # a note
SHOWN = 100  # of them in a notebook
ENDS = {"bos": "start", "eos": "end", "pad": "padding"}  # as the chips of tokens have them
LONGEST = 1000  # rows of an encoder that are told apart; a longer prompt is described by its beginning


@dataclass(frozen=True)
class Token:
    """One row of one encoder: what stands there, and what an edit made of it.

    `kept` is how much of the row as written is in the edited one: its projection on that row, `(r'·r)/(r·r)`; 1 where
    nothing was edited. It is no operator's weight: half way to a row that is like this one, more than half is kept.
    `norm` is its length in units of the vocabulary's mean length, before and after. `near` names the vocabulary's
    nearest entries. Of a token of a secret of the environment `piece` and neighbours are `***`, `id` is -1, and `kept`
    and both lengths are None.
    """

    encoder: int
    row: int
    window: int
    place: int
    role: str
    id: int
    piece: str
    kept: float | None
    norm: float | None
    norm_after: float | None
    moved: float  # distance of the position row from where it was, relative to its length
    near: tuple[str, ...]
    near_after: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """Mean and standard deviation of the word rows at a hidden state (0 is what enters), as written and edited."""

    encoder: int
    layer: int
    mean: float
    std: float
    mean_after: float
    std_after: float


@dataclass(frozen=True)
class Side:
    """How long a prompt is: tokens of its text, windows, and rows that reach the UNet."""

    text: str
    tokens: int
    windows: int
    rows: int


@dataclass(frozen=True)
class Explanation(Shown):
    """A plain cell, explained. `str` of it is a report; `tokens` leaves out padding that no operator touched."""

    prompt: str
    edit: str
    tokens: tuple[Token, ...]
    layers: tuple[Layer, ...]
    positive: Side
    negative: Side
    hidden: tuple[float, float, float, float]  # what reaches the UNet: mean, std as written; mean, std edited
    shifts: dict[str, float]  # by role, how far its hidden states moved, in shares of their length
    notes: tuple[str, ...]
    pieces: tuple[PromptPiece, ...] = ()  # the prompt as its language reads it
    language: str = "plain"

    @property
    def columns(self) -> list[str]:
        """The heads of the table of tokens."""
        return [field.name for field in dataclasses.fields(Token)]

    @property
    def table(self) -> list[list[Any]]:
        """The tokens as rows of plain values, for a tracker or a data frame."""
        rows = [[getattr(token, name) for name in self.columns] for token in self.tokens]
        return [[", ".join(v) if isinstance(v, tuple) else v for v in row] for row in rows]

    @property
    def parse(self) -> Table | None:
        """The prompt as its language reads it, piece by piece; None where it says nothing but its words."""
        said = any(piece.weight != 1 or piece.within or piece.mixed for piece in self.pieces)
        if not said and len({n for piece in self.pieces for n in piece.windows}) < 2:
            return None
        several, mixed = (any(getattr(piece, name) for piece in self.pieces) for name in ("within", "mixed"))
        heads = ("weight", "tokens", "window", *("of",) * several, *("mixed",) * mixed, "text")
        rows = []
        for piece in self.pieces:
            where = ", ".join(map(str, piece.windows)) or "left out"
            more = [*[piece.within] * several, *[piece.mixed] * mixed, " ".join(piece.text.split())]
            rows.append((f"{piece.weight:.4g}", str(piece.tokens), where, *more))
        title = f"as language={self.language} reads it"
        return Table(title, heads, tuple(rows), frozenset(("weight", "tokens", "window")))

    def __repr__(self) -> str:
        return f"Explanation({short(self.prompt, 80)}, {short(self.edit, 80)}, {counted(len(self.tokens), 'token')})"

    def _repr_html_(self) -> str:
        heads = ("row", "window", "place", "id", "piece", "kept", "length", "near")
        rows = []
        for one in self.tokens[:SHOWN]:
            changed = one.near_after != one.near or one.norm_after != one.norm
            length = figure(one.norm) + (f" → {figure(one.norm_after)}" if changed else "")
            near = ", ".join(one.near) + (f" → {', '.join(one.near_after)}" if changed else "")
            numbers = str(one.row), str(one.window), str(one.place), str(one.id)
            rows.append((*numbers, one.piece, figure(one.kept), length, near))
        tables = [Table("", heads, tuple(rows), frozenset((*heads[:4], "kept", "length")))]
        tables += [self.parse] if self.parse is not None else []
        lines: dict[tuple[int, int], list[Chip]] = {}
        for one in self.tokens[:SHOWN]:
            changed = one.kept not in (1, None) or bool(one.moved) or one.near != one.near_after
            now = f" → {', '.join(one.near_after)}" if changed else ""
            said = f"row {one.row}, id {one.id}, near {', '.join(one.near)}{now}"
            kind: Literal["word", "end", "marked"] = "marked" if changed else "word" if one.role == "words" else "end"
            lines.setdefault((one.encoder, one.window), []).append(
                Chip(ENDS.get(one.role, one.piece), f"{figure(one.kept)} kept" if changed else str(one.id), said, kind)
            )
        figures = [f"{name} {share:.1%}" for name, share in self.shifts.items() if share]
        moved = f"hidden states moved, in shares of their length: {', '.join(figures)}" if figures else ""
        notes = join(tag('<div class="n">{}.</div>', note) for note in (*([moved] if moved else ()), *self.notes))
        shown = Html(fragment(tables))
        return block(shown_text(self.prompt), chips(list(lines.values())), shown, notes, note=self.edit)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.prompt}", f"edit: {self.edit}", ""]
        if self.parse is not None:
            lines += [in_terminal([self.parse])]
        several = len({token.encoder for token in self.tokens}) > 1
        heads = [*(["encoder"] if several else []), "row", "window", "place", "id", "piece", "kept", "norm", "near"]
        table = [heads]
        for token in self.tokens:
            changed = token.near_after != token.near or token.norm_after != token.norm
            norm = figure(token.norm) + (f" → {figure(token.norm_after)}" if changed else "")
            near = ", ".join(token.near) + (f" → {', '.join(token.near_after)}" if changed else "")
            near += f" (position moved by {token.moved:.0%} of its length)" if token.moved else ""
            piece = token.piece if token.role == "words" else f"{token.piece} ({token.role})"
            cells = [token.row, token.window, token.place, token.id, piece, figure(token.kept), norm, near]
            table.append([str(c) for c in ([token.encoder, *cells] if several else cells)])
        lines += aligned(table)
        if any(token.kept not in (1, None) for token in self.tokens):
            lines += ["", "kept: how much of the row as written is in the edited one (its projection on it)"]
        lines += ["", "word rows through the encoder, mean ± standard deviation:"]
        for layer in self.layers:
            name = f"encoder {layer.encoder}, hidden state {layer.layer}" if several else f"hidden state {layer.layer}"
            after = f" → {layer.mean_after:+.3f} ± {layer.std_after:.3f}"
            same = (layer.mean, layer.std) == (layer.mean_after, layer.std_after)
            lines.append(f"  {name}: {layer.mean:+.3f} ± {layer.std:.3f}{'' if same else after}")
        mean, std, mean_after, std_after = self.hidden
        after = "" if (mean, std) == (mean_after, std_after) else f" → {mean_after:+.3f} ± {std_after:.3f}"
        lines.append(f"  all rows that reach the UNet: {mean:+.3f} ± {std:.3f}{after}")
        if any(self.shifts.values()):
            moved = ", ".join(f"{role} {share:.1%}" for role, share in self.shifts.items())
            lines.append(f"  hidden states moved, in shares of their length: {moved}")
        lines.append("")
        for name, side in (("prompt", self.positive), ("negative", self.negative)):
            length = f"{counted(side.tokens, 'token')}, {counted(side.windows, 'window')}"
            lines.append(f"{name}: {length}, {side.rows} rows reach the UNet")
        return "\n".join([*lines, *(f"notice: {note}." for note in self.notes)])


@torch.inference_mode()
def explain(cell: Any, towers: TextEncoders, known: Sequence[str] | None = None, most: int = 3) -> Explanation:
    """The table of a plain cell's tokens and what to mind about it; the UNet is not needed.

    `towers` is a list of text encoders, a model, or a diffusers pipeline. `known` are the words that a model was
    trained on, where those are few (left out, what a model says of itself); `most` is how many neighbours are named.

    >>> from embedlab import Cell, Interpolate, load
    >>> half = Cell("a puppy", [Interpolate("puppy", "skunk", 0.5)])
    >>> sorted(explain(half, load("emoji"), most=2).tokens[2].near_after)
    ['puppy', 'skunk']
    """
    check_cell(cell)
    own = towers.words if isinstance(towers, Model) else ()
    known, towers = own if known is None else known, text_encoders_of(towers)
    most = whole_number(most, "most", ConfigError, least=1, of=" of neighbours")
    if changes(cell):
        raise OperatorError("this cell changes over time; explain one moment of it: resolve(cell, moment).")
    before, after = condition([cell.baseline(), cell], towers, allow_nan=True)
    return described(before, after, towers, known, most)


@torch.inference_mode()
def described(
    before: CallConditioning, after: CallConditioning, towers: Sequence[Tower], known: Sequence[str] = (), most: int = 3
) -> Explanation:
    """The same of conditionings that are there already: of a cell without its edit, and with it."""
    cell, old, new = after.cell, before.cond, after.cond
    tokens: list[Token] = []
    layers: list[Layer] = []
    for n, (tower, a, b) in enumerate(zip(towers, after.original, after.edited, strict=True)):
        tokens += blanked(tokens_of(n, tower, a, b, most), a, cell)
        if old.layers and new.layers:
            layers += layers_of(n, old.layers[n], new.layers[n])
    words = after.original[0].tokens
    own = [w for w in words.words if w.text.lower() not in {name.lower() for name in concepts_in(towers)}]
    notes = [*words.notes(), *notes_of(tokens, towers), *strangers(own, known), *faults(old, new)]
    pairs = [(a, b) for (_, a), (_, b) in zip(old.streams, new.streams, strict=True)]
    if cell.operators and all(torch.equal(a.hidden, b.hidden) and torch.equal(a.pooled, b.pooled) for a, b in pairs):
        notes.append(UNCHANGED)
    return Explanation(
        prompt=cell.text,
        edit=cell.label,
        tokens=tuple(tokens),
        layers=tuple(layers),
        positive=side_of(cell.text, new),
        negative=side_of(text_of(value_of(cell.guidance.negative) or ""), after.uncond),
        hidden=(*moments_of(old.hidden), *moments_of(new.hidden)),
        shifts=shifts_of(old, new),
        notes=tuple(dict.fromkeys(notes)),
        pieces=words.pieces,
        language=cell.encoder.language,
    )


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table as lines, columns below each other."""
    wide = [max(len(row[n]) for row in table) for n in range(len(table[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in table]


def figure(value: float | None) -> str:
    """A figure of a table; of a secret there is none."""
    return BLANK if value is None else f"{value:.2f}"


def side_of(text: str, conditioning: Conditioning) -> Side:
    """How long a text is, and how many rows of it reach the UNet."""
    assert conditioning.tokens is not None
    return Side(text, conditioning.tokens.length, len(conditioning.tokens.ids), len(conditioning.hidden))


def tokens_of(encoder: int, tower: Tower, old: Embeddings, new: Embeddings, most: int) -> list[Token]:
    """The rows of an encoder: words and ends, and whatever padding an operator touched."""
    a, b = old.token.flatten(0, 1).float(), new.token.flatten(0, 1).float()
    p, q = old.position.flatten(0, 1).float(), new.position.flatten(0, 1).float()
    kinds = roles(old.tokens)[:4].flatten(1).int().argmax(0)
    touched = ((a != b).any(-1) | (p != q).any(-1)).cpu()
    kept_rows = ((kinds != ROLES.index("pad")) | touched).nonzero().flatten()[:LONGEST]
    ids = old.tokens.ids.flatten()[kept_rows]
    lookup = lookup_of(tower)
    both = names_near(torch.cat([a[kept_rows], b[kept_rows]]), lookup, most)
    near, near_after = both[: len(kept_rows)], both[len(kept_rows) :]
    unit = lookup.mean_length("token", old)
    kept = (a * b).sum(-1) / a.square().sum(-1).clamp_min(1e-12)
    moved = (p - q).norm(dim=-1) / p.norm(dim=-1).clamp_min(1e-12)
    pieces = tower.tokenizer.convert_ids_to_tokens(ids.tolist())
    vectors = numbered(tower)
    tokens = []
    for i, row in enumerate(kept_rows.tolist()):
        text = vectors.get(int(ids[i])) or pieces[i].replace("</w>", " ").strip() or pieces[i]
        tokens.append(
            Token(
                encoder=encoder,
                row=row,
                window=row // old.tokens.window,
                place=row % old.tokens.window,
                role=ROLES[int(kinds[row])],
                id=int(ids[i]),
                piece=text,
                kept=round(float(kept[row]), 4),
                norm=round(float(a[row].norm() / unit), 4),
                norm_after=round(float(b[row].norm() / unit), 4),
                moved=round(float(moved[row]), 4),
                near=near[i],
                near_after=near_after[i],
            )
        )
    return tokens


def concepts_in(towers: Sequence[Tower]) -> tuple[str, ...]:
    """The names of concepts that some text encoders know."""
    return concepts_of(tower.tokenizer for tower in towers)


def numbered(tower: Tower) -> dict[int, str]:
    """The vectors of concepts that have several: the id of each → whose it is, and which of how many."""
    added = {name: number for name, number in tower.tokenizer.get_added_vocab().items() if number is not None}
    answer: dict[int, str] = {}
    for name in added:
        mine = [name]
        while (after := f"{name}_{len(mine)}") in added:
            mine.append(after)
        if len(mine) > 1:
            answer |= {added[one]: f"{name} ({n} of {len(mine)})" for n, one in enumerate(mine, 1)}
    return answer


def blanked(tokens: Sequence[Token], written: Embeddings, cell: Any) -> list[Token]:
    """Tokens without what tells of secrets: those of the prompt, and those that an edit put into it."""
    secret = {row for word in written.tokens.words if word.text == BLANK for row in word.rows}
    texts = [part for part in within(cell.operators) if isinstance(part, str)]
    edited = redact(texts) != texts

    def fit(token: Token) -> Token:
        if token.row in secret:
            token = dataclasses.replace(token, id=-1, piece=BLANK, near=(BLANK,), norm=None)
        elif not edited or (token.kept, token.norm_after, token.near_after) == (1, token.norm, token.near):
            return token
        return dataclasses.replace(token, near_after=(BLANK,), norm_after=None, kept=None)

    return [fit(token) for token in tokens]


def names_near(rows: Float[Tensor, "row dim"], lookup: Lookup, most: int) -> list[tuple[str, ...]]:
    """The vocabulary entries nearest to some rows; rows that are equal are looked up once."""
    whole = torch.isfinite(rows).all(-1)
    if not whole.any():
        return [()] * len(rows)
    distinct, which = rows[whole].unique(dim=0, return_inverse=True)
    near = [tuple(n.text for n in row) for row in lookup.nearest(distinct, most)]
    named = iter(which.tolist())
    return [near[next(named)] if good else () for good in whole.tolist()]  # NaN is near nothing


def layers_of(encoder: int, old: Float[Tensor, "layer moment"], new: Float[Tensor, "layer moment"]) -> list[Layer]:
    """Mean and standard deviation of the word rows at every hidden state; none of a prompt without words."""
    pairs = enumerate(zip(old.tolist(), new.tolist(), strict=True))
    return [Layer(encoder, n, *(round(figure, 5) for figure in (*a, *b))) for n, (a, b) in pairs]


def shifts_of(old: Conditioning, new: Conditioning) -> dict[str, float]:
    """How far the hidden states of each role moved, relative to their length; rows that both have are compared."""
    assert old.tokens is not None
    kinds = roles(old.tokens)[:4].flatten(1)
    there = {row: n for n, row in enumerate(new.rows) if row >= 0}
    pairs = [(row, n, there[row]) for n, row in enumerate(old.rows) if row in there]
    shifts: dict[str, float] = {}
    for role, mask in zip(ROLES, kinds, strict=False):
        mine = [(n, m) for row, n, m in pairs if mask[row]]
        if mine:
            a, b = (
                hidden.float()[list(rows)]
                for hidden, rows in zip((old.hidden, new.hidden), zip(*mine, strict=True), strict=True)
            )
            shifts[role] = round(float(((a - b).norm(dim=-1) / a.norm(dim=-1).clamp_min(1e-12)).mean()), 5)
    return shifts


def moments_of(rows: Float[Tensor, "row dim"]) -> tuple[float, float]:
    """Mean and standard deviation of all entries."""
    return round(float(rows.float().mean()), 5), round(float(rows.float().std()), 5)


@once_per_table
def extremes(table: Tensor) -> tuple[float, float]:
    """The lengths of the shortest and the longest row of a table, in units of their mean."""
    lengths = table.float().norm(dim=-1)
    return float(lengths.min() / lengths.mean()), float(lengths.max() / lengths.mean())


def notes_of(tokens: Sequence[Token], towers: Sequence[Tower]) -> list[str]:
    """Edited rows that are longer or shorter than any of the vocabulary."""
    notes = []
    for n, tower in enumerate(towers):
        low, high = extremes(tower.token_table)
        for token in tokens:
            length = token.norm_after
            if token.encoder == n and length is not None and not low - 1e-3 <= length <= high + 1e-3:
                notes.append(
                    f"row {token.row} ('{token.piece}') has length {length:.2f}, outside the vocabulary's "
                    f"{low:.2f} to {high:.2f} (its mean is 1)"
                )
    return notes


def strangers(words: Sequence[Any], known: Sequence[str]) -> list[str]:
    """Words that a model of few words never saw."""
    if not known:
        return []
    seen = {word.lower() for word in known}
    new = [w.text for w in words if any(c.isalnum() for c in w.text) and w.text.lower() not in seen]
    return [f"words that this model never saw, and reads at random: {listed(dict.fromkeys(new), 12)}"] if new else []


def faults(old: Conditioning, new: Conditioning) -> list[str]:
    """What is wrong with what would reach the UNet."""
    if not (torch.isfinite(new.hidden).all() and torch.isfinite(new.pooled).all()):
        return ["the conditioning holds NaN or infinite numbers"]
    ratio = float(new.hidden.float().std() / old.hidden.float().std().clamp_min(1e-12))
    if not 0.5 <= ratio <= 2:
        return [f"what reaches the UNet spreads {ratio:.2f} times as wide as without the edit"]
    return []
