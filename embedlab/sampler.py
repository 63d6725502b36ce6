"""(Denoiser, noise, scheduler, steps) → latents; seeds → noise; picture → start latents."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from embedlab import images
from embedlab.checks import is_whole
from embedlab.errors import EmbedlabError, PictureError, SamplerError, listed
from embedlab.guidance import Denoiser
from embedlab.limits import LARGEST, SCHEDULERS, SHIPPED, check_part, found
from embedlab.schedule import Moment
from embedlab.transfer import NumbersOnCpu, send


@dataclass(frozen=True)
class Sampler:
    """Settings of how latents are denoised: a diffusers scheduler by name, how many steps, which to keep for viewing.

    >>> from embedlab import Source
    >>> scheduler = Sampler("dpmpp_2m", steps=20).make(Source("emoji").scheduler)
    >>> type(scheduler).__name__, len(scheduler.timesteps)
    ('DPMSolverMultistepScheduler', 20)
    """

    scheduler: str = "ddim"
    steps: int = 25
    keep: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_part(self)
        object.__setattr__(self, "keep", tuple(self.keep))

    def make(self, config: Mapping[str, Any]) -> Any:
        """The scheduler, with the noise levels that the model was trained on, and its timesteps set.

        Raises SamplerError where a config makes no such scheduler, or none of so many steps whose noise levels fall.
        """
        name, settings = SCHEDULERS[self.scheduler]
        try:
            scheduler = as_trained(config, name, settings)
            fault = set_steps(scheduler, self.steps)
            fewer = (n for n in range(self.steps - 1, 0, -1) if set_steps(scheduler, n) is None)
            most = next(fewer, None) if fault else None
        except EmbedlabError:
            raise
        except Exception as error:  # whatever a config from elsewhere makes a constructor stumble on
            raise SamplerError(f"the model's scheduler config does not make a {name}: {reason(error)}") from None
        if fault:
            hint = f"take {most}, or a sampler other than {self.scheduler}" if most else "take another sampler"
            raise SamplerError(f"sampler.steps is {self.steps}, and {fault}; {hint}.")
        return scheduler


def as_trained(config: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> Any:
    """A scheduler of diffusers by the name of its class, with a model's noise levels.

    What a config leaves out is what its own class takes for it, where it tells of the training. A config of a class
    that never clips the predicted x0 (DPM++, Euler, UniPC, PNDM) makes none that does: DDIM and DDPM would by default.
    """
    import diffusers  # noqa: PLC0415  it takes seconds

    kind, own = getattr(diffusers, name), getattr(diffusers, str(config.get("_class_name")), None)
    known = inspect.signature(kind).parameters
    defaults = inspect.signature(own).parameters if inspect.isclass(own) else {}
    training = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "clip_sample")
    filled = {key: defaults[key].default for key in training if key in defaults}
    if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in known:
        able = [
            one
            for one, (other, _) in SCHEDULERS.items()
            if "rescale_betas_zero_snr" in inspect.signature(getattr(diffusers, other)).parameters
        ]
        raise SamplerError(
            f"the model was trained with zero terminal SNR (rescale_betas_zero_snr), which a {name} does not know; "
            f"choose one of {listed(able)}."
        )
    clips = {"clip_sample": False} if "clip_sample" in known else {}
    return kind.from_config({**clips, **filled, **config}, **settings)


def set_steps(scheduler: Any, steps: int) -> str | None:
    """Set a scheduler's timesteps; answers with what is wrong with them, None where each step has less noise.

    `trailing` spacing ends one step too late for 61, 103, … steps, at timestep -1: that one is taken away.
    """
    scheduler.set_timesteps(steps)
    calls = 2 * steps - 1 if scheduler.order == 2 else steps + 1 if is_pndm(scheduler) and steps > 1 else steps
    times = scheduler.timesteps
    if len(times) == calls + scheduler.order and float(times[-1]) < 0:
        if per_call(scheduler):
            scheduler.sigmas = torch.cat([scheduler.sigmas[:calls], scheduler.sigmas[-1:]])
        scheduler.timesteps, scheduler.num_inference_steps = times[:calls], steps
        times = scheduler.timesteps
    if len(times) != calls:
        return f"its scheduler makes {len(times)} calls of them where there have to be {calls}"
    lowest, highest, top = float(times.min()), float(times.max()), scheduler.config.num_train_timesteps - 1
    if scheduler.config.get("timestep_type") != "continuous" and not 0 <= lowest <= highest <= top:
        return f"they go from timestep {highest:g} to {lowest:g} where the model was trained on {top} to 0"
    levels = {moment.step: moment.sigma for moment in moments(scheduler)}
    if any(not a > b > 0 for a, b in pairwise(levels.values())):
        return "two of them have the same noise level"
    return None


def is_pndm(scheduler: Any) -> bool:
    """Whether a scheduler calls the denoiser twice in its second step, to have a history sooner."""
    return hasattr(scheduler, "plms_timesteps")


def per_call(scheduler: Any) -> bool:
    """Whether a scheduler has a list of noise levels for its calls, and one more for the end."""
    sigmas = getattr(scheduler, "sigmas", None)
    return sigmas is not None and len(sigmas) == len(scheduler.timesteps) + 1


def reason(error: Exception) -> str:
    """What another library says of an error, on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


@dataclass(frozen=True)
class Start:
    """Where sampling starts: from noise, or from a picture (img2img, Meng et al. 2022).

    `picture` is a path, the name of a picture that embedlab ships (`puppy.png`), a PIL image or a tensor (3, height,
    width) in [0, 1]. Of `step` (the first step that is run) and `strength` (the share of steps that is run, diffusers'
    word) one is given. The picture is read at once; a file that changes later is refused.

    `warmup` is how a multistep sampler (lms, pndm) begins late. `history`: as it begins from noise, with an order that
    grows with the steps that were run. `diffusers`: as diffusers' pipelines do, which take the order from the place in
    the schedule, and leave noise that no step has taken away.

    >>> Start("puppy.png", strength=0.6).first(steps=25)  # of 25 steps, the last 15 are run
    10
    """

    picture: Any = None
    step: int | None = None
    strength: float | None = None
    warmup: Literal["history", "diffusers"] = "history"

    def __post_init__(self) -> None:
        check_part(self)
        if self.picture is None:
            return
        if isinstance(self.picture, Image.Image | Tensor):
            object.__setattr__(self, "picture", images.pixels_of(self.picture))
        elif isinstance(self.picture, Path):
            object.__setattr__(self, "picture", str(self.picture))
        if isinstance(self.picture, images.Pixels):
            path, content = None, self.picture.content
        else:
            path = found(self.picture)
            content = images.content_of(images.open_picture(path))
        object.__setattr__(self, "_path", path)
        object.__setattr__(self, "_content", content)

    @property
    def path(self) -> Path | None:
        """Where the picture is, whatever the working directory became since; None for one in memory, and for noise."""
        return getattr(self, "_path", None)

    @property
    def content(self) -> str | None:
        """A hash of the size and the colours of the picture; None for noise."""
        return getattr(self, "_content", None)

    def open(self) -> Image.Image:
        """The picture, as RGB."""
        if isinstance(self.picture, images.Pixels):
            return self.picture.picture
        assert self.path is not None
        picture = images.open_picture(self.path)
        if images.content_of(picture) != self.content:
            raise PictureError(f"'{self.path}' is another picture than it was when this was set up; start over.")
        return picture

    def about(self, folder: Path) -> dict[str, str] | None:
        """What is kept in a file in `folder` so that the picture is found from there and known again."""
        if self.content is None:
            return None
        about = {"content": self.content}
        if self.path is not None and self.path.parent != SHIPPED:
            about["path"] = os.path.relpath(self.path, folder.absolute())
        return about

    def first(self, steps: int) -> int:
        """The first of `steps` that is run."""
        if self.picture is None:
            return 0
        if self.strength is not None:
            if not int(steps * self.strength):
                digits = 10 ** (2 + len(str(steps)))  # rounded up, because a little less would be none again
                raise SamplerError(
                    f"start.strength is {self.strength}: of {steps} steps none would be run; "
                    f"take {-(-digits // steps) / digits:g} or more."
                )
            return max(steps - min(int(steps * self.strength), steps), 0)
        assert self.step is not None
        if self.step >= steps:
            raise SamplerError(
                f"start.step is {self.step}, past the end: with {steps} steps it is {steps - 1} at the most."
            )
        return self.step


@dataclass(frozen=True)
class Kept:
    """What was kept of a step: the latents after it and the picture that the model saw in them, still as latents."""

    step: int
    timestep: float
    latents: Float[Tensor, "image c h w"]
    x0: Float[Tensor, "image c h w"]


@dataclass(frozen=True)
class Sampled:
    """Final latents (scaled, as the UNet works on them) and the steps that were kept."""

    latents: Float[Tensor, "image c h w"]
    kept: tuple[Kept, ...] = ()


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator a picture, on the CPU, so that a seed means the same on every machine and in every batch.

    >>> [generator.initial_seed() for generator in generators([3, 7])]
    [3, 7]
    """
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise(shape: tuple[int, int, int], random: Sequence[torch.Generator]) -> Float[Tensor, "image c h w"]:
    """Standard normal noise, each row from its own generator: the noise of diffusers' pipelines for the same seeds.

    >>> both, alone = noise((4, 8, 8), generators([0, 1])), noise((4, 8, 8), generators([1]))
    >>> both.shape, torch.equal(both[1], alone[0])
    (torch.Size([2, 4, 8, 8]), True)
    """
    return torch.stack([torch.randn(shape, generator=generator) for generator in random])


@torch.inference_mode()
def picture_latents(vae: Any, picture: Tensor, random: Sequence[torch.Generator]) -> Float[Tensor, "image c h w"]:
    """Scaled latents of one picture (3, h, w) in [-1, 1], sampled anew for each generator as diffusers does.

    >>> from embedlab import models
    >>> picture_latents(models.load("emoji").vae, torch.zeros(3, 64, 64), generators([0, 1])).shape
    torch.Size([2, 8, 8, 8])
    """
    encoded = vae.encode(picture[None].to(vae.device, vae.dtype))
    if not hasattr(encoded, "latent_dist"):  # a tiny autoencoder has one answer
        return images.to_unet(encoded.latents.repeat(len(random), 1, 1, 1), vae)
    posterior = encoded.latent_dist
    drawn = [torch.randn(posterior.mean.shape[1:], generator=generator).to(posterior.mean) for generator in random]
    return images.to_unet(torch.stack([posterior.mean[0] + posterior.std[0] * d for d in drawn]), vae)


def calls_of(scheduler: Any, first: int = 0, warmup: str = "history") -> list[tuple[int, int]]:
    """Every call of the denoiser from step `first` on: its step, and its place among the scheduler's timesteps.

    A step of a second-order scheduler (Heun) is the call that corrects the step before, and its own. PNDM calls twice
    in the second step that it runs; diffusers, which starts late by leaving out calls, in the second step of all.
    """
    count = len(scheduler.timesteps)
    if scheduler.order == 2:
        return [((place + 1) // 2, place) for place in range(2 * first, count)]
    if not is_pndm(scheduler):
        return [(place, place) for place in range(first, count)]
    if warmup == "diffusers":
        return [(place - (place > 1), place) for place in range(first, count)]
    steps = list(range(first, max(count - 1, 1)))
    return [(step, step + (step > 0)) for step in (*steps[:2], *steps[1:])]


def moments(scheduler: Any, first: int = 0, warmup: str = "history") -> list[Moment]:
    """Every call of the denoiser that `sample` will make, with its step and noise level.

    At zero terminal SNR the noise level is 4096, as in diffusers' own schedulers, and not infinite.

    >>> from embedlab import models
    >>> scheduler = Sampler("heun", steps=3).make(models.Source("emoji").scheduler)
    >>> [(moment.call, moment.step) for moment in moments(scheduler)]
    [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)]
    """
    every, top = scheduler.order, float(scheduler.config.num_train_timesteps)
    steps = calls_of(scheduler)[-1][0] + 1
    calls = []
    for n, (step, place) in enumerate(calls_of(scheduler, first, warmup)):
        t = float(scheduler.timesteps[place])
        if per_call(scheduler):
            sigma = float(scheduler.sigmas[place])
        else:
            a = max(float(scheduler.alphas_cumprod[int(t)]), 2**-24)
            sigma = ((1 - a) / a) ** 0.5
        calls.append(Moment(first * every + n, step, steps, t, sigma, steps * every, top))
    return calls


def noise_of(calls: Sequence[Moment], start: Start) -> str | None:
    """What to mind where noise is handed over at a timestep at which the model expects a picture in it.

    `leading` spacing begins at the first multiple below the top: at timestep 1 with one step, at 667 with 334.
    """
    first = calls[0]
    if start.picture is not None or first.timestep >= 0.7 * first.top:
        return None
    return (
        f"with {first.steps} steps this sampler begins at timestep {first.timestep:g} of {first.top:g}, where the "
        "model expects a picture under the noise, and gets none; another number of steps begins higher"
    )


@torch.inference_mode()
def rehearsed(sampler: Sampler, config: Mapping[str, Any], start: Start | None = None) -> list[Moment]:
    """Every call of the denoiser, after the whole schedule was run on four numbers, with a denoiser that says zero.

    Raises SamplerError for a scheduler that would fail, or end in NaN, with these settings.
    """
    start = start or Start()
    first, scheduler = start.first(sampler.steps), sampler.make(config)
    calls = moments(scheduler, first, start.warmup)
    x, random = torch.ones(1, 4, 1, 1), generators([0])
    begin = None if start.picture is None else x
    try:
        end = sample(lambda x, t: torch.zeros_like(x), x, scheduler, random, begin, first, warmup=start.warmup).latents
    except Exception as error:  # diffusers' schedulers say what they cannot do when they come to it
        raise SamplerError(
            f"the sampler {sampler.scheduler} cannot run {sampler.steps} steps with the model's scheduler config: "
            f"{reason(error)}"
        ) from None
    if not torch.isfinite(end).all():
        raise SamplerError(
            f"{sampler.steps} steps of the sampler {sampler.scheduler} end in NaN or infinite numbers with the model's "
            f"scheduler config ({scheduler.config.prediction_type}); take another sampler."
        )
    return calls


def sample(
    denoise: Denoiser,
    noise: Float[Tensor, "image c h w"],
    scheduler: Any,
    random: Sequence[torch.Generator] | None = None,
    start: Float[Tensor, "image c h w"] | None = None,
    first: int = 0,
    keep: Sequence[int] = (),
    on_step: Callable[[int], None] | None = None,
    warmup: str = "history",
) -> Sampled:
    """Denoise from noise, or from `start` latents noised to step `first`.

    Schedulers that call the denoiser more than once a step (Heun) are counted in steps, not calls. Latents that become
    NaN or infinite come out so: whether that ends everything or spoils one picture of many is the caller's to say.

    >>> from embedlab import models
    >>> scheduler = Sampler("ddim", steps=4).make(models.Source("emoji").scheduler)
    >>> start = noise((4, 8, 8), generators([0]))
    >>> done = sample(lambda x, t: torch.zeros_like(x), start, scheduler, keep=[0, 3])
    >>> done.latents.shape, [kept.step for kept in done.kept]
    (torch.Size([1, 4, 8, 8]), [0, 3])
    """
    timesteps = scheduler.timesteps[[place for _, place in calls_of(scheduler, first, warmup)]]
    there = send(timesteps, noise.device)
    if hasattr(scheduler, "set_begin_index"):  # else it looks for the first timestep, which may be there twice
        scheduler.set_begin_index(first * scheduler.order)
    if start is None:
        x = noise * scheduler.init_noise_sigma
    else:
        x = scheduler.add_noise(start, noise, there[:1].repeat(len(noise)))
    accepted = inspect.signature(scheduler.step).parameters
    advance = partial(scheduler.step, **({"generator": list(random)} if random and "generator" in accepted else {}))
    numbers = nullcontext() if noise.device.type == "cpu" else NumbersOnCpu()
    kept = []
    # a scheduler looks its tables up by the timestep, which it would have to fetch from the device
    for n, (moment, t, t_there) in enumerate(zip(moments(scheduler, first, warmup), timesteps, there, strict=True)):
        step = moment.step
        seen = denoise(scheduler.scale_model_input(x, t), t_there).to(x.dtype)
        order = {"order": min(n + 1, 4)} if "order" in accepted and warmup == "history" else {}
        with numbers:
            out = advance(seen, t, x, **order)
        if step in keep:
            x0 = getattr(out, "pred_original_sample", None)
            x0 = predicted_x0(scheduler.config.prediction_type, seen, x, moment.sigma) if x0 is None else x0
            kept.append(Kept(step, float(t), out.prev_sample, x0))
        x = out.prev_sample
        if on_step:
            on_step(step)
    return Sampled(x, tuple({k.step: k for k in kept}.values()))


def predicted_x0(prediction: str, seen: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The clean latents that a prediction implies, for variance-preserving schedulers that do not tell.

    `x` is the sum of x0, weighted by 1/√(1 + σ²), and of noise, weighted by σ/√(1 + σ²).
    """
    scale: float = (1 + sigma**2) ** 0.5
    if prediction == "v_prediction":
        return (x - sigma * seen) / scale
    return seen if prediction == "sample" else scale * x - sigma * seen


def check_size(size: int | Sequence[int] | None, trained: int, factor: int, levels: int) -> tuple[int, int]:
    """Height and width in pixels: a multiple of the VAE factor, and large enough for the UNet to halve."""
    sides = (trained, trained) if size is None else (size, size) if is_whole(size) else size
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(is_whole(side) for side in sides):
        raise SamplerError(f"size is {size!r}; it has to be one side or [height, width] in pixels, such as {trained}.")
    height, width = sides
    for side in (height, width):
        if not 0 < side <= LARGEST:
            raise SamplerError(f"a size of {repr(side)[:80]} is not between 1 and {LARGEST} pixels; try {trained}.")
        if side % factor:
            near = max(factor, round(side / factor) * factor)
            raise SamplerError(f"a size of {side!r} is no multiple of the VAE factor {factor}; try {near}.")
        if side // factor < 2 ** (levels - 1):
            raise SamplerError(
                f"a size of {side} leaves the UNet nothing to halve; it has to be {factor * 2 ** (levels - 1)} or more."
            )
    return height, width
