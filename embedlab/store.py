"""Finished pictures on disk, each under a key of everything that it depends on; none is ever made twice."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from embedlab.errors import ConfigError
from embedlab.experiment import Cell, Drawn, fingerprint
from embedlab.models import Source, pick_device, pick_dtype

FORMAT = 1  # of result.json, sweep.json and the settings inside a PNG


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """The versions that a picture depends on."""
    return {name: version(name) for name in ("embedlab", "torch", "diffusers", "transformers")}


def key_of(source: Source, cell: Cell) -> Callable[[int], str]:
    """Seed → key of the picture: a hash of weights, cell, versions, and the code of operators that are not ours.

    The number type and the kind of device count, the size of the batch does not.
    """
    device = torch.device(source.device) if source.device else pick_device(None)
    start = content(cell.start.path) if cell.start.picture is not None else None
    whole = fingerprint(
        [source.identity, device.type, str(pick_dtype(source.dtype, device)), cell, start, code_of(cell), versions()]
    )
    return lambda seed: hashlib.sha256(f"{whole}/{seed}".encode()).hexdigest()[:24]


def content(path: Path) -> str:
    """A hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def code_of(cell: Cell) -> list[str]:
    """The source of operators from elsewhere: one that was rewritten makes other pictures."""
    foreign = {type(operator) for operator in cell.operators if not type(operator).__module__.startswith("embedlab.")}
    return sorted(source_of(kind) for kind in foreign)  # type: ignore[arg-type]


@cache
def source_of(kind: Any) -> str:
    """The text of a class, or of the module where it is; its name where neither can be had."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"


def saved(picture: Float[Tensor, "3 height width"]) -> UInt8[Tensor, "3 height width"]:
    """A picture as a PNG keeps it; what is scored is what is kept."""
    return picture.mul(255).round().byte()


class Store:
    """A folder of finished pictures with their latents, one file each, written whole or not at all."""

    def __init__(self, folder: Path, remember: int = 64):
        self.folder = folder
        self.remember = remember
        self._recent: OrderedDict[str, Drawn] = OrderedDict()

    def path(self, key: str) -> Path:
        """Where a picture is, once it is finished."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> Drawn | None:
        """A finished picture as it was kept; None where there is none, or only a file that cannot be read."""
        if key not in self._recent:
            try:
                self._keep(key, unpacked(self.path(key).read_bytes()))
            except (OSError, SafetensorError, KeyError, ValueError, EOFError):
                return None
        self._recent.move_to_end(key)
        return self._recent[key]

    def put(self, key: str, drawn: Drawn) -> Drawn:
        """Keep a picture; answers with it as it was kept."""
        data = packed(drawn)
        write(self.path(key), data)
        return self._keep(key, unpacked(data))

    def _keep(self, key: str, drawn: Drawn) -> Drawn:
        self._recent[key] = drawn
        while len(self._recent) > self.remember:
            self._recent.popitem(last=False)
        return drawn


def packed(drawn: Drawn) -> bytes:
    """A picture, its latents and its kept steps as one safetensors file; pictures are PNGs in it."""
    tensors = {"picture": as_png(drawn.picture), "latents": drawn.latents.contiguous()}
    for n, (_, latents, x0) in enumerate(drawn.steps):
        tensors |= {f"step {n} latents": as_png(latents), f"step {n} x0": as_png(x0)}
    about = {"steps": [number for number, _, _ in drawn.steps], "batch": drawn.batch}
    return save(tensors, {"about": json.dumps(about)})


def unpacked(data: bytes) -> Drawn:
    """The other way."""
    tensors = load(data)
    size = int.from_bytes(data[:8], "little")
    about = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["about"])
    names = [(number, f"step {n} latents", f"step {n} x0") for n, number in enumerate(about["steps"])]
    shots = tuple((number, of_png(tensors[latents]), of_png(tensors[x0])) for number, latents, x0 in names)
    return Drawn(of_png(tensors["picture"]), tensors["latents"], shots, tuple(about["batch"]))


def as_png(picture: Float[Tensor, "3 height width"]) -> UInt8[Tensor, " byte"]:
    """The bytes of a quickly compressed PNG."""
    file = io.BytesIO()
    Image.fromarray(saved(picture).permute(1, 2, 0).numpy()).save(file, format="PNG", compress_level=2)
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def of_png(data: UInt8[Tensor, " byte"]) -> Float[Tensor, "3 height width"]:
    """The picture in those bytes, in [0, 1]."""
    with Image.open(io.BytesIO(data.numpy().tobytes())) as picture:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(255)


def write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, also when the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write(path, json.dumps(value, indent=1, ensure_ascii=False, default=str).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """A result or a plan that embedlab wrote; None where there is none.

    Raises ConfigError for one that is cut short, is none of ours, or is of a newer embedlab.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        raise ConfigError(
            f"'{path}' is cut short or no JSON; take it away, and what it tells of is made again."
        ) from None
    if not isinstance(value, dict) or not isinstance(value.get("format", 0), int):
        raise ConfigError(f"'{path}' is not what embedlab writes; take it away, and what it tells of is made again.")
    if value.get("format", 0) > FORMAT:
        raise ConfigError(
            f"'{path}' is of a newer embedlab (format {value['format']}, this one reads {FORMAT}); "
            "use that one, or another folder."
        )
    return value


def sweep_away(folder: Path, names: Iterable[str] = ()) -> None:
    """Take away the temporary files that a killed process left in a folder, and `names`."""
    for path in [*folder.glob(".*.*[0-9]"), *(folder / name for name in names)]:
        if path.is_file():
            path.unlink()
