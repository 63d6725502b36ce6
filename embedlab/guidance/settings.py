"""Settings of how strongly the prompt is followed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedlab.arguments import settle_numbers
from embedlab.checks import finite_number, is_whole
from embedlab.display import Shown
from embedlab.errors import SamplerError
from embedlab.guidance.loss import Loss
from embedlab.limits import GUIDERS, check_guider, check_interval, check_part
from embedlab.schedule import Clock, Moment, Schedule, Setting, Switch, beyond, format_number, varies


@dataclass(frozen=True)
class Guidance(Shown):
    """How a prediction with the prompt and one without it become one; `uncond + scale * (cond - uncond)` where plain.

    scale: 1 means the prompt alone: the negative prompt then costs nothing and does nothing, as in diffusers.
    negative: a prompt of any length; left out it is the model's own nothing (the empty prompt, zeros for SDXL).
    negative_2: another one for the second text encoder of SDXL.
    guider: cfg is classifier-free guidance (Ho & Salimans 2022); cfg_zero_star, apg, apg_mix, fdg, mambo_g, tcfg, auto,
        pag, slg and seg are those of `diffusers.guiders` (`embedlab.guidance.guiders`).
    settings: the guider's own, by their names there. guidance_scales of fdg, left out, are `scale` twice, and replace
        it where they are given; layers are blocks of the UNet, `mid` where they are left out.
    rescale: from 0 to 1, how far the prediction gets back the spread that the one with the prompt has (Lin et al. 2024,
        eq. 15 and 16).
    interval: [begin, end] by a clock, step, fraction, timestep or sigma; before and after, the prompt alone is drawn,
        and nothing else is computed (Kynkäänniemi et al. 2024).

    combine: how prompts that AND joins come together: sum, mean, perp, salient, top_k, or a list with the way of each
        after the first (`embedlab.guidance.combining`); of sega, they are concepts that the first is led toward.
    regions: where each of them counts: a box [left, top, right, bottom] in shares of the picture, the file of a mask,
        or None for all of it.
    loss: a number that the picture is led to make smaller, beside all of this (`Loss`).

    Scale, rescale, the guider and its settings may change over time. Raises SamplerError for what is no such setting.

    >>> Guidance(7.5, negative="a cat").scale
    7.5
    >>> Guidance(7.5, guider="apg", settings={"eta": 0.0}, interval=[0.2, 0.8]).guider
    'apg'
    """

    scale: Setting[float] = 4.0
    negative: Setting[str | None] = None
    negative_2: Setting[str | None] = None
    guider: Setting[str] = "cfg"
    settings: Mapping[str, Setting[Any]] = field(default_factory=dict)
    rescale: Setting[float] = 0.0
    interval: Sequence[float] | None = None
    clock: Clock = "fraction"
    combine: Setting[str | Sequence[str]] = "sum"
    regions: Sequence[Any] | None = None
    loss: Loss | None = None

    def __post_init__(self) -> None:
        settle_numbers(self)
        check_interval(self.interval, self.clock)
        if not isinstance(self.guider, Schedule):
            check_guider(self.guider, self.settings)
        if varies(self):
            return
        object.__setattr__(self, "scale", finite_number(self.scale, "guidance.scale", SamplerError))
        check_part(self)

    def guides(self, moment: Moment) -> bool:
        """Whether a moment lies in the interval, of which the end is outside.

        >>> late = Guidance(interval=[0.5, 1.0])
        >>> [late.guides(Moment(call=s, step=s, steps=4, timestep=0, sigma=0)) for s in range(4)]
        [False, False, True, True]
        """
        if self.interval is None:
            return True
        begun, over = (bool(Switch((False, True), at, self.clock)(moment)) for at in self.interval)
        return begun and not over

    def out_of_range(self, moments: Sequence[Moment]) -> str | None:
        """Why the interval does not fit the calls of a schedule; None when it does.

        >>> calls = [Moment(call=s, step=s, steps=4, timestep=0, sigma=0) for s in range(2, 4)]
        >>> Guidance(interval=[0.1, 0.4]).out_of_range(calls)
        'none of the 2 calls lies in it; their clock fraction goes from 0.5 to 0.75'
        """
        if self.interval is None:
            return None
        if past := beyond(self.interval, self.clock, moments[0]):
            return past
        if any(self.guides(moment) for moment in moments):
            return None
        first, last = (format_number(moment.tell(self.clock)) for moment in (moments[0], moments[-1]))
        return f"none of the {len(moments)} calls lies in it; their clock {self.clock} goes from {first} to {last}"

    @property
    def plain(self) -> bool:
        """Whether it is `uncond + scale * (cond - uncond)` and nothing more, at all times."""
        return self.way[1:] == ("cfg", {}, 0, None, self.clock, "sum", None)

    @property
    def way(self) -> tuple[Any, ...]:
        """All but the negative prompts: what has to be equal for two pictures to be guided alike."""
        steered = (self.scale, self.guider, dict(self.settings), self.rescale, self.interval, self.clock)
        return (*steered, self.combine, self.regions)

    @property
    def contents(self) -> list[str]:
        """Hashes of the files of masks and losses, and the code of a loss: whatever they are called."""
        files = [Path(one) for one in self.regions or () if isinstance(one, str)]
        files += self.loss.files if self.loss is not None else []
        code = getattr(getattr(self.loss, "score", None), "__code__", None)  # its repr is where it is
        written = [] if code is None else [f"{code.co_code.hex()} {code.co_names} {code.co_consts}"]
        return [*(hashlib.sha256(one.read_bytes()).hexdigest() for one in files), *written]

    def notes(self, steps: int) -> list[str]:
        """What does nothing in so many steps, for people.

        >>> Guidance(guider="sega").notes(8)
        ['guidance=sega begins after 10 steps, and there are 8: guidance.settings.edit_warmup_steps']
        """
        late = {"sega": "edit_warmup_steps", "apg_mix": "adaptive_projected_guidance_start_step"}
        name = late.get(self.guider) if isinstance(self.guider, str) else None
        first = self.of_guider()[name] if name else None
        if not is_whole(first) or first < steps:
            return []
        return [f"guidance={self.guider} begins after {first} steps, and there are {steps}: guidance.settings.{name}"]

    def of_guider(self) -> dict[str, Any]:
        """All settings of the guider, those that were left out too.

        >>> Guidance(guider="mambo_g").of_guider()
        {'alpha': 8.0, 'use_original_formulation': False}
        """
        return {name: default for name, (_, default) in GUIDERS[str(self.guider)][1].items()} | dict(self.settings)
