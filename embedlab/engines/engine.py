"""What an engine is: (graph, folder) → files, (graph, folder) → a function of tensors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from embedlab.arguments import check_fields, settle_numbers
from embedlab.checks import true_or_false
from embedlab.engines.graphs import Graph
from embedlab.errors import EngineError, first_line

Run = Callable[[dict[str, Tensor]], Tensor]
LACKING = re.compile(  # how OpenVINO and torch's ONNX exporter name an operator that they do not know
    r"No conversion rule found for operations: ([^\n]+)|No ONNX function found for <OpOverload\(op='([^']+)'"
)


@runtime_checkable
class Engine(Protocol):
    """Another way to run a part of a model than torch's eager mode.

    `compile` writes a graph into a folder, which is kept by what it was made of; `load` makes a function of it.
    `exact` engines end in latents that are within 1e-4 of eager's, over 25 steps in float32.
    """

    @property
    def name(self) -> str:
        """What `engine=` calls it."""
        ...

    @property
    def exact(self) -> bool:
        """Whether final latents are within 1e-4 of eager."""
        ...

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Raise EngineError, before weights are read, where it cannot run here."""
        ...

    def depends_on(self, graph: Graph) -> list[Any] | None:
        """What a compiled graph depends on beside weights, inputs, versions and the machine; None: nothing is kept."""
        ...

    def compile(self, graph: Graph, folder: Path) -> None:
        """Write what `load` reads into a folder; EngineError names what cannot be converted."""
        ...

    def load(self, graph: Graph, folder: Path) -> Run:
        """Tensors by name → the output of the graph, from a folder that `compile` filled."""
        ...


@dataclass(frozen=True)
class Common:
    """What engines of ours have in common: text_encoder says whether they run text encoders, too, which pays where many
    windows are encoded: where operators change over time. It does not change what a compiled graph is.
    """

    text_encoder: bool = field(default=False, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        settle_numbers(self)
        true_or_false(self.text_encoder, "engine.text_encoder", EngineError)
        check_fields(self)
        if self.text_encoder and not getattr(self, "exact", True):
            raise EngineError(f"engine.text_encoder=true goes with exact settings, and {self} is lossy.")


def on_cuda(name: str, device: torch.device) -> None:
    """Refuse an engine elsewhere than on CUDA."""
    if device.type != "cuda":
        raise EngineError(f"engine={name} needs a CUDA device, and the model is on {device.type}: set model.device.")


def only_on_cpu(name: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse an engine that runs float32 on the CPU anywhere else."""
    if device.type != "cpu":
        raise EngineError(f"engine={name} runs on the CPU, and the model is on {device.type}: set model.device=cpu.")
    if dtype != torch.float32:
        short = str(dtype).removeprefix("torch.")
        raise EngineError(f"engine={name} takes a float32 model, and this one is {short}: set model.dtype=float32.")


def refusal(who: str, part: str, error: Exception) -> EngineError:
    """The line for a part that a converter does not take: by the operators that it lacks, where it names them."""
    causes = [error]
    while isinstance(cause := causes[-1].__cause__, Exception):
        causes.append(cause)
    for one in causes:
        if found := LACKING.search(str(one)):
            return EngineError(f"{who} has no operator {found[1] or found[2]}, which the {part} needs: engine=eager.")
    return EngineError(f"{who} cannot convert the {part}: {first_line(causes[-1])}")
