"""plan → render → score: the arrow on one screen, for one cell or for a thousand."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from embedlab import images, metrics
from embedlab.embeddings import Embeddings, Lookup, is_whole
from embedlab.encoder import Conditioning, Encoder, Prompt, Texts, embed_all, encode, texts_of
from embedlab.errors import (
    ConfigError,
    OperatorError,
    PromptError,
    SamplerError,
    brief,
    check_kind,
    check_list,
    contained,
    listed,
    public_name,
)
from embedlab.explanation import Explanation, explain
from embedlab.export import content_of
from embedlab.guidance import Denoiser, Guidance, guided, in_turn
from embedlab.metrics.clip_score import image_features, scores_of, text_features
from embedlab.models import Model, Source
from embedlab.operators.base import edit, edit_encoded, edit_with, named
from embedlab.prompt import Tokens, concepts_of, ids_of, joined, tokenize
from embedlab.sampler import (
    Sampler,
    Start,
    check_seeds,
    check_size,
    generators,
    noise,
    picture_latents,
    rehearsed,
    sample,
)
from embedlab.schedule import Moment, Timed, at, curves, timed, within


@dataclass(frozen=True)
class Cell:
    """Everything that a picture depends on, but for the model and the seed.

    The prompt and settings of operators, encoder and guidance may change over time (`embedlab.schedule`).
    """

    prompt: Any
    operators: tuple[Any, ...] = ()
    encoder: Encoder = field(default_factory=Encoder)
    guidance: Guidance = field(default_factory=Guidance)
    sampler: Sampler = field(default_factory=Sampler)
    start: Start = field(default_factory=Start)
    size: tuple[int, int] | int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str | Timed):
            raise PromptError(f"a prompt is a text; {self.prompt!r} is none, but 'prompt=\"{self.prompt}\"' is.")
        if callable(self.operators) or isinstance(self.operators, str):
            raise OperatorError(f"operators is {self.operators!r}; it has to be a list of operators.")
        if not isinstance(self.operators, list | tuple):
            raise OperatorError(f"operators is {self.operators!r}; it has to be a list of operators.")
        object.__setattr__(self, "operators", tuple(self.operators))
        for operator in self.operators:
            if not callable(operator) or isinstance(operator, type | partial):
                raise OperatorError(
                    f"{operator!r} is no operator; one is a callable (embeddings, lookup) → embeddings."
                )
        for part in within(self.operators):
            if isinstance(stage := getattr(part, "__dict__", {}).get("stage"), Timed):
                raise OperatorError(
                    f"stage is {stage}; it is the one setting that cannot change over time. Take a Switch of operators."
                )
        if fixed := [name for name in ("sampler", "start", "size") if timed(getattr(self, name))]:
            raise ConfigError(f"{fixed[0]} cannot change over time; prompt, operators, encoder and guidance can.")
        for name, kind in (("encoder", Encoder), ("guidance", Guidance), ("sampler", Sampler), ("start", Start)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it has to be a {kind.__name__}(...).")

    @property
    def label(self) -> str:
        """The edit in a few characters."""
        return ", ".join(named(operator) for operator in self.operators) or "as written"

    @property
    def text(self) -> str:
        """The prompt; of one that changes over time, what it ends with."""
        prompt = self.prompt
        while isinstance(prompt, Timed):
            prompt = prompt.values[-1]  # type: ignore[attr-defined]
        return str(prompt)

    def baseline(self) -> Cell:
        """The same cell with no edit: its pictures share their seeds with the edited ones."""
        return replace(self, operators=())


@dataclass(frozen=True)
class Step:
    """A step that was kept, decoded: the latents after it and the picture that the model saw in them."""

    step: int
    latents: Float[Tensor, "seed 3 h w"]
    x0: Float[Tensor, "seed 3 h w"]


@dataclass(frozen=True)
class Told:
    """What the UNet is told in a call, and whence: the plain cell, its rows as written and edited, the conditioning."""

    cell: Cell
    written: Prompt
    edited: Prompt
    conditioning: Conditioning
    plain: Conditioning  # of the negative prompt


@dataclass(frozen=True)
class Rendered:
    """What became of a cell: pictures in [0, 1] and final latents by seed, and what each call of the UNet was told."""

    cell: Cell
    seeds: tuple[int, ...]
    pictures: Float[Tensor, "seed 3 height width"]
    latents: Float[Tensor, "seed c h w"]
    told: tuple[Told, ...]
    steps: tuple[Step, ...] = ()
    batches: tuple[tuple[int, int], ...] = ()
    runtimes: tuple[Mapping[str, Any], ...] = ()


# ── plan ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def unfold(cell: Cell, calls: Sequence[Moment]) -> list[Cell]:
    """The plain cell of each call of the denoiser; equal ones are the same object."""
    if not timed(cell):
        return [cell] * len(calls)
    for curve in curves(cell):
        if past := curve.past(calls[0]):
            raise SamplerError(f"{past}.")
    known: dict[str, Cell] = {}
    return [known.setdefault(fingerprint(plain), plain) for plain in (at(cell, moment) for moment in calls)]


def check(cell: Cell, source: Source) -> tuple[Tokens, ...]:
    """Refuse what is wrong with a cell before weights are read; answers with its tokens.

    Operators meet rows of the right shapes, so words that are not there, token counts that differ and vectors of
    another width raise here; a cell that changes over time is checked as it is in every call.
    """
    source.checked  # noqa: B018  (a model that cannot be run is refused there)
    check_size(cell.size, source.size, source.factor, len(source.told("unet", "block_out_channels")))
    seen: dict[str, Tokens] = {}
    for plain in {id(plain): plain for plain in calls_of(cell, source.scheduler)}.values():
        seen |= {tokens.text: tokens for tokens in _check_text(plain, source)}
    return tuple(seen.values())


def _check_text(cell: Cell, source: Source) -> list[Tokens]:
    how = cell.encoder
    for name in source.encoders:
        depth, layer = source.told(name, "num_hidden_layers"), int(len(source.encoders) > 1)
        if max(how.skips) + layer > depth:
            raise SamplerError(
                f"encoder.skip is {max(how.skips)}, but the part '{name}' has {depth} layers; skip {depth - layer} "
                "at the most."
            )

    concepts = concepts_of(source.tokenizers)

    def rows_of(text: str) -> list[tuple[Embeddings, Lookup]]:
        made = []
        for words, width in zip(source.tokenizers, source.widths, strict=True):
            tokens = tokenize(text, words, how.truncate, how.window, concepts)
            table, places = stand_in(len(words), width), stand_in(how.window, width)
            position = places.expand(len(tokens.ids), -1, -1)
            made.append((Embeddings(tokens, table[tokens.ids], position, places), Lookup(words, table)))
        return made

    def told(text: str) -> Conditioning:
        tokens, *_ = (tokenize(text, words, how.truncate, how.window, concepts) for words in source.tokenizers)
        rows = tuple(joined(len(tokens.ids), how.join, how.window))
        width = source.told(source.encoders[-1], "projection_dim") if len(source.encoders) > 1 else source.widths[-1]
        # as an encoder's, a row is made by the ids up to it: texts that begin alike have equal rows there
        ids = tokens.ids.tolist()
        past = [zlib.crc32(str(window[: n + 1]).encode()) % 40_009 for window in ids for n in range(len(window))]
        hidden = stand_in(40_009, sum(source.widths))[[past[row] for row in rows]]
        return Conditioning(hidden, stand_in(40_009, width)[past[len(ids[0]) - 1]], tokens, rows)

    parts, lookups = zip(*rows_of(cell.prompt), strict=True)
    edit_with(parts, cell.operators, lookups)
    edit_encoded(told(cell.prompt), cell.operators, Texts(told))
    pooled = [operator for operator in cell.operators if getattr(operator, "stage", None) == "pooled"]
    if pooled and source.part("unet").get("addition_embed_type") != "text_time":
        raise OperatorError(
            f"'{pooled[0]}' edits the pooled output, and the UNet of '{source.name}' is told none; "
            "take stage hidden, or an SDXL model."
        )
    if cell.guidance.negative is not None and source.part("unet").get("time_cond_proj_dim"):
        raise SamplerError(
            f"the UNet of '{source.name}' is told the guidance scale as a number and no negative prompt "
            "(time_cond_proj_dim); leave guidance.negative out."
        )
    seen = [part.tokens for part in parts]
    if cell.guidance.negative is not None:
        negative = [tokenize(cell.guidance.negative, words, how.truncate, how.window) for words in source.tokenizers]
        seen.append(negative[0])
    return seen


@lru_cache(maxsize=64)
def stand_in(height: int, width: int) -> Float[Tensor, "height width"]:
    """A table of rows that all differ and have a length, in the memory of one vector: row r begins at its entry r."""
    vector = torch.randn(height + width, generator=torch.Generator().manual_seed(0))
    return vector.as_strided((height, width), (1, 1))


def fingerprint(value: Any) -> str:
    """A hash of settings: dataclasses by public name and field, tensors by content, anything else by its repr.

    What contains itself is known by how far up it is met again. Raises OperatorError for what cannot be told so.
    """
    path: list[int] = []

    def plain(value: Any) -> Any:
        if id(value) in path:
            return ["itself", len(path) - path.index(id(value))]
        path.append(id(value))
        try:
            return told(value)
        finally:
            path.pop()

    def told(value: Any) -> Any:
        if isinstance(value, Tensor | np.ndarray):
            return ["tensor", str(value.dtype), list(value.shape), content_of(value)]
        name = [public_name(type(value))]
        if dataclasses.is_dataclass(value):
            return [*name, {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}]
        if isinstance(value, Mapping):  # pairs, because the keys 5 and "5" are two
            return ["mapping", *([plain(k), plain(v)] for k, v in value.items())]
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        kind = type(value)
        if kind.__repr__ is object.__repr__ and hasattr(value, "__dict__") and "<locals>" not in kind.__qualname__:
            return [*name, plain(vars(value))]  # its repr would be where it is in memory
        if callable(value) and not isinstance(value, type) and getattr(value, "__dict__", None):
            return [*name, repr(value), plain(vars(value))]  # somebody's own operator, which may be changed
        return repr(value)

    try:
        with contained("its repr"):
            return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()[:16]
    except RecursionError:
        raise OperatorError("the settings of an operator are nested too deep to be told apart.") from None
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise OperatorError(f"what an operator is cannot be told from its settings and its repr: {why}") from error


# ── render ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Drawn:
    """One picture as it came out: in [0, 1], its final latents, and the steps that were kept (number, latents, x0)."""

    picture: Float[Tensor, "3 height width"]
    latents: Float[Tensor, "c h w"]
    steps: tuple[tuple[int, Float[Tensor, "3 height width"], Float[Tensor, "3 height width"]], ...] = ()
    batch: tuple[int, int] = (0, 1)  # its place and the size: with them it can be made again to the bit
    runtime: Mapping[str, Any] = field(default_factory=dict)  # where that is so: `runtime_of`

    @property
    def whole(self) -> bool:
        """Whether all of its numbers are finite."""
        return bool(torch.isfinite(self.latents).all())


FAULT = "hold NaN or infinite numbers; try float32 or a lower guidance.scale."
Wanted = tuple[Sequence[Told], int]  # what each call of the UNet is told of a picture, and its seed


@torch.inference_mode()
def render(
    model: Model,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    at_once: int = 16,
    on_step: Callable[[int], None] | None = None,
) -> list[Rendered]:
    """Make the pictures of all cells, each with every seed; `at_once` pictures a UNet call at the most.

    Cells share calls wherever model, size, sampler, start and prompt length agree; each text is encoded once.
    """
    check_kind(model, Model, "model", "lab.load(NAME) gives one")
    check_list(cells, Cell, "cells", "lab.render(model, [lab.Cell(PROMPT)], seeds)")
    seeds = check_seeds(seeds)
    check_at_once(at_once)
    if on_step is not None and not callable(on_step):
        raise ConfigError(f"on_step is {brief(on_step)}; it has to be a callable that takes the number of a step.")
    told = tell(model, [calls_of(cell, model.scheduler) for cell in cells])
    wanted: list[Wanted] = [(mine, seed) for mine in told for seed in seeds]
    made: dict[int, Drawn] = {}
    for group in shared(model, wanted):
        for part in (group[k : k + at_once] for k in range(0, len(group), at_once)):
            made |= zip(part, draw(model, [wanted[n] for n in part], on_step), strict=True)
    if bad := [seeds[n % len(seeds)] for n in sorted(made) if not made[n].whole]:
        raise SamplerError(f"the latents of seed {listed(bad)} {FAULT}")
    return [
        gathered(cell, seeds, [made[i * len(seeds) + k] for k in range(len(seeds))], told[i])
        for i, cell in enumerate(cells)
    ]


def calls_of(cell: Cell, scheduler_config: dict[str, Any]) -> list[Cell]:
    """The plain cell of each call of the denoiser that a cell will make."""
    return unfold(cell, times_of(cell, scheduler_config))


def times_of(cell: Cell, scheduler_config: dict[str, Any]) -> tuple[Moment, ...]:
    """Step and noise level of each call of the denoiser that a cell will make."""
    sampler, start = cell.sampler, cell.start
    key = fingerprint([sampler, start.picture is None, start.first(sampler.steps), start.warmup, scheduler_config])
    return _moments([key], lambda _: [tuple(rehearsed(sampler, scheduler_config, start))])[0]


def gathered(cell: Cell, seeds: Sequence[int], drawn: Sequence[Drawn], told: tuple[Told, ...]) -> Rendered:
    """The pictures of a cell, put together."""
    pictures, latents = torch.stack([d.picture for d in drawn]), torch.stack([d.latents for d in drawn])
    steps = tuple(
        Step(shots[0][0], torch.stack([s[1] for s in shots]), torch.stack([s[2] for s in shots]))
        for shots in zip(*(d.steps for d in drawn), strict=True)
    )
    batches, runtimes = tuple(d.batch for d in drawn), tuple(d.runtime for d in drawn)
    return Rendered(cell, tuple(seeds), pictures, latents, told, steps, batches, runtimes)


def shared(model: Model, wanted: Sequence[Wanted]) -> list[list[int]]:
    """Which pictures can share calls of the UNet: lists of their places, in the order of the first of each."""
    groups: dict[Any, list[int]] = {}
    for n, (told, _) in enumerate(wanted):
        cell = told[0].cell
        size = check_size(cell.size, _trained(model), _factor(model), len(model.unet.config.block_out_channels))
        shapes = [(len(c.conditioning.hidden), len(c.plain.hidden), c.cell.guidance.scale == 1) for c in told]
        groups.setdefault((size, cell.sampler, cell.start, *shapes), []).append(n)
    return list(groups.values())


@torch.inference_mode()
def draw(model: Model, wanted: Sequence[Wanted], on_step: Callable[[int], None] | None = None) -> list[Drawn]:
    """Make pictures that can share all their calls, in one batch; one with NaN leaves its neighbours be."""
    cell, seeds = wanted[0][0][0].cell, [seed for _, seed in wanted]
    size = check_size(cell.size, _trained(model), _factor(model), len(model.unet.config.block_out_channels))
    random = generators(seeds)
    begin = None
    if cell.start.content is not None:
        picture = images.to_tensor(cell.start.open(), size).mul(2).sub(1)
        begin = picture_latents(model.vae, picture, random).to(model.device)
    shape = (model.unet.config.in_channels, size[0] // _factor(model), size[1] // _factor(model))
    out = sample(
        in_turn(_denoisers(model, list(zip(*(told for told, _ in wanted), strict=True)), size)),
        noise(shape, random).to(model.device),
        cell.sampler.make(model.scheduler),
        random,
        begin,
        cell.start.first(cell.sampler.steps),
        cell.sampler.keep,
        on_step,
        cell.start.warmup,
    )
    pictures = images.decode(out.latents, model.vae)
    kept = [(k.step, images.decode(k.latents, model.vae), images.decode(k.x0, model.vae)) for k in out.kept]
    latents, runtime = out.latents.float().cpu(), runtime_of(model)
    return [
        Drawn(pictures[n], latents[n], tuple((s, a[n], b[n]) for s, a, b in kept), (n, len(seeds)), runtime)
        for n in range(len(seeds))
    ]


def runtime_of(model: Model) -> dict[str, str | int | bool]:
    """What the bits of a picture depend on beside weights, cell, seed, versions and its place in a batch.

    Measured on the shipped model (6 steps, float32): each of `threads`, `instructions`, `onednn` and `mkl_cbwr` moves
    the latents by 1e-5, which makes 6 to 10 of 49,152 pixels another by 1 of 255.
    """
    device = torch.device(model.device)
    facts: dict[str, str | int | bool] = {
        "device": device.type,
        "dtype": str(model.unet.dtype).removeprefix("torch."),
        "torch_build": torch.__version__,
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "onednn": torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled),
    }
    if kind := os.environ.get("MKL_CBWR"):
        facts["mkl_cbwr"] = kind
    if device.type == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": str(torch.version.cuda or torch.version.hip),
            "cudnn": torch.backends.cudnn.version() or 0,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        }
    return facts


@lru_cache(maxsize=1)
def processor() -> str:
    """The name of this machine's processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _denoisers(model: Model, calls: Sequence[Sequence[Told]], size: tuple[int, int]) -> Iterator[Denoiser]:
    """A denoiser for each call; neighbours that are told the same are one, and only one at a time is held."""
    last: Sequence[Told] = ()
    for call in calls:
        if not last or any(new is not old for new, old in zip(call, last, strict=True)):
            last = call
            denoise = guided(
                model.unet,
                [told.conditioning for told in call],
                [told.plain for told in call],
                [told.cell.guidance.scale for told in call],
                size if model.size_conditioned else None,
            )
        yield denoise


def _factor(model: Model) -> int:
    return 2 ** (len(model.vae.config.block_out_channels) - 1)


def _trained(model: Model) -> int:
    return model.unet.config.sample_size * _factor(model)


def tell(model: Model, schedules: Sequence[Sequence[Cell]]) -> list[tuple[Told, ...]]:
    """What each call of each cell is told; every distinct prompt, edit and negative prompt is encoded once."""
    cells = {id(cell): cell for schedule in schedules for cell in schedule}
    known: dict[int, Told] = {}
    for how in dict.fromkeys(cell.encoder for cell in cells.values()):
        mine = {key: cell for key, cell in cells.items() if cell.encoder == how}
        texts = texts_of(model.towers, how)
        names = {key: fingerprint([cell.prompt, cell.operators]) for key, cell in mine.items()}
        distinct = {names[key]: cell for key, cell in mine.items()}
        written = {n: embed_all(c.prompt, model.towers, how.truncate, how.stretch) for n, c in distinct.items()}
        edited = {n: edit(written[n], c.operators, model.towers) for n, c in distinct.items()}
        negatives = list(dict.fromkeys(cell.guidance.negative for cell in mine.values()))
        others = [embed_all(text or "", model.towers, how.truncate, how.stretch) for text in negatives]
        out = encode([*edited.values(), *others], model.towers, how.join, how.skip)
        told = {n: edit_encoded(c, distinct[n].operators, texts) for n, c in zip(edited, out, strict=False)}
        plain = dict(zip(negatives, out[len(edited) :], strict=True))
        if None in plain and model.zero_negative:
            plain[None] = plain[None].zeros()
        for n, conditioning in told.items():
            if not (torch.isfinite(conditioning.hidden).all() and torch.isfinite(conditioning.pooled).all()):
                raise OperatorError(
                    f"what '{distinct[n].label}' makes of the prompt holds NaN or infinite numbers; "
                    "its settings are too large, or this dtype is too small (model.dtype=float32)."
                )
        for key, cell in mine.items():
            n = names[key]
            known[key] = Told(cell, written[n], edited[n], told[n], plain[cell.guidance.negative])
    return [tuple(known[id(cell)] for cell in schedule) for schedule in schedules]


def schedule_of(rendered: Rendered, calls: Sequence[Moment]) -> list[dict[str, Any]]:
    """What was active when, a row for each call of the denoiser; nothing for a cell that does not change."""
    if not timed(rendered.cell):
        return []
    rows = []
    for moment, told in zip(calls, rendered.told, strict=True):
        cell, when = told.cell, {"call": moment.call, "step": moment.step, "timestep": round(moment.timestep, 4)}
        reading = {"skip": cell.encoder.skip, "guidance.scale": cell.guidance.scale, "negative": cell.guidance.negative}
        rows.append({**when, "sigma": round(moment.sigma, 6), "prompt": cell.prompt, "edit": cell.label, **reading})
    return rows


# ── score ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Metrics:
    """What is measured. `words` are scored each as `template` says; left out, they are the words of the edit."""

    words: tuple[str, ...] | None = None
    template: str = "a picture of a {}"

    def __post_init__(self) -> None:
        if (
            not isinstance(self.template, str)
            or self.template.count("{}") != 1
            or set("{}") & set(self.template.replace("{}", ""))
        ):
            raise ConfigError(f"metrics.template is {self.template!r}; it needs one {{}}, where the word goes.")
        if self.words is None:
            return
        if isinstance(self.words, str) or not isinstance(self.words, Sequence):
            raise ConfigError(f"metrics.words is {self.words!r}; it has to be a list: metrics.words=[cat,dog].")
        if wrong := [word for word in self.words if not isinstance(word, str) or not word.strip()]:
            raise ConfigError(f"metrics.words holds {wrong[0]!r}; each has to be a word or phrase.")
        object.__setattr__(self, "words", tuple(dict.fromkeys(self.words)))


def scored_words(cell: Cell, settings: Metrics) -> list[str]:
    """The words that pictures are scored with: those asked for, or those of the edit."""
    if settings.words is not None:
        return list(settings.words)
    return list(dict.fromkeys(word for operator in cell.operators for word in words_named(operator)))


def check_scored(cell: Cell, settings: Metrics, source: Source) -> None:
    """Refuse words that cannot be scored, before weights are read; nobody scores words where nothing sees pictures."""
    for word in scored_words(cell, settings) if source.sees else ():
        try:
            ids_of(settings.template.format(word), source.tokenizers[0])
        except PromptError as error:
            where = "metrics.words" if settings.words is not None else "the edit; metrics.words=[…] names others"
            raise PromptError(f"{word!r:.80} cannot be scored, a word of {where}: {error}") from None


def words_named(operator: Any) -> tuple[str, ...]:
    """The words that an operator wants scored; OperatorError where its `words` are none."""
    try:
        with contained("it"):
            words = getattr(operator, "words", ())
            words = words if isinstance(words, str) else tuple(words)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise OperatorError(f"the words of the operator '{named(operator)}' cannot be had: {why}") from error
    if isinstance(words, str) or not all(isinstance(word, str) and word.strip() for word in words):
        raise OperatorError(f"the words of the operator '{named(operator)}' are {words!r:.80}, not a list of texts.")
    return words


class Eyes:
    """What looks at pictures and texts for scores and tables, and remembers what it saw: jobs share their baselines."""

    def __init__(self, model: Model, remember: int = 256):
        self.model = model
        self._pictures = Memory(remember)
        self._texts = Memory(remember)
        self._explained = Memory(remember)

    def pictures(self, pictures: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n joint"]:
        """CLIP features of pictures; those seen before are not looked at again."""
        scorer = self.model.scorer
        assert scorer is not None
        keys = [content_of(picture) for picture in pictures]
        where = {key: n for n, key in enumerate(keys)}
        return torch.stack(
            self._pictures(keys, lambda new: list(image_features(scorer, pictures[[where[k] for k in new]])))
        )

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "n joint"]:
        """CLIP features of texts."""
        scorer = self.model.scorer
        assert scorer is not None
        return torch.stack(self._texts(texts, lambda new: list(text_features(scorer, new))))

    def explain(self, cell: Cell) -> Explanation:
        """The table of a plain cell's tokens."""
        key = fingerprint([cell.prompt, cell.operators, cell.encoder, cell.guidance])
        return self._explained([key], lambda _: [explain(cell, self.model.towers, self.model.words)])[0]


class Memory:
    """The last answers to a question that is asked of many things at once."""

    def __init__(self, most: int):
        self.most = most
        self._known: OrderedDict[str, Any] = OrderedDict()

    def __call__(self, keys: Sequence[str], ask: Callable[[list[str]], Sequence[Any]]) -> list[Any]:
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new:
            self._known.update(zip(new, ask(new), strict=True))
        answers = [self._known[key] for key in keys]
        while len(self._known) > self.most:
            self._known.popitem(last=False)
        return answers


_moments = Memory(64)  # the cells of a sweep mostly share them


@torch.inference_mode()
def score(
    model: Model, before: Rendered, after: Rendered, settings: Metrics | None = None, eyes: Eyes | None = None
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Figures of each picture (by seed) and of the edit as a whole.

    clip_score/…: 100·cosine with the prompt and with each word; closest: the word with the highest of those.
    change/…: against the unedited picture of the same seed: ssim (1 is the same), pixels (root mean square, 0 to 1),
    latents (distance relative to their length), cosine of the image features. Figures of a picture do not depend on
    what is scored beside it.
    """
    settings = Metrics() if settings is None else settings
    check_kind(model, Model, "model", "lab.load(NAME) gives one")
    check_kind(before, Rendered, "before", "lab.render gives a list of them")
    check_kind(after, Rendered, "after", "lab.render gives a list of them")
    check_kind(settings, Metrics, "settings", "lab.Metrics(words=('cat',))")
    if before.seeds != after.seeds or before.pictures.shape != after.pictures.shape:
        raise ConfigError(
            f"pictures of seeds {listed(before.seeds)}, {tuple(before.pictures.shape[2:])} pixels, cannot be compared "
            f"with seeds {listed(after.seeds)}, {tuple(after.pictures.shape[2:])} pixels."
        )
    rows: list[dict[str, Any]] = [{"seed": seed} for seed in after.seeds]
    a, b = before.pictures, after.pictures
    words = scored_words(after.cell, settings)
    columns: dict[str, Tensor] = {}
    closest: list[str] = []
    if model.scorer:
        eyes = eyes or Eyes(model)
        old, new = eyes.pictures(torch.cat([a, b])).chunk(2)
        texts = [after.cell.text, *(settings.template.format(word) for word in words)]
        scores = scores_of(new, eyes.texts(texts))
        # the word "prompt" must not take the column of the whole prompt
        heads = ["prompt", *("the word prompt" if word == "prompt" else word for word in words)]
        columns = {f"clip_score/{head}": s for head, s in zip(heads, scores.T, strict=True)}
        columns["change/cosine"] = metrics.image_cosine(old, new)
        closest = [words[i] for i in scores[:, 1:].argmax(1).tolist()] if len(words) > 1 else []
    columns["change/ssim"] = metrics.ssim(a, b)
    columns["change/pixels"] = metrics.pixel_distance(a, b)
    columns["change/latents"] = metrics.latent_distance(before.latents, after.latents)
    for n, row in enumerate(rows):
        row |= {name: round(float(column[n]), 6) for name, column in columns.items()}
        if closest:
            row["closest"] = closest[n]
    whole = {name: round(float(column.double().mean()), 6) for name, column in columns.items()}
    for word in words if closest else ():
        whole[f"closest/{word}"] = closest.count(word) / len(closest)
    # a mean over the calls, of which most are told the same
    calls = Counter((id(old), id(new)) for old, new in zip(before.told, after.told, strict=True))
    told = {id(one): one for one in (*before.told, *after.told)}
    for pair, often in calls.items():
        plain, mine = (told[one] for one in pair)
        distances = metrics.row_distance(mine.written, mine.edited)
        distances |= metrics.conditioning_distance(plain.conditioning, mine.conditioning)
        for key, value in distances.items():
            whole[key] = whole.get(key, 0.0) + value * often / len(after.told)
    return rows, whole


def score_names(cell: Cell, settings: Metrics, source: Source) -> list[str]:
    """The figures that `score` is going to give of an edit as a whole, known before weights are read."""
    words = scored_words(cell, settings) if source.sees else []
    heads = ["prompt", *("the word prompt" if word == "prompt" else word for word in words)] if source.sees else []
    closest = [f"closest/{word}" for word in words] if len(words) > 1 else []
    changes = [*(["change/cosine"] if source.sees else []), "change/ssim", "change/pixels", "change/latents"]
    return [*(f"clip_score/{head}" for head in heads), *changes, *closest, *metrics.DISTANCES]


def check_at_once(at_once: int | None) -> None:
    """Refuse a batch size that is none."""
    if not is_whole(at_once) or at_once < 1:
        raise ConfigError(f"at_once is {at_once!r}; it has to be a whole number of pictures, 1 or more.")
