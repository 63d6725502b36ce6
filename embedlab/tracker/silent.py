"""A tracker that logs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from embedlab.tracker.protocol import JOB, About, Run


@dataclass(frozen=True)
class Silent:
    """Logs nothing."""

    def ready(self) -> None:
        """It always is."""

    @contextmanager
    def run(
        self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None, about: About = JOB
    ) -> Iterator[Run]:
        yield _SilentRun()


class _SilentRun:
    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Nothing."""

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        """Nothing."""

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Nothing."""

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        """Nothing."""

    def file(self, name: str, path: Path) -> None:
        """Nothing."""
