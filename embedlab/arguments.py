"""What a public function was handed: where that breaks it, one line says which argument does not fit, and what would.

Nothing is checked before a call: what fits costs nothing. Only when a call ends in an error of Python's or torch's are
its arguments held against what the function says of them; where all fit, the error stays as it is.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, ParamSpec, TypeVar

from embedlab.errors import ConfigError, EmbedlabError, brief

P = ParamSpec("P")
R = TypeVar("R")
RAW = (TypeError, AttributeError, LookupError, ValueError, RuntimeError, OverflowError)
UNIONS = (typing.Union, types.UnionType)
LISTS = (list, tuple, Sequence, Iterable)
WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
WORDS |= {type(None): "None", list: "a list", tuple: "a list", dict: "a mapping"}


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose errors say which argument is of another kind than it takes.

    >>> @explained
    ... def louder(word: str, by: float) -> str:
    ...     return word.upper() * int(by)
    >>> louder(3, by=2)
    Traceback (most recent call last):
    embedlab.errors.ConfigError: word is 3; it has to be a text.
    """

    @functools.wraps(function)
    def call(*args: P.args, **settings: P.kwargs) -> R:
        try:
            return function(*args, **settings)
        except EmbedlabError:
            raise
        except RAW as error:
            if (said := misfit(function, args, settings)) is None:
                raise
            raise ConfigError(said) from error

    return call


def misfit(function: Callable[..., Any], args: Sequence[Any], settings: Mapping[str, Any]) -> str | None:
    """What to say of the first argument that is of another kind than its annotation; None where all fit."""
    try:
        given = inspect.signature(function).bind(*args, **settings).arguments
        hints = typing.get_type_hints(inspect.unwrap(function))
    except (TypeError, NameError):  # an argument too few, or a name that only type checkers know
        return None
    for name, value in given.items():
        if name in hints and not fits(value, hints[name]):
            return f"{name} is {came(value)}; it has to be {wanted(hints[name])}."
    return None


def came(value: Any) -> str:
    """What came, for a message."""
    shape = getattr(value, "shape", None)
    if shape is not None and not isinstance(value, type):
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    return brief(value)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the kind that an annotation names; what cannot be told fits.

    >>> fits([1, 2], Sequence[int]), fits("ab", Sequence[str]), fits(True, int), fits(2, float | None)
    (True, False, False, True)
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, TypeVar | str):
        return True
    if origin in UNIONS:
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner if isinstance(value, str | int | float | None) else False
    if origin is Callable or hint is Callable:
        return callable(value)
    if (origin or hint) in LISTS:
        kind = next((one for one in inner if one is not Ellipsis), Any)
        return isinstance(value, list | tuple) and all(fits(one, kind) for one in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if getattr(hint, "_is_protocol", False):
        named = (*getattr(hint, "__annotations__", ()), *(name for name in vars(hint) if not name.startswith("_")))
        return all(hasattr(value, name) for name in named) and not isinstance(value, type)
    kind = origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def wanted(hint: Any) -> str:
    """What an annotation names, in words.

    >>> wanted(Sequence[int] | None), wanted(Literal["a", "b"])
    ('a list of whole numbers, or None', "'a' or 'b'")
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in UNIONS:
        said = list(dict.fromkeys(wanted(one) for one in inner))
        return ", or ".join([", ".join(said[:-1]), said[-1]]) if len(said) > 1 else said[0]
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is Callable:
        return "a function"
    if (origin or hint) in LISTS:
        kind = next((one for one in inner if one is not Ellipsis), Any)
        return "a list" if kind is Any else f"a list of {plural(wanted(kind))}"
    if hint in WORDS:
        return WORDS[hint]
    if (dims := getattr(hint, "dim_str", None)) is not None:
        return f"a tensor ({', '.join(dims.split())})"
    name = getattr(origin or hint, "__name__", str(hint))
    return f"{'an' if name[:1] in 'AEIO' else 'a'} {name}"


def plural(what: str) -> str:
    """Several of what an annotation names."""
    return f"{what.removeprefix('an ').removeprefix('a ')}s" if what.startswith(("a ", "an ")) else f"({what})"
