"""What every operator shares: its stage, its rows, and how counts of rows are made to agree."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Real
from types import FunctionType
from typing import Any, ClassVar, Protocol, SupportsFloat, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.arguments import settle_numbers, takes
from embedlab.checks import finite_number, is_whole
from embedlab.display import Shown
from embedlab.embeddings import Embeddings, Later, Lookup, drawn_out, lookup_of
from embedlab.encoder import Conditioning, Encoder, Texts, as_prompt, texts_of
from embedlab.errors import ConfigError, NoRowsError, OperatorError, PromptError, brief, check_kind, contained, listed
from embedlab.limits import LENGTHS, STAGES, Lengths, Stage, check_part, check_stage
from embedlab.models import TextEncoders, text_encoders_of
from embedlab.parsed_prompt import ParsedPrompt
from embedlab.schedule import Schedule, Setting, Switch, format_number, value_of, varies
from embedlab.select import Spans
from embedlab.selector import Role, Rows, Selector, format_selector, rows_of, words_of

BEFORE = ("token", "position", "both")  # the encoder; the other stages come after it
Value = TypeVar("Value", Embeddings, Conditioning)
Number = SupportsFloat  # Python's, numpy's, or a tensor of one, which may be learned
RowSource = str | int | Tensor | np.ndarray[Any, Any] | Sequence[Any] | Mapping[Any, Any]  # word, id, vectors or a sum
TENSORS: dict[type, tuple[str, ...]] = {
    Embeddings: ("token", "position", "position_table"),
    Conditioning: ("hidden", "pooled"),
}


class Operator(Protocol):
    """Anything that answers with a new prompt (or conditioning) and leaves the old one be.

    A callable that has a `stage` of `hidden`, `pooled` or `conditioning` meets a Conditioning and Texts, any other an
    Embeddings and a Lookup, once for each text encoder.
    """

    def __call__(self, prompt: Any, lookup: Any, /) -> Any: ...


@dataclass(frozen=True)
class Edit(Shown):
    """An operator of ours: settings are checked when it is made; those that change over time, at each moment."""

    role: ClassVar[Role | None] = None  # of the rows that are meant when `rows` is left out, or null in YAML
    # the blocks, modules or layers of the UNet that read what it edits, such as [mid, down.1]; the others read the rest
    blocks: Setting[Sequence[str] | None] = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.role is not None and getattr(self, "rows", "") is None:
            object.__setattr__(self, "rows", Rows(role=self.role))
        settle_numbers(self)
        if not varies(self):
            self.check()

    def check(self) -> None:
        """Refuse settings that cannot be."""
        check_part(self)


def number_of(setting: Setting[Number]) -> float:
    """A number that an operator works with (a tensor stays one); ConfigError for a schedule.

    >>> number_of(0.5)
    0.5
    """
    return cast("float", value_of(setting))


@dataclass(frozen=True)
class OnRows(Edit):
    """What an operator on selected rows has at least: its selector, and the words that pictures are scored with.

    `encoder` names one text encoder of several, from 1 on; left out, rows of all are edited.
    """

    rows: Setting[Selector]
    encoder: Setting[int | None] = field(default=None, kw_only=True)
    named: ClassVar[tuple[str, ...]] = ()  # the settings that name words, where the stage is before the encoder

    @property
    def words(self) -> tuple[str, ...]:
        """The words that this edit is about, for scores."""
        others = () if is_post_encoder(self) else self.named
        return (*words_of(self.rows), *(word for setting in others for word in names(getattr(self, setting))))


def edit(
    prompt: str | ParsedPrompt | Embeddings | Sequence[Embeddings],
    operators: Operator | Schedule[Any] | Iterable[Operator | Schedule[Any]],
    towers: TextEncoders,
    how: Encoder | None = None,
) -> tuple[Embeddings, ...]:
    """Apply the operators of the stages before the encoder, in order, to the prompt before each text encoder.

    The prompt is a text, or what `embed_all` gives; the rows before each text encoder are the answer. `towers` is a
    list of text encoders, a model, or a diffusers pipeline; of one operator no list has to be made.

    Those of a stage `{layer: n}` are written down in it, and applied when it is encoded; the texts that they name are
    read by `how`.

    Raises PromptError, OperatorError or ModelError for what is no prompt, no operators or no text encoders.

    >>> from embedlab import Replace, embed_all, load
    >>> model = load("emoji")
    >>> (edited,) = edit("a puppy", Replace("puppy", "cat"), model)
    >>> bool((edited.token == embed_all("a cat", model)[0].token).all())
    True
    """
    towers = text_encoders_of(towers)
    how = how or Encoder()
    check_kind(how, Encoder, "how", "lab.Encoder(skip=1)")
    prompt, operators = as_prompt(prompt, towers, how), check_operators(operators)
    if not isinstance(prompt, list | tuple) or not all(isinstance(part, Embeddings) for part in prompt):
        raise PromptError(f"prompt is {brief(prompt)}; it has to be what embed_all(text, towers) gives.")
    if len(prompt) != len(towers):
        raise PromptError(f"this prompt was read by {len(prompt)} text encoders, and {len(towers)} came with it.")
    return edit_with(prompt, operators, [lookup_of(tower) for tower in towers], how)


def edit_with(
    prompt: Sequence[Embeddings],
    operators: Iterable[Operator | Schedule[Any]],
    lookups: Sequence[Lookup],
    how: Encoder | None = None,
) -> tuple[Embeddings, ...]:
    """`edit` with tables that are at hand already. `how` is how texts are read that edits within the encoder name."""
    early = [operator for operator in check_operators(operators) if not is_post_encoder(operator)]
    for operator in early:
        check_encoder_of(operator, len(prompt))
    inside: list[Any] = [operator for operator in operators if layer_of(operator) is not None]
    for one in inside:
        check_encoder_of(one, len(prompt))
    edited = []
    for n, (part, lookup) in enumerate(zip(prompt, lookups, strict=True), 1):
        made = applied(part, [one for one in early if getattr(one, "encoder", None) in (None, n)], lookup)
        mine = tuple(later(one, how) for one in inside if getattr(one, "encoder", None) in (None, n))
        edited.append(replace(made, later=(*made.later, *mine)) if mine else made)
    return tuple(edited)


def check_encoder_of(operator: Any, count: int) -> None:
    """Refuse an operator that names a text encoder that is not there."""
    if is_whole(named_one := getattr(operator, "encoder", None)) and not 1 <= named_one <= count:
        there = "one text encoder" if count == 1 else f"text encoders 1 to {count}"
        raise OperatorError(f"'{named(operator)}' names encoder {named_one}; there is {there} here.")


def edit_encoded(
    conditioning: Conditioning, operators: Operator | Schedule[Any] | Iterable[Operator | Schedule[Any]], texts: Any
) -> Conditioning:
    """Apply the operators of the stages after the encoder, in order, to a conditioning.

    `texts` are those of `texts_of`, or what these are made of: text encoders, a model, a diffusers pipeline.

    Raises OperatorError for what is no conditioning, no operators or no Texts.

    >>> from embedlab import Scale, embed_all, encode, models, texts_of
    >>> towers = models.load("emoji").towers
    >>> (puppy,) = encode([embed_all("a puppy", towers)], towers)
    >>> louder = edit_encoded(puppy, [Scale("puppy", 2, stage="hidden")], texts_of(towers))
    >>> torch.equal(louder.hidden[2], 2 * puppy.hidden[2]), torch.equal(louder.hidden[:2], puppy.hidden[:2])
    (True, True)
    """
    if isinstance(conditioning, Conditioning) and not isinstance(texts, Texts):
        texts = texts_of(texts)
    if not isinstance(conditioning, Conditioning) or not isinstance(texts, Texts):
        raise OperatorError(
            f"a Conditioning and Texts were expected; {brief(conditioning)} and {brief(texts)} came. "
            "encode(...) gives the one, texts_of(towers) the other."
        )
    for operator in check_operators(operators):
        if is_post_encoder(operator) and layer_of(operator) is None:
            encoder = getattr(operator, "encoder", None)
            if encoder is not None:
                conditioning = edit_columns(conditioning, operator, texts, encoder)
            elif conditioning.reads and names_hidden_rows(operator):  # they stand elsewhere in another prompt
                for n in range(1, len(conditioning.widths) + 1):
                    conditioning = edit_columns(conditioning, operator, texts, n)
            else:
                conditioning = applied(conditioning, [operator], texts)
    return conditioning


def names_hidden_rows(operator: Any) -> bool:
    """Whether an operator edits the hidden states of some rows, and not of all."""
    hidden = isinstance(operator, Edit) and getattr(operator, "stage", None) == "hidden"
    rows = getattr(operator, "rows", None) if hidden else None
    return rows is not None and rows_of(rows) != (Rows(role="all"),)


def edit_columns(conditioning: Conditioning, operator: Any, texts: Texts, encoder: int) -> Conditioning:
    """Apply an operator to the hidden states of one text encoder, which stand beside those of the others."""
    check_encoder_of(operator, len(conditioning.widths))
    if operator.stage != "hidden":
        raise OperatorError(f"'{named(operator)}' names an encoder, which takes stage hidden, not {operator.stage}.")
    begin = sum(conditioning.widths[: encoder - 1])
    end = begin + conditioning.widths[encoder - 1]

    def own(whole: Conditioning) -> Conditioning:
        columns = whole.hidden[:, begin:end]
        tokens, rows = whole.reads[encoder - 1] if whole.reads else (whole.tokens, whole.rows)
        rows = rows[: len(columns)] + (-1,) * (len(columns) - len(rows))
        return replace(whole, hidden=columns, tokens=tokens, rows=rows, widths=(end - begin,), others=(), reads=())

    edited = applied(own(conditioning), [operator], Texts(lambda text: own(texts(text))))
    hidden = conditioning.hidden.clone()
    hidden[:, begin:end] = edited.hidden
    return replace(conditioning, hidden=hidden)


def edit_streams(
    conditioning: Conditioning, operators: Iterable[Operator | Schedule[Any]], texts: Texts
) -> Conditioning:
    """`edit_encoded` of a conditioning and of all beside it; an operator edits those that have its rows.

    Raises NoRowsError where none of them has.
    """
    if not conditioning.others:
        return edit_encoded(conditioning, operators, texts)
    streams = [replace(one, others=()) for _, one in conditioning.streams]
    for operator in operators:
        edited: list[Conditioning] = []
        refused: list[NoRowsError] = []
        for one in streams:
            try:
                edited.append(edit_encoded(one, [operator], texts))
            except NoRowsError as error:
                refused.append(error)
                edited.append(one)
        if len(refused) == len(streams):
            raise refused[0]
        streams = edited
    others = zip((weight for weight, _ in conditioning.others), streams[1:], strict=True)
    return replace(streams[0], others=tuple(others))


def check_operators(operators: Any) -> list[Operator]:
    """Operators as a list, also of one alone; OperatorError for what is none."""
    if (callable(operators) or isinstance(operators, Schedule)) and not isinstance(operators, type):
        operators = [operators]
    if not isinstance(operators, list | tuple):
        raise OperatorError(f"operators is {brief(operators)}; it has to be a list of operators.")
    if wrong := [o for o in operators if not is_operator(o)]:
        raise OperatorError(f"{brief(wrong[0])} is no operator; one is a callable (embeddings, lookup) → embeddings.")
    return list(operators)


def is_operator(value: Any) -> bool:
    """Whether something can be called with embeddings and a lookup, or is a schedule of what can."""
    return not isinstance(value, type) and takes(value, 1 if isinstance(value, Schedule) else 2)


def is_post_encoder(operator: Any) -> bool:
    """Whether an operator works on what comes out of the encoder, or on hidden states within it."""
    try:
        stage = getattr(operator, "stage", "token")
    except Exception as error:
        raise OperatorError(f"the stage of the operator '{named(operator)}' cannot be read: {error}") from error
    if isinstance(stage, Schedule):
        raise OperatorError(f"stage is {stage}; it is the one setting that cannot change over time.")
    tables(stage)
    return stage not in BEFORE


def layer_of(operator: Any) -> int | None:
    """The layer of the text encoder that an operator works before, where its stage is `{layer: n}`.

    >>> from embedlab import Scale
    >>> layer_of(Scale("cat", 2, stage={"layer": 3})), layer_of(Scale("cat", 2))
    (3, None)
    """
    stage = getattr(operator, "stage", "token")
    return stage["layer"] if isinstance(stage, Mapping) else None


def later(operator: Any, how: Any = None) -> Later:
    """An operator as something that the encoder does when it has come to its layer."""
    return Later(operator.stage["layer"], partial(_alone, operator), how)


def _alone(operator: Any, conditioning: Conditioning, texts: Texts) -> Conditioning:
    return applied(conditioning, [operator], texts)


def applied(value: Value, operators: Iterable[Operator], lookup: Lookup | Texts) -> Value:
    """Operators in order; one that answers with something else is refused."""
    for operator in operators:
        if varies(operator):
            raise OperatorError(f"'{operator}' changes over time; a cell takes it, or `resolve(operator, moment)`.")
        old = value
        value = operator(value, lookup) if isinstance(operator, Edit) else theirs(operator, value, lookup)
        check_shapes(old, value, operator)
    return value


def theirs(operator: Any, value: Any, lookup: Any) -> Any:
    """What somebody's own operator makes of a value. Whatever it does in place, to itself too, is done to copies."""
    given = replace(
        value,
        **{name: getattr(value, name).clone() for name in TENSORS[type(value)]},
        tokens=value.tokens and replace(value.tokens, ids=value.tokens.ids.clone(), memo={}),
        **({"lookup": None} if isinstance(value, Embeddings) else {}),  # it is not to be written into
    )
    tables, version = lookup, 0
    if isinstance(lookup, Lookup) and not lookup.token_table.requires_grad:
        tables = replace(lookup, token_table=spare(lookup.token_table))
        version = tables.token_table._version
    elif isinstance(lookup, Texts):
        tables = Texts(lambda text: copied(lookup(text)))
    call = operator
    with suppress(TypeError, AttributeError):  # what cannot be copied is called as it is
        call = copy.copy(operator)
    try:
        with contained(f"'{named(operator)}'"):
            edited = call(given, tables)
    except ConfigError as error:  # it made an Embeddings of rows that are no tensor, or without tokens
        raise OperatorError(f"'{named(operator)}': {error}") from error
    if isinstance(tables, Lookup) and tables is not lookup and tables.token_table._version != version:
        spare.forget()
        raise OperatorError(f"'{named(operator)}' wrote into the vocabulary; an operator returns new rows.")
    if not isinstance(edited, type(value)):
        raise OperatorError(
            f"'{named(operator)}' returned a {type(edited).__name__}; an operator of its stage returns "
            f"{'an Embeddings' if isinstance(value, Embeddings) else 'a Conditioning'}."
        )
    if edited.tokens is not given.tokens or (given.tokens and not torch.equal(given.tokens.ids, value.tokens.ids)):
        raise OperatorError(f"'{named(operator)}' returned other tokens; an operator edits rows, not the text.")
    own = {"lookup": value.lookup} if isinstance(value, Embeddings) else {}
    return replace(edited, tokens=value.tokens, **own)


def copied(conditioning: Conditioning) -> Conditioning:
    """A conditioning that may be written into."""
    return replace(conditioning, hidden=conditioning.hidden.clone(), pooled=conditioning.pooled.clone())


class Spare:
    """Copies of tables, for code that might write into them; one of each table is enough as long as nobody does."""

    def __init__(self) -> None:
        self._known: OrderedDict[Any, tuple[Tensor, Tensor]] = OrderedDict()

    def __call__(self, table: Tensor) -> Tensor:
        """The copy of a table."""
        key = (table.data_ptr(), table.shape, table.stride(), table.dtype, table.device)
        if key not in self._known or (not table.is_inference() and self._known[key][0]._version != table._version):
            with torch.inference_mode(False), torch.no_grad():
                small = table.untyped_storage().nbytes() < table.numel() * table.element_size()  # rows that overlap
                storage = table.untyped_storage().clone() if small else table.clone().untyped_storage()
                empty = torch.empty(0, dtype=table.dtype, device=table.device)
                stride = table.stride() if small else table.contiguous().stride()
                self._known[key] = table, empty.set_(storage, 0, table.shape, stride)
        self._known.move_to_end(key)
        while len(self._known) > 4:
            self._known.popitem(last=False)
        return self._known[key][1]

    def forget(self) -> None:
        """Somebody wrote."""
        self._known.clear()


spare = Spare()


def named(operator: Any) -> str:
    """An operator in a message or a label: its str, on one line; of what has none, its class.

    Raises OperatorError where its str raises, or is no text.
    """
    kind = type(operator)
    if kind.__str__ is object.__str__ and kind.__repr__ in (object.__repr__, FunctionType.__repr__):  # type: ignore[comparison-overlap]
        return str(getattr(operator, "__name__", kind.__name__))
    try:
        with contained("it"):
            text = " ".join(str(operator).split())
            if isinstance(operator, Edit) and operator.blocks is not None:
                blocks = [operator.blocks] if isinstance(operator.blocks, str | Schedule) else operator.blocks
                text += f" in {' '.join(map(str, blocks))}"
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise OperatorError(f"the label of the operator {kind.__name__}, its str, cannot be read: {why}") from error
    return text if len(text) <= 300 or isinstance(operator, Edit) else f"{text[:299]}…"


def check_shapes(old: Any, new: Any, operator: Any) -> None:
    """Refuse what an operator made when it is of another shape or dtype than what it got; hidden rows may be more."""
    for name in TENSORS[type(old)]:
        a, b = getattr(old, name), getattr(new, name)
        if not isinstance(b, Tensor) or b.device != a.device or b.layout != a.layout:
            kind = f"{b.layout} on {b.device}" if isinstance(b, Tensor) else f"a {type(b).__name__}"
            raise OperatorError(
                f"'{named(operator)}' made {name} rows that are {kind}; they were {a.layout} on {a.device}."
            )
        if name == "hidden" and b.ndim == 2 and len(b):
            a, b = a[:1], b[:1]
        if a.shape != b.shape or a.dtype != b.dtype:
            raise OperatorError(
                f"'{named(operator)}' made {name} rows of shape {tuple(b.shape)}, {b.dtype}; "
                f"they were {tuple(a.shape)}, {a.dtype}."
            )
    if isinstance(new, Conditioning) and new.rows and len(new.rows) != len(new.hidden):
        raise OperatorError(
            f"'{named(operator)}' says which rows {len(new.rows)} hidden states stand for, and made {len(new.hidden)}."
        )
    if new.tokens is not old.tokens:
        raise OperatorError(f"'{named(operator)}' returned other tokens; an operator edits rows, not the text.")


def tables(stage: Any) -> tuple[str, ...]:
    """The tables that a stage names."""
    check_stage(stage)
    return ("hidden",) if isinstance(stage, Mapping) else STAGES[stage]


def edit_rows(
    prompt: Value,
    rows: Any,
    stage: Stage,
    change: Callable[[Float[Tensor, "span row dim"], str, Spans], Float[Tensor, "*span row dim"]],
) -> Value:
    """Put what `change` makes of the selected rows in their place, in each table that the stage names."""
    if (stage in BEFORE) != isinstance(prompt, Embeddings):
        met, way = ("rows", "edit_encoded") if isinstance(prompt, Embeddings) else ("a conditioning", "edit")
        raise OperatorError(f"an operator of stage '{stage}' met {met}; apply it with {way}.")
    for table in tables(stage):
        spans = prompt.spans(rows, table)
        prompt = prompt.put(table, spans, change(prompt.take(table, spans), table, spans))
    return prompt


def source(
    what: Any, table: str, prompt: Value, lookup: Lookup | Texts, lengths: Lengths = "error", like: Any = None
) -> Float[Tensor, "row dim"]:
    """The rows that a setting names: token rows by word or id, position rows by word of the prompt or place.

    After the encoder it is rows of another prompt, those that `like` selects there, or as `{prompt: …, rows: …}` says.
    A mapping is a sum, `{king: 1, man: -1, woman: 1}`; its terms are brought to the longest of them by `lengths`
    (`zero` is embedding-merge's rule).
    """
    if is_sum(what):
        terms = [
            (name, source(name, table, prompt, lookup, like=like), finite_number(w, f"weight of {name}", OperatorError))
            for name, w in what.items()
        ]
        if not terms:
            raise OperatorError("an empty sum names no rows.")
        longest, there = max((len(rows), str(name)) for name, rows, _ in terms)
        parts = [weight * match_length(rows, longest, lengths, there, name) for name, rows, weight in terms]
        return torch.stack(parts).sum(0)
    return lookup.rows(what, table, prompt, like)  # type: ignore[arg-type]


def is_sum(what: Any) -> bool:
    """Whether a setting is a weighted sum, and not rows of another prompt."""
    if not isinstance(what, Mapping):
        return False
    weights = (Real, Tensor, Schedule)
    return not (
        isinstance(what.get("prompt"), str | Switch) or ("rows" in what and not isinstance(what["rows"], weights))
    )


def direction(what: Any, table: str, prompt: Value, lookup: Lookup | Texts, like: Any = None) -> Float[Tensor, " dim"]:
    """One vector: of a word or phrase, the mean of its rows; of a mapping, the weighted sum of such means.

    Raises OperatorError for a direction of zero length.
    """
    if is_sum(what):
        terms = [
            finite_number(w, f"weight of {n}", OperatorError) * direction(n, table, prompt, lookup, like)
            for n, w in what.items()
        ]
        if not terms:
            raise OperatorError("an empty sum is no direction.")
        vector, most = torch.stack(terms).sum(0), max(float(term.detach().norm()) for term in terms)
    else:
        vector = source(what, table, prompt, lookup, like=like).mean(0)
        most = float(vector.detach().norm())
    length = float(vector.detach().norm())
    if not math.isfinite(length):
        raise OperatorError(f"the direction {format_setting(what)} is too long for its dtype.")
    if length <= 1e-6 * most or length < 1e-12:  # what is left of terms that cancel out is rounding
        raise OperatorError(f"the direction {format_setting(what)} has no length.")
    return vector


def match_length(
    rows: Float[Tensor, "row dim"], count: int, lengths: Lengths, here: str, there: Any
) -> Float[Tensor, "count dim"]:
    """Make `rows` as many as the word they go to has.

    error: refuse when the counts differ. repeat: start again from the first. resample: linear interpolation along the
    rows, ends on ends. zero: pad with zero vectors (embedding-merge) or cut.

    >>> match_length(torch.tensor([[0.0], [1.0]]), 3, "resample", "a", "b").flatten().tolist()
    [0.0, 0.5, 1.0]
    """
    have = len(rows)
    if have == count or (have == 1 and lengths != "zero"):
        return rows.expand(count, -1)
    if lengths == "error":
        other = f"'{there}'" if isinstance(there, str) else format_setting(there)
        raise OperatorError(
            f"'{here}' has {count} {plural(count)} and {other} has {have}; "
            f"choose words of one length, or lengths: {listed(LENGTHS[1:])}."
        )
    if lengths == "repeat":
        return rows[torch.arange(count) % have]
    if lengths == "zero":
        return torch.cat([rows[:count], rows.new_zeros(max(0, count - have), rows.shape[1])])
    return drawn_out(rows, count)


def plural(count: int) -> str:
    """`1 token`, `2 tokens`."""
    return "token" if count == 1 else "tokens"


def format_setting(what: Any) -> str:
    """A setting in a label: a word or number as it is, a vector by name, a sum as a sum."""
    if is_sum(what):
        signed = {name: format_number(weight) for name, weight in what.items()}
        return " ".join(
            f"{'' if w[0] in '-(' else '+'}{w} {format_setting(name)}" for name, w in signed.items()
        ).removeprefix("+")
    if isinstance(what, Mapping):
        return f"'{what.get('prompt', '?')}'" + (f" ({format_selector(what['rows'])})" if "rows" in what else "")
    return "a vector" if isinstance(what, Tensor | list | tuple) else str(what)


def names(what: Any) -> tuple[str, ...]:
    """The words that a setting names, for scores."""
    if isinstance(what, Schedule):
        return tuple(word for value in getattr(what, "values", ()) for word in names(value))
    if isinstance(what, Mapping | list | tuple):
        return tuple(word for w in what for word in names(w)) if is_sum(what) or not isinstance(what, Mapping) else ()
    return (what,) if isinstance(what, str) else ()


def stage_label(stage: Stage) -> str:
    """Which rows a label speaks of, where those are not token rows."""
    if isinstance(stage, Mapping):
        return f" (layer {stage['layer']})"
    named = {"position": "position rows", "both": "token and position rows", "hidden": "hidden states"}
    named |= {"pooled": "pooled output", "conditioning": "hidden states and pooled output"}
    return f" ({named[stage]})" if stage in named else ""
