"""The autoencoder: trained on whole pictures, made ready for latents, and its decoder trained on by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from embedlab.errors import ConfigError
from embedlab.files import write, written
from embedlab.pretrain import drawings, world
from embedlab.pretrain.loop import Feed, Training, asked_to_stop, fit
from embedlab.pretrain.stage import (
    CPU,
    HELD_OUT,
    Log,
    Show,
    averaged,
    begin,
    fast,
    grid,
    numbers_of,
    painted,
    start_of,
    weights,
)

CHANNELS = 8


def make_vae() -> AutoencoderKL:
    """A KL autoencoder of factor 8 with 8 latent channels, without attention."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=2,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=world.SIDE,
        mid_block_add_attention=False,
    )


def edges(x: Tensor) -> Tensor:
    """All horizontal and vertical differences of (n, c, h, w), flattened."""
    return torch.cat([x.diff(dim=-1).flatten(1), x.diff(dim=-2).flatten(1)], dim=1)


def picture_loss(rebuilt: Tensor, wanted: Tensor) -> Tensor:
    """L1 of the pixels and PSNR, plus L1 of the edges at three scales: true colours first, then sharp borders.

    With the pixels' L1 weighted like one scale of edges, shapes were learnt and colours lost. The logarithm of each
    picture's squared error is its PSNR: pictures that are nearly right count as much as those that are not.
    """
    square = (rebuilt - wanted).square().flatten(1).mean(1)
    loss = 3 * functional.l1_loss(rebuilt, wanted) + 0.25 * square.clamp_min(1e-4).log().mean()
    for _ in range(3):
        loss = loss + functional.l1_loss(edges(rebuilt), edges(wanted))
        rebuilt, wanted = functional.avg_pool2d(rebuilt, 2), functional.avg_pool2d(wanted, 2)
    return loss


def psnr(rebuilt: Tensor, wanted: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, mean over pictures in [-1, 1]."""
    error = rebuilt.clamp(-1, 1).sub(wanted).div(2).square().flatten(1).mean(1)
    return float((-10 * error.clamp_min(1e-10).log10()).mean())


def vae(
    folder: Path,
    training: Training,
    log: Log,
    show: Show,
    device: torch.device = CPU,
    workers: int = 0,
    kl: float = 1e-5,
) -> nn.Module:
    """Train the autoencoder on whole pictures."""
    sprites = drawings.load(folder / "sprites")
    held = painted(range(64), sprites, HELD_OUT, held_out=True)
    model = make_vae().to(device, memory_format=torch.channels_last)
    begin(model, folder, "vae")
    feed = Feed(lambda step: painted(numbers_of(step, training), sprites), training.steps, workers)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        wanted = feed(step).to(device, memory_format=torch.channels_last)
        with fast(device):
            posterior = model.encode(wanted).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            rebuilt = model.decode(posterior.mean + posterior.std * noise).sample
        loss = picture_loss(rebuilt.float(), wanted)
        return loss + kl * posterior.kl().float().mean() / noise[0].numel(), {}

    sheet = partial(_rebuilt, held, log, partial(show, "vae"), device)
    return fit(model, loss_of, training, folder / "vae.pt", log, sheet)


def _rebuilt(
    held: Tensor, log: Log, show: Callable[[Image.Image, int], None], device: torch.device, model: Any, step: int
) -> None:
    """How well an autoencoder gives held-out pictures back, and a sheet of some beside what they became."""
    rebuilt = torch.cat([model.decode(model.encode(w.to(device)).latent_dist.mean).sample for w in held.split(16)])
    rebuilt = rebuilt.float().cpu()
    log({"psnr": psnr(rebuilt, held)}, step)
    show(grid(torch.cat([torch.stack([a, b]) for a, b in zip(held[:16], rebuilt[:16], strict=True)]), 8), step)


def trained_vae(folder: Path, count: int = 512) -> AutoencoderKL:
    """The autoencoder as it was trained, every latent channel brought to mean 0 and spread 1 over `count` scenes.

    The 1 × 1 convolutions round the latents take the change up, so that pictures stay what they were, and
    `scaling_factor` is 1.
    """
    model = make_vae().eval()
    model.load_state_dict(weights(folder, "vae", "vae"))
    model.register_to_config(scaling_factor=1.0)
    if not (folder / "vae.pt").exists():  # the model that is begun at has them so
        return model
    sprites = drawings.load(folder / "sprites")
    with torch.no_grad():
        latents = torch.cat(
            [model.encode(painted(range(i, i + 16), sprites)).latent_dist.mean for i in range(0, count, 16)]
        )
        mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        into, out = model.quant_conv, model.post_quant_conv
        assert into is not None
        assert out is not None
        assert into.bias is not None
        assert out.bias is not None
        out.bias += out.weight[..., 0, 0] @ mean
        out.weight *= spread.view(1, -1, 1, 1)
        into.weight[:CHANNELS] /= spread.view(-1, 1, 1, 1)
        into.bias[:CHANNELS] = (into.bias[:CHANNELS] - mean) / spread
        into.bias[CHANNELS:] -= 2 * spread.log()
    return model


def latents(
    folder: Path, count: int, device: torch.device = CPU, workers: int = 0, say: Callable[[str], None] = print
) -> None:
    """The scenes 0 to `count` as latents (`latents.npy`, fp16), a few hundred at a time; and `vae.ready.pt`, which made
    them and decodes them.
    """
    ready, target, progress = folder / "vae.ready.pt", folder / "latents.npy", folder / "latents.json"
    if not ready.exists():
        written(ready, partial(torch.save, trained_vae(folder, min(count, 512)).state_dict()))
    done = json.loads(progress.read_text(encoding="utf-8"))["done"] if progress.exists() else 0
    if done >= count:
        return
    shape = (count, CHANNELS, world.SIDE // 8, world.SIDE // 8)
    table = np.lib.format.open_memmap(target, mode="r+" if done else "w+", dtype=np.float16, shape=shape)
    model, sprites = ready_vae(folder).to(device), drawings.load(folder / "sprites")
    feed = Feed(lambda n: painted(range(16 * n, min(16 * n + 16, count)), sprites), -(-count // 16), workers)
    with asked_to_stop() as asked, torch.inference_mode(), fast(device):
        for first in range(done, count, 16):  # a stop is noticed after whole batches only
            last = min(first + 16, count)
            table[first:last] = model.encode(feed(first // 16).to(device)).latent_dist.mean.half().cpu().numpy()
            if last % 800 == 0 or last == count or asked.is_set():
                table.flush()
                write(progress, json.dumps({"done": last}).encode())
                say(f"latents: {last}/{count}")
            if asked.is_set():
                raise SystemExit(f"latents: stopped after {last}, which are saved.")


def ready_vae(folder: Path) -> AutoencoderKL:
    """The autoencoder whose latents the UNet is trained on, with the decoder that was trained last."""
    model = make_vae().eval().to(memory_format=torch.channels_last)
    model.load_state_dict(averaged(folder / "decoder.pt") if (folder / "decoder.pt").exists() else _ready(folder))
    model.register_to_config(scaling_factor=1.0)
    return model


def _ready(folder: Path) -> Mapping[str, Tensor]:
    path = folder / "vae.ready.pt"
    ready: Mapping[str, Tensor] | None
    ready = torch.load(path, weights_only=True) if path.exists() else start_of(folder, "vae")
    if ready is None:
        raise ConfigError(f"'{path}' is missing; run the stage latents first, or set warm_start=emoji.")
    return ready


def stored(folder: Path) -> np.ndarray:
    """The latents of the scenes (scene, channel, 16, 16), memory-mapped."""
    path = folder / "latents.npy"
    if not path.exists():
        raise ConfigError(f"'{path}' is missing; run the stage latents first.")
    table: np.ndarray = np.load(path, mmap_mode="r")
    return table


def decoder(
    folder: Path, training: Training, log: Log, show: Show, device: torch.device = CPU, workers: int = 0
) -> nn.Module:
    """Train the decoder on by itself: pictures get sharper, and whatever reads latents stays as good as it was."""
    sprites = drawings.load(folder / "sprites")
    held = painted(range(64), sprites, HELD_OUT, held_out=True)
    model = make_vae().to(device, memory_format=torch.channels_last)
    model.load_state_dict(_ready(folder))
    for part in (model.encoder, model.quant_conv):
        assert part is not None
        part.requires_grad_(False)
    feed = Feed(lambda step: painted(numbers_of(step, training), sprites), training.steps, workers)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        wanted = feed(step).to(device, memory_format=torch.channels_last)
        with fast(device):
            with torch.no_grad():
                latents = model.encode(wanted).latent_dist.mean
            rebuilt = model.decode(latents).sample
        return picture_loss(rebuilt.float(), wanted), {}

    sheet = partial(_rebuilt, held, log, partial(show, "decoder"), device)
    return fit(model, loss_of, training, folder / "decoder.pt", log, sheet)


def again(folder: Path, count: int = 4000) -> np.ndarray:
    """The first scenes as the autoencoder gives them back (uint8, memory-mapped), made once."""
    target = folder / "again.npy"
    if not target.exists():
        table = stored(folder)[:count]
        model = ready_vae(folder)
        with torch.inference_mode(), fast(CPU):
            parts = [model.decode(torch.from_numpy(table[i : i + 16]).float()).sample for i in range(0, len(table), 16)]
        levels = torch.cat(parts).float().add(1).mul(127.5).clamp(0, 255).byte()
        bytes_ = levels.permute(0, 2, 3, 1).contiguous().numpy()
        written(target, partial(np.save, arr=bytes_))
    pictures: np.ndarray = np.load(target, mmap_mode="r")
    return pictures
