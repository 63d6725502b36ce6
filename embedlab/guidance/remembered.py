"""What was predicted for pictures of one batch, for those of later ones that begin with the same UNet calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from embedlab.guidance.shared import Layout, Shared
from embedlab.transfer import content_of

MOST = 256 * 2**20  # bytes that are held

Company = tuple[int, Hashable]  # pictures of one seed whose first call is told the same


@dataclass(frozen=True)
class Known:
    """What a call of the UNet predicted for one picture: its rows, and where they stood among how many."""

    predicted: Float[Tensor, "row c h w"]
    rows: int
    places: tuple[int, ...]


class Predictions:
    """Predictions by what they were made of: latents, timestep, what the rows were told. The oldest go first.

    A prefix that several batches share is so run by the first of them; all that comes of it is computed again, so that
    schedulers, noise and guiders are as they are without.

    >>> memory = Predictions()
    >>> memory.for_batch("key", [0, 0, 1], ["cat", "cat", "cat"], coming=lambda seed, told: seed == 0).keeps
    {0, 1}
    >>> memory.for_batch("key", [0, 1], ["cat", "cat"], coming=lambda seed, told: False).asks
    {0}
    """

    def __init__(self, most: int = MOST):
        self.most, self.held = most, 0
        self.known: OrderedDict[Hashable, Known] = OrderedDict()
        self.companies: set[tuple[Hashable, Company]] = set()
        self.numbers: dict[Hashable, int] = {}

    def for_batch(
        self,
        about: Hashable,
        seeds: Sequence[int],
        told: Sequence[Hashable],
        coming: Callable[[int, Hashable], bool],
    ) -> Carried:
        """What the pictures of a batch have of it, and give to it.

        about: what else predictions depend on (`batch_key`). told: what the first call of each picture is told. coming:
        (seed, told) → whether more such pictures come later; then those of the first and the last picture of these are
        remembered: mostly the one as written, and in the order of `in_company` the one nearest to what comes.
        """
        number = self.numbers.setdefault(about, len(self.numbers))
        company = list(zip(seeds, told, strict=True))
        asks = {n for n, mine in enumerate(company) if (number, mine) in self.companies}
        ends = {mine: n for n, mine in enumerate(company)}
        keeps = {n for mine, n in ends.items() if coming(*mine)}
        keeps |= {company.index(mine) for mine in ends if ends[mine] in keeps}
        self.companies |= {(number, company[n]) for n in keeps}
        return Carried(self, number, asks, keeps)

    def get(self, key: Hashable) -> Known | None:
        """What was predicted, if it is known."""
        if key in self.known:
            self.known.move_to_end(key)
        return self.known.get(key)

    def put(self, key: Hashable, known: Known) -> None:
        """Remember it."""
        if key not in self.known:
            self.known[key] = known
            self.held += known.predicted.nbytes
        while self.held > self.most:
            _, oldest = self.known.popitem(last=False)
            self.held -= oldest.predicted.nbytes

    def clear(self) -> None:
        """Forget all of it."""
        self.known.clear()
        self.companies.clear()
        self.held = 0


class Carried:
    """A batch's part of what is remembered: `asks` are the pictures that may find something, `keeps` those that leave
    something.
    """

    def __init__(self, memory: Predictions, about: int, asks: set[int], keeps: set[int]):
        self.memory, self.about, self.asks, self.keeps = memory, about, set(asks), keeps
        self.now: dict[int, tuple[Hashable, list[int]]] = {}  # of the call at hand: key and rows, by picture

    def __bool__(self) -> bool:
        return bool(self.asks or self.keeps)

    def recall(
        self, x: Float[Tensor, "row c h w"], t: Tensor, images: Sequence[int], keys: Sequence[Hashable]
    ) -> dict[int, Known]:
        """What is known of a call, by picture; a picture of which nothing is known is not looked for again.

        `images` says whose latents each row of `x` holds, `keys` what it is told.
        """
        rows: dict[int, list[int]] = {}
        for n, image in enumerate(images):
            if image in self.asks or image in self.keeps:
                rows.setdefault(image, []).append(n)
        when = float(t) if rows else 0.0
        self.now = {
            image: ((self.about, when, content_of(x[mine[0]]), tuple(keys[n] for n in mine)), mine)
            for image, mine in rows.items()
        }
        found = {image: self.memory.get(key) for image, (key, _) in self.now.items() if image in self.asks}
        self.asks -= {image for image, known in found.items() if known is None}
        return {image: known for image, known in found.items() if known is not None}

    def keep(self, predicted: Float[Tensor, "row c h w"], known: Mapping[int, Known], shared: Shared) -> None:
        """Remember what the call at hand predicted, of its rows; `known` was there already."""
        for image, (key, rows) in self.now.items():
            if image in self.keeps and image not in known:
                layout = shared.layouts[-1]
                self.memory.put(key, Known(predicted[rows].detach().clone(), layout.rows, layout.places[image]))
        self.now = {}


def joined(
    images: Sequence[int], known: Mapping[int, Known], left: Sequence[int], run: Tensor | None
) -> Float[Tensor, "row c h w"]:
    """All rows of a call: those `left` that were run, and those of pictures that are known, in the order asked for."""
    first = next(iter(known.values())).predicted if run is None else run
    whole = first.new_empty(len(images), *first.shape[1:])
    if run is not None:
        whole[list(left)] = run
    for image, one in known.items():
        whole[[n for n, whose in enumerate(images) if whose == image]] = one.predicted
    return whole


def layouts_of(known: Mapping[int, Known], many: int) -> list[Layout]:
    """Where rows stood that were run for another batch of `many` pictures.

    >>> layouts_of({1: Known(Tensor(2, 4, 8, 8), 6, (0, 3))}, 2)
    [Layout(asked=0, rows=6, places=((), (0, 3)))]
    """
    return [
        Layout(0, one.rows, tuple(one.places if n == image else () for n in range(many)))
        for image, one in known.items()
    ]
