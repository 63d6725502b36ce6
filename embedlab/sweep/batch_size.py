"""How many pictures share a call of the UNet."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from embedlab.files import write_json

SIZES = {"cpu": (16, 32, 8, 4), "cuda": (16, 32, 64, 128)}  # batch sizes that are tried, in this order
NEAR = 1.25  # a size that takes up to so much of the fastest's time may be the fastest
TRIES = 2  # so often such a size is measured before it is judged
AGAIN = 8  # and then one batch in so many is of the one measured least


class BatchSizeSearch:
    """How many pictures share a call of the UNet: a number that was asked for, or the fastest of those tried.

    A busy machine makes a call longer and never shorter: the shortest time of a size counts, and one that is nearly as
    fast as the fastest is measured again at once, and now and then, so that a bad moment is not remembered for good.
    What ran out of memory is never tried again. What was found is remembered between runs, by model and machine.
    """

    def __init__(self, fixed: int | None, device: str, name: str, memory: Path | None = None):
        self.fixed, self.sizes, self.name, self.memory = fixed, SIZES.get(device, (8, 16)), name, memory
        self.most = fixed or max(self.sizes)
        self.batches = 0
        known = {} if fixed else self._read().get(name, {})
        self.most = min(self.most, known.get("most", self.most))
        tried = {int(size): entry for size, entry in known.get("tried", {}).items()}
        self.seconds: dict[int, float] = {size: seconds for size, (_, seconds) in tried.items()}  # a row of the UNet
        self.tries = Counter({size: tries for size, (tries, _) in tried.items()})

    @property
    def size(self) -> int:
        """The size of the next batch."""
        if self.fixed:
            return self.most
        untried = [size for size in self.sizes if size not in self.seconds and size <= self.most]
        if untried and not self._settled():
            return untried[0]
        fits = {size: took for size, took in self.seconds.items() if size <= self.most}
        if not fits:
            return self.most
        best = min(fits, key=lambda size: fits[size])
        near = [size for size, took in fits.items() if took <= NEAR * fits[best]]
        least = min(near, key=lambda size: self.tries[size])
        return least if self.tries[least] < TRIES or self.batches % AGAIN == AGAIN - 1 else best

    def _settled(self) -> bool:
        """Larger is slower already: what is larger still need not be tried."""
        tried = list(self.seconds)
        return len(tried) > 2 and self.seconds[tried[-1]] > 1.05 * min(self.seconds.values())

    def took(self, pictures: int, rows: int, seconds: float) -> None:
        """A batch was made, with so many rows of the UNet: steps differ between batches, rows do not."""
        self.batches += 1
        if not self.fixed and pictures in self.sizes:
            self.seconds[pictures] = min(seconds / rows, self.seconds.get(pictures, math.inf))
            self.tries[pictures] += 1
            self._write()

    def too_many(self, pictures: int) -> None:
        """A batch did not fit."""
        self.most = max(1, pictures // 2)
        self._write()

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self.memory.read_text()) if self.memory else {}
        except (OSError, ValueError):
            return {}

    def _write(self) -> None:
        if self.memory and not self.fixed:
            mine = {"most": self.most, "tried": {size: [self.tries[size], took] for size, took in self.seconds.items()}}
            try:
                write_json(self.memory, {**self._read(), self.name: mine})
            except OSError:  # it is found again next time
                self.memory = None


def out_of_memory(error: BaseException) -> bool:
    """Whether a batch was too large for the machine."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(sign in str(error) for sign in ("out of memory", "can't allocate memory"))
    )
