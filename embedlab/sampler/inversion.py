"""A picture → the noise from which it comes out again: DDIM and DPM-Solver++ run backwards; null-text inversion."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.errors import SamplerError
from embedlab.sampler.schedulers import reason
from embedlab.sampler.start import Start


@dataclass(frozen=True)
class Inversion(Start):
    """Sampling starts from the noise from which a picture comes out again, and goes on with another prompt.

    `picture` is as in `Start`; `prompt` says what it shows, and left out is the cell's own, as written and without its
    operators: then the edit is all that changes. The sampler is run backwards over its own noise levels: ddim as
    diffusers' `DDIMInverseScheduler` (Song et al. 2021, eq. 14), dpmpp_2m and its kin as
    `DPMSolverMultistepInverseScheduler`; no other has an inverse. Up to `step` or `strength`, else all the way. The
    latents are the mean that the autoencoder gives, so that all seeds start alike. With `mask` what is white is drawn
    anew, and what is black goes back along the way that the inversion came, to the picture's own latents.

    scale: guidance while the picture is inverted; 1 is the prompt alone, and what comes back best (Mokady et al. 2023).
    unconditional: what stands for no prompt while sampling goes on. `own` is the guidance's own; `prompt` is the
        prompt of the picture, which guidance then leaves where it is: negative-prompt inversion (Miyake et al. 2023);
        `null_text` are hidden states found anew for each step, in `iterations` steps of Adam, so that guidance leads
        back along the way that the inversion came: null-text inversion (Mokady et al. 2023), with ddim alone.

    Raises SamplerError for settings that do not fit, PictureError for what is no picture.

    >>> Inversion("puppy.png", prompt="a picture of a puppy").first(steps=25)
    0
    """

    prompt: str | None = None
    scale: float = 1.0
    unconditional: Literal["own", "prompt", "null_text"] = "own"
    iterations: int = 10

    @property
    def holds_a_picture(self) -> bool:
        """There is one in this noise."""
        return True


def inverse_of(scheduler: Any, name: str, start: Inversion) -> Any:
    """The inverse of a scheduler whose steps are set, over the same noise levels, from the lowest up.

    Where diffusers' two differ in their levels (DPM-Solver++ with `leading` or `trailing` spacing and with Karras
    sigmas), the inverse gets those of the scheduler. SamplerError for a scheduler that has no inverse.

    >>> from embedlab import Sampler, Source
    >>> scheduler = Sampler("ddim", steps=5).make(Source("emoji").scheduler)
    >>> inverse_of(scheduler, "ddim", Inversion("puppy.png")).timesteps.tolist()
    [199, 399, 599, 799, 999]
    """
    import diffusers  # noqa: PLC0415  it takes seconds

    kind, steps = type(scheduler).__name__, len(scheduler.timesteps)
    if kind not in ("DDIMScheduler", "DPMSolverMultistepScheduler"):
        raise SamplerError(
            f"the sampler {name} cannot be run backwards, which start=inversion does; take sampler=ddim or "
            "sampler=dpmpp_2m."
        )
    if start.unconditional == "null_text" and kind != "DDIMScheduler":
        raise SamplerError(f"null-text inversion follows the steps of ddim, and the sampler is {name}; take ddim.")
    if str(scheduler.config.get("algorithm_type", "")).startswith("sde"):
        raise SamplerError(f"the sampler {name} draws noise on its way, which no inversion knows; take dpmpp_2m.")
    backwards = getattr(diffusers, kind.replace("Scheduler", "InverseScheduler"))
    known = inspect.signature(backwards).parameters
    inverse: Any = backwards.from_config({key: value for key, value in scheduler.config.items() if key in known})
    try:
        inverse.set_timesteps(steps)
    except ValueError as error:
        raise SamplerError(f"the sampler {name} cannot be run backwards with these settings: {reason(error)}") from None
    if kind == "DPMSolverMultistepScheduler":
        lowest = inverse.alphas_cumprod[0]
        levels = [((1 - lowest) / lowest) ** 0.5, *scheduler.sigmas[:steps].flip(0)]
        inverse.sigmas = torch.stack([torch.as_tensor(level) for level in levels]).to(torch.float32)
        inverse.timesteps = torch.cat([torch.zeros(1, dtype=torch.int64), scheduler.timesteps.flip(0)[:-1].long()])
        inverse.num_inference_steps = steps
        inverse._step_index = 0  # else it looks for a timestep, which may be there twice
    elif inverse.timesteps.tolist() != scheduler.timesteps.flip(0).tolist():
        raise SamplerError(
            f"the sampler {name} takes other steps than its inverse with these settings (timesteps "
            f"{scheduler.timesteps[-1]:g} … {scheduler.timesteps[0]:g}, backwards {inverse.timesteps[0]:g} … "
            f"{inverse.timesteps[-1]:g}); take another number of steps, or leading or trailing spacing."
        )
    return inverse


def inverted(
    predict: Callable[[Tensor, Tensor], Tensor], latents: Float[Tensor, "image c h w"], inverse: Any, steps: int
) -> list[Float[Tensor, "image c h w"]]:
    """Latents on their way to noise: as they are, and after each of the first `steps` steps of an inverse scheduler.

    DDIM's inverse asks for the noise at the level that a step goes to, as diffusers and Mokady et al. do. A prediction
    of v or x0 becomes noise by the level that the latents are at, so there it is asked at that one: with the shipped
    model a picture comes back with 31.9 dB, and by diffusers' way, which mixes the two, with 27.3.

    >>> from embedlab import Sampler, Source
    >>> scheduler = Sampler("ddim", steps=5).make(Source("emoji").scheduler)
    >>> inverse = inverse_of(scheduler, "ddim", Inversion("puppy.png"))
    >>> way = inverted(lambda x, t: torch.zeros_like(x), torch.ones(1, 4, 2, 2), inverse, 3)
    >>> len(way), bool(way[-1].mean() < 1)
    (4, True)
    """
    way = [latents]
    behind = hasattr(inverse, "initial_alpha_cumprod") and inverse.config.prediction_type != "epsilon"
    asked = [0, *inverse.timesteps.tolist()] if behind else inverse.timesteps.tolist()
    for t, at in zip(inverse.timesteps[:steps], asked, strict=False):
        x = inverse.scale_model_input(way[-1], t)
        seen = predict(x, torch.tensor(at, device=latents.device)).to(latents.dtype)
        way.append(inverse.step(seen, t, way[-1]).prev_sample)
    return way


def null_texts(
    with_prompt: Callable[[Tensor, Tensor], Tensor],
    without: Callable[[Float[Tensor, "row width"]], Callable[[Tensor, Tensor], Tensor]],
    hidden: Float[Tensor, "row width"],
    way: Sequence[Float[Tensor, "image c h w"]],
    scheduler: Any,
    scales: Sequence[float],
    iterations: int,
) -> list[Float[Tensor, "row width"]]:
    """Hidden states of no prompt, for each step from the noise back along the `way` that an inversion came.

    At each step those of the step before are moved by Adam so that the guided step ends where the inversion was, with
    the step sizes and the end of Mokady et al. (2023): a rate of 0.01 that falls by a hundredth a step, and a loss of
    1e-5 that is enough, 2e-5 more a step. `without` makes a denoiser of hidden states.
    """
    found: list[Tensor] = []
    with torch.inference_mode(False), torch.enable_grad():
        x, kind, hidden = way[-1].clone(), hidden.dtype, hidden.clone().float()
        for n, (t, scale) in enumerate(zip(scheduler.timesteps[-len(way) + 1 :], scales, strict=True)):
            target, there = way[-2 - n].clone(), t.to(x.device)
            with torch.no_grad():
                told = with_prompt(x, there)
            hidden = hidden.detach().clone().requires_grad_()
            adam = torch.optim.Adam([hidden], lr=1e-2 * max(1 - n / 100, 0.01))
            for _ in range(iterations if scale != 1 else 0):  # at 1 no prompt has no say
                loss = (guided_step(without(hidden), told, x, t, scheduler, scale) - target).square().mean()
                if float(loss.detach()) < 1e-5 + 2e-5 * n:
                    break
                (hidden.grad,) = torch.autograd.grad(loss, hidden)
                adam.step()
            with torch.no_grad():
                hidden = hidden.detach()
                x = guided_step(without(hidden), told, x, t, scheduler, scale)
            found.append(hidden.to(kind))
    return found


def guided_step(
    without: Callable[[Tensor, Tensor], Tensor], told: Tensor, x: Tensor, t: Tensor, scheduler: Any, scale: float
) -> Tensor:
    """Where one step of plain guidance leads."""
    plain = without(x, t.to(x.device))
    prev: Tensor = scheduler.step((plain + scale * (told - plain)).to(x.dtype), t, x).prev_sample
    return prev
