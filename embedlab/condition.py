"""Cells → what each UNet call is conditioned on: the one place that embeds, edits, encodes, edits again and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch

from embedlab.attention.layers import Layer, layers_of, short_name
from embedlab.cell import Cell, cells_per_call, changes, denoiser_calls, described, fingerprint
from embedlab.clip import Tower
from embedlab.display import Html, Shown, block
from embedlab.encoder import Conditioning, Encoder, Prompt, check_cell, texts_of
from embedlab.errors import OperatorError, listed
from embedlab.models import Model
from embedlab.operators.base import edit, edit_streams
from embedlab.parsed_prompt import text_of
from embedlab.schedule import Moment, value_of, varies
from embedlab.timing import Timer


@dataclass(frozen=True)
class CallConditioning(Shown):
    """What a UNet call is conditioned on for one picture, and what that was made from.

    cell: the cell of this call, in which nothing changes over time. original, edited: its rows before each text
    encoder (`Embeddings`), before and after the operators. cond, uncond: the conditionings of the edited prompt and of
    the negative prompt, hidden states (row, width) and pooled output (joint). source: the same of the picture that
    attention is copied from, where it is. layers: by layer of the UNet what that reads instead of `cond`, where
    operators name `blocks`; `cond` is then what all operators together make, but for its pooled output, which no block
    reads.
    """

    def __repr__(self) -> str:
        return f"CallConditioning({self.cond!r}, {self.cell.label!r})"[:300]

    def _repr_html_(self) -> str:
        parts = [*self.edited, self.cond, self.uncond]
        return block(f"what the UNet is told: {self.cell.label}", *(Html(part._repr_html_()) for part in parts))

    cell: Cell
    original: Prompt
    edited: Prompt
    cond: Conditioning
    uncond: Conditioning
    source: CallConditioning | None = None
    shown: CallConditioning | None = None  # of a picture that is inverted: the same of the prompt that says what it is
    layers: Mapping[str, Conditioning] = field(default_factory=dict)


@torch.inference_mode()
def condition(
    cells: Sequence[Cell],
    towers: Sequence[Tower],
    zero_negative: bool = False,
    allow_nan: bool = False,
    timer: Timer | None = None,
) -> list[CallConditioning]:
    """What the UNet is conditioned on, for each of some cells that do not change over time.

    Every distinct prompt, edit and negative prompt is encoded once; the same cell gives the same object. With
    `zero_negative` a negative prompt that is left out is zeros (SDXL), else it is the empty prompt. `timer` measures
    the parts `tokenise`, `edit` and `encode`.

    Raises ConfigError for what is no cell, PromptError and OperatorError for prompts and operators that do not fit, and
    OperatorError where an edit makes NaN or infinite numbers, unless `allow_nan`.

    >>> from embedlab import Replace, models
    >>> (one,) = condition([Cell("a puppy", [Replace("puppy", "cat")])], models.load("emoji").towers)
    >>> one.original[0].token.shape, one.cond.hidden.shape, one.uncond.hidden.shape
    (torch.Size([1, 77, 96]), torch.Size([77, 96]), torch.Size([77, 96]))
    """
    for cell in cells:
        check_cell(cell)
    read = {id(cell): cell.parsed() for cell in cells}
    cells = [read[id(cell)] for cell in cells]
    for cell in (distinct := {id(cell): cell for cell in cells}).values():
        if varies(cell):
            raise OperatorError("this cell changes over time; take one moment of it: resolve(cell, moment).")
    found: dict[int, CallConditioning] = {}
    for encoder in dict.fromkeys(cell.encoder for cell in distinct.values()):
        mine = [cell for cell in distinct.values() if cell.encoder == encoder]
        conditionings = _condition(mine, encoder, towers, zero_negative, allow_nan, timer or Timer())
        found |= {id(cell): one for cell, one in zip(mine, conditionings, strict=True)}
    return [found[id(cell)] for cell in cells]


def _condition(
    cells: Sequence[Cell],
    encoder: Encoder,
    towers: Sequence[Tower],
    zero_negative: bool,
    allow_nan: bool,
    timer: Timer,
) -> list[CallConditioning]:
    names = [fingerprint([cell.prompt, cell.prompt_2, cell.operators]) for cell in cells]
    distinct = dict(zip(names, cells, strict=True))
    negatives = list(dict.fromkeys(map(negatives_of, cells)))
    with timer.part("tokenise"):
        texts = {pair: encoder.embed(pair[0], towers, pair[1]) for pair in dict.fromkeys(map(prompts_of, cells))}
        others = [encoder.embed(text or "", towers, second) for text, second in negatives]
    with timer.part("edit"):
        edited = {
            name: edit(texts[prompts_of(cell)], cell.operators, towers, encoder) for name, cell in distinct.items()
        }
    # what A1111 weighs together: the stages of one prompt, and all of its parts
    groups = [(cell.text, text_of(cell.prompt_2), fingerprint(cell.operators)) for cell in distinct.values()]
    groups += [("negative", text_of(text), text_of(second)) for text, second in negatives]
    with timer.part("encode", rows=sum(len(one[0].token) for one in (*edited.values(), *others))):
        encoded = encoder.encode([*edited.values(), *others], towers, groups)
    lookup = texts_of(towers, encoder)
    with timer.part("edit"):
        cond = {
            name: edit_streams(given, cell.operators, lookup)
            for (name, cell), given in zip(distinct.items(), encoded, strict=False)
        }
    uncond = dict(zip(negatives, encoded[len(edited) :], strict=True))
    if zero_negative and (nothing := (None, None)) in uncond:
        uncond[nothing] = uncond[nothing].zeros()
    for name, given in cond.items():
        if not allow_nan and not given.finite:
            raise OperatorError(
                f"what '{distinct[name].label}' makes of the prompt holds NaN or infinite numbers; "
                "its settings are too large, or this dtype is too small (model.dtype=float32)."
            )
    return [
        CallConditioning(cell, texts[prompts_of(cell)], edited[name], cond[name], uncond[negatives_of(cell)])
        for name, cell in zip(names, cells, strict=True)
    ]


def prompts_of(cell: Cell) -> tuple[Any, Any]:
    """What the first text encoder reads, and what the second one does."""
    return value_of(cell.prompt), value_of(cell.prompt_2)


def negatives_of(cell: Cell) -> tuple[Any, Any]:
    """The same of the negative prompt; None is left out."""
    return value_of(cell.guidance.negative), value_of(cell.guidance.negative_2)


def condition_calls(
    model: Model, cells: Sequence[Cell], timer: Timer | None = None
) -> list[tuple[CallConditioning, ...]]:
    """What each call of the UNet is conditioned on, for each of some cells that may change over time."""
    calls = [cells_per_call(cell, denoiser_calls(cell, model.scheduler)) for cell in cells]
    pictured = [described(cell) for cell in cells]
    every = [*(cell for mine in calls for cell in mine), *(one for one in pictured if one is not None)]
    conditionings = iter(condition(every, model.towers, model.zero_negative, timer=timer))
    found = [tuple(islice(conditionings, len(mine))) for mine in calls]
    shown = [None if one is None else next(conditionings) for one in pictured]
    found = [_beside(mine, one) for mine, one in zip(found, shown, strict=True)]
    found = _by_block(model, found, timer)
    copying = [n for n, mine in enumerate(calls) if any(one.attention.copies for one in mine)]
    if copying:
        sources = condition_calls(model, [cells[n].source() for n in copying], timer)
        for n, source in zip(copying, sources, strict=True):
            known: dict[Any, CallConditioning] = {}
            pairs = zip(found[n], source, strict=True)
            found[n] = tuple(known.setdefault((id(one), id(other)), replace(one, source=other)) for one, other in pairs)
    return found


def _beside(calls: tuple[CallConditioning, ...], shown: CallConditioning | None) -> tuple[CallConditioning, ...]:
    """The same calls with what an inversion is told; those that were one object are one."""
    if shown is None:
        return calls
    known = {id(one): replace(one, shown=shown) for one in calls}
    return tuple(known[id(one)] for one in calls)


def _by_block(
    model: Model, found: Sequence[tuple[CallConditioning, ...]], timer: Timer | None
) -> list[tuple[CallConditioning, ...]]:
    """The same where operators name blocks: each layer of the UNet reads what those make that work in it."""
    distinct = {
        id(one): one
        for calls in found
        for one in calls
        if any(getattr(op, "blocks", None) is not None for op in one.cell.operators)
    }
    if not distinct:
        return list(found)
    layers = layers_of(model.unet.config)
    cells: dict[tuple[int, tuple[int, ...]], Cell] = {}
    which: dict[int, dict[str, tuple[int, ...]]] = {}
    for key, one in distinct.items():
        operators = one.cell.operators
        which[key] = {layer.name: tuple(n for n, op in enumerate(operators) if works_in(op, layer)) for layer in layers}
        everywhere = tuple(n for n, op in enumerate(operators) if getattr(op, "blocks", None) is None)
        for numbers in (everywhere, *which[key].values()):
            cells[key, numbers] = replace(one.cell, operators=tuple(operators[n] for n in numbers))
        which[key][""] = everywhere
    made = dict(
        zip(cells, condition(list(cells.values()), model.towers, model.zero_negative, timer=timer), strict=True)
    )
    whole: dict[int, CallConditioning] = {}
    for key, one in distinct.items():
        mine = {name: made[key, numbers].cond for name, numbers in which[key].items()}
        everywhere_cond = mine.pop("")
        check_lengths_of(one, [*mine.values(), everywhere_cond])
        whole[key] = replace(one, cond=replace(one.cond, pooled=everywhere_cond.pooled), layers=mine)
    return [tuple(whole.get(id(one), one) for one in calls) for calls in found]


def works_in(operator: Any, layer: Layer) -> bool:
    """Whether what an operator makes is read by a layer of the UNet."""
    blocks = getattr(operator, "blocks", None)
    names = [blocks] if isinstance(blocks, str) else blocks
    return names is None or any(layer.is_in(short_name(name)) for name in names)


def check_lengths_of(one: CallConditioning, others: Sequence[Conditioning]) -> None:
    """Refuse operators in blocks that make other numbers of rows."""
    lengths = {len(c.hidden) for conditioning in (one.cond, *others) for _, c in conditioning.streams}
    if len(lengths) > 1:
        raise OperatorError(
            f"'{one.cell.label}' makes {listed(sorted(lengths))} rows in different blocks of the UNet; all have to "
            "read equally many."
        )


def told_by_call(calls: Sequence[CallConditioning]) -> tuple[str, ...]:
    """A hash for each call of the UNet: of the conditionings, with their weights, and of how they guide."""
    known: dict[int, str] = {}
    for one in calls:
        if id(one) not in known:
            contents = [c.content for _, c in one.cond.streams] + [one.uncond.content]
            contents += [] if one.source is None else [one.source.cond.content]
            contents += [f"{name} {c.content}" for name, each in one.layers.items() for _, c in each.streams]
            weights = [weight for weight, _ in one.cond.streams if one.cond.others]
            known[id(one)] = fingerprint([*contents, *one.cell.guidance.way, one.cell.guidance.loss, *weights])
    return tuple(known[id(one)] for one in calls)


def schedule_of(cell: Cell, conditioning: Sequence[CallConditioning], calls: Sequence[Moment]) -> list[dict[str, Any]]:
    """What was active when, a row for each call of the denoiser; nothing for a cell that does not change."""
    if not changes(cell):
        return []
    rows = []
    for moment, one in zip(calls, conditioning, strict=True):
        now, when = one.cell, {"call": moment.call, "step": moment.step, "timestep": round(moment.timestep, 4)}
        negative = now.guidance.negative
        said = None if negative is None else str(negative)
        reading = {"skip": now.encoder.skip, "guidance.scale": now.guidance.scale, "negative": said}
        rows.append({**when, "sigma": round(moment.sigma, 6), "prompt": str(now.prompt), "edit": now.label, **reading})
    return rows
