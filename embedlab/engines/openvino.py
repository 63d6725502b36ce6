"""OpenVINO: Intel's runtime for CPUs; a plain call of a small UNet is a third faster there, and threads do not wait."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from embedlab.checks import in_choices
from embedlab.engines.cache import require
from embedlab.engines.engine import Common, Run, only_on_cpu, refusal
from embedlab.engines.graphs import Graph
from embedlab.engines.onnx_file import exporter_silent
from embedlab.errors import EngineError, listed

PRECISIONS = {"f32": "FP32", "bf16": "BF16"}  # as OpenVINO's hint → as a device says that it can
BLOB = "model.blob"


@dataclass(frozen=True)
class OpenVINO(Common):
    """Runs graphs with OpenVINO on the CPU, as many threads as torch has.

    precision: `f32` is exact (final latents within 1e-4 of eager); `bf16` is lossy, and needs a CPU that has it.
    """

    precision: Literal["f32", "bf16"] = "f32"

    name: ClassVar[str] = "openvino"

    def __post_init__(self) -> None:
        in_choices(self.precision, "engine.precision", PRECISIONS, EngineError)
        super().__post_init__()

    @property
    def exact(self) -> bool:
        """Whether final latents are within 1e-4 of eager."""
        return self.precision == "f32"

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Refuse a machine without the package, another device than the CPU, and a number type that is not float32."""
        require(self.name, "openvino")
        only_on_cpu(self.name, device, dtype)
        if not self.exact:
            import openvino

            able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            if PRECISIONS[self.precision] not in able:
                raise EngineError(
                    f"engine.precision={self.precision} needs a CPU that computes in it; this one has {listed(able)}."
                )

    def depends_on(self, graph: Graph) -> list[Any]:
        """Nothing beside what every engine depends on."""
        return []

    def compile(self, graph: Graph, folder: Path) -> None:
        """Write what `load` reads into a folder."""
        import openvino

        program = graph.export()
        try:
            with exporter_silent():
                model = openvino.convert_model(program)
            compiled = openvino.Core().compile_model(model, "CPU", self._settings())
        except Exception as error:
            raise refusal("OpenVINO", graph.part, error) from error
        (folder / BLOB).write_bytes(compiled.export_model().getvalue())

    def load(self, graph: Graph, folder: Path) -> Run:
        """Tensors by name → the output of the graph, from a folder that `compile` filled."""
        import openvino

        compiled = openvino.Core().import_model((folder / BLOB).read_bytes(), "CPU", self._settings())
        request = compiled.create_infer_request()

        def run(inputs: dict[str, Tensor]) -> Tensor:
            out = request.infer([value.contiguous().numpy() for value in inputs.values()], share_inputs=True)
            return torch.from_numpy(out[compiled.outputs[0]].copy())

        return run

    def _settings(self) -> dict[str, Any]:
        return {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
