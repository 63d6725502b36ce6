"""Finished pictures on disk, each under a key of everything that it depends on; none is ever rendered twice."""

from __future__ import annotations

import io
import json
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from embedlab import images, readers
from embedlab.arguments import explained
from embedlab.attention.overlay import about_maps, maps_of
from embedlab.cell import fingerprint
from embedlab.checks import whole_number
from embedlab.errors import ConfigError, counted
from embedlab.files import remove_temporaries, write
from embedlab.readers import path_of
from embedlab.samples import Sample

WATCHED = "watched "  # what the names of tensors begin with that `Sampler.watch` asked for


def saved(picture: Float[Tensor, "3 height width"]) -> UInt8[Tensor, "3 height width"]:
    """A picture as a PNG keeps it; what is scored is what is kept."""
    return picture.mul(255).round().byte()


class Store:
    """A folder of finished pictures with their latents, one file each, written whole or not at all."""

    def __init__(self, folder: Path, remember: int = 64):
        remember = whole_number(remember, "remember", ConfigError, of=" of pictures")
        self.folder = path_of(folder, "folder")
        self.remember = remember
        self._recent: OrderedDict[str, Sample] = OrderedDict()
        self._held: dict[str, Sample] = {}
        self._lock = Lock()  # one thread samples, another writes

    def __repr__(self) -> str:
        return f"Store('{self.folder}', {counted(sum(1 for _ in self.folder.glob('??/*.safetensors')), 'picture')})"

    @explained
    def path(self, key: str) -> Path:
        """Where a picture is, once it is finished."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    @explained
    def get(self, key: str) -> Sample | None:
        """A finished picture as it was kept; None where there is none, or only a file that cannot be read."""
        with self._lock:
            if (sample := self._held.get(key) or self._recent.get(key)) is not None:
                return sample if key in self._held else self._keep(key, sample)
        try:
            sample = unpacked(readers.read_bytes(self.path(key)), key)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, EOFError):
            return None
        with self._lock:
            return self._keep(key, sample)

    @explained
    def hold(self, key: str, sample: Sample) -> Sample:
        """Keep a picture in memory until `put` or `release`, whoever calls that; answers with it as it will be kept."""
        with self._lock:
            self._held[key] = as_kept(sample)
            return self._held[key]

    @explained
    def release(self, key: str) -> None:
        """Hold a picture no longer."""
        with self._lock:
            self._held.pop(key, None)

    @explained
    def put(self, key: str, sample: Sample) -> Sample:
        """Keep a picture; answers with it as it was kept."""
        write(self.path(key), packed(sample, key))
        with self._lock:
            return self._keep(key, self._held.pop(key) if key in self._held else as_kept(sample))

    def remove_temporaries(self) -> None:
        """Remove what killed processes had begun to write; for who knows that nobody else is writing now."""
        for folder in self.folder.glob("??/"):
            remove_temporaries(folder)

    def _keep(self, key: str, sample: Sample) -> Sample:
        self._recent[key] = sample
        self._recent.move_to_end(key)
        while len(self._recent) > self.remember:
            self._recent.popitem(last=False)
        return sample


def as_kept(sample: Sample) -> Sample:
    """A picture as it comes back from its file: a PNG has 256 shades of a colour."""
    steps = tuple(
        (number, _as_kept(latents), None if x0 is None else _as_kept(x0)) for number, latents, x0 in sample.steps
    )
    return replace(sample, picture=_as_kept(sample.picture), latents=sample.latents.contiguous(), steps=steps)


def _as_kept(picture: Float[Tensor, "3 height width"]) -> Float[Tensor, "3 height width"]:
    return saved(picture).float().div(255)


def packed(sample: Sample, key: str) -> bytes:
    """A picture, its latents, its kept steps and its key as one safetensors file; pictures are PNGs in it."""
    tensors = {"picture": as_png(sample.picture), "latents": sample.latents.contiguous()}
    for n, (_, latents, x0) in enumerate(sample.steps):
        tensors |= {f"step {n} latents": as_png(latents)} | ({} if x0 is None else {f"step {n} x0": as_png(x0)})
    numbers = [number for number, _, _ in sample.steps]
    about = {"steps": numbers, "batch": sample.batch, "key": key, "runtime": dict(sample.runtime), "rows": sample.rows}
    if sample.curves:
        about["curves"] = {name: [None if math.isnan(y) else y for y in line] for name, line in sample.curves.items()}
    tensors |= {f"{WATCHED}{name}": one.contiguous() for name, one in sample.tensors.items()}
    if sample.figures:
        about["figures"] = dict(sample.figures)
    if (maps := sample.maps) is not None:
        tensors |= {"maps heat": maps.heat.contiguous()}
        tensors |= {} if maps.parts is None else {"maps parts": maps.parts.contiguous()}
        about["maps"] = about_maps(maps)
    return save(tensors, {"about": json.dumps({**about, "checksum": checksum_of(about, tensors)})})


def unpacked(data: bytes, key: str) -> Sample:
    """The other way; ValueError for the picture of another key, and for one that is not as it was kept."""
    tensors = load(data)
    size = int.from_bytes(data[:8], "little")
    about = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["about"])
    if about["key"] != key:
        raise ValueError(f"the picture is that of {about['key']}")
    if about.pop("checksum") != checksum_of(about, tensors):
        raise ValueError("the picture is not as it was kept")
    names = [(number, f"step {n} latents", f"step {n} x0") for n, number in enumerate(about["steps"])]
    shots = tuple(
        (number, of_png(tensors[latents]), of_png(tensors[x0]) if x0 in tensors else None)
        for number, latents, x0 in names
    )
    maps = maps_of(about["maps"], tensors["maps heat"], tensors.get("maps parts")) if "maps" in about else None
    rows = tuple((calls, many, tuple(places)) for calls, many, places in about.get("rows", ()))  # 0.3 had none
    place, runtime = tuple(about["batch"]), about["runtime"]
    lines = about.get("curves", {}).items()
    curves = {name: tuple(math.nan if y is None else y for y in line) for name, line in lines}
    watched = {name.removeprefix(WATCHED): one for name, one in tensors.items() if name.startswith(WATCHED)}
    picture, latents = of_png(tensors["picture"]), tensors["latents"]
    figures = about.get("figures", {})
    return Sample(picture, latents, shots, place, runtime, maps, rows, curves=curves, tensors=watched, figures=figures)


def checksum_of(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """A hash of all that a file of the store holds; one of 0.1 has none, and its picture is rendered again."""
    return fingerprint([json.dumps(about, sort_keys=True), sorted(tensors.items())])


def as_png(picture: Float[Tensor, "3 height width"]) -> UInt8[Tensor, " byte"]:
    """The bytes of a quickly compressed PNG."""
    data = images.encoded(Image.fromarray(saved(picture).permute(1, 2, 0).numpy()))
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def of_png(data: UInt8[Tensor, " byte"]) -> Float[Tensor, "3 height width"]:
    """The picture in those bytes, in [0, 1]."""
    with Image.open(io.BytesIO(data.numpy().tobytes())) as picture:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(255)
