"""Guidance by a loss: (what the model sees in the latents, a score) → latents that are moved down its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from embedlab import images
from embedlab.attention.probabilities import probabilities_of
from embedlab.display import Shown
from embedlab.encoder import Conditioning
from embedlab.errors import SamplerError, brief, first_line
from embedlab.guidance.denoiser import Denoiser
from embedlab.guidance.scores import Attended
from embedlab.limits import check_part
from embedlab.schedule import Moment, Setting, value_of, varies
from embedlab.transfer import content_of

Latents = Float[Tensor, "image c h w"]
Form = Literal["latents", "unet", "universal"]
Score = Callable[[Float[Tensor, "1 3 height width"]], Float[Tensor, ""]]
# (call of the UNet, picture) → what its row with the prompt is told, and the denoiser of that row alone
Alone = Callable[[int, int], tuple[Conditioning, Denoiser]]


@dataclass(frozen=True)
class Loss(Shown):
    """A number that pictures are led to make smaller: its gradient moves the latents every so many steps.

    score: a callable of a picture (1, 3, height, width) in [0, 1], that the model sees in the latents (x0, decoded),
        with one number for it: `Colour`, `Likeness`, `Distance`, or yours. One that has `reads = "latents"` gets x0 as
        latents; one that has `prepare(model, size)` is what that answers with. One that has `reads = "attention"`, as
        `Mass` has, gets what the row with the prompt looks at (`Attended`), its gradient moves the latents before the
        UNet is asked for the step (Chefer et al. 2023, algorithm 1), and its `form` is `unet`.
    scale: what the gradient is multiplied by; it may change over time.
    every: the loss is asked in step 0 and each so-manieth after it.
    form: `latents` moves latents by -σ² · gradient with what the UNet said as a constant, as the last part of the
        Stable Diffusion Deep Dive does; `unet` does the same with the gradient through the UNet, which takes its time
        and memory again; `universal` adds scale · √(1 - ᾱ) · gradient through the UNet to the noise that is predicted
        (Bansal et al. 2023, eq. 6).

    >>> from embedlab.guidance import Colour
    >>> Loss(Colour(blue=0.9), scale=200, every=5).form
    'latents'
    """

    score: Any
    scale: Setting[float] = 100.0
    every: int = 1
    form: Form = "latents"

    def __post_init__(self) -> None:
        if not varies(self):
            check_part(self)

    @property
    def name(self) -> str:
        """What a score is called: its name, or its class and settings."""
        named = getattr(self.score, "func", self.score)  # of a partial, as _partial_: true makes one
        return getattr(named, "__name__", None) or brief(self.score)

    @property
    def of_attention(self) -> bool:
        """Whether it is a number of what the UNet looks at, and not of a picture."""
        return getattr(self.score, "reads", "picture") == "attention"

    @property
    def files(self) -> list[Path]:
        """The pictures that it reads."""
        return [Path(one) for one in getattr(self.score, "files", ())]


def valued(loss: Loss, score: Callable[[Any], Any], seen: Tensor | Attended) -> Float[Tensor, ""]:
    """What a score says of a picture; SamplerError where that is no number, or has no gradient.

    >>> valued(Loss(torch.mean), torch.mean, torch.ones(1, 3, 2, 2, requires_grad=True)).item()
    1.0
    """
    value = score(seen)
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
        what = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else brief(value)
        raise SamplerError(
            f"the loss {loss.name} returns {what}; it has to return one number for a picture, such as "
            "(picture[:, 2] - 0.9).abs().mean()."
        )
    if not value.requires_grad:
        raise SamplerError(
            f"the loss {loss.name} has no gradient: what it returns has to be computed from the picture by torch, "
            "without detach, numpy or no_grad."
        )
    return value.reshape(())


def check_loss(loss: Loss, size: tuple[int, int], latents: tuple[int, int, int]) -> None:
    """Ask a loss of noise once, before weights are read; one that a model prepares or that reads attention, later.

    >>> from embedlab.guidance import Colour
    >>> check_loss(Loss(Colour(blue=0.9)), (8, 8), (4, 1, 1))
    """
    if hasattr(loss.score, "prepare") or loss.of_attention:
        return
    shape = latents if getattr(loss.score, "reads", "picture") == "latents" else (3, *size)
    with torch.enable_grad():
        seen = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        try:
            value = valued(loss, loss.score, seen)
        except SamplerError:
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {first_line(error)}"
            raise SamplerError(f"the loss {loss.name} fails on a picture of shape {list(seen.shape)}: {why}") from error
        if torch.autograd.grad(value, seen, allow_unused=True)[0] is None:
            raise SamplerError(f"the loss {loss.name} has no gradient: what it returns does not depend on the picture.")


class Losses:
    """What moves the latents of a batch by the losses of its pictures.

    asked: for each call of the UNet the loss of each picture, or None, in which nothing changes over time. told: is
    called with step, "loss" and what they were, NaN for a picture that was not asked. clean:
    (prediction, variance-preserving latents, σ) → x0. kind: what the model predicts. grown: whether the latents are the
    picture plus σ times noise, as k-diffusion has them, and not scaled to one variance. One picture at a time is
    decoded, so that memory is that of one. alone: what runs one picture's row with the prompt, for losses of attention;
    pictures of equal latents for which `equal` answers alike have one such row, and `spared` is told of how many calls
    each of the others did not make.

    Raises SamplerError for a score that is none.
    """

    def __init__(
        self,
        model: Any,
        asked: Sequence[Sequence[Loss | None]],
        size: tuple[int, int],
        clean: Callable[[Tensor, Tensor, float], Tensor],
        kind: str,
        grown: bool,
        told: Callable[[int, str, Float[Tensor, " image"]], None] | None = None,
        alone: Alone | None = None,
        equal: Callable[[int, int], Hashable] = lambda _, n: n,
        spared: Callable[[int], object] = lambda _: None,
    ):
        self.told, self.call, self.values = told, -1, dict[int, float]()
        self.model, self.asked, self.clean, self.kind, self.grown = model, asked, clean, kind, grown
        self.size, self.done, self.alone, self.equal, self.spared = size, -1, alone, equal, spared
        self.ready: dict[int, tuple[Any, Callable[[Tensor], Any]]] = {}  # by identity of the score, which is held

    def __call__(self, moment: Moment, x: Latents, predict: Callable[[Latents], Latents]) -> tuple[Latents, Latents]:
        """The loop's `evaluate`."""
        self.call += 1
        asked = {
            n: loss
            for n, loss in enumerate(self.asked[self.call])
            if loss is not None and moment.step % loss.every == 0 and value_of(loss.scale) != 0
        }
        if moment.step == self.done:  # a second-order scheduler calls twice in a step: latents are moved once
            asked = {n: loss for n, loss in asked.items() if loss.form == "universal"}
        if not asked:
            return x, predict(x)
        self.done, self.values = moment.step, {}
        sigma = moment.sigma
        spread = math.sqrt(1 + sigma**2)
        native = 1.0 if self.grown else 1 / spread
        if any(loss.of_attention for loss in asked.values()):
            x = self._attended(moment, x, {n: loss for n, loss in asked.items() if loss.of_attention}, native)
            asked = {n: loss for n, loss in asked.items() if not loss.of_attention}
        if not asked:
            self._tell(moment, len(x))
            return x, predict(x)
        through = {n for n, loss in asked.items() if loss.form != "latents"}
        grown = (x / native).detach()
        seen = None
        gradient = torch.zeros_like(grown)
        with torch.enable_grad():
            if through:
                leaf = grown.clone().requires_grad_()
                seen = predict(leaf * native)
                total = leaf.new_zeros(())
                for n in sorted(through):
                    x0 = self.clean(seen[n : n + 1], leaf[n : n + 1] / spread, sigma)
                    total = total + self._value(n, asked[n], x0, again=True)
                gradient = self._gradient(total, leaf, asked[min(through)])
                seen = seen.detach()
            else:
                with torch.no_grad():
                    seen = predict(x)
            for n in sorted(asked.keys() - through):
                leaf = grown[n : n + 1].clone().requires_grad_()
                x0 = self.clean(seen[n : n + 1].clone(), leaf / spread, sigma)
                gradient[n : n + 1] = self._gradient(self._value(n, asked[n], x0), leaf, asked[n])
        self._tell(moment, len(x))
        moved, answer = x.clone(), seen.clone()
        for n, loss in asked.items():
            if loss.form == "universal":  # spread · gradient by latents of one variance, times √(1 - ᾱ) = σ / spread
                noise = gradient[n] * sigma
                share = {"epsilon": 1.0, "v_prediction": spread}.get(self.kind, -sigma)
                answer[n] = answer[n] + share * noise
            else:
                moved[n] = moved[n] - gradient[n] * sigma**2 * native
        return moved, answer

    def _tell(self, moment: Moment, many: int) -> None:
        if self.told is not None:
            self.told(moment.step, "loss", torch.tensor([self.values.get(n, math.nan) for n in range(many)]))

    def _attended(self, moment: Moment, x: Latents, asked: Mapping[int, Loss], native: float) -> Latents:
        """Latents that losses of attention have moved, by a call of the UNet for each, on the row with the prompt."""
        assert self.alone is not None
        spread, moved = math.sqrt(1 + moment.sigma**2), x.clone()
        t = torch.tensor(moment.timestep, device=x.device)
        known: dict[Hashable, int] = {}
        calls: dict[int, int] = {}
        for n, loss in asked.items():
            content = content_of(x[n]) if len(asked) > 1 else ""
            first = known.setdefault((self.equal(self.call, n), content), n)
            if first != n:
                moved[n], self.values[n] = moved[first], self.values[first]
                self.spared(calls[first])
                continue
            told, denoise = self.alone(self.call, n)
            calls[n] = 0

            def moves(now: Tensor, loss: Loss = loss, n: int = n, told: Any = told, denoise: Any = denoise) -> Tensor:
                """What latents are moved by; their loss is in `values`."""
                calls[n] += 1
                layers = getattr(loss.score, "layers", None)
                with torch.enable_grad(), probabilities_of(self.model.unet, layers) as seen:
                    leaf = (now / native).detach().clone().requires_grad_()
                    denoise(leaf / spread, t)
                    value = valued(loss, loss.score, Attended(seen, told, (x.shape[-2], x.shape[-1])))
                    self.values[n] = float(value.detach())
                    gradient = self._gradient(value * float(value_of(loss.scale)), leaf, loss)
                return (gradient * moment.sigma**2 * native).to(x.dtype)

            now = x[n : n + 1]
            move = moves(now)
            wanted = (getattr(loss.score, "refine", None) or {}).get(moment.step)
            if wanted is not None and self.values[n] > 1 - wanted:
                for _ in range(loss.score.iterations):
                    before = self.values[n]
                    now = now - move
                    move = moves(now)
                    if not before > 1 - wanted:
                        break
            moved[n : n + 1] = now - move
        return moved

    def _value(self, n: int, loss: Loss, x0: Tensor, again: bool = False) -> Tensor:
        score = self._ready(loss)
        if getattr(score, "reads", getattr(loss.score, "reads", "picture")) == "latents":
            seen = x0
        else:
            seen = checkpoint(self._decoded, x0, use_reentrant=False) if again else self._decoded(x0)
        value = valued(loss, score, seen)
        self.values[n] = float(value.detach())
        return value * float(value_of(loss.scale))

    def _decoded(self, x0: Tensor) -> Tensor:
        vae = self.model.vae
        picture: Tensor = vae.decode(images.to_vae(x0, vae).to(vae.dtype), return_dict=False)[0].float() / 2 + 0.5
        return picture

    def _ready(self, loss: Loss) -> Callable[[Tensor], Any]:
        if id(loss.score) not in self.ready:
            prepare = getattr(loss.score, "prepare", None)
            with torch.no_grad():
                score = loss.score if prepare is None else prepare(self.model, self.size)
            self.ready[id(loss.score)] = loss.score, score
        return self.ready[id(loss.score)][1]

    @staticmethod
    def _gradient(value: Tensor, leaf: Tensor, loss: Loss) -> Tensor:
        (found,) = torch.autograd.grad(value, leaf, allow_unused=True)
        if found is None:
            raise SamplerError(f"the loss {loss.name} has no gradient: what it returns does not depend on the picture.")
        return found
