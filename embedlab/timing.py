"""Where time goes: seconds by part of the work, on the thread that samples and on those beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from threading import Lock, get_ident
from typing import Any

OTHER = "other"  # the part of all that nobody named
ORDER = ("load", "plan", "tokenise", "edit", "encode", "UNet", "scheduler", "decode", "files", "waiting")
SLIGHT = 0.005  # a share that a line does not spend words on


@dataclass(frozen=True)
class Spent:
    """What a part took: its own seconds, without those of parts inside it; how often; rows of its batches; `peak`, the
    most bytes that were held meanwhile, where somebody measured that; `asked`, how many rows there would be if equal
    ones were not run once.
    """

    seconds: float = 0.0
    calls: int = 0
    rows: int = 0
    peak: int | None = None
    asked: int = 0

    def __add__(self, more: Spent) -> Spent:
        peaks = [one for one in (self.peak, more.peak) if one is not None]
        return Spent(
            self.seconds + more.seconds,
            self.calls + more.calls,
            self.rows + more.rows,
            max(peaks, default=None),
            self.asked + more.asked,
        )


@dataclass(frozen=True)
class Times:
    """Where time went. parts: on the thread that samples, all of its seconds; beside: on other threads meanwhile.

    >>> one = Times({"UNet": Spent(3.0, 2, 8), "decode": Spent(1.0, 1, 4)})
    >>> (one + one).seconds, one.share("UNet"), one.rate("UNet")
    (8.0, 0.75, 2.6666666666666665)
    >>> print(one)
    UNet 75 %, decode 25 %
    """

    parts: Mapping[str, Spent] = field(default_factory=dict)
    beside: Mapping[str, Spent] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """All of the thread that samples; of several workers those of each, added up."""
        return sum(part.seconds for part in self.parts.values())

    def spent(self, name: str) -> Spent:
        """What a part took on the thread that samples; nothing where it was not done."""
        return self.parts.get(name, Spent())

    def share(self, name: str) -> float:
        """The share of a part in those, from 0 to 1."""
        return self.spent(name).seconds / self.seconds if self.seconds else 0.0

    def rate(self, name: str) -> float:
        """Rows of a part by the seconds that it took itself."""
        part = self.spent(name)
        return part.rows / part.seconds if part.seconds else 0.0

    def records(self) -> list[dict[str, Any]]:
        """A row for each part: on which thread, its seconds and its share, calls and rows, numbers as numbers."""
        return [
            {
                "part": name,
                "thread": thread,
                "seconds": round(part.seconds, 6),
                "share": round(part.seconds / self.seconds, 6) if self.seconds else None,
                "calls": part.calls,
                "rows": part.rows,
                "rows_asked": max(part.asked, part.rows),
                "peak_bytes": part.peak,
            }
            for thread, parts in (("sampling", self.parts), ("beside", self.beside))
            for name, part in parts.items()
        ]

    def __add__(self, more: Times) -> Times:
        return Times(_sum(self.parts, more.parts), _sum(self.beside, more.beside))

    def __str__(self) -> str:
        """The shares in words, the largest first; slight ones are left out."""
        names = sorted((name for name in self.parts if name != OTHER), key=lambda name: -self.share(name))
        said = [f"{n} {self.share(n):.0%}" for n in (*names, OTHER) if self.share(n) >= SLIGHT]
        least = SLIGHT * self.seconds
        more = [
            f"{n} {part.seconds / self.seconds:.0%}" for n, part in self.beside.items() if part.seconds >= least > 0
        ]
        return (", ".join(said) + ("; beside it " + ", ".join(more) if more else "")).replace("%", " %")


def _sum(some: Mapping[str, Spent], more: Mapping[str, Spent]) -> dict[str, Spent]:
    return {name: some.get(name, Spent()) + more.get(name, Spent()) for name in dict.fromkeys((*some, *more))}


class Timer:
    """Measures parts of the work, in parts that may hold others; handed to whoever does some of it.

    The thread that enters it is the one that samples: its time outside of all parts is `other`. `settle` is called
    where a part begins and ends: what waits until a device is done. `peak` gives the most bytes that the process held
    since it was called before. `clock` gives seconds. `mark` is a context of each part, by its name, such as
    torch.profiler's `record_function`.

    >>> seconds = iter([0, 1, 3, 6, 7, 7])
    >>> timer = Timer(clock=lambda: next(seconds))
    >>> with timer, timer.part("scheduler"):
    ...     with timer.part("UNet", rows=2):
    ...         pass
    >>> times = timer.times()
    >>> {name: part.seconds for name, part in times.parts.items()}, times.seconds, times.spent("UNet").rows
    ({'UNet': 3.0, 'scheduler': 3.0, 'other': 1.0}, 7.0, 2)
    """

    def __init__(
        self,
        settle: Callable[[], object] | None = None,
        peak: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        mark: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ):
        self._settle, self._peak, self._clock, self._mark = settle, peak, clock, mark
        self._lock = Lock()
        self._main: int | None = None
        self._inside: dict[int, tuple[list[str], float]] = {}  # by thread: parts that it is in, and since when
        self._times = Times({}, {})

    def __enter__(self) -> Timer:
        self._main = get_ident()
        self._turn(OTHER)
        return self

    def __exit__(self, *_: object) -> None:
        self._turn()
        self._main = None

    @contextmanager
    def part(self, name: str, rows: int = 0, calls: int = 1, asked: int = 0) -> Iterator[None]:
        """A part of the work, until the block ends; parts inside it are measured apart."""
        self._turn(name, Spent(0.0, calls, rows, asked=asked))
        try:
            with self._mark(name):
                yield
        finally:
            self._turn()

    def _turn(self, name: str | None = None, spent: Spent | None = None) -> None:
        """A part begins, or ends where none is named: what went by belongs to the part before."""
        if self._settle:
            self._settle()
        me, now = get_ident(), self._clock()
        with self._lock:
            if self._peak:  # of the process: it belongs to what each thread was doing
                held = Spent(peak=self._peak())
                for thread, (parts, _) in self._inside.items():
                    self._count(thread, parts[-1], held)
            inside, since = self._inside.get(me, ([], now))
            if inside:
                self._count(me, inside[-1], Spent(now - since))
            if name is None:
                inside.pop()
            else:
                inside.append(name)
                self._count(me, name, spent or Spent())
            if inside:
                self._inside[me] = inside, now
            else:
                self._inside.pop(me, None)

    def _count(self, thread: int, name: str, spent: Spent) -> None:
        where = self._times.parts if thread == self._main else self._times.beside
        assert isinstance(where, dict)
        where[name] = where.get(name, Spent()) + spent

    def ask(self, name: str, rows: int) -> None:
        """Count rows that were asked of a part of the thread that samples, and were there already."""
        with self._lock:
            self._times = self._times + Times({name: Spent(asked=rows)} if rows else {})

    def spent(self, name: str) -> Spent:
        """What a part of the thread that samples took so far."""
        with self._lock:
            return self._times.parts.get(name, Spent())

    def add(self, times: Times) -> None:
        """Count in what somebody else measured, such as a worker on another machine."""
        with self._lock:
            self._times = self._times + times

    def times(self) -> Times:
        """What was measured until now, in the order of the work; `other` comes last."""
        rank = {name: n for n, name in enumerate(ORDER)} | {OTHER: len(ORDER) + 1}
        with self._lock:
            parts = sorted(self._times.parts.items(), key=lambda item: rank.get(item[0], len(ORDER)))
            return Times(dict(parts), dict(self._times.beside))
