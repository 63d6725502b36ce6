"""What is written down of a batch while it is sampled: tensors of some steps, figures of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from embedlab.guidance import Halves
from embedlab.sampler.loop import START, Seen

STEP = "step"  # the curve that the others are drawn over
LOSS = "loss"  # what only some of a batch have


@dataclass
class Trace:
    """Hears of every call of the denoiser, and keeps what `Sampler.watch` names.

    keep: the steps whose tensors are kept. halves: both halves of guidance, where somebody puts them. A step of several
    calls (Heun) is its last one.

    >>> trace = Trace(watch=["curves"])
    >>> trace.add(0, "loss", torch.tensor([3.0, 1.0]))
    >>> trace.add(2, "loss", torch.tensor([2.0, 1.0]))
    >>> trace.curves(0)
    {'step': (0.0, 2.0), 'loss': (3.0, 2.0)}
    """

    watch: Sequence[str] = ()
    keep: Sequence[int] = ()
    halves: Halves = field(default_factory=Halves)
    figures: dict[str, dict[int, Float[Tensor, " image"]]] = field(default_factory=dict)
    tensors: dict[tuple[int, str], Sequence[Tensor | None]] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether anything is to be written down of the calls."""
        return bool(self.watch)

    def __call__(self, seen: Seen) -> None:
        """One call."""
        step, many = seen.moment.step, len(seen.before)
        halves = {
            name: [half.get(n) for n in range(many)]
            for name, half in (("conditional", self.halves.prompted), ("unconditional", self.halves.without))
        }
        if "latents" in self.watch and START in self.keep and not self.tensors:
            self._keep(START, {"latents": seen.before})
        if step in self.keep and "latents" in self.watch:
            self._keep(step, {"latents": seen.after, "x0": seen.x0})
        if step in self.keep and "predictions" in self.watch:
            self._keep(step, {"prediction": seen.prediction, **halves})
        if "curves" in self.watch:
            self.add(step, "norm/latents", norms(seen.after))
            self.add(step, "norm/x0", norms(seen.x0))
            self.add(step, "norm/prediction", norms(seen.prediction))
            nothing = torch.full_like(seen.before[0], torch.nan)
            cond, uncond = (torch.stack([nothing if o is None else o for o in half]) for half in halves.values())
            self.add(step, "norm/conditional", norms(cond))
            self.add(step, "norm/unconditional", norms(uncond))
            self.add(step, "norm/difference", norms(cond - uncond))
            self.add(step, "angle/halves", angles(cond, uncond))

    def add(self, step: int, name: str, values: Float[Tensor, " image"]) -> None:
        """A figure of each image in a step; NaN where an image has none."""
        self.figures.setdefault(name, {})[step] = values.detach()

    def curves(self, image: int) -> dict[str, tuple[float, ...]]:
        """The figures of an image: a number for each of the steps that `step` lists, NaN where there is none."""
        steps = sorted({step for figure in self.figures.values() for step in figure})
        known = {name: self._numbers(name) for name in self.figures}
        lines = {name: tuple(of.get(step, {}).get(image, torch.nan) for step in steps) for name, of in known.items()}
        lines = {name: line for name, line in lines.items() if name != LOSS or not all(map(isnan, line))}
        return {STEP: tuple(map(float, steps)), **lines} if lines else {}

    def kept(self, image: int) -> dict[str, Float[Tensor, "c h w"]]:
        """The tensors of an image, by step and name: `step 5 latents`, `start latents`."""
        return {
            f"{step_name(step)} {name}": one
            for (step, name), every in self.tensors.items()
            if (one := every[image]) is not None
        }

    def _keep(self, step: int, tensors: Mapping[str, Sequence[Tensor | None] | Tensor]) -> None:
        for name, every in tensors.items():
            self.tensors[step, name] = [None if one is None else one.detach().float().cpu().clone() for one in every]

    def _numbers(self, name: str) -> dict[int, dict[int, float]]:
        """All of a figure, fetched from the device at once."""
        steps = self.figures[name]
        table = torch.stack(list(steps.values())).tolist()
        return {step: dict(enumerate(row)) for step, row in zip(steps, table, strict=True)}


def step_name(step: int) -> str:
    """What a kept step is called in files: `step-5`, `start`.

    >>> step_name(5), step_name(-1)
    ('step-5', 'start')
    """
    return "start" if step == START else f"step-{step}"


def norms(x: Float[Tensor, "image c h w"]) -> Float[Tensor, " image"]:
    """The length of each image's tensor, as one vector (L2)."""
    length: Tensor = x.float().flatten(1).norm(dim=1)
    return length


def angles(some: Float[Tensor, "image c h w"], more: Float[Tensor, "image c h w"]) -> Float[Tensor, " image"]:
    """The angle between two tensors of each image, as vectors, in degrees.

    >>> angles(torch.ones(1, 1, 1, 2), torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)).round().tolist()
    [45.0]
    """
    return cosine_similarity(some.double().flatten(1), more.double().flatten(1)).clamp(-1, 1).acos().rad2deg().float()
