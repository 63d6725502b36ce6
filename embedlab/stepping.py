"""The sampling loop, a step at a time: what is seen in each, and latents that may be changed on the way."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab import images
from embedlab.cell import Cell
from embedlab.condition import condition_calls
from embedlab.display import Shown, block, grid
from embedlab.errors import SamplerError, brief, check_kind, counted
from embedlab.limits import seeds_asked
from embedlab.models import Model, Pipeline, model_of
from embedlab.rendering import Batch
from embedlab.sampler import Seen, begun, calls
from embedlab.samples import Request, pictured

Latents = Float[Tensor, "image c h w"]


@dataclass
class DenoisingStep(Shown):
    """One call of the denoiser, as it is over. Schedulers of second order (Heun) make two of a step.

    index, steps: the number of the step, from 0, and of how many. timestep, sigma: the noise level that was met, as the
    model counts it and as a ratio to the picture's. before: the latents that were met. latents: those after it, which
    the next step meets; they may be changed in place, or others set. prediction: what the model said, noise or v, after
    guidance; cond, uncond: with the prompt and without it; None where guidance asks for none. predicted: the picture
    that it saw in `before` (x0), as latents; `pictures()` decodes it.
    """

    index: int
    steps: int
    timestep: float
    sigma: float
    before: Latents
    latents: Latents
    prediction: Latents
    predicted: Latents
    cond: Latents | None
    uncond: Latents | None
    seeds: tuple[int, ...] = field(repr=False)
    vae: Any = field(repr=False)

    def pictures(self, latents: Latents | None = None) -> Float[Tensor, "image 3 height width"]:
        """Latents as pictures in [0, 1]; left out, what the model saw in this step."""
        with torch.inference_mode():
            return images.decode(self.predicted if latents is None else latents, self.vae).clone()

    def _repr_html_(self) -> str:
        rows = {"latents": self.latents, "what the model saw": self.predicted}
        cells = [pictured(self.pictures(one[:8])) for one in rows.values()]
        note = f"timestep {self.timestep:g}, σ {self.sigma:.4g}"
        heads = [f"seed {seed}" for seed in self.seeds[:8]]
        return block(f"step {self.index} of {self.steps}", grid(cells, heads, list(rows)), note=note)


class Denoising:
    """A loop that was begun and is gone through once; `latents` and `pictures()` are those that it has come to."""

    def __init__(self, model: Model, cell: Cell, seeds: Sequence[int]):
        self.model, self.cell, self.seeds = model, cell, tuple(seeds)
        with torch.inference_mode():
            (conditioning,) = condition_calls(model, [cell])
        self._batch = Batch.of(model, [Request(conditioning, seed) for seed in self.seeds])
        with self._within():
            told = self._batch.begin(halves=True)
            first = self._batch.begun
            x = begun(told["scheduler"], first.noise, first.picture, told["first"], told["warmup"])
            self._every = x  # with those behind, that attention is copied from
            self._calls: Generator[Seen, Tensor | None, None] = calls(x=x, **told)
        self._many = len(conditioning)
        self._begun = False

    def __len__(self) -> int:
        return self._many

    def __repr__(self) -> str:
        return f"Denoising({self.cell!r}, {counted(len(self.seeds), 'picture')}, {counted(self._many, 'call')})"[:300]

    @property
    def latents(self) -> Latents:
        """The latents that the loop has come to: those of its start before it was gone through."""
        return self._every[: len(self.seeds)]

    def pictures(self) -> Float[Tensor, "image 3 height width"]:
        """The latents that the loop has come to, decoded, in [0, 1]."""
        with torch.inference_mode():
            return images.decode(self.latents, self.model.vae).clone()

    @contextmanager
    def _within(self) -> Iterator[None]:
        """Where a call is made. Tensors are plain ones, because whoever looks on may write into them."""
        with torch.inference_mode(False), torch.no_grad(), self._batch.inside():
            yield

    def __iter__(self) -> Iterator[DenoisingStep]:
        if self._begun:
            raise SamplerError("this loop was gone through already, or is at it; lab.denoise(…) begins another one.")
        self._begun = True
        other: Tensor | None = None
        while True:
            try:
                with self._within():
                    seen = self._calls.send(other)
            except StopIteration:
                return
            self._every = seen.after
            step = self._step(seen)
            own = step.latents
            yield step
            other = self._changed(own, step.latents)
            if other is not None:
                self._every = other

    def _step(self, seen: Seen) -> DenoisingStep:
        many, halves = len(self.seeds), self._batch.trace.halves
        cond, uncond = (stacked([half.get(n) for n in range(many)]) for half in (halves.prompted, halves.without))
        moment = seen.moment
        return DenoisingStep(
            moment.step,
            moment.steps,
            moment.timestep,
            moment.sigma,
            seen.before[:many],
            seen.after[:many],
            seen.prediction[:many],
            seen.x0[:many],
            cond,
            uncond,
            self.seeds,
            self.model.vae,
        )

    def _changed(self, own: Tensor, latents: Any) -> Tensor | None:
        """Latents for the next call, where others were set; None where they are those that were handed out."""
        if latents is own:
            return None
        if not isinstance(latents, Tensor) or latents.shape != own.shape:
            what = tuple(latents.shape) if isinstance(latents, Tensor) else brief(latents)
            raise SamplerError(f"step.latents is {what}; it has to be a tensor of shape {tuple(own.shape)}.")
        latents = latents.detach().to(own)
        return torch.cat([latents, self._every[len(own) :]]) if len(self._every) > len(own) else latents


def stacked(every: Sequence[Tensor | None]) -> Tensor | None:
    """Tensors of images as one; None where an image has none."""
    there = [one for one in every if one is not None]
    return torch.stack(there) if len(there) == len(every) else None


def denoise(model: Model | Pipeline, cell: Cell, seed: int | Sequence[int] = 0) -> Denoising:
    """The sampling of a cell's pictures as a loop that one can step through, and change on the way.

    `seed` is one seed, or several, whose pictures are made together. Gone through without a change it gives the
    pictures of `render` to the bit. Edits, guidance, schedules, attention and starts are those of the cell.

    Raises what `render` does, and SamplerError for `step.latents` of another shape.

    >>> from embedlab import Sampler, load, render
    >>> model, cell = load("emoji"), Cell("a cat", sampler=Sampler(steps=3))
    >>> loop = denoise(model, cell, seed=1)
    >>> [(step.index, step.timestep, tuple(step.predicted.shape)) for step in loop]
    [(0, 999.0, (1, 8, 16, 16)), (1, 666.0, (1, 8, 16, 16)), (2, 332.0, (1, 8, 16, 16))]
    >>> torch.equal(loop.pictures(), render(model, [cell], [1])[0].pictures)
    True
    """
    model = model_of(model)
    check_kind(cell, Cell, "cell", "lab.Cell(PROMPT)")
    seeds = seeds_asked(seed)
    cell.start.check_seeds(seeds)
    return Denoising(model, cell, seeds)
