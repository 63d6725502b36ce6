"""What can be done to attention: copied from another picture (prompt-to-prompt), re-weighted, kept in a box.

An edit answers with new probabilities and leaves the old ones be. It may stand in a `During`, and its numbers may
change over time. Copies take from the source: the cell without its edits, or with another prompt (`Attention.source`),
which is drawn beside it from the same noise (Hertz et al. 2022, arXiv 2208.01626).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embedlab.attention.align import How, Mapping
from embedlab.attention.layers import Kind, Layer, short_name
from embedlab.attention.maps import places_in
from embedlab.display import Shown
from embedlab.encoder import Conditioning
from embedlab.limits import check_part
from embedlab.schedule import Setting, format_number, value_of, varies
from embedlab.selector import Selector, format_selector, words_of

OnePicture = Float[Tensor, "head query token"]


@dataclass(frozen=True)
class Scene:
    """What an edit meets: a layer, its height and width, what the picture is conditioned on, and the source.

    theirs: the probabilities of the source at this layer, as they were. mapping: which of the source's tokens each
    token has its own from.
    """

    layer: Layer
    side: tuple[int, int]
    own: Conditioning
    theirs: OnePicture | None = None
    mapping: Mapping | None = None


@dataclass(frozen=True)
class AttentionEdit(Shown, ABC):
    """What every edit has: the layers that it works in, by name of block, module or layer; None is all."""

    kind: ClassVar[Kind] = "cross"
    copies: ClassVar[bool] = False  # whether it takes from the source

    def __post_init__(self) -> None:
        if not varies(self):
            check_part(self)

    @property
    def words(self) -> tuple[str, ...]:
        """The words that it is about, for scores."""
        return words_of(rows) if (rows := getattr(self, "rows", None)) is not None else ()

    @property
    @abstractmethod
    def neutral(self) -> bool:
        """Whether it changes nothing."""

    def works_in(self, layer: Layer) -> bool:
        """Whether a layer is among its own."""
        layers: Sequence[str] | str | None = getattr(self, "layers", None)
        names = [layers] if isinstance(layers, str) else layers
        return names is None or any(layer.is_in(short_name(name)) for name in names)

    @abstractmethod
    def __call__(self, probabilities: OnePicture, scene: Scene) -> OnePicture: ...


def toward(own: Tensor, there: Tensor, amount: float) -> Tensor:
    """A part of the way; all of it is `there` to the bit."""
    return there if amount == 1 else torch.lerp(own, there, amount)


@dataclass(frozen=True)
class CopyCross(AttentionEdit):
    """Cross-attention copied from the source: who looks at which word stays, whatever the word has become.

    rows: the tokens whose attention is copied, words or selectors; left out, all. how: which token of the source each
    one has its own from (`mapping_of`): `replace`, word for word; `refine`, by alignment, and words that are new have
    their own; `rows`, the same place; left out, replace where there are as many words, else refine. amount: 0 is its
    own attention, 1 the source's.

    >>> str(CopyCross(amount=0.5)), CopyCross(amount=0).neutral
    ('cross-attention copied by 0.5', True)
    """

    rows: Setting[Selector | None] = None
    how: How | None = None
    amount: Setting[float] = 1.0
    layers: Sequence[str] | None = None
    copies: ClassVar[bool] = True

    def __str__(self) -> str:
        of = "" if self.rows is None else f" of {format_selector(self.rows)}"
        return f"cross-attention{of} copied" + (by(self.amount) if self.amount != 1 else "")

    @property
    def neutral(self) -> bool:
        """Whether nothing is copied."""
        return self.amount == 0

    def __call__(self, probabilities: OnePicture, scene: Scene) -> OnePicture:
        assert scene.theirs is not None
        assert scene.mapping is not None
        there = scene.mapping(scene.theirs, probabilities)
        mixed = toward(probabilities, there, value_of(self.amount))
        if (rows := value_of(self.rows)) is None:
            return mixed
        columns = columns_of(scene.own, rows)
        edited = probabilities.clone()
        edited[..., columns] = mixed[..., columns]
        return edited


@dataclass(frozen=True)
class CopySelf(AttentionEdit):
    """Self-attention copied from the source: which places of the picture belong together stays, and with it the layout.

    most: layers of more places than this have their own (prompt-to-prompt: 16² = 256). amount: as of `CopyCross`.

    >>> str(CopySelf())
    'self-attention copied'
    """

    amount: Setting[float] = 1.0
    most: Setting[int] = 256
    layers: Sequence[str] | None = None
    kind: ClassVar[Kind] = "self"
    copies: ClassVar[bool] = True

    def __str__(self) -> str:
        return "self-attention copied" + (by(self.amount) if self.amount != 1 else "")

    @property
    def neutral(self) -> bool:
        """Whether nothing is copied."""
        return self.amount == 0

    def __call__(self, probabilities: OnePicture, scene: Scene) -> OnePicture:
        assert scene.theirs is not None
        return toward(probabilities, scene.theirs, value_of(self.amount))


@dataclass(frozen=True)
class Reweight(AttentionEdit):
    """Attention to some tokens times a factor, after the softmax: probabilities no longer sum to 1 (prompt-to-prompt).

    rows: words or selectors. by: the factor; 1 changes nothing, 0 hides the word, below 0 its value is taken away.

    >>> str(Reweight("red", 2))
    'attention to red ×2'
    """

    rows: Setting[Selector]
    by: Setting[float] = 2.0
    layers: Sequence[str] | None = None

    def __str__(self) -> str:
        return f"attention to {format_selector(self.rows)} ×{format_number(self.by)}"

    @property
    def neutral(self) -> bool:
        """Whether the factor is 1."""
        return self.by == 1

    def __call__(self, probabilities: OnePicture, scene: Scene) -> OnePicture:
        edited = probabilities.clone()
        edited[..., columns_of(scene.own, self.rows)] *= value_of(self.by)
        return edited


@dataclass(frozen=True)
class Confine(AttentionEdit):
    """A word's attention kept in a box: places outside do not look at it, and what they gave to it goes to the others.

    rows: words or selectors. box: left, top, right and bottom in shares of the picture. amount: of what is outside so
    much is taken away, 1 is all.

    >>> str(Confine("cat", (0, 0, 0.5, 1)))
    'attention to cat in 0 0 0.5 1'
    """

    rows: Setting[Selector]
    box: Sequence[float] = (0.0, 0.0, 1.0, 1.0)
    amount: Setting[float] = 1.0
    layers: Sequence[str] | None = None

    def __str__(self) -> str:
        return f"attention to {format_selector(self.rows)} in {' '.join(format_number(side) for side in self.box)}" + (
            by(self.amount) if self.amount != 1 else ""
        )

    @property
    def neutral(self) -> bool:
        """Whether nothing is outside."""
        return self.amount == 0 or tuple(self.box) == (0, 0, 1, 1)

    def __call__(self, probabilities: OnePicture, scene: Scene) -> OnePicture:
        inside: Bool[Tensor, " query"] = places_in(self.box, scene.side).to(probabilities.device)
        columns = columns_of(scene.own, self.rows)
        kept = torch.where(inside, 1.0, 1.0 - value_of(self.amount)).to(probabilities)
        edited = probabilities.clone()
        edited[..., columns] *= kept[:, None]
        # a place that looked at nothing but the word looks nowhere
        return edited / edited.sum(-1, keepdim=True).clamp(min=torch.finfo(edited.dtype).tiny)


def by(amount: Setting[float]) -> str:
    """How far, in a label."""
    return f" by {format_number(amount)}"


def columns_of(conditioning: Conditioning, rows: Any) -> list[int]:
    """Where the tokens of a selector stand among the hidden states."""
    return sorted({n for span in conditioning.spans(rows) for n in span})
