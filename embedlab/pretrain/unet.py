"""The UNet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from embedlab.pretrain import bars, captions, eye, world
from embedlab.pretrain.autoencoder import CHANNELS, ready_vae, stored
from embedlab.pretrain.loop import Feed, Training, fit
from embedlab.pretrain.plan import WIDTH, WORDS
from embedlab.pretrain.rows import WORD, Batch, batch_of, hidden_of, keep_some, roles, some_roles
from embedlab.pretrain.stage import CPU, Log, Show, begin, fast, grid
from embedlab.pretrain.text_encoder import trained_text
from embedlab.pretrain.vocabulary import tokenizer

NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOISE |= {
    "steps_offset": 1,  # has no part in trailing timesteps; pipelines warn of 0
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": False,
}


def make_unet() -> UNet2DConditionModel:
    """Stable Diffusion's UNet in small: cross-attention at 8² and 4² latents, none at 16²."""
    return UNet2DConditionModel(
        sample_size=world.SIDE // 8,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 112, 144),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=(1, 4, 4),  # the library means heads, not their width
        norm_num_groups=16,
    )


PROBES = (
    *("a picture of a puppy", "a rocket on yellow, 3d", "two apples", "an animal on pink"),
    *("a cat above a dog", "a dog above a cat", "a red car and a blue balloon", "a fish in front of a castle"),
)


@torch.no_grad()
def sample(
    unet: Any, hidden: Tensor, empty: Tensor, seed: int = 0, scale: float = 4.0, at_once: int = 32, steps: int = 25
) -> Tensor:
    """A short DDIM loop for what is looked at while training; latents (n, 8, 16, 16)."""
    scheduler = DDIMScheduler(**NOISE)
    scheduler.set_timesteps(steps)
    n, side = len(hidden), world.SIDE // 8
    noise = torch.randn(n, CHANNELS, side, side, generator=torch.Generator().manual_seed(seed)).to(hidden.device)
    samples = []
    for start, text in zip(noise.split(at_once), hidden.split(at_once), strict=True):
        x, both = start, torch.cat([empty.expand(len(start), -1, -1), text])
        for t in scheduler.timesteps:
            uncond, cond = unet(torch.cat([x, x]), t, both).sample.chunk(2)
            x = scheduler.step(uncond + scale * (cond - uncond), t, x).prev_sample
        samples.append(x)
    return torch.cat(samples)


def compiled(model: nn.Module, *inputs: Tensor) -> Any:
    """A UNet by torch's compiler where its gradients are those of the UNet itself, else the UNet itself.

    A compiled autoencoder once got no gradient in half its layers, without a word (docs/training.md).
    """

    def gradients(function: Any) -> list[Tensor]:
        with fast(inputs[0].device):
            function(*inputs).sample.float().square().mean().backward()
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        model.zero_grad(set_to_none=True)
        return found

    function = torch.compile(model)
    pairs = zip(gradients(function), gradients(model), strict=True)
    alike = min(float(functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) for a, b in pairs)
    print(f"unet: gradients of the compiled UNet: cosine {alike:.3f} or more with those of the UNet as it is")
    return function if alike > 0.9 else model


def read(text: Any, ids: captions.Ids, prompts: Sequence[str], device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    """Hidden states of prompts of one window (n, 77, dim), and of the empty one (77, dim)."""
    tables = torch.stack([captions.windows(ids(prompt), 1) for prompt in prompts])
    return hidden_of(text, Batch(tables, torch.arange(77).expand_as(tables), ()), device)


def unet(
    folder: Path,
    training: Training,
    log: Log,
    show: Show,
    device: torch.device = CPU,
    workers: int = 0,
    empty_share: float = 0.1,
    long_every: int = 10,
) -> nn.Module:
    """Train the UNet to predict v from latents that are at hand and captions that are new each time.

    Every `long_every`-th step sees prompts of two or three windows. The weights are the square root of min-SNR's: with
    those themselves the noise in which places are decided has almost no say.
    """
    ids, text_model = captions.Ids(tokenizer(folder)), trained_text(folder).to(device)
    table = stored(folder)
    alphas = DDIMScheduler(**NOISE).alphas_cumprod.to(device)
    model = make_unet().to(device, memory_format=torch.channels_last)
    begin(model, folder, "unet")
    of_one_window: Any = model  # long prompts are few: a graph of their own takes longer to compile than it saves
    if device.type == "cuda":
        side = table.shape[-1]
        noise, rows = torch.randn(training.batch, CHANNELS, side, side), torch.randn(training.batch, 77, WIDTH)
        times = torch.arange(training.batch, device=device) % 1000
        of_one_window = compiled(
            model, noise.to(device, memory_format=torch.channels_last), times, rows.to(device, torch.bfloat16)
        )
    judge = eye.load(folder / "judge.pt", eye.JUDGE) if (folder / "judge.pt").exists() else None

    def prepare(step: int) -> tuple[Tensor, ...]:
        """Ids and positions (n, window, 77), which roles are kept (n, 4), latents and times (n,)."""
        rng, generator = (
            np.random.default_rng((training.seed, step, 2)),
            torch.Generator().manual_seed(training.seed * 1_000_003 + step),
        )
        total = 1 if step % long_every else 2 + step // long_every % 2
        numbers = np.sort(rng.integers(len(table), size=training.batch // total))
        batch = batch_of([world.scene_of(int(i)) for i in numbers], rng, ids, total)
        keep = some_roles(len(numbers), generator)
        keep[torch.rand(len(numbers), generator=generator) < empty_share, WORD:] = False
        # one time in each of equal slices: the spread of the loss over times does not come from luck
        slices = torch.randperm(len(numbers), generator=generator) + torch.rand(len(numbers), generator=generator)
        t = (slices * 1000 / len(numbers)).long().clamp(max=999)
        return batch.ids, batch.places, keep, torch.from_numpy(table[numbers]), t

    feed, on_device = Feed(prepare, training.steps, workers), torch.Generator(device)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        ids, places, keep, x0, t = (part.to(device, non_blocking=True) for part in feed(step))
        x0 = x0.float()
        noise = torch.randn(x0.shape, generator=on_device.manual_seed(training.seed * 1_000_003 + step), device=device)
        a = alphas[t].view(-1, 1, 1, 1)
        x = (a.sqrt() * x0 + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        v = a.sqrt() * noise - (1 - a).sqrt() * x0
        snr = alphas[t] / (1 - alphas[t])
        with fast(device):
            with torch.no_grad():
                hidden, empty = hidden_of(text_model, Batch(ids, places, ()), device)
                hidden = keep_some(hidden, empty, roles(ids).flatten(1), keep)
            seen = (of_one_window if ids.shape[1] == 1 else model)(x, t, hidden).sample
        error = (seen.float() - v).square().flatten(1).mean(1)
        return (error * (snr.clamp(max=5) / (snr + 1)).sqrt()).mean(), {"error": error.detach().mean()}

    def sheet(model: Any, step: int) -> None:
        autoencoder = ready_vae(folder)

        def drawn(prompts: Sequence[str], seed: int) -> Tensor:
            hidden, empty = read(text_model, ids, prompts, device)
            latents = sample(model, hidden, empty, seed, steps=training.sheet_steps).cpu()
            return torch.cat([autoencoder.decode(part).sample for part in latents.split(8)])

        show("unet", grid(torch.cat([drawn(PROBES, n) for n in range(training.sheet_seeds)]), len(PROBES)), step)
        if judge is not None:
            log(bars.now(judge, drawn, WORDS, 3 * training.sheet_seeds), step)

    return fit(model, loss_of, training, folder / "unet.pt", log, sheet)
