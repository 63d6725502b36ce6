"""What rows are learned toward: from a prompt before the text encoders to a loss that has gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from embedlab.clip import Tower, forward
from embedlab.embeddings import Embeddings
from embedlab.encoder import Encoder, Prompt
from embedlab.guidance import guided
from embedlab.metrics.clip_score import image_features
from embedlab.models import Model, Scorer
from embedlab.sampler import as_trained, generators, picture_latents
from embedlab.transfer import send

Loss = Callable[[Prompt, torch.Generator], Tensor]


def denoising(model: Model, pictures: Float[Tensor, "image 3 height width"], batch: int, encoder: Encoder) -> Loss:
    """How far the UNet, given the prompt, is from the noise that was added to images in [0, 1] (Gal et al. 2022).

    Each call draws `batch` images and noises, at timesteps of which one lies in each `batch`-th of the way. The target
    is what the model predicts: noise, velocity or image.
    """
    with torch.no_grad():
        random = generators([0])
        parts = [picture_latents(model.vae, picture.mul(2).sub(1), random) for picture in pictures]
        latents = torch.cat(parts).to(model.device, model.unet.dtype)
        (uncond,) = encoder.encode([encoder.embed("", model.towers)], model.towers)  # heard where AND adds to it
        uncond = uncond.zeros() if model.zero_negative else uncond
    scheduler = as_trained(model.scheduler, "DDPMScheduler", {})
    last, predicts = scheduler.config.num_train_timesteps, scheduler.config.prediction_type
    height, width = pictures.shape[-2:]
    size = (height, width) if model.size_conditioned else None

    def loss(prompt: Prompt, generator: torch.Generator) -> Tensor:
        which = torch.randint(len(latents), (batch,), generator=generator)
        times = ((torch.arange(batch) + torch.rand(batch, generator=generator)) * (last / batch)).long()
        noise = send(torch.randn((batch, *latents.shape[1:]), generator=generator).to(latents.dtype), model.device)
        times = send(times, model.device)
        clean = latents[which]
        targets = {"epsilon": noise, "sample": clean}
        target = targets[predicts] if predicts in targets else scheduler.get_velocity(clean, noise, times)
        (cond,) = encoder.encode([prompt], model.towers)
        noisy = scheduler.add_noise(clean, noise, times)
        rows = batch if [weight for weight, _ in cond.streams] == [1] else 1  # what is added up is of one timestep
        denoise = guided(model.unet, [cond] * rows, [uncond] * rows, [1.0] * rows, size)
        calls = zip(noisy.split(rows), times.split(rows), strict=True)
        return mse_loss(torch.cat([denoise(x, t) for x, t in calls]).float(), target.float())

    return loss


def text_to_images(scorer: Scorer, pictures: Float[Tensor, "image 3 height width"]) -> Loss:
    """1 - the mean cosine of the prompt with images in [0, 1], by the CLIP encoders that score the model's images."""
    with torch.no_grad():
        wanted = image_features(scorer, pictures)

    def loss(prompt: Prompt, generator: torch.Generator) -> Tensor:
        return 1 - (wanted @ unit(prompt[0], scorer.text).cpu()).mean()

    return loss


def text_to_text(text: str, towers: Sequence[Tower], encoder: Encoder) -> Loss:
    """1 - the cosine of the prompt's pooled output with that of a text, the mean over the text encoders."""
    with torch.no_grad():
        wanted = [unit(part, tower) for part, tower in zip(encoder.embed(text, towers), towers, strict=True)]

    def loss(prompt: Prompt, generator: torch.Generator) -> Tensor:
        found = [unit(part, tower) @ one for part, tower, one in zip(prompt, towers, wanted, strict=True)]
        return 1 - torch.stack(found).mean()

    return loss


def unit(part: Embeddings, tower: Tower) -> Float[Tensor, " joint"]:
    """The pooled output of a prompt's first window, at length 1."""
    return normalize(forward(tower, part.tokens.ids[:1], part.summed[:1]).pooled[0].float(), dim=-1)
