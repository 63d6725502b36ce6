"""(Denoiser, noise, scheduler, steps) → latents."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedlab.display import Shown
from embedlab.guidance import Denoiser
from embedlab.sampler.schedulers import Timetable, calls_of, moments
from embedlab.schedule import Moment
from embedlab.transfer import NumbersOnCpu, send

Predict = Callable[[Float[Tensor, "image c h w"]], Float[Tensor, "image c h w"]]
# (moment, latents, predict) → latents, and what the model predicts in them; guidance by a loss moves the latents here
Evaluate = Callable[[Moment, Tensor, Predict], tuple[Tensor, Tensor]]
# (moment of the call that was made, timestep of the next one, None at the end; latents) → latents; inpainting puts the
# known part of a picture back here
After = Callable[[Moment, Tensor | None, Tensor], Tensor]
# step; with three parameters, as CompVis' callbacks want it, also the latents after it and the predicted x0
OnStep = Callable[[int], object] | Callable[[int, Tensor, Tensor], object]


START = -1  # the number of what there is before the first step


@dataclass(frozen=True)
class Kept(Shown):
    """What was kept of a step: the latents after it and the picture that the model saw in them, still as latents.

    Step -1 is the start: the latents that the first step meets, in which nothing was seen yet.
    """

    step: int
    timestep: float
    latents: Float[Tensor, "image c h w"]
    x0: Float[Tensor, "image c h w"] | None


@dataclass(frozen=True)
class Seen(Shown):
    """One call of the denoiser: its moment, the latents before and after it, and what was predicted, after guidance."""

    moment: Moment
    before: Float[Tensor, "image c h w"]
    prediction: Float[Tensor, "image c h w"]
    after: Float[Tensor, "image c h w"]
    kind: str = field(repr=False)  # of prediction, as diffusers' schedulers call it
    own: Float[Tensor, "image c h w"] | None = field(repr=False)  # x0 as the scheduler tells it

    @property
    def x0(self) -> Float[Tensor, "image c h w"]:
        """The picture that the model saw in the latents before, still as latents."""
        return (
            predicted_x0(self.kind, self.prediction, self.before, self.moment.sigma) if self.own is None else self.own
        )


@dataclass(frozen=True)
class Sampled(Shown):
    """Final latents (scaled, as the UNet works on them) and the steps that were kept."""

    latents: Float[Tensor, "image c h w"]
    kept: tuple[Kept, ...] = ()
    broke: Int[Tensor, " image"] | None = (
        None  # the step that first left NaN or infinity in an image's latents; -1: none
    )


def begun(
    scheduler: Any,
    noise: Float[Tensor, "image c h w"],
    start: Float[Tensor, "image c h w"] | None = None,
    first: int = 0,
    warmup: str = "history",
) -> Float[Tensor, "image c h w"]:
    """The latents that the first call of the denoiser meets: noise as strong as the scheduler has it there, or `start`
    latents noised to step `first`; the scheduler is told where it begins.

    >>> from embedlab import Sampler, generators, models, noise
    >>> scheduler = Sampler("euler", steps=4).make(models.Source("emoji").scheduler)
    >>> begun(scheduler, noise((4, 8, 8), generators([0]))).std() > 10
    tensor(True)
    """
    if hasattr(scheduler, "set_begin_index"):  # else it looks for the first timestep, which may be there twice
        scheduler.set_begin_index(first * scheduler.order)
    if start is None:
        unit: Tensor = noise * scheduler.init_noise_sigma
        return unit
    timesteps = scheduler.timesteps[[place for _, place in calls_of(scheduler, first, warmup)]]
    noised: Tensor = scheduler.add_noise(start, noise, send(timesteps, noise.device)[:1].repeat(len(noise)))
    return noised


def calls(
    denoise: Denoiser,
    x: Float[Tensor, "image c h w"],
    scheduler: Any,
    random: Sequence[torch.Generator] | None = None,
    first: int = 0,
    warmup: str = "history",
    evaluate: Evaluate | None = None,
    after: After | None = None,
) -> Generator[Seen, Tensor | None, None]:
    """The loop itself, a call of the denoiser after the other, from latents that `begun` gives.

    Whoever runs it is told of each call when it is over, and may `send` other latents for the next one.

    >>> from embedlab import Sampler, generators, models, noise
    >>> scheduler = Sampler("ddim", steps=4).make(models.Source("emoji").scheduler)
    >>> x = begun(scheduler, noise((4, 8, 8), generators([0])))
    >>> [call.moment.step for call in calls(lambda x, t: torch.zeros_like(x), x, scheduler)]
    [0, 1, 2, 3]
    """
    timesteps = scheduler.timesteps[[place for _, place in calls_of(scheduler, first, warmup)]]
    there = send(timesteps, x.device)
    if random and hasattr(scheduler, "noise_sampler_seed"):  # DPM++ SDE draws its noise from a tree for each image
        scheduler.noise_sampler_seed = [generator.initial_seed() for generator in random]
    accepted = inspect.signature(scheduler.step).parameters
    advance = partial(scheduler.step, **({"generator": list(random)} if random and "generator" in accepted else {}))
    on_cpu = x.device.type == "cpu"
    # a scheduler looks its tables up by the timestep, which it would have to fetch from the device
    for n, (moment, t, t_there) in enumerate(zip(moments(scheduler, first, warmup), timesteps, there, strict=True)):

        def predict(x: Tensor, t: Tensor = t, t_there: Tensor = t_there) -> Tensor:
            return denoise(scheduler.scale_model_input(x, t), t_there).to(x.dtype)

        x, seen = evaluate(moment, x, predict) if evaluate else (x, predict(x))
        order = {"order": min(n + 1, accepted["order"].default)} if "order" in accepted and warmup == "history" else {}
        before = x
        with nullcontext() if on_cpu else NumbersOnCpu():
            out = advance(seen, t, x, **order)
        x = out.prev_sample
        if after:
            x = after(moment, there[n + 1] if n + 1 < len(there) else None, x)
        own = getattr(out, "pred_original_sample", None)
        other = yield Seen(moment, before, seen, x, scheduler.config.prediction_type, own)
        x = x if other is None else other


def sample(
    denoise: Denoiser,
    noise: Float[Tensor, "image c h w"],
    scheduler: Timetable,
    random: Sequence[torch.Generator] | None = None,
    start: Float[Tensor, "image c h w"] | None = None,
    first: int = 0,
    keep: Sequence[int] = (),
    on_step: OnStep | None = None,
    warmup: str = "history",
    evaluate: Evaluate | None = None,
    after: After | None = None,
    observe: Callable[[Seen], object] | None = None,
) -> Sampled:
    """Denoise from noise, or from `start` latents noised to step `first`.

    Schedulers that call the denoiser more than once a step (Heun) are counted in steps, not calls. Latents that become
    NaN or infinite come out so, with the step in `broke`: whether that ends everything or spoils one picture of many is
    the caller's to say. `evaluate` stands between latents and prediction, `after` behind each call of the scheduler;
    `observe` hears of each call when it is over, and `on_step` of its step: its number, and if it takes three
    arguments, latents and x0, too.

    >>> from embedlab import Sampler, generators, models, noise
    >>> scheduler = Sampler("ddim", steps=4).make(models.Source("emoji").scheduler)
    >>> start = noise((4, 8, 8), generators([0]))
    >>> done = sample(lambda x, t: torch.zeros_like(x), start, scheduler, keep=[0, 3])
    >>> done.latents.shape, [kept.step for kept in done.kept]
    (torch.Size([1, 4, 8, 8]), [0, 3])
    """
    x = begun(scheduler, noise, start, first, warmup)
    kept, broke = [], torch.full((len(x),), -1, device=x.device)
    if START in keep:
        kept.append(Kept(START, moments(scheduler, first, warmup)[0].timestep, x, None))
    heard = None if on_step is None else as_heard(on_step)
    for call in calls(denoise, x, scheduler, random, first, warmup, evaluate, after):
        x, step = call.after, call.moment.step
        whole = torch.isfinite(x).flatten(1).all(1)  # asked of the device, and not waited for
        broke = torch.where(whole | (broke >= 0), broke, step)
        if step in keep:
            kept.append(Kept(step, call.moment.timestep, x, call.x0))
        if observe:
            observe(call)
        if heard:
            heard(call)
    return Sampled(x, tuple({k.step: k for k in kept}.values()), broke)


def as_heard(on_step: OnStep) -> Callable[[Seen], object]:
    """A callback as one that is told of calls, by how many arguments it has to be given.

    >>> told, call = [], Seen(Moment(3, 3, 4, 0, 0), *[torch.zeros(1, 4, 8, 8)] * 3, "epsilon", None)
    >>> as_heard(told.append)(call)
    >>> as_heard(lambda step, latents, x0: told.append(x0.shape))(call)
    >>> told
    [3, torch.Size([1, 4, 8, 8])]
    """
    hear: Any = on_step
    try:
        own = inspect.signature(on_step).parameters.values()
        many = sum(
            one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) and one.default is one.empty for one in own
        )
    except (TypeError, ValueError):  # something built in does not say
        many = 1
    return (
        (lambda call: hear(call.moment.step, call.after, call.x0)) if many == 3 else lambda call: hear(call.moment.step)
    )


def predicted_x0(prediction: str, seen: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The clean latents that a prediction implies, for variance-preserving schedulers that do not tell.

    `x` is the sum of x0, weighted by 1/√(1 + σ²), and of noise, weighted by σ/√(1 + σ²).
    """
    scale: float = (1 + sigma**2) ** 0.5
    if prediction == "v_prediction":
        return (x - sigma * seen) / scale
    return seen if prediction == "sample" else scale * x - sigma * seen
