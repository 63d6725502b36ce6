"""(unet, conditionings, scales) → Denoiser, and closures that wrap Denoisers.

A Denoiser maps latents and a timestep to what the model predicts there (noise or v), guided or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedlab.checks import finite_number
from embedlab.encoder import Conditioning
from embedlab.errors import ModelError, SamplerError, brief, listed
from embedlab.guidance.halves import Halves
from embedlab.guidance.remembered import Carried, joined, layouts_of
from embedlab.guidance.shared import Shared
from embedlab.timing import Timer
from embedlab.transfer import send

Denoiser = Callable[[Float[Tensor, "image c h w"], Tensor], Float[Tensor, "image c h w"]]


def stack(conditionings: Sequence[Conditioning]) -> tuple[Float[Tensor, "batch row width"], Tensor | None]:
    """Hidden states as one batch; where lengths differ, zeros to the longest, and a mask that hides those."""
    lengths = [len(c.hidden) for c in conditionings]
    longest = max(lengths)
    if min(lengths) == longest:
        return torch.stack([c.hidden for c in conditionings]), None
    first = conditionings[0].hidden
    batch = first.new_zeros(len(lengths), longest, first.shape[1])
    for row, conditioning in zip(batch, conditionings, strict=True):
        row[: len(conditioning.hidden)] = conditioning.hidden
    return batch, send(torch.arange(longest) < torch.tensor(lengths)[:, None], first.device)


def predictor(
    unet: Any,
    conditionings: Sequence[Conditioning],
    size: tuple[int, int] | None = None,
    timer: Timer | None = None,
    taught: Sequence[float] = (),
    images: Sequence[int] = (),
    shared: Shared | None = None,
    carries: bool = True,
) -> Denoiser:
    """One call of the UNet: latents (row, c, h, w), one for each conditioning, and a timestep → what is predicted.

    `size` (height, width) is what an SDXL UNet is given as original and target size, with no crop. `taught` are the
    guidance scales that a UNet is given as numbers. `timer` measures the calls of the UNet, as its part `UNet`.
    `images` says whose latents each row holds; with it and `shared` rows that are equal in value are run once, and
    what `shared.carried` knows from another batch is not run. Where gradients are asked for all are run, each for its
    own. `carries` is whether that batch's UNet was this one.

    >>> from embedlab import embed_all, encode, models
    >>> model = models.load("emoji")
    >>> cond, uncond = encode([embed_all(text, model.towers) for text in ("a puppy", "")], model.towers)
    >>> predict = predictor(model.unet, [uncond, cond])
    >>> with torch.inference_mode():
    ...     predict(torch.zeros(2, 8, 16, 16), torch.tensor(500)).shape
    torch.Size([2, 8, 16, 16])
    """
    hidden, mask = stack(conditionings)
    dtype = unet.dtype  # diffusers looks through all modules for it: 2 ms, not to be spent in each step
    hidden = hidden.to(dtype)
    kwargs: dict[str, Any] = {"encoder_hidden_states": hidden, "encoder_attention_mask": mask, "return_dict": False}
    if taught:
        width = unet.config["time_cond_proj_dim"]
        kwargs["timestep_cond"] = send(scale_embedding(taught, width).to(hidden.dtype), hidden.device)
    if size is not None:
        ids = torch.tensor([[*size, 0, 0, *size]] * len(conditionings), dtype=dtype)
        kwargs["added_cond_kwargs"] = {
            "text_embeds": torch.stack([c.pooled for c in conditionings]).to(dtype),
            "time_ids": send(ids, hidden.device),
        }
    reading = getattr(unet, "reading", None)  # a UNet whose attention is watched asks what each row reads
    call = unet if reading is None else reading(conditionings)
    timer, many = timer or Timer(), len(conditionings)
    counted = many if reading is None else call.asked
    told_each = (one.content for one in conditionings) if reading is None else call.keys
    keys = list(zip(told_each, taught or [0.0] * many, strict=True)) if shared else []
    every = list(range(many))
    last: tuple[list[int], list[int]] = every, every  # calls mostly have the same rows as the call before
    taken = given_back = torch.tensor(every)
    told = kwargs

    def predict(x: Tensor, t: Tensor) -> Tensor:
        x = x.to(dtype)
        own = shared is None or (x.requires_grad and torch.is_grad_enabled())
        if not own and shared is not None and shared.carried and carries:
            return with_known(x, t, shared, shared.carried)
        return run(x, t, (every, every) if own or shared is None else shared.rows(x, images, keys))

    def with_known(x: Tensor, t: Tensor, shared: Shared, carried: Carried) -> Tensor:
        known = carried.recall(x, t, images, keys)
        left = [n for n in every if images[n] not in known]
        shared.layouts += layouts_of(known, len(shared.first))
        predicted = None
        if not left:
            timer.ask("UNet", counted)
        else:
            some = x if left == every else x[left]
            taken, back = shared.rows(some, [images[n] for n in left], [keys[n] for n in left])
            predicted = run(x, t, ([left[n] for n in taken], back))
        if known or predicted is None:
            predicted = joined(images, known, left, predicted)
        carried.keep(predicted, known, shared)
        return predicted

    def run(x: Tensor, t: Tensor, rows: tuple[list[int], list[int]]) -> Tensor:
        nonlocal last, taken, given_back, told
        if rows != last:
            taken, given_back = (send(torch.tensor(one), x.device) for one in rows)
            last, told = rows, rows_of_call(kwargs, taken, many)
            if reading is not None:
                call.merge(rows[1], len(rows[0]))
        with timer.part("UNet", rows=len(rows[0]), asked=counted):
            predicted: Tensor = call(x if rows[0] == every else x[taken], t, **told)[0]
        return predicted if rows[1] == every else predicted[given_back]

    return predict


def rows_of_call(given: Any, rows: Tensor, many: int) -> Any:
    """The rows of what a UNet call of `many` rows is told: of each tensor, however deep, those named.

    >>> given = {"text": torch.arange(3), "more": {"ids": torch.arange(3)}, "return_dict": False}
    >>> rows_of_call(given, torch.tensor([2, 0]), 3)
    {'text': tensor([2, 0]), 'more': {'ids': tensor([2, 0])}, 'return_dict': False}
    """
    if isinstance(given, dict):
        return {name: rows_of_call(value, rows, many) for name, value in given.items()}
    return given[rows] if isinstance(given, Tensor) and given.ndim and len(given) == many else given


def guided(
    unet: Any,
    cond: Conditioning | Sequence[Conditioning],
    uncond: Conditioning | Sequence[Conditioning],
    scales: float | Sequence[float],
    size: tuple[int, int] | None = None,
    timer: Timer | None = None,
    shared: Shared | None = None,
    halves: Halves | None = None,
) -> Denoiser:
    """One row a picture, each with its own conditioning and scale; both halves in one call of the UNet.

    The UNet may be given as a model or a diffusers pipeline; one conditioning, or one scale, is that of all pictures.

    When all rows are at scale 1, no unconditional half is computed. A UNet that was taught the scale itself
    (`time_cond_proj_dim`, as latent consistency models are) is given it as a number, without an unconditional half.
    Of a conditioning with others beside it (A1111's AND) all are predicted, and `uncond + scale · Σ weight · (cond -
    uncond)` is the answer, as A1111's `combine_denoised` has it; Composable Diffusion (Liu et al. 2022), eq. 11.
    `size`, `timer` and `shared` are those of `predictor`; `halves` is given what was predicted with and without the
    prompt.

    >>> from embedlab import embed_all, encode, models
    >>> model = models.load("emoji")
    >>> cond, uncond = encode(["a puppy", ""], model)
    >>> x, t = torch.zeros(2, 8, 16, 16), torch.tensor(500)
    >>> denoise = guided(model, cond, uncond, scales=[1.0, 4.0])
    >>> with torch.inference_mode():
    ...     alone, guided_by_4 = denoise(x, t)
    >>> bool((alone != guided_by_4).any())
    True
    """
    unet = unet_of(unet)
    once = not any(isinstance(one, list | tuple) for one in (cond, uncond, scales))
    cond, uncond, scales = as_many(cond, uncond, scales)
    if once:
        return for_all(lambda n: guided(unet, cond * n, uncond * n, scales * n, size, timer, shared, halves))
    taught = unet.config.get("time_cond_proj_dim")
    streams = [(n, weight, one) for n, mine in enumerate(cond) for weight, one in mine.streams]
    composed = any(weight != 1 for _, weight, _ in streams) or len(streams) > len(cond)
    free = bool(taught) or (not composed and all(scale == 1 for scale in scales))
    each = [one for _, _, one in streams]
    images = [n for n, _, _ in streams]
    images = images if free else [*range(len(cond)), *images]
    predict = predictor(unet, each if free else [*uncond, *each], size, timer, scales if taught else (), images, shared)
    if free:

        def unguided(x: Tensor, t: Tensor) -> Tensor:
            predicted = predict(x, t)
            if halves is not None:
                halves.put([], predicted[:0], [(n, 1.0) for n in range(len(x))], predicted)
            return predicted

        return predict if halves is None else unguided
    device, dtype = cond[0].hidden.device, unet.dtype
    scale = send(torch.tensor(scales, dtype=dtype).view(-1, 1, 1, 1), device)
    whose = send(torch.tensor([n for n, _, _ in streams]), device)
    share = send(torch.tensor([w for _, w, _ in streams], dtype=dtype).view(-1, 1, 1, 1), device)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        predicted = predict(torch.cat([x, x[whose] if composed else x]), t)
        without, with_prompt = predicted.split([len(x), len(each)])
        if halves is not None:
            halves.put(range(len(x)), without, [(n, weight) for n, weight, _ in streams], with_prompt)
        if composed:
            change = torch.zeros_like(without).index_add(0, whose, share * (with_prompt - without[whose]))
        else:
            change = with_prompt - without
        answer: Tensor = without + scale * change
        return answer

    return denoise


def unet_of(given: Any) -> Any:
    """A UNet: itself, or that of a model or a diffusers pipeline; ModelError for what has none."""
    found = given.unet if hasattr(given, "unet") and hasattr(given, "vae") else given  # what watches a UNet is one
    if not hasattr(found, "config") or not hasattr(found, "dtype") or isinstance(found, type):
        raise ModelError(f"unet is {brief(given)}; a model (lab.load), model.unet or a diffusers pipeline will do.")
    return found


def as_many(cond: Any, uncond: Any, scales: Any) -> tuple[list[Conditioning], list[Conditioning], list[float]]:
    """A conditioning, its counterpart and a scale for each picture; what came once is that of all of them.

    Raises SamplerError for what is none of these, and for lists of unequal lengths.
    """
    given = {"cond": cond, "uncond": uncond, "scales": scales}
    lists = {name: list(one) if isinstance(one, list | tuple) else [one] for name, one in given.items()}
    for name in ("cond", "uncond"):
        if wrong := [one for one in lists[name] if not isinstance(one, Conditioning)]:
            raise SamplerError(
                f"{name} holds {brief(wrong[0])}; it has to be a Conditioning, as encode gives it, or several."
            )
    for one in lists["scales"]:
        finite_number(one, "scales", SamplerError)
    lengths = {name: len(one) for name, one in lists.items()}
    many = max(lengths.values())
    if wrong_ones := [f"{count} {name}" for name, count in lengths.items() if count not in (1, many)]:
        raise SamplerError(
            f"there are {listed(wrong_ones)} for {many} pictures; one for each is needed, or one for all."
        )
    if not all(lengths.values()):
        raise SamplerError("cond, uncond and scales have to name one picture at least.")
    each = [one * many if len(one) == 1 else one for one in lists.values()]
    return each[0], each[1], each[2]


def for_all(make: Callable[[int], Denoiser]) -> Denoiser:
    """A denoiser that is made for as many pictures as it meets."""
    made: dict[int, Denoiser] = {}

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        if len(x) not in made:
            made[len(x)] = make(len(x))
        return made[len(x)](x, t)

    return denoise


def scale_embedding(scales: Sequence[float], width: int) -> Float[Tensor, "batch width"]:
    """Guidance scales as sines and cosines, for a UNet that was taught them (Meng et al. 2023; diffusers' formula).

    >>> scale_embedding([1.0], 4).tolist()
    [[0.0, 0.0, 1.0, 1.0]]
    """
    half = width // 2
    falling = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10_000.0) / max(half - 1, 1)))
    angles = 1000 * (torch.tensor(scales, dtype=torch.float32) - 1)[:, None] * falling
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))


def in_turn(denoisers: Iterable[Denoiser]) -> Denoiser:
    """One denoiser after the other, one a call: what a schedule of conditionings and scales becomes."""
    left = iter(denoisers)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return next(left)(x, t)

    return denoise
