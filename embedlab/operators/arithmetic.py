"""Arithmetic on rows: directions added and taken out, lengths changed, rows averaged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.embeddings import Embeddings, Lookup
from embedlab.encoder import Texts
from embedlab.errors import OperatorError
from embedlab.limits import Stage
from embedlab.operators.base import (
    Number,
    OnRows,
    RowSource,
    Value,
    direction,
    edit_rows,
    format_setting,
    number_of,
    stage_label,
)
from embedlab.schedule import Setting, format_number
from embedlab.select import Spans
from embedlab.selector import Selector, format_selector


@dataclass(frozen=True)
class Add(OnRows):
    """Add `weight` times a direction to the selected rows: `r + w · d`; weight 0 is the identity.

    A direction (dim,) is a word or phrase (the mean of its rows), an id, a vector, or a weighted sum of those as a
    mapping: `{woman: 1, man: -1}` (Mikolov et al. 2013), `{a red cat: 1, a cat: -1}`. At stage `position` it is made of
    places, after the encoder of prompts, each by the mean of the rows that the selector finds there.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> queen = Add("king", direction={"woman": 1, "man": -1})(embed("a king", tower), lookup_of(tower))
    >>> king, woman, man = (lookup_of(tower)(word)[0] for word in ("king", "woman", "man"))
    >>> torch.allclose(queen.token[0, 2], king + woman - man, atol=1e-6)
    True
    """

    named = ("direction",)

    direction: Setting[RowSource]
    weight: Setting[Number] = 1.0
    stage: Stage = "token"

    def __str__(self) -> str:
        added = f"{format_number(self.weight)} ({format_setting(self.direction)})"
        return f"{format_selector(self.rows)} + {added}{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            return rows + number_of(self.weight) * direction(self.direction, table, prompt, lookup, self.rows).to(rows)

        return edit_rows(prompt, self.rows, self.stage, change)


@dataclass(frozen=True)
class Subtract(OnRows):
    """Take `weight` times a direction from the selected rows: `Add` with the sign turned.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> prompt, lookup = embed("a king", tower), lookup_of(tower)
    >>> edited = Subtract("king", "man", 0.5)(prompt, lookup)
    >>> torch.equal(edited.token, Add("king", "man", -0.5)(prompt, lookup).token)
    True
    """

    named = ("direction",)

    direction: Setting[RowSource]
    weight: Setting[Number] = 1.0
    stage: Stage = "token"

    def __str__(self) -> str:
        subtracted = f"{format_number(self.weight)} ({format_setting(self.direction)})"
        return f"{format_selector(self.rows)} - {subtracted}{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        return Add(self.rows, self.direction, -number_of(self.weight), self.stage)(prompt, lookup)


@dataclass(frozen=True)
class ProjectOut(OnRows):
    """Take a direction out of the selected rows: `r - w (r·d̂) d̂`; weight 0 is the identity, 1 leaves nothing of it.

    The debiasing step of Bolukbasi et al. (2016), "neutralise". Directions as in `Add`.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> prompt, lookup = embed("a king", tower), lookup_of(tower)
    >>> edited = ProjectOut("king", {"man": 1, "woman": -1})(prompt, lookup)
    >>> bool((edited.token[0, 2] @ (lookup("man") - lookup("woman"))[0]).abs() < 1e-6)
    True
    """

    direction: Setting[RowSource]
    weight: Setting[Number] = 1.0
    stage: Stage = "token"

    def __str__(self) -> str:
        much = "" if self.weight == 1 else f"{format_number(self.weight)} of "
        return f"{format_selector(self.rows)} without {much}({format_setting(self.direction)}){stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            vector = direction(self.direction, table, prompt, lookup, self.rows).to(rows)
            unit: Tensor = vector / vector.norm()
            return rows - number_of(self.weight) * (rows @ unit)[..., None] * unit

        return edit_rows(prompt, self.rows, self.stage, change)


@dataclass(frozen=True)
class Scale(OnRows):
    """Multiply the selected rows (n, dim): 1 is the identity, 0 leaves zeros, a negative number turns them round.

    At stage `hidden` it is A1111's emphasis without its normalisation ("No norm"), and sd_embed's weights.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> prompt = embed("a cat", tower)
    >>> torch.equal(Scale("cat", 2)(prompt, lookup_of(tower)).token[0, 2], 2 * prompt.token[0, 2])
    True
    """

    by: Setting[Number] = 1.0
    stage: Stage = "token"

    def __str__(self) -> str:
        return f"{format_selector(self.rows)} × {format_number(self.by)}{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        return edit_rows(prompt, self.rows, self.stage, lambda rows, table, spans: rows * number_of(self.by))


@dataclass(frozen=True)
class Normalise(OnRows):
    """Bring the length of the selected rows to `to` times the mean length of the table's rows, by a share `weight`.

    `r (1 - w + w · to · m / |r|)` for rows (n, dim); weight 0 is the identity. At stage `token` the table is the
    vocabulary, after the encoder the prompt's own hidden states. A row of zero length is refused.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> edited = Normalise("cat")(embed("a cat", tower), lookup_of(tower)).token[0, 2]
    >>> torch.allclose(edited.norm(), tower.token_table.norm(dim=1).mean())
    True
    """

    to: Setting[Number] = 1.0
    weight: Setting[Number] = 1.0
    stage: Stage = "token"

    def __str__(self) -> str:
        target = f"{format_number(self.to)}, {format_number(self.weight)}"
        return f"|{format_selector(self.rows)}| → {target}{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            lengths = rows.norm(dim=-1, keepdim=True)
            if not bool((lengths.detach() > 0).all()):
                raise OperatorError(f"a row of '{format_selector(self.rows)}' has no length to be changed.")
            factor = number_of(self.to) * lookup.mean_length(table, prompt) / lengths  # type: ignore[arg-type]
            return rows * torch.lerp(torch.ones_like(factor), factor, number_of(self.weight))

        return edit_rows(prompt, self.rows, self.stage, change)


@dataclass(frozen=True)
class Average(OnRows):
    """Move the selected rows toward their mean: weight 0 is the identity, 1 makes them all equal.

    Each occurrence of a word (n, dim) is averaged by itself; what a selector names otherwise is averaged together. With
    weight 1 over all words it is a bag of words.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> edited = Average("a cat")(embed("a cat", tower), lookup_of(tower)).token[0]
    >>> torch.equal(edited[1], edited[2])
    True
    """

    role = "words"

    rows: Setting[Selector] = None  # type: ignore[assignment]  # `role` says which
    weight: Setting[Number] = 1.0
    stage: Stage = "token"

    def __str__(self) -> str:
        return f"{format_number(self.weight)} mean of {format_selector(self.rows)}{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        def change(rows: Float[Tensor, "span row dim"], table: str, spans: Spans) -> Tensor:
            return torch.lerp(rows, rows.mean(dim=1, keepdim=True).expand_as(rows), number_of(self.weight))

        return edit_rows(prompt, self.rows, self.stage, change)


@dataclass(frozen=True)
class Drop(OnRows):
    """The selected token rows (n, dim) become the row of padding, as if nothing had been said there; places stay.

    ADV_CLIP_emb masks a word likewise, with the row of "+".

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> edited = Drop("cat")(embed("a cat", tower), lookup_of(tower)).token[0]
    >>> torch.equal(edited[2], edited[-1])
    True
    """

    def __str__(self) -> str:
        return f"no {format_selector(self.rows)}"

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings:
        padding = lookup(int(lookup.tokenizer.pad_token_id))
        return edit_rows(prompt, self.rows, "token", lambda rows, table, spans: padding)
