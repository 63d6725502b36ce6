"""A cell: everything that a picture depends on, but for the model and the seed; and how cells are told apart."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import CodeType, FunctionType
from typing import Any, Literal

import numpy as np
from torch import Tensor

from embedlab.attention.settings import Attention
from embedlab.attention.swaps import with_attention
from embedlab.display import Shown, block, facts, settings_of, short
from embedlab.encoder import Encoder
from embedlab.errors import (
    ConfigError,
    OperatorError,
    PromptError,
    SamplerError,
    brief,
    contained,
    is_plain,
    not_a_prompt,
    public_name,
)
from embedlab.guidance import Guidance
from embedlab.language.tree import And
from embedlab.limits import check_part
from embedlab.memo import Memo
from embedlab.models import Model, Source
from embedlab.operators.base import Operator, is_operator, named
from embedlab.parsed_prompt import ParsedPrompt, parsed_setting, text_of, ways_in, wording
from embedlab.prompt import shown_text
from embedlab.sampler import Inversion, Sampler, Start, check_size, rehearsed
from embedlab.schedule import Moment, Schedule, Setting, curves, resolve, varies, within
from embedlab.transfer import content_of


@dataclass(frozen=True)
class Cell(Shown):
    """Everything that a picture depends on, but for the model and the seed.

    prompt: a text of any length, in the language of `encoder`; prompt_2: another for the second text encoder (SDXL).
    operators: the edits, applied in order, or one alone; none are a picture without an edit.
    encoder, guidance, sampler, start, attention: their settings (`Encoder`, `Guidance`, `Sampler`, `Start`,
    `Attention`).
    size: one side or (height, width) in pixels, multiples of the model's VAE factor; left out, that of latents that it
        starts from, else what the model was trained on. `"picture"` is the size of the picture that it starts from,
        made smaller to what the UNet can halve (of SD 1 by multiples of 64), and nothing of that picture is cut off.

    The prompt and settings of operators, encoder and guidance may change over time (`embedlab.schedule`).

    Raises PromptError for a prompt that is no text, OperatorError for operators that are none, else ConfigError.

    >>> from embedlab import Replace
    >>> cell = Cell("a puppy", [Replace("puppy", "cat")])
    >>> cell.label, cell.baseline().label
    ('puppy → cat', 'as written')
    """

    prompt: Setting[str | ParsedPrompt]
    operators: Sequence[Operator | Schedule[Any]] = ()
    encoder: Encoder = field(default_factory=Encoder)
    guidance: Guidance = field(default_factory=Guidance)
    sampler: Sampler = field(default_factory=Sampler)
    start: Start = field(default_factory=Start)
    size: tuple[int, int] | int | Literal["picture"] | None = None
    prompt_2: Setting[str | ParsedPrompt | None] = None
    attention: Attention = field(default_factory=Attention)

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str | ParsedPrompt | Schedule):
            raise PromptError(no_prompt(self.prompt))
        if not isinstance(self.prompt_2, str | ParsedPrompt | Schedule | None):
            raise PromptError(f"prompt_2: {no_prompt(self.prompt_2)}")
        alone = callable(self.operators) or isinstance(self.operators, Schedule)
        if alone and not isinstance(self.operators, type | partial):
            object.__setattr__(self, "operators", (self.operators,))
        if not isinstance(self.operators, list | tuple):
            raise OperatorError(f"operators is {brief(self.operators)}; it has to be a list of operators.")
        object.__setattr__(self, "operators", tuple(self.operators))
        for operator in self.operators:
            if not is_operator(operator) or isinstance(operator, partial):
                raise OperatorError(
                    f"{brief(operator)} is no operator; one is a callable (embeddings, lookup) → embeddings."
                )
        for part in within(self.operators):
            if isinstance(stage := getattr(part, "__dict__", {}).get("stage"), Schedule):
                raise OperatorError(
                    f"stage is {stage}; it is the one setting that cannot change over time. Take a Switch of operators."
                )
        if fixed := [name for name in ("sampler", "start", "size") if varies(getattr(self, name))]:
            raise ConfigError(f"{fixed[0]} cannot change over time; prompt, operators, encoder and guidance can.")
        kinds = {"encoder": Encoder, "guidance": Guidance, "sampler": Sampler, "start": Start, "attention": Attention}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name} is {brief(getattr(self, name))}; it has to be a {kind.__name__}(...).")
        check_part(self)
        self.parsed()

    def _repr_html_(self) -> str:
        return block(shown_text(self.text), facts(self.told), note=self.label)

    @property
    def told(self) -> dict[str, Any]:
        """What is set otherwise than usual, by name, in short."""
        own = {name: value for name, value in settings_of(self).items() if name not in ("prompt", "operators")}
        edits = {f"operator {n}": named(one) for n, one in enumerate(self.operators, 1)}
        changing = {"prompt": short(self.prompt)} if not isinstance(self.prompt, str) else {}
        return {**changing, **edits, **own}

    @property
    def label(self) -> str:
        """The edit in a few characters."""
        attention = self.parsed().attention.label
        labels = [*(named(operator) for operator in self.operators), *([attention] if attention else [])]
        return ", ".join(labels) or "as written"

    @property
    def edits(self) -> bool:
        """Whether anything is edited: rows, hidden states or attention."""
        return (
            bool(self.operators) or bool((attention := self.parsed().attention).edits) or attention.source is not None
        )

    @property
    def watched(self) -> bool:
        """Whether its attention is looked at, changed or led by, or its blocks read several texts: eager mode alone."""
        blocks = any(getattr(part, "blocks", None) is not None for part in within(self.operators))
        reads = any(getattr(part, "reads", "") == "attention" for part in within(self.guidance.loss))
        return blocks or reads or self.parsed().attention.active

    @property
    def text(self) -> str:
        """The prompt as it was written; of one that changes over time by a schedule, what it ends with."""
        prompt = self.prompt
        while isinstance(prompt, Schedule):
            prompt = prompt.values[-1]  # type: ignore[attr-defined]
        return text_of(prompt)

    @property
    def wording(self) -> str:
        """The words of the prompt without the signs of its language, as it ends: what its pictures are scored with."""
        prompt = self.parsed().prompt
        while isinstance(prompt, Schedule):
            prompt = prompt.values[-1]  # type: ignore[attr-defined]
        return wording(prompt)

    def parsed(self) -> Cell:
        """The same cell with its prompts read in their language; one of plain texts is itself.

        What is within them that changes over time is a schedule. Raises LanguageError for malformed texts.
        """
        language, guidance = self.encoder.language, self.guidance
        written = (self.prompt, self.prompt_2, guidance.negative, guidance.negative_2)
        read = tuple(parsed_setting(text, language) for text in written)
        if (swapped := with_attention(read[0])) is not None:
            target, source, edits = swapped
            attention = replace(self.attention, edits=(*self.attention.edits, *edits), source=source)
            return replace(self, prompt=target, attention=attention).parsed()
        combine = guidance.combine
        if isinstance(read[0], ParsedPrompt) or read[0] is not self.prompt:
            combine = ways_in(read[0], combine)
        same = combine is guidance.combine or combine == guidance.combine
        if same and all(new is old for new, old in zip(read, written, strict=True)):
            return self
        prompt, prompt_2, negative, negative_2 = read
        if any(isinstance(part, And) for part in within([negative, negative_2])):
            raise PromptError("guidance.negative holds AND, which adds predictions; a negative prompt has one.")
        if negative is not guidance.negative or negative_2 is not guidance.negative_2:
            guidance = replace(guidance, negative=negative, negative_2=negative_2)
        guidance = guidance if same else replace(guidance, combine=combine)
        return replace(self, prompt=prompt, prompt_2=prompt_2, guidance=guidance)

    def baseline(self) -> Cell:
        """The same cell with no edit: its pictures share their seeds with the edited ones.

        Where attention is copied from the source of another prompt, that is the prompt of it.
        """
        attention = self.parsed().attention
        if attention.unedited() is attention:
            return replace(self, operators=())
        prompt = self.prompt if attention.source is None else attention.source
        return replace(self, prompt=prompt, operators=(), attention=attention.unedited())

    def source(self) -> Cell:
        """The cell that attention is copied from: the unedited one, without maps."""
        return replace(self.baseline(), attention=Attention())


def no_prompt(value: Any) -> str:
    """What to say of what is no prompt."""
    typed = value if isinstance(value, list | tuple) else [value]  # as somebody types it who left the quotes out
    if not all(is_plain(one) and not isinstance(one, bytes) for one in typed):
        return f"a prompt is a text; {brief(value)} is none."
    return not_a_prompt("null" if value is None else str(value)[:80])


def changes(cell: Cell) -> bool:
    """Whether anything of a cell changes over time, by a schedule or by its prompt's language.

    >>> changes(Cell("a [cat:dog:0.5]")), changes(Cell("a [cat:dog:0.5]", encoder=Encoder(language="a1111")))
    (False, True)
    """
    return varies(cell.parsed())


def picture_size(cell: Cell, model: Model | Source) -> tuple[int, int]:
    """Height and width of a cell's pictures in pixels; SamplerError for a size that the model cannot make.

    >>> from embedlab import models
    >>> picture_size(Cell("a cat", start=Start("puppy.png", step=3), size="picture"), models.Source("emoji"))
    (128, 128)
    """
    size, taken = cell.size, cell.start.taken
    sides = None
    if "latents" in taken:
        sides = tuple(side * model.factor for side in taken["latents"].shape[-2:])
    if size == "picture":
        if "picture" not in taken:
            raise SamplerError("size=picture is the size of the picture to start from, and there is none.")
        step = model.factor * 2 ** (model.levels - 1)
        high, wide = taken["picture"].shape
        if min(high, wide) < step:
            raise SamplerError(
                f"size=picture: the picture is {high} pixels high and {wide} wide, and the smallest that this model "
                f"can make is {step}; name a size."
            )
        size = high - high % step, wide - wide % step
    checked = check_size(sides if size is None else size, model.size, model.factor, model.levels)
    if sides is not None and checked != sides:
        raise SamplerError(
            f"size is {checked[0]} × {checked[1]}, and start.latents is that of {sides[0]} × {sides[1]} pixels; "
            "leave size out."
        )
    return checked


_CALLS = Memo[str, tuple[Moment, ...]](64)  # a sweep's cells mostly share their schedule


def denoiser_calls(cell: Cell, scheduler: Mapping[str, Any]) -> tuple[Moment, ...]:
    """Step and noise level of each call of the denoiser that a cell will make, with a model's scheduler config.

    Raises SamplerError for a schedule that cannot be run.
    """
    sampler, start = cell.sampler, cell.start
    key = fingerprint(
        [sampler, start.from_noise, how_inverted(start), start.first(sampler.steps), start.warmup, scheduler]
    )
    return _CALLS([key], lambda _: [tuple(rehearsed(sampler, scheduler, start))])[0]


def how_inverted(start: Start) -> str | None:
    """What an inversion asks of a schedule, beside a start from noise; None of what is none."""
    return start.unconditional if isinstance(start, Inversion) else None


def described(cell: Cell) -> Cell | None:
    """The cell whose prompt says what the picture shows that a cell inverts: nothing is edited in it; None without one.

    Raises SamplerError where the prompt changes over time, and nothing else says so.

    >>> described(Cell("a cat", start=Inversion("puppy.png", prompt="a puppy"))).prompt
    'a puppy'
    """
    start = cell.start
    if not isinstance(start, Inversion):
        return None
    plain = replace(cell, operators=(), start=Start(), guidance=Guidance(1.0), attention=Attention())
    if start.prompt is not None:
        return replace(plain, prompt=start.prompt, prompt_2=None)
    if changes(plain):
        raise SamplerError("the prompt changes over time; say what the picture shows: start.prompt='a puppy'.")
    return plain


def cells_per_call(cell: Cell, calls: Sequence[Moment]) -> list[Cell]:
    """The cell of each call of the denoiser, in which nothing changes over time; equal ones are the same object.

    Raises SamplerError where a time of a schedule lies past the last step, and where guidance never begins.
    """
    cell = cell.parsed()
    if calls and (past := cell.guidance.out_of_range(calls)):
        raise SamplerError(f"guidance.interval: {past}.")
    if not varies(cell):
        return [cell] * len(calls)
    for place, setting in places_of(cell):
        for curve in curves(setting):
            if past := curve.out_of_range(calls[0]):
                raise SamplerError(f"{place}: {past}.")
    changing = {f.name: part for f in dataclasses.fields(cell) if varies(part := getattr(cell, f.name))}
    known: dict[str, Cell] = {}
    found = []
    for moment in calls:
        plain = resolve(changing, moment)
        key = fingerprint(plain)
        if key not in known:
            known[key] = replace(cell, **plain)
        found.append(known[key])
    return found


def written(code: CodeType) -> list[str]:
    """What a function does, as texts that are the same in every process."""
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    plain = [
        repr(sorted(map(repr, one))) if isinstance(one, frozenset) else repr(one)  # a set has another order each time
        for one in code.co_consts
        if not isinstance(one, CodeType)
    ]
    return [code.co_code.hex(), *code.co_names, *plain, *(text for one in inner for text in written(one))]


def places_of(cell: Cell) -> Iterator[tuple[str, Any]]:
    """The settings of a cell by the keys that the command line has for them."""
    for field_ in dataclasses.fields(cell):
        value = getattr(cell, field_.name)
        if isinstance(value, Guidance | Encoder | Attention):
            yield from (
                (f"{field_.name}.{inner.name}", getattr(value, inner.name)) for inner in dataclasses.fields(value)
            )
        else:
            yield field_.name, value


def fingerprint(value: Any) -> str:
    """A hash of settings: dataclasses by public name and field, tensors by content, functions by what they do, anything
    else by its repr.

    What contains itself is known by how far up it is met again. Raises OperatorError for what cannot be told so.
    """
    path: list[int] = []

    def described(value: Any) -> Any:
        if id(value) in path:
            return ["itself", len(path) - path.index(id(value))]
        path.append(id(value))
        try:
            return spelled(value)
        finally:
            path.pop()

    def spelled(value: Any) -> Any:
        if isinstance(value, Tensor | np.ndarray):
            return ["tensor", str(value.dtype), list(value.shape), content_of(value)]
        name = [public_name(type(value))]
        if dataclasses.is_dataclass(value):
            return [*name, {f.name: described(getattr(value, f.name)) for f in dataclasses.fields(value)}]
        if isinstance(value, Mapping):  # pairs, because the keys 5 and "5" are two
            return ["mapping", *([described(k), described(v)] for k, v in value.items())]
        if isinstance(value, list | tuple):
            return [described(v) for v in value]
        if isinstance(value, partial):  # as `_partial_: true` makes one; its repr says where in memory its function is
            return ["partial", described(value.func), described(value.args), described(value.keywords)]
        if isinstance(value, FunctionType):
            inside = [cell.cell_contents for cell in value.__closure__ or ()]
            given = [value.__defaults__, value.__kwdefaults__, inside]
            return ["function", value.__module__, value.__qualname__, *written(value.__code__), described(given)]
        kind = type(value)
        bare = kind.__repr__ is object.__repr__  # type: ignore[comparison-overlap]
        if bare and hasattr(value, "__dict__") and "<locals>" not in kind.__qualname__:
            return [*name, described(vars(value))]  # its repr would be where it is in memory
        if callable(value) and not isinstance(value, type) and getattr(value, "__dict__", None):
            return [*name, repr(value), described(vars(value))]  # somebody's own operator, which may be changed
        return repr(value)

    try:
        with contained("its repr"):
            return hashlib.sha256(json.dumps(described(value), sort_keys=True).encode()).hexdigest()[:16]
    except RecursionError:
        raise OperatorError("the settings of an operator are nested too deep to be compared.") from None
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise OperatorError(f"an operator cannot be identified by its settings and its repr: {why}") from error
