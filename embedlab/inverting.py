"""(model, requests) → the noise from which their picture comes out again, and how well it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab import images
from embedlab.cell import fingerprint, picture_size
from embedlab.condition import CallConditioning
from embedlab.encoder import Conditioning
from embedlab.errors import EngineError
from embedlab.guidance import Denoiser, guided, in_turn
from embedlab.memo import Memo
from embedlab.models import Model
from embedlab.sampler import picture_latents, sample
from embedlab.sampler.inversion import Inversion, inverse_of, inverted, null_texts
from embedlab.samples import Request
from embedlab.schedule import value_of
from embedlab.timing import Timer

KNOWN: WeakKeyDictionary[Any, Memo[str, Inverted]] = WeakKeyDictionary()  # by UNet: a sweep inverts a picture once


@dataclass(frozen=True)
class Inverted:
    """What inversion found: latents (1, c, h, w) on the way from the picture to the first step, hidden states of no
    prompt by step, and figures.

    `figures`: `round_trip/psnr` in decibels, of the picture that comes out with the picture's own prompt beside the
    picture; `round_trip/decoded` the same of the latents decoded as they are, the most that can be reached;
    `round_trip/latents` how far the latents are off, as a root of the mean square beside their own.
    """

    way: tuple[Float[Tensor, "image c h w"], ...]
    hidden: tuple[Float[Tensor, "row width"], ...] = ()
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def latents(self) -> Float[Tensor, "image c h w"]:
        """Those of the first step."""
        return self.way[-1]


def invert(model: Model, requests: Sequence[Request], timer: Timer | None = None) -> tuple[list[Request], Inverted]:
    """The requests of one batch with what stands for no prompt in them, and what inversion found of their picture.

    It is found once for a picture, a prompt and settings of sampler and guidance, and remembered, whatever the mask.
    """
    first = requests[0]
    start = first.cell.start
    assert isinstance(start, Inversion)
    if start.unconditional == "null_text" and model.engine != "eager":
        raise EngineError(
            f"engine={model.engine} gives no gradients, which start.unconditional=null_text asks for: engine=eager."
        )
    whole = dataclasses.replace(start, mask=None)
    key = fingerprint([whole, whole.content, picture_size(first.cell, model), first.cell.sampler, *told(first)])
    known = KNOWN.setdefault(model.unet, Memo(8))
    (found,) = known([key], lambda _: [_found(model, first, start, timer or Timer())])
    return [Request(_unconditional(one.conditioning, start, found), one.seed) for one in requests], found


def told(request: Request) -> list[Any]:
    """What an inversion depends on beside the picture and the sampler: what its prompt is encoded to, and guidance."""
    ways = [one.cell.guidance.way for one in request.conditioning]
    shown = _shown(request.conditioning[0])
    uncond = [one.uncond.content for one in request.conditioning]
    return [shown.cond.content, shown.uncond.content, fingerprint([ways, uncond])]


def _shown(one: CallConditioning) -> CallConditioning:
    assert one.shown is not None
    return one.shown


def _unconditional(
    calls: Sequence[CallConditioning], start: Inversion, found: Inverted
) -> tuple[CallConditioning, ...]:
    """The calls of a picture with what stands for no prompt; neighbours that were one object stay one."""
    if start.unconditional == "own":
        return tuple(calls)
    if start.unconditional == "null_text":
        each = zip(calls, found.hidden, strict=True)
        return tuple(dataclasses.replace(one, uncond=with_hidden(one.uncond, hidden)) for one, hidden in each)
    known: dict[int, CallConditioning] = {}
    for one in calls:
        known.setdefault(id(one), dataclasses.replace(one, uncond=_shown(one).cond))
    return tuple(known[id(one)] for one in calls)


def with_hidden(conditioning: Conditioning, hidden: Float[Tensor, "row width"]) -> Conditioning:
    """A conditioning with other hidden states."""
    return dataclasses.replace(conditioning, hidden=hidden)


def _found(model: Model, request: Request, start: Inversion, timer: Timer) -> Inverted:
    cell, shown = request.cell, _shown(request.conditioning[0])
    size = picture_size(cell, model)
    shape = size if model.size_conditioned else None
    scheduler = cell.sampler.make(model.scheduler)
    first = start.first(cell.sampler.steps)
    count = len(scheduler.timesteps) - first
    inverse = inverse_of(scheduler, cell.sampler.scheduler, start)
    picture = images.to_tensor(start.open(), size, cell.size != "picture")
    clean = picture_latents(model.vae, picture.mul(2).sub(1)).to(model.device)

    def denoiser(cond: Conditioning, uncond: Conditioning, scale: float) -> Denoiser:
        return guided(model.unet, [cond], [uncond], [scale], shape, timer)

    way = inverted(denoiser(shown.cond, shown.uncond, start.scale), clean, inverse, count)
    scales = [value_of(one.cell.guidance.scale) for one in request.conditioning]
    uncond = [one.uncond for one in request.conditioning]
    hidden: list[Tensor] = []
    if start.unconditional == "null_text":
        with torch.inference_mode(False):
            told_so, nothing = _plain(shown.cond), _plain(uncond[0])

        def without(hidden: Tensor) -> Denoiser:
            return denoiser(with_hidden(nothing, hidden), nothing, 1.0)

        prompted = denoiser(told_so, told_so, 1.0)
        hidden = null_texts(prompted, without, nothing.hidden, way, scheduler, scales, start.iterations)
        uncond = [with_hidden(nothing, one) for one in hidden]
    elif start.unconditional == "prompt":
        uncond = [shown.cond] * len(uncond)
    back = in_turn(denoiser(shown.cond, one, scale) for one, scale in zip(uncond, scales, strict=True))
    again = sample(back, way[-1], cell.sampler.make(model.scheduler), first=first).latents
    return Inverted(tuple(way), tuple(hidden), figures(model, picture, clean, again))


def _plain(conditioning: Conditioning) -> Conditioning:
    """The same with tensors of which gradients may be asked; those of inference mode know none."""
    return dataclasses.replace(conditioning, hidden=conditioning.hidden.clone(), pooled=conditioning.pooled.clone())


def figures(
    model: Model,
    picture: Float[Tensor, "3 height width"],
    clean: Float[Tensor, "image c h w"],
    again: Float[Tensor, "image c h w"],
) -> dict[str, float]:
    """How well a picture came back."""
    decoded, back = (images.decode(latents, model.vae)[0] for latents in (clean, again))
    off = (again - clean).square().mean().sqrt() / clean.square().mean().sqrt()
    return {
        "round_trip/psnr": psnr(back, picture),
        "round_trip/decoded": psnr(decoded, picture),
        "round_trip/latents": float(off),
    }


def psnr(made: Float[Tensor, "3 height width"], expected: Float[Tensor, "3 height width"]) -> float:
    """Peak signal to noise, in decibels, of pictures in [0, 1]; 100 for equal ones.

    >>> psnr(torch.zeros(3, 2, 2), torch.full((3, 2, 2), 0.1))
    20.0
    """
    error = float((made - expected).square().mean())
    return 100.0 if error < 1e-10 else round(float(-10 * torch.tensor(error).log10()), 3)
