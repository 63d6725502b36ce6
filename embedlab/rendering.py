"""Cells × seeds → images: what can share UNet calls is grouped, sampled in batches, and decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor

from embedlab import images
from embedlab.attention.watch import Watch
from embedlab.cell import Cell, denoiser_calls, described, fingerprint, picture_size
from embedlab.condition import CallConditioning, condition_calls, told_by_call
from embedlab.display.progress import bar, in_notebook
from embedlab.encoder import Conditioning
from embedlab.errors import ConfigError, EngineError, SamplerError, brief, check_list, counted
from embedlab.guidance import (
    Beside,
    Carried,
    Denoiser,
    Halves,
    Losses,
    Predictions,
    Shared,
    Steering,
    Told,
    guided,
    in_turn,
    predictor,
)
from embedlab.inverting import Inverted, invert
from embedlab.limits import check_at_once, seeds_asked
from embedlab.models import Model, Pipeline, Source, model_of
from embedlab.runtime import runtime_of
from embedlab.sampler import Inversion, Trace, predicted_x0, sample
from embedlab.sampler.loop import OnStep, Sampled
from embedlab.samples import Rendered, Request, Sample, not_finite, rows_by_call, stack_samples
from embedlab.schedule import value_of
from embedlab.starting import begin
from embedlab.timing import Timer


@overload
def render(
    model: Model | Pipeline,
    cells: Cell,
    seeds: int | Sequence[int] = 0,
    at_once: int = 16,
    on_step: OnStep | None = None,
) -> Rendered: ...
@overload
def render(
    model: Model | Pipeline,
    cells: Sequence[Cell],
    seeds: int | Sequence[int] = 0,
    at_once: int = 16,
    on_step: OnStep | None = None,
) -> list[Rendered]: ...
@torch.inference_mode()
def render(
    model: Model | Pipeline,
    cells: Cell | Sequence[Cell],
    seeds: int | Sequence[int] = 0,
    at_once: int = 16,
    on_step: OnStep | None = None,
) -> Rendered | list[Rendered]:
    """Make the pictures of all cells, each with every seed; `at_once` pictures a UNet call at the most.

    Of one cell its pictures are the answer, of a list of cells a list. The model may be a diffusers pipeline.

    Cells share calls wherever they agree in their `batch_key`; each text is encoded once. `on_step` is called with the
    number of every step of every batch, and if it takes three arguments, with the latents after the step and the x0
    that was predicted in it, too (image, c, h, w). Pictures are (image, 3, height, width) in [0, 1], an image a seed.

    Raises ConfigError for arguments that do not fit, what `condition` and `Sampler.make` raise, and SamplerError where
    latents become NaN.

    >>> from embedlab import Sampler, models
    >>> rendered = render(models.load("emoji"), Cell("a cat", sampler=Sampler(steps=2)), seeds=[0, 1])
    >>> rendered.pictures.shape
    torch.Size([2, 3, 128, 128])
    """
    model, alone = model_of(model), isinstance(cells, Cell)
    cells = [cells] if isinstance(cells, Cell) else cells
    check_list(cells, Cell, "cells", "lab.render(model, [lab.Cell(PROMPT)], seeds)")
    seeds = seeds_asked(seeds)
    at_once = check_at_once(at_once)
    if on_step is not None and not callable(on_step):
        raise ConfigError(f"on_step is {brief(on_step)}; it has to be a callable that takes the number of a step.")
    conditioning = condition_calls(model, cells)
    for cell in cells:
        cell.start.check_seeds(seeds)
    requests = [Request(calls, seed) for calls in conditioning for seed in seeds]
    groups: dict[Any, list[int]] = {}
    for n, request in enumerate(requests):
        groups.setdefault(batch_key(request.cell, model, request.conditioning), []).append(n)
    samples: dict[int, Sample] = {}
    steps = max((one[0].cell.sampler.steps for one in conditioning), default=1)
    told = [each for each in map(told_by_call, conditioning) for _ in seeds]
    with bar(len(requests), counted(len(requests), "picture")) as reach:
        for found in groups.values():
            order = in_company([requests[n].seed for n in found], [told[n] for n in found])
            group = [found[k] for k in order]
            memory, company = Predictions(), {n: (requests[n].seed, told[n][0]) for n in group}
            for begin in range(0, len(group), at_once):
                part, later = group[begin : begin + at_once], {company[n] for n in group[begin + at_once :]}
                seeds_of, told_first = zip(*(company[n] for n in part), strict=True)
                carried = memory.for_batch("", seeds_of, told_first, lambda *one, later=later: one in later)
                heard = on_step
                if heard is None and in_notebook():
                    heard = partial(_reached, reach, len(samples), len(part) / steps)
                made = sample_batch(model, [requests[n] for n in part], heard, carried=carried)
                samples |= zip(part, made, strict=True)
                reach(len(samples))
    if bad := [not_finite(samples[n], requests[n]) for n in sorted(samples) if not samples[n].finite]:
        raise SamplerError(bad[0] + (f" So do those of {counted(len(bad) - 1, 'picture')} more." if bad[1:] else ""))
    blocks = [[samples[i * len(seeds) + k] for k in range(len(seeds))] for i in range(len(cells))]
    stacks = [stack_samples(*one) for one in zip(cells, [seeds] * len(cells), blocks, conditioning, strict=True)]
    return stacks[0] if alone else with_those_before(stacks)


def with_those_before(made: Sequence[Rendered]) -> list[Rendered]:
    """Each edited cell's pictures with those of the same cell without its edit, where these are among them, too."""
    plain = {fingerprint(one.cell): one for one in made if not one.cell.edits}
    before = [plain.get(fingerprint(one.cell.baseline())) if one.cell.edits else None for one in made]
    return [one if other is None else replace(one, before=other) for one, other in zip(made, before, strict=True)]


def _reached(reach: Callable[[float], None], done: int, share: float, step: int) -> None:
    """Move a bar: so many pictures are done, and of those at work a share each step."""
    reach(done + share * (step + 1))


def batch_key(cell: Cell, model: Model | Source, calls: Sequence[CallConditioning] = ()) -> tuple[Any, ...]:
    """What pictures have to agree on to share UNet calls: size in pixels, sampler, start, and the lengths of each call.

    Without `calls`, of cells that were not encoded yet, it is all but the lengths.
    """
    lengths: list[Any] = [
        (*(len(c.hidden) for _, c in one.cond.streams), len(one.uncond.hidden), one.cell.guidance.scale == 1)
        for one in calls
    ]
    copies = any(one.source is not None for one in calls)  # each has its source beside it
    shown = described(cell)
    if shown is not None:  # what is inverted has to be the same, and what it is to be led back with
        lengths.append(fingerprint([shown.prompt, shown.prompt_2, shown.encoder]))
        lengths.append(fingerprint([[one.cell.guidance, one.uncond.content] for one in calls]))
    if any(one.cell.attention.active for one in calls):  # a layer that is looked at rounds otherwise than a fused one
        known = {id(one.cell): one.cell.attention for one in calls}
        looked = {key: fingerprint(replace(asked, words=None, by=(), source=None)) for key, asked in known.items()}
        lengths.append(tuple(looked[id(one.cell)] for one in calls))
    return (picture_size(cell, model), cell.sampler, cell.start, *lengths, *(["copies"] if copies else []))


def in_company(seeds: Sequence[int], told: Sequence[Sequence[str]]) -> list[int]:
    """The order of pictures in which those of one seed that begin with the same UNet calls stand together.

    `told` says what each call of a picture is told. All others keep their order.

    >>> in_company([0, 1, 0, 1, 0], [["a", "b"], ["a", "b"], ["a", "c"], ["a", "c"], ["x", "x"]])
    [0, 2, 1, 3, 4]
    """
    rank: dict[Any, int] = {}

    def place(n: int) -> list[int]:
        first = rank.setdefault((seeds[n], *told[n][:1]), len(rank))
        return [first, *(rank.setdefault(each, len(rank)) for each in told[n])]

    places = [place(n) for n in range(len(seeds))]
    return sorted(range(len(seeds)), key=places.__getitem__)


@dataclass
class Batch:
    """Pictures of one `batch_key`, ready for the loop: what it is called with, and what is written down meanwhile.

    requests: the pictures that are asked for, and behind them those that attention is copied from, `beside` of them;
    `which` of these each picture has.
    """

    model: Model
    requests: Sequence[Request]
    size: tuple[int, int]
    timer: Timer
    shared: Shared
    watch: Watch | None
    calls: Sequence[Sequence[CallConditioning]]
    inverted: Inverted | None
    which: tuple[int, ...] = ()
    beside: int = 0
    scheduler: Any = None
    begun: Any = None
    trace: Trace = field(default_factory=Trace)

    @classmethod
    def of(
        cls,
        model: Model,
        requests: Sequence[Request],
        timer: Timer | None = None,
        shared: Shared | None = None,
        sources: Sequence[int] | None = None,
        carried: Carried | None = None,
    ) -> Batch:
        """The batch of some pictures; one that is inverted is inverted here."""
        timer, asked = timer or Timer(), requests
        beside, which = sources_of(requests, sources)
        requests = [*requests, *beside]
        cell = requests[0].cell
        size = picture_size(cell, model)
        found: Inverted | None = None
        if isinstance(cell.start, Inversion):
            with timer.part("scheduler"), torch.inference_mode():
                requests, found = invert(model, requests, timer)
        watch = watch_of(model, requests, size, [len(asked) + number for number in which])
        calls = watch.calls if watch else list(zip(*(request.conditioning for request in requests), strict=True))
        if shared is None:
            by_shape = getattr(getattr(model.unet, "engine", None), "by_shape", False)
            shared = Shared([request.seed for request in requests], by_shape)
        if watch is None:  # else what was seen in a call would have to be remembered, too
            shared.carried = carried
        return cls(model, requests, size, timer, shared, watch, calls, found, tuple(which), len(beside))

    def place_of(self, image: int) -> tuple[int, ...]:
        """Where a picture stands: its number, of how many, and where several share a source, which one, of how many."""
        place = image, len(self.requests) - self.beside
        return place if self.beside == len(self.which) else (*place, self.which[image], self.beside)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Watch the UNet where that is asked for, and keep gradients possible where a picture has a loss."""
        with self.watch.installed() if self.watch else nullcontext(), _gradients(self.calls):
            yield

    def begin(self, halves: bool = False) -> dict[str, Any]:
        """What the loop is called with, but for where it starts; with `halves` the trace hears of both predictions."""
        cell = self.requests[0].cell
        seeds = [request.seed for request in self.requests]
        self.scheduler = cell.sampler.make(self.model.scheduler)
        inverted = self.inverted.way if self.inverted else None
        self.begun = begun = begin(self.model, cell, seeds, self.scheduler, inverted)
        self.trace = trace = Trace(cell.sampler.watch, cell.sampler.kept)
        beside, heard = begun.beside, trace.halves if halves or trace.active else None
        denoisers = _denoisers(self.model, self.calls, self.size, self.timer, self.shared, self.watch, heard, beside)
        evaluate = _losses(self.model, self.calls, self.size, self.scheduler, trace, self.timer, beside)
        told = {"random": begun.random, "first": begun.first, "warmup": cell.start.warmup, "after": begun.after}
        return {"denoise": in_turn(denoisers), "scheduler": self.scheduler, "evaluate": evaluate, **told}


@torch.inference_mode()
def sample_batch(
    model: Model,
    requests: Sequence[Request],
    on_step: OnStep | None = None,
    timer: Timer | None = None,
    shared: Shared | None = None,
    sources: Sequence[int] | None = None,
    carried: Carried | None = None,
) -> list[Sample]:
    """Make pictures of one `batch_key` in one batch; one with NaN leaves its neighbours be.

    Rows of the UNet that are equal in value are run once: the steps before a late edit departs from the other pictures
    of its seed, and the unconditional half of pictures that are equal so far. `shared` says otherwise: with
    `Shared(range(n))` none of n pictures has anything in common with another. `timer` measures the parts `UNet`,
    `scheduler` (all of the loop beside it, noise and start too) and `decode`. Where attention is copied, `sources` says
    which source each picture has, by number; left out, those of one seed that copy from the same share it. `carried`
    knows what another batch of the same `batch_key` predicted for pictures that begin as some of these do.
    """
    timer = timer or Timer()
    batch, many = Batch.of(model, requests, timer, shared, sources, carried), len(requests)
    with timer.part("scheduler"), batch.inside():
        told = batch.begin()
        begun, trace, keep = batch.begun, batch.trace, requests[0].cell.sampler.kept
        observe = trace if trace.active else None
        out = sample(**told, noise=begun.noise, start=begun.picture, keep=keep, on_step=on_step, observe=observe)
        if out.latents.is_cuda:  # the loop has only asked for all of this: what it waits for is the UNet's
            with timer.part("UNet", calls=0):
                torch.cuda.synchronize(out.latents.device)
    out = of_first(out, many)
    with timer.part("decode", rows=many * (1 + 2 * len(out.kept))):
        pictures = images.decode(out.latents, model.vae)
        kept = [
            (k.step, images.decode(k.latents, model.vae), None if k.x0 is None else images.decode(k.x0, model.vae))
            for k in out.kept
        ]
    latents, runtime = out.latents.float().cpu(), runtime_of(model)
    broke = [-1] * many if out.broke is None else out.broke.tolist()
    return [
        Sample(
            pictures[n],
            latents[n],
            tuple((s, a[n], None if b is None else b[n]) for s, a, b in kept),
            batch.place_of(n),
            runtime,
            batch.watch.maps(n) if batch.watch else None,
            rows_by_call(batch.shared.layouts, n, many + batch.which[n] if batch.which else None),
            None if broke[n] < 0 else broke[n],
            trace.curves(n),
            trace.kept(n),
            batch.inverted.figures if batch.inverted else {},
        )
        for n in range(many)
    ]


def _denoisers(
    model: Model,
    calls: Sequence[Sequence[CallConditioning]],
    size: tuple[int, int],
    timer: Timer,
    shared: Shared,
    watch: Watch | None,
    halves: Halves | None,
    beside: Tensor | None = None,
) -> Iterator[Denoiser]:
    """A denoiser for each call; neighbours of the same conditionings are one, and only one at a time is held."""
    shape = size if model.size_conditioned else None
    guidances = [[one.cell.guidance for one in call] for call in calls]
    steering = None
    if not all(guidance.plain for call in guidances for guidance in call):
        steering = Steering(guidances, denoiser_calls(calls[0][0].cell, model.scheduler))
    unet = watch.watched if watch else model.unet
    unet = unet if beside is None else Beside(unet, beside)
    last: Sequence[CallConditioning] = ()
    for n, call in enumerate(calls):
        if not last or any(new is not old for new, old in zip(call, last, strict=True)):
            last = call
            cond, uncond = [one.cond for one in call], [one.uncond for one in call]
            scales = [value_of(guidance.scale) for guidance in guidances[n]]
            if steering is None:
                denoise = guided(unet, cond, uncond, scales, shape, timer, shared, halves)
            else:
                told = Told(unet, cond, uncond, shape, timer, shared, halves)
        denoiser = denoise if steering is None else steering.denoiser(n, told)
        yield watch.during(n, denoiser) if watch else denoiser


def _losses(
    model: Model,
    calls: Sequence[Sequence[CallConditioning]],
    size: tuple[int, int],
    scheduler: Any,
    trace: Trace,
    timer: Timer,
    beside: Tensor | None = None,
) -> Losses | None:
    """What moves latents by the losses of their pictures; None where no picture has one.

    Raises EngineError where a loss reads the attention of a compiled UNet.
    """
    asked = [[one.cell.guidance.loss for one in call] for call in calls]
    if not any(loss for call in asked for loss in call):
        return None
    if model.engine != "eager" and any(loss is not None and loss.of_attention for call in asked for loss in call):
        raise EngineError(
            f"engine={model.engine} runs the UNet as a whole and shows no attention, which this cell's loss reads: "
            "engine=eager."
        )
    shape = size if model.size_conditioned else None
    unet = model.unet if beside is None else Beside(model.unet, beside)

    def alone(call: int, n: int) -> tuple[Conditioning, Denoiser]:
        one = calls[call][n]
        taught = [value_of(one.cell.guidance.scale)] if unet.config.get("time_cond_proj_dim") else []
        return one.cond, predictor(unet, [one.cond], shape, timer, taught)

    def equal(call: int, n: int) -> str:
        one = calls[call][n]
        return fingerprint([one.cond.content, one.cell.guidance.loss, edited_alike(one)])

    kind = scheduler.config.prediction_type
    grown = float(scheduler.init_noise_sigma) > 1  # k-diffusion's latents: their noise begins at the largest σ
    spared = partial(timer.ask, "UNet")
    return Losses(model, asked, size, partial(predicted_x0, kind), kind, grown, trace.add, alone, equal, spared)


@contextmanager
def _gradients(calls: Sequence[Sequence[CallConditioning]]) -> Iterator[None]:
    """Tensors that gradients can be computed from, where a picture has a loss."""
    if any(one.cell.guidance.loss for call in calls for one in call):
        with torch.inference_mode(False), torch.no_grad():
            yield
    else:
        yield


def watch_of(
    model: Model, requests: Sequence[Request], size: tuple[int, int], sources: Sequence[int] = ()
) -> Watch | None:
    """What watches the attention of some pictures, where any of them asks for it; EngineError for a compiled UNet.

    `sources` has for each of the first pictures the number of the one that it copies from.
    """
    if not any(one.cell.attention.active or one.layers for request in requests for one in request.conditioning):
        return None
    if model.engine != "eager":
        raise EngineError(
            f"engine={model.engine} runs the UNet as a whole and has no attention maps, which this cell's attention "
            "needs: engine=eager."
        )
    latents = size[0] // model.factor, size[1] // model.factor
    steps = [moment.step for moment in denoiser_calls(requests[0].cell, model.scheduler)]
    pictures = [request.conditioning for request in requests]
    return Watch(model.unet, pictures, latents, steps, dict(enumerate(sources)), edited_alike)


def edited_alike(one: CallConditioning) -> str:
    """A hash of what edits of attention do in a call: of themselves, and of what says where their words stand."""
    cell = one.cell
    return fingerprint([cell.attention.edits, cell.prompt, cell.prompt_2, cell.operators, cell.encoder])


def of_first(out: Sampled, many: int) -> Sampled:
    """What came of the first so many pictures of a batch; behind them are those that attention was copied from."""
    if many == len(out.latents):
        return out
    kept = [replace(k, latents=k.latents[:many], x0=None if k.x0 is None else k.x0[:many]) for k in out.kept]
    return replace(
        out, latents=out.latents[:many], kept=tuple(kept), broke=None if out.broke is None else out.broke[:many]
    )


def copies(request: Request) -> bool:
    """Whether attention is copied into a picture."""
    return request.conditioning[0].source is not None


def sources_of(requests: Sequence[Request], which: Sequence[int] | None = None) -> tuple[list[Request], list[int]]:
    """What has to be drawn beside pictures that attention is copied into, and which of these each one copies from.

    Pictures of one seed that copy from the same have one source. `which` says otherwise, for a picture that is to be
    made again in company as large as it had; nothing is drawn beside pictures that do not copy.
    """
    if not requests or not copies(requests[0]):
        return [], []
    sources = [
        Request(tuple(one.source for one in request.conditioning if one.source is not None), request.seed)
        for request in requests
    ]
    if which is None:
        first: dict[Any, int] = {}
        which = [first.setdefault((one.seed, told_by_call(one.conditioning)), len(first)) for one in sources]
    distinct = dict(zip(reversed(which), reversed(sources), strict=True))
    return [distinct[number] for number in range(len(distinct))], list(which)
