"""plan → render → score: the arrow on one screen, for one cell or for a thousand."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from embedlab import images, metrics
from embedlab.embeddings import Embeddings, Lookup, is_whole
from embedlab.encoder import Conditioning, Encoder, Prompt, Texts, embed_all, encode, texts_of
from embedlab.errors import ConfigError, ModelError, OperatorError, PromptError, SamplerError, listed
from embedlab.explanation import explain
from embedlab.export import content_of, prompt_embeds, save_embeds
from embedlab.guidance import Denoiser, Guidance, guided, in_turn
from embedlab.infotext import infotext
from embedlab.metrics.clip_score import image_features, text_features
from embedlab.models import Model, Source
from embedlab.operators.apply import edit, edit_encoded, edit_with
from embedlab.prompt import Tokens, joined, tokenize
from embedlab.sampler import (
    Sampler,
    Start,
    check_seeds,
    check_size,
    generators,
    moments,
    noise,
    picture_latents,
    sample,
)
from embedlab.schedule import Moment, Timed, at, curves, timed
from embedlab.tracker import Silent, Tracker


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
            raise PromptError(f"a prompt is a text; {self.prompt!r} is a {type(self.prompt).__name__}.")
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
        if fixed := [name for name in ("sampler", "start", "size") if timed(getattr(self, name))]:
            raise ConfigError(f"{fixed[0]} cannot change over time; prompt, operators, encoder and guidance can.")
        for name, kind in (("encoder", Encoder), ("guidance", Guidance), ("sampler", Sampler), ("start", Start)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it has to be a {kind.__name__}(...).")

    @property
    def label(self) -> str:
        """The edit in a few characters."""
        return ", ".join(str(operator) for operator in self.operators) or "as written"

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
    channels, latent = source.told("unet", "in_channels"), source.told("vae", "latent_channels")
    if channels != latent:
        raise ModelError(
            f"the UNet of '{source.name}' takes {channels} channels where latents have {latent}: "
            "an inpainting or depth model, which embedlab does not run."
        )
    check_size(cell.size, source.size, source.factor, len(source.told("unet", "block_out_channels")))
    first = cell.start.first(cell.sampler.steps)
    scheduler = cell.sampler.make({k: v for k, v in source.part("scheduler").items() if not k.startswith("_")})
    seen: dict[str, Tokens] = {}
    for plain in {id(plain): plain for plain in unfold(cell, moments(scheduler, first))}.values():
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

    def rows_of(text: str) -> list[tuple[Embeddings, Lookup]]:
        made = []
        for words, width in zip(source.tokenizers, source.widths, strict=True):
            tokens = tokenize(text, words, how.truncate, how.window)
            table, places = stand_in(len(words), width), stand_in(how.window, width)
            position = places.expand(len(tokens.ids), -1, -1)
            made.append((Embeddings(tokens, table[tokens.ids], position, places), Lookup(words, table)))
        return made

    def told(text: str) -> Conditioning:
        tokens = tokenize(text, source.tokenizers[0], how.truncate, how.window)
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
    if pooled and source.told("unet", "addition_embed_type") != "text_time":
        raise OperatorError(
            f"'{pooled[0]}' edits the pooled output, and the UNet of '{source.name}' is told none; "
            "take stage hidden, or an SDXL model."
        )
    seen = [part.tokens for part in parts]
    if cell.guidance.negative is not None:
        seen.append(tokenize(cell.guidance.negative, source.tokenizers[0], how.truncate, how.window))
    return seen


def stand_in(height: int, width: int) -> Float[Tensor, "height width"]:
    """A table of rows that all differ and have a length, in the memory of one vector: row r begins at its entry r."""
    vector = torch.randn(height + width, generator=torch.Generator().manual_seed(0))
    return vector.as_strided((height, width), (1, 1))


def fingerprint(value: Any) -> str:
    """A hash of settings: dataclasses by field, tensors by content, anything else by its repr."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor | np.ndarray):
            return ["tensor", str(value.dtype), list(value.shape), content_of(value)]
        name = [type(value).__module__, type(value).__qualname__]
        if dataclasses.is_dataclass(value):
            return [*name, {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}]
        if isinstance(value, Mapping):  # pairs, because the keys 5 and "5" are two
            return ["mapping", *([plain(k), plain(v)] for k, v in value.items())]
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if callable(value) and not isinstance(value, type) and getattr(value, "__dict__", None):
            return [*name, repr(value), plain(vars(value))]  # somebody's own operator, which may be changed
        return repr(value)

    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()[:16]


# ── render ────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    seeds = check_seeds(seeds)
    check_at_once(at_once)
    schedules = []
    for cell in cells:
        scheduler = cell.sampler.make(model.scheduler)
        schedules.append(unfold(cell, moments(scheduler, cell.start.first(cell.sampler.steps))))
    told = tell(model, schedules)

    groups: dict[Any, list[tuple[int, int]]] = {}
    for i, cell in enumerate(cells):
        size = check_size(cell.size, _trained(model), _factor(model), len(model.unet.config.block_out_channels))
        shapes = [(len(c.conditioning.hidden), len(c.plain.hidden), c.cell.guidance.scale == 1) for c in told[i]]
        groups.setdefault((size, cell.sampler, cell.start, *shapes), []).extend((i, seed) for seed in seeds)

    made: dict[tuple[int, int], Any] = {}
    for (size, sampler, start, *_), rows in groups.items():
        for part in (rows[k : k + at_once] for k in range(0, len(rows), at_once)):
            who, mine = [i for i, _ in part], [seed for _, seed in part]
            random = generators(mine)
            begin = None
            if start.picture is not None:
                picture = images.to_tensor(start.open(), size).mul(2).sub(1)
                begin = picture_latents(model.vae, picture, random).to(model.device)
            shape = (model.unet.config.in_channels, size[0] // _factor(model), size[1] // _factor(model))
            calls = list(zip(*(told[i] for i in who), strict=True))
            out = sample(
                in_turn(_denoisers(model, calls, size)),
                noise(shape, random).to(model.device),
                sampler.make(model.scheduler),
                random,
                begin,
                start.first(sampler.steps),
                sampler.keep,
                on_step,
            )
            pictures = images.decode(out.latents, model.vae)
            kept = [(k.step, images.decode(k.latents, model.vae), images.decode(k.x0, model.vae)) for k in out.kept]
            for n, who_and_seed in enumerate(part):
                made[who_and_seed] = pictures[n], out.latents[n].float().cpu(), [(s, a[n], b[n]) for s, a, b in kept]

    answers = []
    for i, cell in enumerate(cells):
        mine_made = [made[i, seed] for seed in seeds]
        steps = tuple(
            Step(shots[0][0], torch.stack([s[1] for s in shots]), torch.stack([s[2] for s in shots]))
            for shots in zip(*(kept for _, _, kept in mine_made), strict=True)
        )
        pictures, latents = (torch.stack([m[k] for m in mine_made]) for k in (0, 1))
        answers.append(Rendered(cell, tuple(seeds), pictures, latents, told[i], steps))
    return answers


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


class Studio:
    """A loaded model that remembers the cells it rendered last, so that a sweep draws a shared baseline once."""

    def __init__(self, model: Model, remember: int = 16):
        self.model = model
        self.remember = remember
        self._done: OrderedDict[str, Rendered] = OrderedDict()

    def render(self, cells: Sequence[Cell], seeds: Sequence[int], **settings: Any) -> list[Rendered]:
        """`render`, but for what was rendered before."""
        keys = [fingerprint([cell, list(seeds)]) for cell in cells]
        new = {key: cell for key, cell in zip(keys, cells, strict=True) if key not in self._done}
        if new:
            done = render(self.model, list(new.values()), seeds, **settings)
            self._done.update(zip(new, done, strict=True))
        answers = [self._done[key] for key in keys]
        while len(self._done) > self.remember:
            self._done.popitem(last=False)
        return answers


_studios: OrderedDict[Source, Studio] = OrderedDict()


def studio(source: Source) -> Studio:
    """The studio of a model; one model is kept loaded within a process."""
    if source not in _studios:
        _studios.clear()
        _studios[source] = Studio(source.load())
    return _studios[source]


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
    named = [word for operator in cell.operators for word in getattr(operator, "words", ())]
    return list(dict.fromkeys(settings.words if settings.words is not None else named))


@torch.inference_mode()
def score(
    model: Model, before: Rendered, after: Rendered, settings: Metrics
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Figures of each picture (by seed) and of the edit as a whole.

    clip_score/…: 100·cosine with the prompt and with each word; closest: the word with the highest of those.
    change/…: against the unedited picture of the same seed: ssim (1 is the same), pixels (root mean square, 0 to 1),
    latents (distance relative to their length), cosine of the image features.
    """
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
        old, new = image_features(model.scorer, a), image_features(model.scorer, b)
        texts = [after.cell.text, *(settings.template.format(word) for word in words)]
        scores = 100 * (new @ text_features(model.scorer, texts).T).clamp_min(0)
        # the word "prompt" must not take the column of the whole prompt
        heads = ["prompt", *("the word prompt" if word == "prompt" else word for word in words)]
        columns = {f"clip_score/{head}": s for head, s in zip(heads, scores.T, strict=True)}
        columns["change/cosine"] = metrics.image_cosine(old, new)
        closest = [words[i] for i in scores[:, 1:].argmax(1).tolist()] if len(words) > 1 else []
    columns["change/ssim"] = metrics.ssim(a, b)
    columns["change/pixels"] = (a - b).square().flatten(1).mean(1).sqrt()
    gap = (before.latents - after.latents).flatten(1).norm(dim=1)
    columns["change/latents"] = gap / before.latents.flatten(1).norm(dim=1)
    for n, row in enumerate(rows):
        row |= {name: round(float(column[n]), 6) for name, column in columns.items()}
        if closest:
            row["closest"] = closest[n]
    whole = {name: round(float(column.mean()), 6) for name, column in columns.items()}
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


# ── one job ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Job:
    """One cell with its seeds: what a run of the command line does, and one run of the tracker."""

    source: Source
    cell: Cell
    seeds: tuple[int, ...]
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)
    tracker: Tracker = field(default_factory=Silent)
    name: str = ""
    group: str | None = None
    at_once: int = 16
    export: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", check_seeds(self.seeds))
        check_at_once(self.at_once)
        if not isinstance(self.export, bool):
            raise ConfigError(f"export is {self.export!r}; it has to be true or false.")
        if self.export and timed(self.cell):
            raise ConfigError("export writes one conditioning for other tools, and this cell changes over time.")
        if self.group is not None and not isinstance(self.group, str):
            raise ConfigError(f"group is {self.group!r}; it has to be a text.")

    @property
    def key(self) -> str:
        """A hash of everything that the pictures depend on."""
        return fingerprint([self.source, self.cell, list(self.seeds)])


def check_at_once(at_once: int) -> None:
    """Refuse a batch size that is none."""
    if not is_whole(at_once) or at_once < 1:
        raise ConfigError(f"at_once is {at_once!r}; it has to be a whole number of pictures, 1 or more.")


def run(job: Job, say: Callable[[str], None] = print, on_step: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Render a cell beside its baseline, score it, write all to the job's folder, log it; answers with the result.

    `result.json` is written last: a folder that has one is finished.
    """
    seeds = job.seeds
    notes = list(dict.fromkeys(note for tokens in check(job.cell, job.source) for note in tokens.notes()))
    for note in notes:
        say(f"notice: {note}.")
    writable(job.folder, job.key)
    # opened first: what a tracker refuses is known before anything is drawn
    with job.tracker.run(job.name or job.cell.label, job.folder, job.config, job.group) as log:
        room = studio(job.source)
        if job.export:
            embeds = prompt_embeds(job.cell, room.model.towers, room.model.zero_negative)
            save_embeds(job.folder / "conditioning.safetensors", embeds, {"model": room.model.name, "cell": job.cell})
        before, after = room.render([job.cell.baseline(), job.cell], seeds, at_once=job.at_once, on_step=on_step)
        rows, whole = score(room.model, before, after, job.metrics)
        first = job.cell.start.first(job.cell.sampler.steps)
        schedule = schedule_of(after, moments(job.cell.sampler.make(room.model.scheduler), first))
        told = explain(after.told[-1].cell, room.model.towers, room.model.words)
        for note in told.notes:
            if note not in notes:
                notes.append(note)
                say(f"notice: {note}.")
        strange = [word for word in scored_words(after.cell, job.metrics) if word not in room.model.concepts]
        if room.model.concepts and strange:
            notes.append(
                f"{listed(strange)}: none of the {len(room.model.concepts)} things that this model draws, so that its "
                "pictures and scores of that mean nothing"
            )
            say(f"notice: {notes[-1]}.")
        settings = {"config": job.config, "versions": versions(), "label": job.cell.label}
        pictures = {False: images.to_pil(before.pictures), True: images.to_pil(after.pictures)}
        for n, row in enumerate(rows):
            row["file"] = f"seed-{row['seed']}.png"
            mine = {**settings, "seed": row["seed"], "edited": True, "scores": row}
            images.save(pictures[True][n], job.folder / row["file"], mine, infotext(mine, pictures[True][n].size))
            if job.cell.operators:
                row["baseline"] = f"baseline-seed-{row['seed']}.png"
                plain = {**settings, "seed": row["seed"], "edited": False}
                size = pictures[False][n].size
                images.save(pictures[False][n], job.folder / row["baseline"], plain, infotext(plain, size))
        names = [f"seed {seed}" for seed in seeds]
        columns = ["as written", job.cell.label] if job.cell.operators else ["as written"]
        shown = [[pictures[False][n], pictures[True][n]][-len(columns) :] for n in range(len(seeds))]
        sheet = images.sheet(shown, columns, names, str(job.cell.prompt))
        images.save(sheet, job.folder / "sheet.png", settings)
        steps = steps_sheet(after)
        if steps:
            images.save(steps, job.folder / "steps.png", settings)
        result = {
            "status": "done",
            "key": job.key,
            "name": job.name or job.cell.label,
            "label": job.cell.label,
            "prompt": str(job.cell.prompt),
            "notes": notes,
            "explain": told.as_dict(),
            "schedule": schedule,
            "scores": whole,
            "pictures": rows,
            **settings,
        }
        write_json(job.folder / "result.json", result)

        for shot in after.steps:
            captions = [f"seed {seed}, step {shot.step}" for seed in seeds]
            for key, shots in (("steps/latents", shot.latents), ("steps/x0", shot.x0)):
                log.pictures(key, list(zip(images.to_pil(shots), captions, strict=True)), shot.step)
        captions = [caption(row, job.cell) for row in rows]
        log.pictures("pictures", list(zip(pictures[True], captions, strict=True)))
        log.pictures("sheet", [(sheet, job.cell.label)])
        log.table(
            "pictures_table",
            ["picture", *rows[0]],
            [[p, *row.values()] for p, row in zip(pictures[True], rows, strict=True)],
        )
        log.table("tokens", told.columns, told.table)
        if schedule:
            log.table("schedule", list(schedule[0]), [list(map(str, row.values())) for row in schedule])
        log.scores(whole)
    return result


def explained(job: Job) -> str:
    """A job's cell, explained before its UNet is read; one that changes over time, at its first call and its last."""
    check(job.cell, job.source)
    first = job.cell.start.first(job.cell.sampler.steps)
    config = {k: v for k, v in job.source.part("scheduler").items() if not k.startswith("_")}
    calls = moments(job.cell.sampler.make(config), first)
    cells = unfold(job.cell, calls)
    towers, words = job.source.towers(), job.source.names("words")
    if not timed(job.cell):
        return str(explain(cells[0], towers, words))
    ends = [(calls[k], explain(cells[k], towers, words)) for k in (0, -1)]
    return "\n\n".join(f"── call {moment.call}, step {moment.step} ──\n{report}" for moment, report in ends)


def steps_sheet(rendered: Rendered) -> Image.Image | None:
    """The kept steps of the first seed: what the latents hold, and what the model makes of them."""
    if not rendered.steps:
        return None
    rows = [[images.to_pil(getattr(step, kind)[:1])[0] for step in rendered.steps] for kind in ("latents", "x0")]
    return images.sheet(
        rows, [f"step {step.step}" for step in rendered.steps], ["latents", "predicted x0"], str(rendered.cell.prompt)
    )


def caption(row: dict[str, Any], cell: Cell) -> str:
    """What stands under a picture in the tracker."""
    scores = ", ".join(
        f"{k.removeprefix('clip_score/')} {v:.0f}" for k, v in row.items() if k.startswith("clip_score/")
    )
    return f"seed {row['seed']}, {cell.label}" + (f" (CLIPScore: {scores})" if scores else "")


def versions() -> dict[str, str]:
    """The versions that a picture depends on."""
    return {name: version(name) for name in ("embedlab", "torch", "diffusers", "transformers")}


def writable(folder: Path, key: str) -> None:
    """Refuse a folder that cannot be written or holds the result of another cell, before anything is computed for it.

    The same cell is rendered again; its old result is taken away first, so that a killed process leaves none.
    """
    done = folder / "result.json"
    try:
        if done.is_file():
            if json.loads(done.read_text()).get("key") != key:
                raise ConfigError(f"the folder '{folder}' holds the result of another cell; name another, or empty it.")
            done.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"the folder '{folder}' cannot be written: {error.strerror}.") from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=str))
    os.replace(temporary, path)
