"""What all stages share: where they log, what makes them fast, pictures as tensors, the weights of earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from embedlab.errors import ConfigError
from embedlab.pretrain import drawings, world
from embedlab.pretrain.loop import Training

CPU = torch.device("cpu")
HELD_OUT = 1  # the seed of scenes that no stage is trained on
Log = Callable[[dict[str, float], int], None]
Show = Callable[[str, Image.Image, int], None]


@contextmanager
def fast(device: torch.device) -> Iterator[None]:
    """What makes a training step fast: bfloat16, and on a CPU plain attention (docs/training.md)."""
    with torch.autocast(device.type, torch.bfloat16):
        if device.type == "cpu":
            with sdpa_kernel(SDPBackend.MATH):
                yield
        else:
            yield


def pixels(pictures: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) → float (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def grid(pictures: Tensor, columns: int) -> Image.Image:
    """Pictures (n, 3, h, w) in [-1, 1] as one sheet."""
    n, _, h, w = pictures.shape
    rows = -(-n // columns)
    sheet = Image.new("RGB", (columns * w, rows * h))
    for i, picture in enumerate(pictures.add(1).mul(127.5).clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()):
        sheet.paste(Image.fromarray(picture), (i % columns * w, i // columns * h))
    return sheet


def painted(numbers: Any, sprites: drawings.Sprites, seed: int = 0, held_out: bool = False) -> Tensor:
    """The pictures of scenes (n, 3, 128, 128), in [-1, 1]."""
    return pixels(np.stack([np.asarray(world.picture_of(int(i), sprites, seed, held_out)) for i in numbers]))


def numbers_of(step: int, training: Training, first: int = 0) -> range:
    """The scenes that a step paints: new ones each time."""
    return range(first + training.batch * step, first + training.batch * (step + 1))


def averaged(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint."""
    if not path.exists():
        raise ConfigError(f"'{path}' is missing; run the stage {path.stem} first, or set warm_start=emoji.")
    state = torch.load(path, weights_only=True, map_location="cpu")["average"]
    return {key.removeprefix("module."): value for key, value in state.items() if key.startswith("module.")}


def start_of(folder: Path, part: str) -> dict[str, Tensor] | None:
    """A part of the model that stages begin at, in float32; None where there is no such model."""
    files = sorted((folder / "start" / part).glob("*.safetensors"))
    return {key: value.float() for file in files for key, value in load_file(file).items()} or None


def begin(model: nn.Module, folder: Path, part: str) -> None:
    """Let a stage begin at the weights of a model, where there is one."""
    if (state := start_of(folder, part)) is not None:
        model.load_state_dict(state)


def weights(folder: Path, stage: str, part: str, prefix: str = "") -> dict[str, Tensor]:
    """The weights of a model's part: what the stage left under `prefix`, else those of the model that is begun at."""
    path = folder / f"{stage}.pt"
    if not path.exists() and (state := start_of(folder, part)) is not None:
        return state
    return {key.removeprefix(prefix): value for key, value in averaged(path).items() if key.startswith(prefix)}
