"""A small CenterNet: each cell of 16 × 16 answers for the object whose middle it holds (arXiv 1904.07850)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

GRID = 16
SIDE = 128  # places and sizes are pixels of a picture of this side, however large it is


@dataclass(frozen=True)
class Vocabulary:
    """What a detector can tell: objects, the colours that they may have, grounds; and words for several objects.

    >>> Vocabulary(("cat", "pear"), ("red",), ("white",), {"fruit": ("pear",)}).members("fruit")
    ('pear',)
    """

    words: tuple[str, ...]
    colours: tuple[str, ...]
    grounds: tuple[str, ...]
    kinds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def members(self, word: str) -> tuple[str, ...]:
        """The objects that a word may stand for: itself, those of a kind, or none."""
        return (word,) if word in self.words else self.kinds.get(word, ())


@dataclass(frozen=True)
class Scale:
    """What makes probabilities of logits: slope and intercept for objects, slopes for colours and for grounds.

    An object counts from the probability `least`.
    """

    slope: float = 1.0
    shift: float = 0.0
    colours: float = 1.0
    grounds: float = 1.0
    least: float = 0.3


class Block(nn.Module):
    """Two convolutions past a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) → the same."""
        return functional.relu(x + self.body(x))


def _down(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inward, outward, 3, 2, 1), nn.GroupNorm(8, outward), nn.ReLU())


class Detector(nn.Module):
    """Pictures (n, 3, side, side) in [-1, 1] → maps of objects, colours and boxes, and the ground.

    The widths but the last lead down to 16 × 16 cells; the last one is that of 8 × 8 and 4 × 4, where an object is seen
    as a whole.
    """

    def __init__(self, side: int, widths: Sequence[int], vocabulary: Vocabulary, scale: Scale | None = None) -> None:
        super().__init__()
        self.side, self.vocabulary, self.scale = side, vocabulary, scale or Scale()
        inward = [3, *widths[:-1]]
        steps: list[nn.Module] = []
        for n, (a, b) in enumerate(pairwise(inward)):
            steps += [_down(a, b), *([Block(b)] if n else [])]
        fine, coarse = widths[-2:]
        self.fine = nn.Sequential(*steps, Block(fine))
        self.middle = nn.Sequential(_down(fine, coarse), Block(coarse))
        self.coarse = nn.Sequential(_down(coarse, coarse), Block(coarse))
        self.join = nn.ModuleList([nn.Conv2d(coarse, coarse, 1), nn.Conv2d(coarse, fine, 1)])
        self.last = Block(fine)
        words, colours = len(vocabulary.words), len(vocabulary.colours)
        self.split = [words, colours + 1, 3]  # a colour more: the object's own; and x, y, size
        self.maps = nn.Conv2d(fine, sum(self.split), 1)
        self.ground = nn.Linear(fine, len(vocabulary.grounds))
        nn.init.constant_(self.maps.bias[:words], -4.0)  # type: ignore[index]

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of objects (n, words, 16, 16) and colours (n, colours + 1, 16, 16), boxes (n, 3, 16, 16), logits of
        grounds (n, grounds).
        """
        if pictures.shape[-2:] != (self.side, self.side):
            pictures = functional.interpolate(pictures, (self.side, self.side), mode="area")
        fine = self.fine(pictures)
        middle = self.middle(fine)
        middle = middle + functional.interpolate(self.join[0](self.coarse(middle)), scale_factor=2.0)
        fine = self.last(fine + functional.interpolate(self.join[1](middle), scale_factor=2.0))
        words, colours, boxes = self.maps(fine).split(self.split, dim=1)
        return words, colours, boxes, self.ground(fine.mean((2, 3)))
