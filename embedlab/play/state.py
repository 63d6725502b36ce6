"""What is set on the page → a cell; what is wrong with it, at the field that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedlab.cell import Cell, fingerprint
from embedlab.errors import ConfigError, EmbedlabError, brief
from embedlab.limits import check_seeds
from embedlab.play.form import Form
from embedlab.play.schedules import DURING, HOMES, lasting
from embedlab.schedule import During

MOST_SEEDS = 16  # pictures that are made in one call
MOST_EDITS = 32


@dataclass(frozen=True)
class Edit:
    """An operator by the name of its form, and those of its settings that were touched.

    `during` is the part of the steps in which it works, `{begin: 0.2, end: 0.8, clock: fraction}`; None is all of them.
    """

    operator: str
    settings: Mapping[str, Any]
    during: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class State:
    """A prompt, its edits in order, and the seeds of its pictures."""

    prompt: str
    edits: tuple[Edit, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2, 3)


class FieldError(EmbedlabError):
    """What is wrong with a state, and the field that it is said at: `prompt`, `seeds`, or `edits.0.weight`."""

    def __init__(self, field: str, line: str) -> None:
        super().__init__(line)
        self.field = field


def read(said: Any, forms: Mapping[str, Form]) -> State:
    """What a page sent as a state; FieldError for a value that cannot be read, ConfigError for what no page sends."""
    if not isinstance(said, Mapping) or not isinstance(said.get("prompt"), str):
        raise ConfigError("a state has a prompt, edits and seeds.")
    edits, seeds = said.get("edits", []), said.get("seeds", [0, 1, 2, 3])
    if not isinstance(edits, list) or len(edits) > MOST_EDITS:
        raise ConfigError(f"edits has to be a list of {MOST_EDITS} operators at the most.")
    try:
        seeds = check_seeds(seeds)
    except EmbedlabError as error:
        raise FieldError("seeds", str(error)) from None
    if len(seeds) > MOST_SEEDS:
        raise FieldError("seeds", f"there are {len(seeds)} seeds; {MOST_SEEDS} pictures are shown at the most.")
    found = []
    for n, edit in enumerate(edits):
        if not isinstance(edit, Mapping) or not isinstance(edit.get("settings"), Mapping):
            raise ConfigError("an edit has an operator and settings.")
        form = forms.get(str(edit.get("operator")))
        if form is None:
            raise ConfigError(f"there is no operator {brief(edit.get('operator'))}.")
        settings = form.defaults
        for name, given in edit["settings"].items():
            field = next((field for field in form.fields if field.name == name), None)
            if field is None:
                raise ConfigError(f"the operator '{form.name}' has no setting {brief(name)}.")
            try:
                settings[field.name] = field.value(given)
            except EmbedlabError as error:
                raise FieldError(f"edits.{n}.{field.name}", str(error)) from None
        during = edit.get(DURING)
        try:
            lasting(len, during)  # of whichever operator
        except EmbedlabError as error:
            raise FieldError(f"edits.{n}.{DURING}", str(error)) from None
        found.append(Edit(form.name, settings, during))
    return State(said["prompt"], tuple(found), seeds)


def cell_of(state: State, base: Cell, forms: Mapping[str, Form]) -> Cell:
    """The cell of a state, of which all else is as in another cell.

    Raises FieldError for an operator that refuses its settings.
    """
    try:
        base.start.check_seeds(state.seeds)
    except EmbedlabError as error:
        raise FieldError("seeds", str(error)) from None
    made: list[Any] = []
    for n, edit in enumerate(state.edits):
        form = forms[edit.operator]
        try:
            made.append(lasting(form.make(edit.settings), edit.during))
        except EmbedlabError as error:
            raise FieldError(f"edits.{n}.{form.at_fault(edit.settings, str(error))}", str(error)) from None
    try:
        return replace(base, prompt=state.prompt, operators=tuple(made))
    except EmbedlabError as error:
        raise FieldError("prompt", str(error)) from None


def blamed(state: State, cell: Cell, forms: Mapping[str, Form], tried: Any) -> FieldError | None:
    """The fault of a cell that cannot be conditioned: the first of its edits that fails, else its prompt.

    `tried` takes a cell and raises what is wrong with it; None where nothing is.
    """
    for n in range(len(cell.operators) + 1):
        try:
            tried(replace(cell, operators=cell.operators[:n]))
        except EmbedlabError as error:
            if not n:
                return FieldError("prompt", str(error))
            form, settings = forms[state.edits[n - 1].operator], state.edits[n - 1].settings
            return FieldError(f"edits.{n - 1}.{form.at_fault(settings, str(error))}", str(error))
    return None


def state_of(prompt: Any, operators: Mapping[str, Any], seeds: Sequence[int], forms: Mapping[str, Form]) -> State:
    """The state that a composed config begins with; ConfigError for what the page has no form for."""
    if not isinstance(prompt, str):
        raise ConfigError("play takes a prompt that is one text, and this one changes over time.")
    by_target = {form.target: form for form in forms.values()}
    by_target |= {f"embedlab.{form.kind.__name__}": form for form in forms.values()}
    edits = []
    for name, slot in operators.items():
        target, settings, during = str(slot.get("_target_")), plain(slot), None
        if target in [f"{home}{During.__name__}" for home in HOMES]:
            inner = settings.pop("operator")
            target, settings, during = str(inner.get("_target_")), plain(inner), settings
        form = by_target.get(target)
        if form is None:
            raise ConfigError(f"play edits with embedlab's own operators, and '{name}' is none of them; leave it out.")
        edits.append(Edit(form.name, settings, during))
    if len(seeds) > MOST_SEEDS:
        raise ConfigError(
            f"there are {len(seeds)} seeds; play shows {MOST_SEEDS} pictures at the most: seeds=[0,1,2,3]."
        )
    return State(prompt, tuple(edits), tuple(seeds))


def plain(slot: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a slot, without its `_target_`."""
    return {key: value for key, value in slot.items() if key != "_target_"}


def key_of(cell: Cell, seeds: Sequence[int]) -> str:
    """What the pictures of a cell are kept by."""
    return fingerprint([cell, list(seeds)])
