"""What a machine can do: its rate of matrix products, measured, and the most bytes that a process holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

# of the matrices: near the limit on few cores, and done before others get their turn; near it on many; on a GPU
SIDES = {"cpu": (512, 1536), "cuda": (8192,)}


def matrix_rate(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, seconds: float = 0.5) -> float:
    """FLOPs a second of a product of two square matrices, the fastest of those that fit into some seconds a size.

    It is what convolutions, linear layers and attention cannot be faster than.

    >>> matrix_rate(seconds=0.01) > 1e8
    True
    """
    device = torch.device(device)
    return max(_rate(side, device, dtype, seconds) for side in SIDES.get(device.type, (2048,)))


def _rate(side: int, device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    one, other = (torch.rand(side, side, dtype=torch.float32).to(device, dtype) for _ in range(2))
    wait = waiting(device)
    best, end = 0.0, time.perf_counter() + seconds
    while not best or time.perf_counter() < end:
        begun = time.perf_counter()
        one @ other
        if wait is not None:
            wait()
        best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    return best


def waiting(device: torch.device) -> Callable[[], object] | None:
    """What waits until a device has done all that it was asked for; None where every call waits by itself."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return torch.mps.synchronize if device.type == "mps" else None


def peak_bytes(device: torch.device) -> Callable[[], int] | None:
    """What gives the most bytes held since it was called before: of the GPU, or of this process where Linux tells.

    None where nobody does.
    """
    if device.type == "cuda":

        def of_gpu() -> int:
            held = torch.cuda.max_memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            return int(held)

        return of_gpu
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def of_process() -> int:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        held = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        reset.write_text("5")
        return held

    try:
        of_process()
    except (OSError, StopIteration):
        return None
    return of_process
