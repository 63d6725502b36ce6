"""torch's own compiler, ahead of time: a library for the machine, made once and loaded in a moment."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from embedlab.engines.engine import Common, Run
from embedlab.engines.graphs import Graph, in_parts
from embedlab.errors import EngineError, first_line

FILE = "model.pt2"


@dataclass(frozen=True)
class Compile(Common):
    """Runs graphs that torch's inductor compiled ahead of time (AOTInductor); it needs a C++ compiler."""

    name: ClassVar[str] = "compile"
    exact: ClassVar[bool] = True

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Refuse a machine without a C++ compiler."""
        if not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
            raise EngineError("engine=compile needs a C++ compiler (g++ or clang++), and there is none on the PATH.")

    def depends_on(self, graph: Graph) -> list[Any]:
        """The card that it was compiled for."""
        device = next(iter(graph.inputs.values())).device
        return [torch.cuda.get_device_name(device)] if device.type == "cuda" else []

    def compile(self, graph: Graph, folder: Path) -> None:
        """Write what `load` reads into a folder."""
        program = graph.export()
        try:
            torch._inductor.aoti_compile_and_package(program, package_path=str(folder / FILE))
        except OSError:
            raise
        except Exception as error:
            raise EngineError(f"torch's compiler does not take the {graph.part}: {first_line(error)}") from error

    def load(self, graph: Graph, folder: Path) -> Run:
        """Tensors by name → the output of the graph, from a folder that `compile` filled."""
        compiled = torch._inductor.aoti_load_package(str(folder / FILE))
        return in_parts(lambda inputs: compiled(*inputs.values()))
