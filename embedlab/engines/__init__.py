"""Engines: other ways to run the UNet and the VAE's decoder than torch's eager mode."""

from embedlab.engines.auto import Auto, Work
from embedlab.engines.compile import Compile
from embedlab.engines.compiled import label, with_engine
from embedlab.engines.cuda_graph import CUDAGraph
from embedlab.engines.eager import Eager
from embedlab.engines.engine import Engine
from embedlab.engines.onnxruntime import ONNXRuntime, TensorRT
from embedlab.engines.openvino import OpenVINO
from embedlab.engines.recorded import RECORDED, as_recorded

__all__ = [
    "RECORDED",
    "Auto",
    "CUDAGraph",
    "Compile",
    "Eager",
    "Engine",
    "ONNXRuntime",
    "OpenVINO",
    "TensorRT",
    "Work",
    "as_recorded",
    "label",
    "with_engine",
]
