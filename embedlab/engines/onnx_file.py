"""A module, or its graph, as an ONNX file that netron opens."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from embedlab.models.silence import silence_libraries

LARGEST = 1 << 30  # bytes of weights in one file; protobuf ends at twice as many


def write_onnx(
    part: nn.Module | ExportedProgram, file: Path, inputs: tuple[Tensor, ...] = (), names: Sequence[str] | None = None
) -> None:
    """Write a module with inputs of fixed sizes, or an exported program; large weights lie beside the file.

    Raises what the exporter raises for an operator that ONNX lacks.
    """
    with silence_libraries(), exporter_silent(), torch.no_grad():
        program = torch.onnx.export(part, inputs, dynamo=True, verbose=False, input_names=names)
        assert program is not None
        weights = sum(value.nbytes for value in _weights(part))
        program.save(file, external_data=weights > LARGEST)


def _weights(part: nn.Module | ExportedProgram) -> list[Tensor]:
    held = part.state_dict if isinstance(part, ExportedProgram) else part.state_dict()
    return list(held.values())


@contextlib.contextmanager
def exporter_silent() -> Iterator[None]:
    """Let the exporters raise what is wrong, and log and print nothing: not of torchvision, which nothing here uses.

    Logging and standard output are the process's: one thread at a time.
    """
    before, quiet = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
