"""What a picture depends on, as a key: weights, cell, versions, and code that is not ours."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, lru_cache, partial
from importlib.metadata import version
from types import FunctionType
from typing import Any

import torch

import embedlab
from embedlab.cell import Cell, fingerprint
from embedlab.models import Model, Source, pick_device, pick_dtype


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """The versions that a picture depends on."""
    others = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    return {"embedlab": embedlab.__version__, **others}


def parameters_of(model: Model) -> dict[str, int]:
    """How many parameters each part of a model has; a part that an engine runs has those that it was made of."""
    parts = {"unet": model.unet, "vae": model.vae}
    for n, tower in enumerate(model.towers, 1):
        parts["text_encoder" if n == 1 else f"text_encoder_{n}"] = tower.encoder
    return {
        name: sum(one.numel() for one in part.parameters())
        for name, part in parts.items()
        if isinstance(part, torch.nn.Module)
    }


def files_of(source: Source) -> str:
    """A short hash of all that a model is made of: another one may draw otherwise."""
    return fingerprint(source.identity)[:16]


def key_of(source: Source, cell: Cell, lossy: str = "") -> Callable[[int], str]:
    """Seed → key of the picture: a hash of weights, cell, versions, and the code of operators that are not ours.

    The number type and the kind of device count, the size of the batch does not; nor does the engine, unless it is
    `lossy`: then what it is called.
    """
    device = torch.device(source.device) if source.device else pick_device(None)
    start = cell.start.content
    what = [source.identity, device.type, str(pick_dtype(source.dtype, device)), cell, start, code_of(cell), versions()]
    what += cell.guidance.contents
    whole = fingerprint([*what, lossy] if lossy else what)
    return lambda seed: hashlib.sha256(f"{whole}/{seed}".encode()).hexdigest()[:24]


def code_of(cell: Cell) -> list[str]:
    """The source of operators from elsewhere, also of those within others: one that was rewritten draws otherwise."""
    kinds: set[Any] = set()
    seen: dict[int, Any] = {}  # held, so that no other comes to be where one was

    def walk(value: Any) -> None:
        if id(value) in seen:
            return
        seen[id(value)] = value
        if isinstance(value, Mapping):
            walk(list(value.values()))
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner)
        elif isinstance(value, partial):
            walk([value.func, value.args, value.keywords])
        elif isinstance(value, FunctionType):
            kinds.add(value)
        elif callable(value) or dataclasses.is_dataclass(value):
            kinds.add(type(value))
            walk(getattr(value, "__dict__", {}))

    walk([cell.prompt, cell.operators, cell.encoder, cell.guidance, cell.attention])
    ours = ("embedlab.", "torch.", "builtins.")
    return sorted(source_of(kind) for kind in kinds if not f"{kind.__module__}.".startswith(ours))


@cache
def source_of(kind: Any) -> str:
    """The text of the module where a class is, because it may call what stands beside it; its own, or its name."""
    for one in (inspect.getmodule(kind), kind):
        with suppress(OSError, TypeError):
            return inspect.getsource(one)  # type: ignore[arg-type]
    return f"{kind.__module__}.{kind.__qualname__}"
