"""What one command holds while it runs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from embedlab.clean import check_name
from embedlab.cli.commands import learn
from embedlab.cli.commands.profile import Asked
from embedlab.cli.progress import Display
from embedlab.errors import ConfigError
from embedlab.files import write
from embedlab.sweep.study import Study
from embedlab.sweep.sweep_plan import FILE


@contextmanager
def rollback(folder: Path, multirun: bytes | None = None) -> Iterator[None]:
    """Where what is done here fails, leave a folder as it was: not at all where only Hydra's files and ours are in it.

    `multirun` is Hydra's file of a sweep as it was before.
    """
    try:
        yield
    except BaseException:
        if multirun is not None:  # Hydra has written its own over it
            write(folder / "multirun.yaml", multirun)
        held = list(folder.iterdir()) if folder.is_dir() else []
        hydra = ("multirun.yaml", ".lock", ".holder", ".hydra")
        if all(path.name in hydra or (path.suffix == ".log" and not path.stat().st_size) for path in held):
            shutil.rmtree(folder, ignore_errors=True)
        raise


class SweepLock:
    """The lock on a folder that one process at a time works in; who holds it is written beside it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = FileLock(folder / ".lock")

    def acquire(self) -> None:
        """Take the folder, made where it is not there; ConfigError where another process has it."""
        check_name(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"the folder '{self.folder}' is being worked in by {self._holder()}; wait for it, or name another."
            ) from None
        holder = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        write(self.folder / ".holder", json.dumps(holder).encode())

    def release(self) -> None:
        """Let others in; a second time it does nothing."""
        if self._lock.is_locked:
            for name in (".holder", ".lock"):
                (self.folder / name).unlink(missing_ok=True)
            self._lock.release()

    def _holder(self) -> str:
        try:
            who = json.loads((self.folder / ".holder").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "another process"
        return f"process {who['process']} on {who['host']} since {who['since']}"


class Session(ExitStack):
    """What one command holds while it runs, and lets go of when it ends: the sweep's folder, the display, what failed.

    `main` opens it and hands it down; a launcher finds it in the function that Hydra runs a job with (`of`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.locks: dict[Path, SweepLock] = {}
        self.failed: list[tuple[int, str, str]] = []  # number, title and reason
        self.sweep: tuple[Path, DictConfig] | None = None  # its folder, and the config that its jobs share
        self.study = Study()
        self.rows: Sequence[Sequence[str]] = ()  # of a list of prompts: what each sets, as overrides
        self.profile: Asked | None = None  # a profile of the job is asked for, and into which files
        self.learning: learn.Asked | None = None  # a word is learned before the job draws it

    @staticmethod
    def of(task_function: Any) -> Session:
        """The session of the command that Hydra runs; a new one where the command is somebody else's."""
        session = getattr(task_function, "session", None)
        return session if isinstance(session, Session) else Session()

    @cached_property
    def display(self) -> Display:
        """What is seen of all batches of a sweep."""
        return Display()

    def lock(self, folder: Path) -> None:
        """Hold a folder until the session ends or `unlock`; ConfigError where another process has it."""
        if folder not in self.locks:
            lock = SweepLock(folder)
            lock.acquire()
            self.locks[folder] = lock
            self.callback(lock.release)

    def unlock(self, folder: Path) -> None:
        """Let others in."""
        if (lock := self.locks.pop(folder, None)) is not None:
            lock.release()

    @contextmanager
    def locked(self, folder: Path) -> Iterator[None]:
        """Hold a folder until the block ends."""
        self.lock(folder)
        try:
            yield
        finally:
            self.unlock(folder)

    def hint(self) -> str:
        """How to go on with the sweeps that this command was in the middle of."""
        begun = [folder for folder in self.locks if (folder / FILE).is_file()]
        return "".join(f" embedlab -m resume={shlex.quote(str(folder))} makes the rest." for folder in begun)
