"""How any of our values shows itself: a short repr, also where it holds tensors, and its settings as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import FunctionType
from typing import Any

from embedlab.arguments import check_fields, explained
from embedlab.clean import one_line, redact
from embedlab.display.html import block, facts

MOST = 300  # letters of a repr
TEXT = 60  # of a text in it
FEW = 4  # members of a list in it


class Shown:
    """A dataclass whose repr is short: settings that differ from their defaults, tensors by their shapes.

    Fields have to be of the kinds that they are annotated with; a class with a `__post_init__` of its own sees to that
    itself. Its methods are `explained`, where it is one of ours.

    In a notebook it is a table of the same settings; values that have more to show have a `_repr_html_` of their own.

    >>> import torch
    >>> @dataclasses.dataclass(frozen=True)
    ... class Rows(Shown):
    ...     word: str
    ...     rows: Any
    ...     weight: float = 1.0
    >>> Rows("cat", torch.zeros(77, 96))
    Rows(word='cat', rows=tensor 77 × 96)
    """

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "__repr__" not in cls.__dict__:  # before @dataclass looks for one
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]
        for name, method in [*vars(cls).items()] if cls.__module__.startswith("embedlab.") else ():
            if isinstance(method, FunctionType) and (name == "__call__" or not name.startswith("_")):
                setattr(cls, name, explained(method))

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        return short(self)

    def _repr_html_(self) -> str:
        kind: Any = type(self)
        own = kind.__str__ is not object.__str__
        return block(kind.__name__, facts(settings_of(self)), note=one_line(redact(str(self)))[:MOST] if own else "")


def short(value: Any, most: int = MOST) -> str:
    """A value in a line of so many letters at the most.

    >>> short({"a": [1, 2, 3, 4, 5, 6]}), short("x" * 100, 20)
    ("{'a': [1, 2, 3, 4, … 6]}", "'xxxxxxxxxxxxxxxxxxx…")
    """
    text = redact(_spelled(value, 0))
    return text if len(text) <= most else f"{text[:most]}…"


def _spelled(value: Any, depth: int) -> str:
    if isinstance(value, str):
        text = redact(value)
        return repr(text if len(text) <= TEXT else f"{text[: TEXT - 1]}…")
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type):
        sides = " × ".join(map(str, value.shape))
        return f"tensor {sides}" if sides else f"{float(value):g}"
    inner = isinstance(value, Mapping | list | tuple) or dataclasses.is_dataclass(value)
    return _members(value, depth) if inner and depth <= 3 and not isinstance(value, type) else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, type):
        return value.__name__
    kind: Any = type(value)
    if kind.__repr__ is object.__repr__ or dataclasses.is_dataclass(value):
        return f"{kind.__name__}(…)"
    text = repr(value)
    return text if len(text) <= TEXT and "\n" not in text else f"{kind.__name__}(…)"


def _members(value: Any, depth: int) -> str:
    if isinstance(value, Mapping):
        pairs = [f"{_spelled(key, depth + 1)}: {_spelled(one, depth + 1)}" for key, one in list(value.items())[:FEW]]
        return "{" + ", ".join(_cut(pairs, len(value))) + "}"
    if isinstance(value, list | tuple):
        parts = _cut([_spelled(one, depth + 1) for one in value[:FEW]], len(value))
        left, right = "[]" if isinstance(value, list) else "()"
        end = "," if right == ")" and len(value) == 1 else ""
        return left + ", ".join(parts) + end + right
    return _dataclass(value, depth)


def _cut(parts: list[str], many: int) -> list[str]:
    return parts if many <= FEW else [*parts[:-1], f"{parts[-1]}, … {many}"]


def settings_of(value: Any) -> dict[str, str]:
    """The fields of a dataclass that differ from their defaults, each in short."""
    return {one.name: short(getattr(value, one.name)) for one in _differing(value)}


def _dataclass(value: Any, depth: int) -> str:
    pairs = [f"{one.name}={_spelled(getattr(value, one.name), depth + 1)}" for one in _differing(value)]
    return f"{type(value).__name__}({', '.join(pairs)})"


def _differing(value: Any) -> list[dataclasses.Field[Any]]:
    fields = [one for one in dataclasses.fields(value) if one.repr]
    return [one for one in fields if not _is_default(one, getattr(value, one.name))]


def _is_default(one: dataclasses.Field[Any], value: Any) -> bool:
    if one.default is not dataclasses.MISSING:
        default = one.default
    elif one.default_factory is not dataclasses.MISSING:
        default = one.default_factory()
    else:
        return False
    try:
        return bool(value is default or (type(value) is type(default) and value == default))
    except (RuntimeError, ValueError, TypeError):  # tensors within
        return False
