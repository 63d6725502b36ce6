"""Equal rows of a UNet call, found by their values: each is run once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The rows of one UNet call: how many were asked for and how many it has, and where those of each image stand.

    `places` holds an image's distinct rows in the order in which it asked for them, the unconditional one first.
    """

    asked: int
    rows: int
    places: tuple[tuple[int, ...], ...]

    @property
    def even(self) -> bool:
        """Whether each image has rows of its own, as many as all others.

        >>> Layout(4, 4, ((0, 2), (1, 3))).even, Layout(4, 3, ((0, 1), (0, 2))).even, Layout(3, 3, ((0, 1), (2,))).even
        (True, False, False)
        """
        return self.rows == self.asked and {len(one) for one in self.places} == {self.rows // len(self.places)}

    def of(self, image: int, source: int | None = None) -> tuple[int, ...]:
        """Where the rows of an image stand, and behind them those of its source that are not among them.

        >>> Layout(4, 3, ((0, 1), (0, 2))).of(0, source=1)
        (0, 1, 2)
        """
        own = self.places[image]
        return own if source is None else (*own, *(n for n in self.places[source] if n not in own))


class Shared:
    """What the images of a batch have in common, call by call.

    Images of one seed begin with the same latents. They keep them while the UNet is told the same of them, and once
    they part they never meet again: only those that were equal before are compared, and by value, so that whatever
    moves latents between calls is seen. Rows of equal latents and equal conditionings are one.

    `by_shape`: the UNet has to get ready for each number of rows (CUDA graphs): there are rows beside those that are
    needed, up to the next power of two, so that there are few such numbers.

    >>> shared, x = Shared(seeds=[0, 0, 1]), torch.zeros(6, 4, 8, 8)
    >>> keys = ["", "", "", "cat", "dog", "cat"]  # what each row is told; the seeds' latents differ
    >>> rows, back = shared.rows(x, [0, 1, 2, 0, 1, 2], keys)
    >>> rows, back
    ([0, 2, 3, 4, 5], [0, 0, 1, 2, 3, 4])
    >>> shared.layouts[0].places
    ((0, 2), (0, 3), (1, 4))
    """

    def __init__(self, seeds: Sequence[int], by_shape: bool = False):
        first: dict[int, int] = {}
        self.first = [first.setdefault(seed, n) for n, seed in enumerate(seeds)]  # of each image the first that equals
        self.by_shape = by_shape
        self.layouts: list[Layout] = []
        self.carried: Any = None  # what other batches predicted (`Carried`)

    @property
    def parted(self) -> bool:
        """Whether all images differ by now."""
        return all(first == n for n, first in enumerate(self.first))

    def rows(
        self, x: Float[Tensor, "row c h w"], images: Sequence[int], keys: Sequence[Hashable]
    ) -> tuple[list[int], list[int]]:
        """The rows to run, as indices into those asked for, and for each of these its place among the run ones.

        `images` says whose latents each row holds, `keys` what it is told.
        """
        if not self.parted:
            self._part(x, images)
        place: dict[Hashable, int] = {}
        run: list[int] = []
        back = []
        for n, (image, key) in enumerate(zip(images, keys, strict=True)):
            at = place.setdefault((self.first[image], key), len(run))
            if at == len(run):
                run.append(n)
            back.append(at)
        if self.by_shape and len(run) < len(images):
            more = min(1 << (len(run) - 1).bit_length(), len(images)) - len(run)
            run += run[:1] * more
        own: list[dict[int, None]] = [{} for _ in self.first]
        for image, at in zip(images, back, strict=True):
            own[image][at] = None
        self.layouts.append(Layout(len(images), len(run), tuple(map(tuple, own))))
        return run, back

    def _part(self, x: Tensor, images: Sequence[int]) -> None:
        """Images whose latents differ from those of the first that they equalled are no longer one with it."""
        where = {image: n for n, image in reversed(list(enumerate(images)))}
        many = Counter(self.first[image] for image in where)
        together = sorted(image for image in where if many[self.first[image]] > 1)
        if not together:
            return
        data = x.detach()[[where[n] for n in together]].cpu().contiguous().view(torch.uint8).numpy()
        met: dict[tuple[int, bytes], int] = {}
        for n, row in zip(together, data, strict=True):
            self.first[n] = met.setdefault((self.first[n], row.tobytes()), n)
