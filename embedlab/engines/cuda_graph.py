"""CUDA graphs: the kernels of a call are recorded once for its shapes, and started as one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from embedlab.engines.engine import Common, Run, on_cuda
from embedlab.engines.graphs import Graph

WARM_UPS = 3  # before a capture cuDNN and cuBLAS choose their kernels and get their memory


@dataclass(frozen=True)
class CUDAGraph(Common):
    """Records the calls of a part, one graph for each set of shapes; the same kernels as eager, to the bit."""

    name: ClassVar[str] = "cuda_graph"
    exact: ClassVar[bool] = True
    by_shape: ClassVar[bool] = True  # there is a capture for each number of rows

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Refuse another device than CUDA."""
        on_cuda(self.name, device)

    def depends_on(self, graph: Graph) -> None:
        """Nothing is kept: a capture lives as long as its process."""

    def compile(self, graph: Graph, folder: Path) -> None:
        """Nothing is kept."""

    def load(self, graph: Graph, folder: Path) -> Run:
        """Tensors by name → the output of the module."""
        captures: dict[tuple[torch.Size, ...], tuple[dict[str, Tensor], torch.cuda.CUDAGraph, Tensor]] = {}

        def run(inputs: dict[str, Tensor]) -> Tensor:
            shapes = tuple(value.shape for value in inputs.values())
            if shapes not in captures:
                captures[shapes] = capture(graph, inputs)
            held, recorded, out = captures[shapes]
            for name, value in inputs.items():
                held[name].copy_(value)
            recorded.replay()
            return out.clone()

        return run


def capture(graph: Graph, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], torch.cuda.CUDAGraph, Tensor]:
    """Record one call: the tensors that it reads, the graph, the tensor that it writes."""
    held = {name: value.clone() for name, value in inputs.items()}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            graph.module(*held.values())
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    # scores of other pictures use the device from a thread of their own, which must not end a capture
    with torch.cuda.graph(recorded, capture_error_mode="thread_local"):
        out = graph.module(*held.values())
    return held, recorded, out
