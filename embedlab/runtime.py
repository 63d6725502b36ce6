"""Where a picture is made: what its bits depend on beside weights, cell, seed and versions."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch

from embedlab.models import Model


def runtime_of(model: Model) -> dict[str, str | int | bool]:
    """What the bits of a picture depend on beside weights, cell, seed, versions and its place in a batch.

    Measured on the shipped model (6 steps, float32): each of `threads`, `instructions`, `onednn` and `mkl_cbwr` moves
    the latents by 1e-5, which makes 6 to 10 of 49,152 pixels another by 1 of 255.
    """
    device = torch.device(model.device)
    facts: dict[str, str | int | bool] = {
        "device": device.type,
        "engine": model.engine,
        "dtype": str(model.unet.dtype).removeprefix("torch."),
        "torch_build": torch.__version__,
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "onednn": torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled),
    }
    if kind := os.environ.get("MKL_CBWR"):
        facts["mkl_cbwr"] = kind
    if device.type == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": str(torch.version.cuda or torch.version.hip),
            "cudnn": torch.backends.cudnn.version() or 0,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        }
    return facts


@lru_cache(maxsize=1)
def processor() -> str:
    """The name of this machine's processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
