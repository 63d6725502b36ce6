"""Where a model runs, and in which numbers."""

from __future__ import annotations

import torch

from embedlab.errors import ModelError
from embedlab.limits import DTYPE_NAMES, check_device

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}


def pick_device(name: str | None) -> torch.device:
    """The device asked for, or CUDA where there is one."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_device(name)
    device = torch.device(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device 'mps' was asked for, but this torch has none; try cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device '{name}' was asked for, but this torch sees {torch.cuda.device_count()} CUDA devices; try cpu."
        )
    return device


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The number type asked for, or half precision on CUDA and float32 elsewhere."""
    if name:
        return DTYPES[name]
    if device.type != "cuda":
        return torch.float32
    if not torch.cuda.is_available():  # another machine's, which is not asked
        return torch.bfloat16
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
