"""CPU → device, without waiting for what the device was asked before; and back, for a hash of what is there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from embedlab.errors import ConfigError

CPU = torch.device("cpu")


def send(value: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; a GPU reads it from pinned memory, in its turn, and nobody waits.

    >>> send(torch.ones(2), torch.device("cpu"))
    tensor([1., 1.])
    """
    if device.type != "cuda" or value.device.type != "cpu":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


class NumbersOnCpu(TorchFunctionMode):
    """A scheduler's step for latents on a GPU: the numbers of its schedule stay on the CPU, noise is sent over.

    Left alone, DDPM and ancestral Euler wait until the GPU has taken their noise, in every step, and UniPC for each
    noise level and for a system of three equations that it solves there. A number (0-dim) is handed to a kernel from
    the CPU; of what is longer, the sum over UniPC's steps (einsum) alone meets latents.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        devices = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.device)]
        if func is Tensor.to and devices and args[0].device == CPU and args[0].ndim > 1:
            args = [send(args[0], *devices), *args[1:]]
        elif func in (torch.tensor, torch.ones) or (func is Tensor.to and args[0].device == CPU):
            args = [on_cpu(one) for one in args]
            kwargs = {name: on_cpu(one) for name, one in kwargs.items()}
        elif func is torch.einsum:
            (there,) = {one.device for one in args[1:]} - {CPU} or {CPU}
            args = [args[0], *(send(one, there) for one in args[1:])]
        return func(*args, **kwargs)


def on_cpu(setting: Any) -> Any:
    """The CPU in place of a device."""
    return CPU if isinstance(setting, torch.device) else setting


def content_of(array: Any) -> str:
    """The SHA-256 of an array's bytes, whatever its shape."""
    if getattr(array, "is_meta", False):
        raise ConfigError("a tensor on the device meta has a shape and no numbers; give one that has.")
    data = torch.as_tensor(array).detach().cpu().to_dense().contiguous().reshape(-1)
    return hashlib.sha256(data.view(torch.uint8).numpy().tobytes()).hexdigest()
