"""The form of each operator, made from the fields of its dataclass, their defaults and comments, and the checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsFloat, get_args, get_origin, get_type_hints

import yaml
from torch import Tensor

from embedlab import operators
from embedlab.errors import EmbedlabError, OperatorError, brief, public_name
from embedlab.limits import CHECKS, WINDOW
from embedlab.operators.base import Edit
from embedlab.play.schedules import DURING, made
from embedlab.schedule import Schedule, varies
from embedlab.selector import Rows

Kind = Literal["rows", "source", "number", "whole", "choice", "texts", "text"]
ENDS = {"angle": (0.0, 180.0)}  # of sliders, where twice the default is not what one would try
REACH = 10  # tokens that places are moved by, to either side
WORD = "rows"


@dataclass(frozen=True)
class Field:
    """A setting of an operator as it is asked for: what kind of value it takes, its default, its comment in the YAML.

    rows: a selector, chosen by clicking tokens. source: a word, an id, a list or a sum. number, whole: a slider between
    `ends`. choice: one of `options`. texts: a text or a list of them. text: anything that YAML can say. `timed`: it
    may change over time, and is then a mapping, as YAML has it: `{_target_: embedlab.schedule.Ramp, values: [0, 1]}`.
    """

    name: str
    kind: Kind
    default: Any
    comment: str = ""
    options: tuple[str, ...] = ()
    ends: tuple[float, float] | None = None
    timed: bool = False

    def value(self, given: Any) -> Any:
        """What was typed or dragged as a value of the setting; EmbedlabError for what YAML cannot read, and for a
        schedule that is none.

        >>> rows = Field("rows", "rows", None)
        >>> rows.value("puppy"), rows.value("{word: a, nth: 2}"), rows.value("5"), rows.value(" ")
        ('puppy', {'word': 'a', 'nth': 2}, 5, None)
        """
        if not isinstance(given, str):
            made(given)
            return given
        text = given.strip()
        if not text:
            return None
        spelled = text[0] in "[{" or self.kind in ("number", "whole", "text")
        spelled |= self.kind in ("rows", "source") and text.lstrip("-").isdecimal()
        if not spelled:
            return given if self.kind == "texts" else text
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError:
            raise OperatorError(f"{self.name} is {brief(text)}, which cannot be read as YAML.") from None
        made(found)
        return found


@dataclass(frozen=True)
class Form:
    """An operator and its fields; `name` is what a command line calls it."""

    name: str
    kind: type[Edit]
    fields: tuple[Field, ...]
    about: str = ""

    @property
    def target(self) -> str:
        """Its `_target_`."""
        return f"embedlab.operators.{self.kind.__name__}"

    @property
    def defaults(self) -> dict[str, Any]:
        """What its settings are when left out, without those that have to be given."""
        return {field.name: field.default for field in self.fields if field.default != "???"}

    def field(self, name: str) -> Field:
        """A field by its name."""
        return next(field for field in self.fields if field.name == name)

    def make(self, settings: Mapping[str, Any]) -> Edit:
        """The operator with these settings; OperatorError for what it has not, and for what it refuses."""
        known = {field.name for field in self.fields}
        if strange := [name for name in settings if name not in known]:
            raise OperatorError(f"the operator '{self.name}' has no setting '{strange[0]}'.")
        for field in self.fields:
            if field.name not in settings and field.default == "???":
                raise OperatorError(f"{field.name} is not set; click a word of the prompt.")
            if field.kind == "rows" and settings.get(field.name) is None and field.default == "???":
                raise OperatorError(f"{field.name} is not set; click a word of the prompt.")
        return self.kind(**{name: made(value) for name, value in settings.items()})

    def at_fault(self, settings: Mapping[str, Any], line: str) -> str:
        """The field that a complaint about these settings belongs to.

        >>> form = forms()["interpolate"]
        >>> form.at_fault({"weight": "much"}, "weight is 'much'; it has to be a finite number.")
        'weight'
        >>> form.at_fault({"rows": "puppy", "toward": "hot dog"}, "'puppy' has 1 token and 'hot dog' has 2; …")
        'toward'
        """
        names = [field.name for field in self.fields]
        first = line.split(" ", 1)[0].strip("`':").rpartition(".")[2]
        settings = {name: made(value) for name, value in settings.items()}
        if first in names:
            return first
        if first == "operators":  # a time past the last step
            changing = [name for name in names if varies(settings.get(name))]
            return changing[0] if changing else DURING
        for keys, check in CHECKS.get(public_name(self.kind), {}).items():
            if all(key in settings for key in keys.split()):
                try:
                    check(*(settings[key] for key in keys.split()))
                except EmbedlabError:
                    told = [key for key in keys.split() if key in line]
                    return told[0] if told else keys.split()[0]
        quoted = [name for name in names if isinstance(settings.get(name), str) and f"'{settings[name]}'" in line]
        others = [name for name in quoted if name != WORD]
        if others or quoted:
            return (others or quoted)[0]
        said = [name for name in names if name in line.replace("`", " ").replace(":", " ").split()]
        return said[0] if said else WORD if WORD in names else names[0]


def forms(known: Mapping[str, Mapping[str, tuple[Any, str]]] | None = None) -> dict[str, Form]:
    """The form of each operator by its name; `known` has defaults and comments of the YAML files: name → field → both.

    >>> made = forms()
    >>> len(made), [field.name for field in made["interpolate"].fields][:3], made["noise"].field("amount").ends
    (22, ['rows', 'toward', 'weight'], (0.0, 1.0))
    """
    kinds = [getattr(operators, name) for name in operators.__all__]
    kinds = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    return {snake(kind.__name__): form_of(kind, (known or {}).get(snake(kind.__name__), {})) for kind in kinds}


def form_of(kind: type[Edit], known: Mapping[str, tuple[Any, str]]) -> Form:
    """The form of a dataclass of an operator."""
    hints = get_type_hints(kind)
    fields = []
    for field in dataclasses.fields(kind):
        missing = field.default is dataclasses.MISSING
        default, comment = known.get(field.name, ("???" if missing else field.default, ""))
        parts = list(flat(hints[field.name]))
        what = kind_of(parts)
        options = tuple(option for part in parts if get_origin(part) is Literal for option in get_args(part))
        if what == "whole" and field.name == "encoder":
            what = "text"
        ends = ends_of(field.name, default, kind) if what in ("number", "whole") else None
        timed = any(get_origin(part) is Schedule for part in get_args(hints[field.name]))
        fields.append(Field(field.name, what, default, comment, options, ends, timed))
    order = {"rows": 0, "source": 1, "texts": 1, "number": 2, "whole": 2, "choice": 3, "text": 4}
    fields.sort(key=lambda field: (field.name in ("encoder", "blocks"), order[field.kind]))
    return Form(snake(kind.__name__), kind, tuple(fields), str(kind.__doc__).splitlines()[0])


def flat(hint: Any) -> list[Any]:
    """The types that a value of a setting may have, without the schedules that may stand for it."""
    if get_origin(hint) is Literal or not get_args(hint) or get_origin(hint) in (Sequence, Mapping, dict, list, tuple):
        return [hint]
    return [
        part for one in get_args(hint) if get_origin(one) is not Schedule and one is not Schedule for part in flat(one)
    ]


def kind_of(parts: Sequence[Any]) -> Kind:
    """What kind of value these types are."""
    if Rows in parts:
        return "rows"
    if Tensor in parts:
        return "source"
    if any(get_origin(part) is Literal for part in parts):
        return "choice"
    if SupportsFloat in parts:
        return "number"
    if int in parts:
        return "whole"
    return "texts" if str in parts and type(None) not in parts else "text"


def ends_of(name: str, default: Any, kind: type[Edit]) -> tuple[float, float] | None:
    """Where a slider begins and ends: 0 to twice the default, and places of a window; none where no number is usual."""
    if not isinstance(default, int | float) or isinstance(default, bool):
        return None
    if name == "seed":
        return 0, 99
    if name in ENDS:
        return ENDS[name]
    check = CHECKS.get(public_name(kind), {}).get(name)
    if isinstance(default, int):
        wide = get_type_hints(kind)[name]
        if SupportsFloat in flat(wide):
            return -REACH, REACH
        return float(not fits(check, 0)), WINDOW - 1
    low = 0.0 if fits(check, 0.0) else 1.0 if not fits(check, 0.5) else 0.1
    return low, max(1.0, 2 * default)


def fits(check: Any, value: float) -> bool:
    """Whether a check lets a value pass."""
    try:
        if check is not None:
            check(value)
    except EmbedlabError:
        return False
    return True


def snake(name: str) -> str:
    """A class as a command line calls it.

    >>> snake("ProjectOut")
    'project_out'
    """
    return "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in name).removeprefix("_")
