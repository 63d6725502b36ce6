"""How many pictures share a call of the UNet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from embedlab.files import write_json

SIZES = {"cpu": (16, 32, 8, 4), "cuda": (16, 32, 64, 128)}  # batch sizes that are tried, in this order


class BatchSizeSearch:
    """How many pictures share a call of the UNet: a number that was asked for, or the fastest of those tried.

    What ran out of memory is never tried again. What was found is remembered between runs, by model and machine.
    """

    def __init__(self, fixed: int | None, device: str, name: str, memory: Path | None = None):
        self.fixed, self.sizes, self.name, self.memory = fixed, SIZES.get(device, (8, 16)), name, memory
        self.most = fixed or max(self.sizes)
        self.seconds: dict[int, float] = {}  # a row of the UNet, by size of the batch
        known = {} if fixed else self._read().get(name, {})
        self.most = min(self.most, known.get("most", self.most))
        self.best: int | None = known.get("best")

    @property
    def size(self) -> int:
        """The size of the next batch."""
        if self.fixed:
            return self.most
        if self.best:
            return min(self.best, self.most)
        untried = [size for size in self.sizes if size not in self.seconds and size <= self.most]
        if untried and not self._settled():
            return untried[0]
        fits = {size: took for size, took in self.seconds.items() if size <= self.most}
        return min(fits, key=lambda size: fits[size]) if fits else self.most

    def _settled(self) -> bool:
        """Larger is slower already: what is larger still need not be tried."""
        tried = list(self.seconds)
        return len(tried) > 2 and self.seconds[tried[-1]] > 1.05 * min(self.seconds.values())

    def took(self, pictures: int, rows: int, seconds: float) -> None:
        """A batch was made, with so many rows of the UNet: steps differ between batches, rows do not."""
        if not self.fixed and not self.best and pictures in self.sizes and pictures not in self.seconds:
            self.seconds[pictures] = seconds / rows
            if self._settled() or len(self.seconds) == len(self.sizes):
                self.best = self.size
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
            try:
                write_json(self.memory, {**self._read(), self.name: {"most": self.most, "best": self.best}})
            except OSError:  # it is found again next time
                self.memory = None


def out_of_memory(error: BaseException) -> bool:
    """Whether a batch was too large for the machine."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(sign in str(error) for sign in ("out of memory", "can't allocate memory"))
    )
