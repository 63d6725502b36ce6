"""torch as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from embedlab.engines.engine import Run
from embedlab.engines.graphs import Graph


@dataclass(frozen=True)
class Eager:
    """Runs a part operator by operator, as torch does; nothing is compiled."""

    name: ClassVar[str] = "eager"
    exact: ClassVar[bool] = True

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """It runs everywhere."""

    def depends_on(self, graph: Graph) -> None:
        """Nothing is kept."""

    def compile(self, graph: Graph, folder: Path) -> None:
        """Nothing is kept."""

    def load(self, graph: Graph, folder: Path) -> Run:
        """Tensors by name → the output of the module."""
        return lambda inputs: graph.module(*inputs.values())
