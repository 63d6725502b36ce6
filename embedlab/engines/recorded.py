"""The engine that a picture names."""

from __future__ import annotations

from embedlab.engines.compile import Compile
from embedlab.engines.compiled import Say, label, with_engine
from embedlab.engines.cuda_graph import CUDAGraph
from embedlab.engines.eager import Eager
from embedlab.engines.onnxruntime import ONNXRuntime, TensorRT
from embedlab.engines.openvino import OpenVINO
from embedlab.errors import EngineError
from embedlab.models import Model

RECORDED = {
    label(engine): engine
    for engine in (
        *(Eager(), OpenVINO(), OpenVINO("bf16"), ONNXRuntime(), ONNXRuntime("int8"), Compile()),
        *(CUDAGraph(), TensorRT(), TensorRT(fp16=True)),
    )
}  # by what pictures say that ran their UNet


def as_recorded(model: Model, name: str, say: Say = lambda line: None) -> Model:
    """A model with the engine that a picture names; eager where that is not here."""
    if name not in RECORDED:
        return model
    try:
        return with_engine(model, RECORDED[name], say)
    except EngineError as error:
        say(f"made with eager in place of {name}: {error}")
        return model
