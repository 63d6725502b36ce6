"""A thread beside the caller's, for what need not be waited for."""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue
from threading import Thread


class Background:
    """Does tasks on a thread of its own, one after the other; with `most` of them waiting, `put` waits.

    What a task raises is raised by the next `put`, or by `close`; the tasks after it are not done, but for those that
    have to be done `always`, also where the rest is dropped.

    >>> done = []
    >>> background = Background("embedlab-files", most=2)
    >>> for n in range(4):
    ...     background.put(lambda n=n: done.append(n))
    >>> background.close()
    >>> done
    [0, 1, 2, 3]
    """

    def __init__(self, name: str, most: int):
        self.name = name
        self._tasks: Queue[tuple[Callable[[], object], bool] | None] = Queue(most)
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        self._drop = False

    def put(self, task: Callable[[], object], always: bool = False) -> None:
        """A task to be done after those that wait."""
        if self._error is not None:
            raise self._error
        if self._thread is None:
            self._thread = Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()
        self._tasks.put((task, always))

    def _work(self) -> None:
        while (item := self._tasks.get()) is not None:
            task, always = item
            if not always and (self._drop or self._error is not None):
                continue  # taken all the same, so that nobody waits for room
            try:
                task()
            except BaseException as error:
                self._error = self._error or error

    def close(self, drop: bool = False) -> None:
        """Wait until all tasks are done; with `drop`, for the one that is being done and those to be done always."""
        if self._thread is None:
            return
        self._drop = drop
        self._tasks.put(None)
        self._thread.join()
        self._thread = None
        if self._error is not None and not drop:
            raise self._error
