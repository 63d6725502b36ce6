"""ONNX Runtime: on the CPU, on CUDA, and on CUDA by TensorRT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from embedlab.checks import in_choices
from embedlab.engines.cache import require
from embedlab.engines.engine import Common, Run, on_cuda, refusal
from embedlab.engines.graphs import Graph
from embedlab.engines.onnx_file import exporter_silent, write_onnx
from embedlab.errors import EngineError, listed

FILE = "model.onnx"
WEIGHTS = ("f32", "int8")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


@dataclass(frozen=True)
class ONNXRuntime(Common):
    """Runs graphs with ONNX Runtime: float32 on the CPU, the model's own number type on CUDA.

    weights: `f32` is exact; `int8` rounds the weights of matrix products and convolutions to 8 bits, on the CPU: a
    third of the size on disk and in memory, and lossy.
    """

    weights: Literal["f32", "int8"] = "f32"

    name: ClassVar[str] = "onnxruntime"
    extra: ClassVar[str] = "onnx"

    def __post_init__(self) -> None:
        in_choices(self.weights, "engine.weights", WEIGHTS, EngineError)
        super().__post_init__()

    @property
    def exact(self) -> bool:
        """Whether final latents are within 1e-4 of eager."""
        return self.weights == "f32"

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Refuse a machine without the packages, or whose ONNX Runtime does not run on the device."""
        for package in ("onnx", "onnxscript"):
            require(self.name, package, self.extra)
        try:
            import onnxruntime
        except ImportError:
            require(self.name, "onnxruntime", self.extra)
            raise
        wanted = PROVIDERS[self._kind(device)]
        if wanted not in (there := onnxruntime.get_available_providers()):
            raise EngineError(
                f"engine={self.name} needs ONNX Runtime's {wanted} on {device.type}; this one has {listed(there)}."
            )
        if self.weights == "int8" and device.type != "cpu":
            raise EngineError(f"engine.weights=int8 runs on the CPU, and the model is on {device.type}.")
        if dtype == torch.bfloat16 or (device.type == "cpu" and dtype != torch.float32):
            least = "float32" if device.type == "cpu" else "float16 or float32"
            raise EngineError(f"engine={self.name} runs {least} on {device.type}, not {dtype}: set model.dtype.")

    def depends_on(self, graph: Graph) -> list[Any]:
        """Nothing beside what every engine depends on."""
        return []

    def compile(self, graph: Graph, folder: Path) -> None:
        """Write what `load` reads into a folder."""
        to_onnx(graph, folder / FILE)
        if self.weights == "int8":
            _to_int8(graph, folder / FILE)

    def load(self, graph: Graph, folder: Path) -> Run:
        """Tensors by name → the output of the graph, from a folder that `compile` filled."""
        import onnxruntime

        device = next(iter(graph.inputs.values())).device
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.log_severity_level = 3
        session = onnxruntime.InferenceSession(folder / FILE, settings, providers=self._providers(device, folder))
        names = [one.name for one in session.get_inputs()]
        if device.type == "cpu":

            def run(inputs: dict[str, Tensor]) -> Tensor:
                given = dict(zip(names, (value.contiguous().numpy() for value in inputs.values()), strict=True))
                return torch.from_numpy(session.run(None, given)[0])

            return run
        return _bound(graph, session, device)

    def _kind(self, device: torch.device) -> str:
        return "cpu" if device.type == "cpu" else "cuda"

    def _providers(self, device: torch.device, folder: Path) -> list[Any]:
        if device.type == "cpu":
            return [PROVIDERS["cpu"]]
        return [(PROVIDERS["cuda"], {"device_id": device.index or 0})]


@dataclass(frozen=True)
class TensorRT(ONNXRuntime):
    """Runs graphs with TensorRT through ONNX Runtime; engines are kept beside the graph, by shape.

    `fp16` lets TensorRT compute in half precision where it is faster, which is lossy for a float32 model.
    """

    fp16: bool = False

    name: ClassVar[str] = "tensorrt"
    extra: ClassVar[str] = "tensorrt"
    by_shape: ClassVar[bool] = True  # there is an engine for each number of rows

    @property
    def exact(self) -> bool:
        """Whether final latents are within 1e-4 of eager."""
        return super().exact and not self.fp16

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Refuse another device than CUDA, and what ONNX Runtime refuses."""
        on_cuda(self.name, device)
        super().check(device, dtype)

    def _kind(self, device: torch.device) -> str:
        return "tensorrt"

    def _providers(self, device: torch.device, folder: Path) -> list[Any]:
        settings = {
            "device_id": device.index or 0,
            "trt_fp16_enable": self.fp16,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(folder),
        }
        return [(PROVIDERS["tensorrt"], settings), *super()._providers(device, folder)]


def to_onnx(graph: Graph, file: Path) -> None:
    """Write a graph as ONNX, with the names of its inputs.

    Raises EngineError with the operator that ONNX lacks.
    """
    program = graph.export()
    try:
        write_onnx(program, file)
    except OSError:
        raise
    except Exception as error:
        raise refusal("ONNX", graph.part, error) from error


def _to_int8(graph: Graph, file: Path) -> None:
    """Round the weights of a file to 8 bits, by row or channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    large = file.with_suffix(".onnx.data").exists()
    whole = file.rename(file.with_name("f32.onnx"))
    try:
        with exporter_silent():
            quantize_dynamic(whole, file, weight_type=QuantType.QUInt8, use_external_data_format=large)
    except OSError:
        raise
    except Exception as error:
        raise refusal("ONNX Runtime's quantisation", graph.part, error) from error
    whole.unlink()


NUMPY = {torch.float32: np.float32, torch.float16: np.float16, torch.bool: np.bool_}


def _bound(graph: Graph, session: Any, device: torch.device) -> Run:
    """A session on CUDA that reads and writes torch's memory."""
    names = [one.name for one in session.get_inputs()]

    def run(inputs: dict[str, Tensor]) -> Tensor:
        binding, held = session.io_binding(), []
        for name, value in zip(names, inputs.values(), strict=True):
            held.append(value := value.contiguous())
            binding.bind_input(
                name, device.type, device.index or 0, NUMPY[value.dtype], tuple(value.shape), value.data_ptr()
            )
        (out,) = session.get_outputs()
        first = next(iter(inputs.values()))
        result = torch.empty(graph.output_shape(inputs), dtype=first.dtype, device=device)
        binding.bind_output(
            out.name, device.type, device.index or 0, NUMPY[result.dtype], tuple(result.shape), result.data_ptr()
        )
        torch.cuda.current_stream(device).synchronize()
        session.run_with_iobinding(binding)
        return result

    return run
