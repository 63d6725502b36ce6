"""What was found out once need not be found out again: by key, or by table."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import wraps
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class Memo(Generic[Key, Answer]):
    """The `most` answers that were asked for last, of a question that is asked of many things at once, by key.

    >>> memo = Memo(2)
    >>> memo(["a", "bb"], lambda new: [len(key) for key in new]), memo(["bb"], lambda new: 1 / 0)
    ([1, 2], [2])
    """

    def __init__(self, most: int):
        self.most = most
        self._known: OrderedDict[Key, Answer] = OrderedDict()

    def __call__(self, keys: Sequence[Key], ask: Callable[[list[Key]], Sequence[Answer]]) -> list[Answer]:
        """The answer for each key; `ask` gets those that are new, each once, and gives their answers in order."""
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new:
            self._known.update(zip(new, ask(new), strict=True))
        answers = [self._known[key] for key in keys]
        for key in keys:
            self._known.move_to_end(key)
        while len(self._known) > self.most:
            self._known.popitem(last=False)
        return answers


def once_per_table(measure: Callable[[Tensor], Answer]) -> Callable[[Tensor], Answer]:
    """Measure a table again only when it is another or has been written to; views of one are the same."""
    known: OrderedDict[Any, tuple[Tensor, Answer]] = OrderedDict()

    @wraps(measure)
    def measured(table: Tensor) -> Answer:
        if table.is_inference() or table.requires_grad:  # nobody counts what is written to it; it has a gradient
            return measure(table)
        key = (table.data_ptr(), table.shape, table.stride(), table.dtype, table.device, table._version)
        if key not in known:
            with torch.inference_mode(False), torch.no_grad():  # whoever asks next may want gradients of other things
                known[key] = table, measure(table)  # the table is held, so that no other can come to lie at its place
        known.move_to_end(key)
        while len(known) > 8:
            known.popitem(last=False)
        return known[key][1]

    return measured
