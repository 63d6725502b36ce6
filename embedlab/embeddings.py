"""Tokens → Embeddings: token rows and position rows, apart until the encoder adds them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTokenizer

from embedlab.checks import finite_number, in_choices, is_whole
from embedlab.clean import BLANK
from embedlab.display import Html, Shown, block, short, strip, table
from embedlab.errors import OperatorError, PromptError, SamplerError, brief, listed
from embedlab.limits import TABLES, WINDOW
from embedlab.memo import once_per_table
from embedlab.models import TextEncoders, text_encoder_of
from embedlab.parsed_prompt import ParsedPrompt
from embedlab.prompt import Mixture, Tokens, shown_text, token_chips, tokenize
from embedlab.select import Spans, select
from embedlab.token_ids import ids_of


@dataclass(frozen=True)
class Later:
    """An edit that is made while the prompt is encoded: before a layer, `(Conditioning, Texts) → Conditioning`.

    The conditioning is the hidden states of one encoder there, all windows one after the other; layer 0 is what enters,
    and the number of layers is what the final norm meets. `how` is how other texts are read (`Encoder`).
    """

    layer: int
    apply: Callable[[Any, Any], Any]
    how: Any = None


@dataclass(frozen=True)
class Embeddings(Shown):
    """One prompt before one text encoder. Values are never changed in place: `put` gives a new prompt.

    `later` are edits that wait for a layer of the encoder.

    >>> from embedlab import models
    >>> cat = embed("a cat", models.load("emoji").towers[0])
    >>> louder = cat.put("token", cat.spans("cat"), 2 * cat.take("token", cat.spans("cat")))
    >>> (louder.token != cat.token).any(-1).nonzero().tolist()  # window 0, position 2
    [[0, 2]]
    """

    tokens: Tokens
    token: Float[Tensor, "window position dim"]
    position: Float[Tensor, "window position dim"]
    position_table: Float[Tensor, "entry dim"]  # that the prompt is read with
    later: tuple[Later, ...] = field(default=(), repr=False, compare=False)
    lookup: Lookup | None = field(default=None, repr=False, compare=False)  # the vocabulary that it was read from

    def __repr__(self) -> str:
        sides = " × ".join(map(str, self.token.shape))
        return f"Embeddings({short(self.tokens.text, 80)}, token and position rows {sides})"

    def _repr_html_(self) -> str:
        edited = self.edited
        norms = self.token.detach().float().flatten(0, 1).norm(dim=-1).tolist()
        names = row_names(self.tokens)
        titles = [f"row {n}, {names.get(n, 'padding')}: length {norm:.3f}" for n, norm in enumerate(norms)]
        sides = " × ".join(map(str, self.token.shape))
        note = f"token and position rows {sides}" + (f", {len(edited)} of them edited" if edited else "")
        chips = token_chips(self.tokens, edited)
        return block(shown_text(self.tokens.text), chips, strip(norms, titles), self._near(edited, norms), note=note)

    @property
    def edited(self) -> list[int]:
        """The rows whose token row is not that of the vocabulary; none where the vocabulary is not known."""
        if self.lookup is None:
            return []
        own = self.lookup.token_table[self.tokens.ids.to(self.token.device)]
        mixed = {row for rows, _ in self.tokens.mixtures for row in rows}
        changed = (own != self.token.detach()).any(-1).flatten().nonzero().flatten().tolist()
        return [row for row in changed if row not in mixed]

    def _near(self, edited: Sequence[int], norms: Sequence[float], most: int = 40) -> Html:
        """The word rows with their lengths and the nearest entries of the vocabulary."""
        names = row_names(self.tokens)
        rows = [row for row in dict.fromkeys([*edited, *names]) if BLANK not in names.get(row, "")][:most]
        if self.lookup is None or not rows:
            return Html()
        rows = sorted(rows)
        vectors = self.token.detach().flatten(0, 1)[rows]
        whole = torch.isfinite(vectors).all(-1).tolist()
        near = iter(self.lookup.nearest(vectors[torch.tensor(whole)], most=3) if any(whole) else [])
        said = [", ".join(f"{one.text} {one.cosine:.2f}" for one in next(near)) if fit else "NaN" for fit in whole]
        cells = [(row, names.get(row, "padding"), f"{norms[row]:.3f}", s) for row, s in zip(rows, said, strict=True)]
        return table(("row", "piece", "length", "nearest words, with their cosine"), cells, right=("row", "length"))

    def spans(self, rows: Any, table: str = "token") -> Spans:
        """Where the rows that a selector names stand in a table."""
        return select(rows, self.tokens)

    def take(self, table: str, rows: Sequence[Sequence[int]]) -> Float[Tensor, "span row dim"]:
        """The vectors of `rows` in a table; all spans are of one length."""
        in_choices(table, "table", TABLES, OperatorError)
        return at(rows, getattr(self, table).flatten(0, 1))

    def put(self, table: str, rows: Sequence[Sequence[int]], values: Float[Tensor, "*span row dim"]) -> Embeddings:
        """The prompt with other vectors at `rows` of a table; `values` broadcast over the spans."""
        in_choices(table, "table", TABLES, OperatorError)
        old = getattr(self, table)
        changed: dict[str, Any] = {table: placed(rows, old.flatten(0, 1), values).view_as(old)}
        return replace(self, **changed)

    @property
    def places(self) -> Tensor:
        """The position table by its old name."""
        warnings.warn("Embeddings.places is now Embeddings.position_table.", DeprecationWarning, stacklevel=2)
        return self.position_table

    @property
    def summed(self) -> Float[Tensor, "window position dim"]:
        """What enters the encoder."""
        return self.token + self.position


def row_names(tokens: Tokens) -> dict[int, str]:
    """The rows of a prompt that are no padding, each with what stands there.

    >>> from embedlab.models import tokenizer
    >>> row_names(tokenize("a cat", tokenizer()))
    {0: 'start', 1: 'a', 2: 'cat', 3: 'end'}
    """
    found = {row: word.text for word in tokens.words for row in word.rows}
    for n, ids in enumerate(tokens.ids.tolist()):
        first = n * tokens.window
        found[first] = "start"
        if tokens.tokenizer.eos_token_id in ids[1:]:
            found[first + ids.index(tokens.tokenizer.eos_token_id, 1)] = "end"
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Neighbour:
    """An entry of the vocabulary near a row."""

    id: int
    text: str
    cosine: float
    distance: float


@once_per_table
def mean_norm(table: Tensor) -> Tensor:
    """The mean norm of a table's rows."""
    norms: Tensor = table.float().norm(dim=1)
    return norms.mean()


@once_per_table
def units(table: Tensor) -> Tensor:
    """A table's rows at length 1."""
    return torch.nn.functional.normalize(table.float(), dim=-1)


@dataclass(frozen=True)
class Lookup(Shown):
    """From a word, an id or a vector to rows of one encoder's tables.

    >>> from embedlab import models
    >>> lookup = lookup_of(models.load("emoji").towers[0])
    >>> torch.equal(lookup("cat"), lookup(2368))
    True
    """

    tokenizer: CLIPTokenizer
    token_table: Float[Tensor, "vocab dim"]

    def __repr__(self) -> str:
        return f"Lookup({len(self.token_table)} words of width {self.token_table.shape[1]})"

    def __call__(self, what: str | int | Tensor | Sequence[Any]) -> Float[Tensor, "row dim"]:
        """Token rows of a word or phrase, of a token id, or a vector as it is."""
        if isinstance(what, str):
            ids = ids_of(what, self.tokenizer)
            if not ids:
                raise PromptError("an empty text has no token rows; name a word.")
            return self.token_table[ids]
        if is_whole(what):
            if not 0 <= what < len(self.token_table):
                raise OperatorError(f"{what} is no token id; the vocabulary has ids 0 to {len(self.token_table) - 1}.")
            return self.token_table[[what]]
        return vectors(what, self.token_table)

    def mean_length(self, table: str, prompt: Embeddings) -> Tensor:
        """The mean norm of the rows of the vocabulary, or of the position table that a prompt is read with."""
        return mean_norm(self.token_table if table == "token" else prompt.position_table)

    def nearest(
        self, rows: Float[Tensor, "*row dim"], most: int = 5, by: Literal["cosine", "distance"] = "cosine"
    ) -> list[list[Neighbour]]:
        """The vocabulary entries closest to each row, nearest first, with cosine similarity and Euclidean distance.

        Rows (n, dim) or one row (dim,); `by` says what "closest" means.

        >>> from embedlab import models
        >>> lookup = lookup_of(models.load("emoji").towers[0])
        >>> [[n.text for n in row] for row in lookup.nearest(lookup("cat"), most=1)]
        [['cat']]
        """
        in_choices(by, "by", ("cosine", "distance"), OperatorError)
        if not is_whole(most) or not 1 <= most <= len(self.token_table):
            raise OperatorError(f"most is {brief(most)}; it has to be a number of neighbours, 1 or more.")
        rows, table = vectors(rows, self.token_table).float(), self.token_table.float()
        found: list[list[Neighbour]] = []
        for part in rows.split(256):  # a window against 49,408 entries is 15 MB
            part_units = torch.nn.functional.normalize(part, dim=-1)
            ranks = part_units @ units(self.token_table).T if by == "cosine" else -torch.cdist(part, table)
            best = ranks.topk(most, dim=-1).indices
            cosines = (units(self.token_table)[best] * part_units[:, None]).sum(-1)
            distances = (table[best] - part[:, None]).norm(dim=-1)
            near = zip(best.tolist(), cosines.tolist(), distances.tolist(), strict=True)
            found += [
                [Neighbour(i, self.tokenizer.decode([i]).strip(), c, d) for i, c, d in zip(*three, strict=True)]
                for three in near
            ]
        return found

    def rows(self, what: Any, table: str, prompt: Embeddings, like: Any = None) -> Float[Tensor, "row dim"]:
        """The rows that a setting names: in the vocabulary, or among a prompt's places.

        A place is a number, or a word of the prompt (where its first occurrence stands); a vector is itself.
        """
        if isinstance(what, Mapping):
            raise OperatorError("rows of another prompt ({prompt: …}) come after the encoder; set stage to hidden.")
        if table == "token":
            return self(what)
        positions = prompt.position_table
        if isinstance(what, str):
            return positions[[row % prompt.tokens.window for row in prompt.tokens.rows(what)[0]]]
        if is_whole(what):
            if not 0 <= what < len(positions):
                raise OperatorError(f"{what} is no position in a window; positions are 0 to {len(positions) - 1}.")
            return positions[[what]]
        return vectors(what, positions)


def at(rows: Sequence[Sequence[int]], table: Float[Tensor, "row dim"]) -> Float[Tensor, "span row dim"]:
    """The rows of a table at some places; OperatorError for what are none.

    >>> at([(0,), (2,)], torch.eye(3)).shape
    torch.Size([2, 1, 3])
    """
    try:
        return table[torch.tensor(rows)]
    except (IndexError, TypeError, ValueError, RuntimeError):
        raise OperatorError(
            f"rows is {brief(rows)}; it has to be spans of one length of the rows 0 to {len(table) - 1}, such as "
            "[(2,), (5,)]."
        ) from None


def placed(
    rows: Sequence[Sequence[int]], table: Float[Tensor, "row dim"], values: Float[Tensor, "*span row dim"]
) -> Float[Tensor, "row dim"]:
    """A table with other vectors at some places; OperatorError for what are none, and for vectors that do not fit.

    >>> placed([(1,)], torch.zeros(2, 1), torch.ones(1, 1, 1)).flatten().tolist()
    [0.0, 1.0]
    """
    there, new = at(rows, table).shape, table.clone()
    try:
        new[torch.tensor(rows)] = values.to(new)
    except (AttributeError, TypeError, RuntimeError):
        raise OperatorError(
            f"values is {brief(values)}; it has to be a tensor that fits {there[0]} × {there[1]} rows of width "
            f"{there[-1]}."
        ) from None
    return new


def vectors(what: Any, like: Float[Tensor, "any dim"]) -> Float[Tensor, "row dim"]:
    """A vector, or several, as rows beside a table. Of several, those of its width are taken (one an encoder)."""
    width = like.shape[1]
    if isinstance(what, list | tuple) and what and all(isinstance(w, Tensor) and w.ndim for w in what):
        fit = [w for w in what if w.shape[-1] == width]
        if not fit:
            widths = listed(w.shape[-1] for w in what)
            raise OperatorError(f"vectors of width {widths} do not fit rows of width {width}.")
        what = torch.cat([w.reshape(-1, width) for w in fit])
    try:
        rows = torch.as_tensor(what)
        if rows.dtype == torch.bool or rows.is_complex() or isinstance(what, bool | float):
            raise TypeError
        rows = rows.to_dense().to(like)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise OperatorError(f"{brief(what)} is no word, no id and no vector of {width} numbers.") from None
    if rows.ndim not in (1, 2) or rows.shape[-1] != width or not len(rows):
        raise OperatorError(f"a vector of shape {tuple(rows.shape)} does not fit rows of width {width}.")
    if not torch.isfinite(rows).all():
        raise OperatorError("a vector holds NaN or infinite numbers.")
    return rows.reshape(-1, width)


def lookup_of(tower: TextEncoders) -> Lookup:
    """The vocabulary of an encoder, as it is now; of a model or a pipeline that has one, of that.

    >>> from embedlab import models
    >>> lookup = lookup_of(models.load("emoji").towers[0])
    >>> lookup("cat").shape[0], lookup.nearest(lookup("cat"), most=1)[0][0].text
    (1, 'cat')
    """
    tower = text_encoder_of(tower, "a list of lookup_of(tower)")
    return Lookup(tower.tokenizer, tower.token_table.detach())


def embed(
    prompt: str | ParsedPrompt | Tokens,
    tower: TextEncoders,
    truncate: bool = False,
    stretch: float | None = None,
    concepts: tuple[str, ...] | None = None,
) -> Embeddings:
    """Look up the rows of a prompt of any length; the position rows start again in every window.

    `stretch` reads windows of more than 77 places, on a position table drawn out so many times (Long-CLIP: 4 for 248).
    `concepts` are added names that are one word, by default this encoder's own (see `tokenize`). A model or a pipeline
    stands for its only text encoder; `embed_all` reads a prompt before several.

    >>> from embedlab import models
    >>> embed("a cat", models.load("emoji").towers[0]).token.shape[:2]
    torch.Size([1, 77])
    """
    tower = text_encoder_of(tower)
    if stretch is not None and not 1 <= finite_number(stretch, "stretch", SamplerError) <= 64:
        raise SamplerError(f"stretch is {stretch}; it goes from 1 to 64; 4 makes 248 positions.")
    position_table = tower.position_table.detach()
    position_table = position_table if stretch is None else stretched(position_table[:WINDOW], factor=stretch)
    tokens = prompt
    if not isinstance(tokens, Tokens):
        tokens = tokenize(tokens, tower.tokenizer, truncate, len(position_table), concepts)
    position_table = position_table[: tokens.window]
    table = tower.token_table.detach()
    position = position_table.expand(len(tokens.ids), -1, -1)
    token = table[tokens.ids.to(table.device)]
    if tokens.mixtures:
        flat = token.flatten(0, 1).clone()
        for rows, mixture in tokens.mixtures:
            flat[list(rows)] = mixed_rows(mixture, Lookup(tower.tokenizer, table))[: len(rows)]
        token = flat.view_as(token)
    return Embeddings(tokens, token, position, position_table, lookup=lookup_of(tower))


def mixed_rows(mixture: Mixture, lookup: Lookup) -> Float[Tensor, "row dim"]:
    """The token rows of a mixture: `Σ share · rows`, each choice drawn out to the longest as `lengths: resample` does.

    A choice that has all of the shares is itself to the bit.

    >>> from embedlab import models
    >>> lookup = lookup_of(models.load("emoji").towers[0])
    >>> half = mixed_rows(Mixture(((0.5, ("cat",)), (0.5, ("dog",)))), lookup)
    >>> torch.equal(half, torch.lerp(lookup("cat"), lookup("dog"), 0.5))
    True
    """
    found = [torch.cat([_choice(part, lookup) for part in parts]) for _, parts in mixture.choices]
    most = max(map(len, found))
    rows = [drawn_out(one, most) for one in found]
    shares = [share for share, _ in mixture.choices]
    if shares.count(1) == 1 and shares.count(0) == len(shares) - 1:
        return rows[shares.index(1)]
    if len(rows) == 2:
        return torch.lerp(rows[0], rows[1], shares[1])
    return torch.stack([share * one for share, one in zip(shares, rows, strict=True)]).sum(0)


def _choice(part: str | Mixture, lookup: Lookup) -> Float[Tensor, "row dim"]:
    if isinstance(part, Mixture):
        return mixed_rows(part, lookup)
    return lookup.token_table[ids_of(part, lookup.tokenizer)]


def drawn_out(rows: Float[Tensor, "row dim"], count: int) -> Float[Tensor, "count dim"]:
    """Rows resampled to a number of them, ends on ends; one row stands at every place, one of several is the middle."""
    if len(rows) == count:
        return rows
    last = len(rows) - 1
    first, end = (0, last) if count > 1 else (last / 2, last / 2)
    return between(rows, torch.linspace(first, end, count, device=rows.device))


def between(rows: Float[Tensor, "row dim"], at: Float[Tensor, " count"]) -> Float[Tensor, "count dim"]:
    """Rows at places that need not be whole, by linear interpolation; whole places give their row to the bit."""
    low = at.floor().long().clamp(max=len(rows) - 1)
    high = (low + 1).clamp(max=len(rows) - 1)
    return torch.lerp(rows[low], rows[high], (at - low)[..., None].to(rows))


def stretched(table: Float[Tensor, "position dim"], keep: int = 20, factor: float = 4.0) -> Float[Tensor, "longer dim"]:
    """A position table with the rows after the first `keep` drawn out `factor` times (Long-CLIP, Zhang et al. 2024).

    New row `keep + factor·i + k` is `(1 - k/factor) · old[keep + i] + (k/factor) · old[keep + i + 1]`; past the last
    old row the line through the last two goes on. 77 rows, 20 kept, factor 4 make 248; factor 1 is the table itself.

    >>> table = torch.arange(77.0)[:, None]
    >>> longer = stretched(table)
    >>> len(longer), longer[[19, 20, 21, 24, 247]].flatten().tolist()
    (248, [19.0, 20.0, 20.25, 21.0, 76.75])
    """
    length = stretched_length(len(table), keep, factor)
    where = torch.arange(length - keep) / factor
    beyond = torch.cat([table, 2 * table[-1:] - table[-2:-1]])
    return torch.cat([table[:keep], between(beyond[keep:], where.to(table.device))])


def stretched_length(length: int, keep: int = 20, factor: float = 4.0) -> int:
    """How many rows a position table of `length` rows has when it is `stretched`."""
    return keep + int((length - keep) * factor)
