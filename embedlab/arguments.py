"""What a function was handed, and what a value is made of, held against what it is annotated with.

Before a call nothing is checked: what fits costs nothing. Only when a call ends in an error of Python's or torch's, one
line says which argument does not fit, and what would; where all fit, the error stays as it is. The fields of a value
are looked at when it is made, since what does not fit there breaks elsewhere and later.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from typing import Any, Literal, ParamSpec, TypeVar, Union

from embedlab.errors import ConfigError, EmbedlabError, article, brief, counted

P = ParamSpec("P")
R = TypeVar("R")
RAW = (TypeError, AttributeError, LookupError, ValueError, RuntimeError, OverflowError)
UNIONS = (typing.Union, types.UnionType)
LISTS = (list, tuple, Sequence, Iterable)
PLAIN = (str, int, float, bool)
WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
WORDS |= {type(None): "None", list: "a list", tuple: "a list", dict: "a mapping", Mapping: "a mapping"}


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
        given = inspect.signature(function).bind(*args, **settings)
    except TypeError:  # an argument too few, which Python says
        return None
    own = inspect.unwrap(function)
    hints = known(inspect.get_annotations(own), getattr(own, "__globals__", {}))
    for name, value in given.arguments.items():
        several = given.signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        for one in value if several else [value]:
            if name in hints and not fits(one, hints[name]):
                return f"{name} is {brief(one)}; it has to be {wanted(hints[name])}."
    return None


def known(annotations: Mapping[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    """Annotations as what they stand for, without those whose names only type checkers know."""
    found: dict[str, Any] = {}
    for name, hint in annotations.items():
        with suppress(NameError, AttributeError, TypeError):
            found |= typing.get_type_hints(types.SimpleNamespace(__annotations__={name: hint}), names)
    return found


def plain(value: Any, arrays: bool = True) -> Any:
    """A setting with Python's numbers, true and false in the place of numpy's and torch's.

    These are scalars, arrays and tensors of one number, lists of them, and with `arrays` tensors of a fraction and what
    is a list of numbers. What may be learned stays. Of what is plain already the very value is given back.

    >>> import numpy as np
    >>> plain(np.int64(3)), plain([np.float32(0.5), np.array(True)]), plain(np.arange(2))
    (3, [0.5, True], [0, 1])
    """
    if value is None or type(value) in PLAIN:
        return value
    if type(value) in (list, tuple):
        made = [plain(one, arrays) for one in value]
        return value if all(new is old for new, old in zip(made, value, strict=True)) else type(value)(made)
    if type(value) is dict:
        pairs = {key: plain(one, arrays) for key, one in value.items()}
        return value if all(pairs[key] is value[key] for key in value) else pairs
    kind = type(value).__module__.partition(".")[0]
    if kind == "numpy" and isinstance(getattr(value, "shape", None), tuple):
        return value.tolist() if value.shape == () or (arrays and len(value.shape) == 1) else value
    if kind == "torch" and hasattr(value, "is_meta") and not value.is_meta and not value.requires_grad:
        whole = not value.ndim and not value.is_floating_point() and not value.is_complex()
        return value.tolist() if whole or (arrays and value.ndim < 2) else value
    return value


def settle_numbers(part: Any) -> None:
    """Let the fields of a dataclass be Python's numbers where they came as numpy's or torch's; vectors stay."""
    kind: Any = type(part)
    for name, hint in hints_of(kind).items():
        vectors = any(word in str(hint) for word in ("Tensor", "SupportsFloat", "Any"))
        given = getattr(part, name, None)
        if (now := plain(given, arrays=not vectors)) is not given:
            object.__setattr__(part, name, now)


def check_fields(value: Any, but: Iterable[str] = ()) -> None:
    """Refuse a value of a dataclass one of whose fields is of another kind than its annotation, but for some.

    >>> from embedlab import Moment
    >>> Moment(call=0, step=0, steps="four", timestep=999.0, sigma=1.0)
    Traceback (most recent call last):
    embedlab.errors.ConfigError: steps is 'four'; it has to be a whole number.
    """
    kind: Any = type(value)
    for name, hint in hints_of(kind).items():
        if name not in but and not fits(given := getattr(value, name, None), hint):
            raise ConfigError(f"{name} is {brief(given)}; it has to be {wanted(hint)}.")


@functools.cache
def hints_of(kind: type) -> dict[str, Any]:
    """The annotations of the fields that a dataclass is made with."""
    names = {field.name for field in dataclasses.fields(kind) if field.init} if dataclasses.is_dataclass(kind) else ()
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        found |= known(inspect.get_annotations(base), vars(sys.modules[base.__module__]))
    return {name: hint for name, hint in found.items() if name in names}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the kind that an annotation names; what cannot be told fits.

    >>> fits([1, 2], Sequence[int]), fits("ab", Sequence[str]), fits(True, int), fits(2, float | None)
    (True, False, False, True)
    """
    if type(value) is hint or hint is Any or isinstance(hint, str):
        return True
    if isinstance(hint, TypeVar):
        return fits(value, Union[hint.__constraints__ or (hint.__bound__ or Any,)])  # noqa: UP007
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in UNIONS:
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner if isinstance(value, str | int | float | None) else False
    if Callable in (origin, hint):
        return takes(value, len(inner[0])) if inner and isinstance(inner[0], list) else callable(value)
    if (origin or hint) in LISTS or (origin or hint) in (dict, Mapping):
        return holds(value, origin or hint, inner)
    if hint in (float, int):
        return is_real(value) if hint is float else isinstance(value, Integral) and not isinstance(value, bool)
    if getattr(hint, "_is_protocol", False):
        named = (*getattr(hint, "__annotations__", ()), *(name for name in vars(hint) if not name.startswith("_")))
        return all(hasattr(value, name) for name in named) and not isinstance(value, type)
    kind = origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def takes(function: Any, count: int) -> bool:
    """Whether something can be called with so many arguments, as far as can be told.

    >>> takes(len, 1), takes(len, 2), takes(3, 0)
    (True, False, False)
    """
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except (ValueError, RecursionError):  # written in C, and it does not say
        return callable(function)
    return True


def is_real(value: Any) -> bool:
    """Whether a value is a number: Python's, numpy's or a tensor of one.

    >>> is_real(0.5), is_real(True), is_real("0.5")
    (True, False, False)
    """
    of_tensor = hasattr(value, "is_meta") and not value.ndim and not value.is_meta and "bool" not in str(value.dtype)
    return (isinstance(value, Real) and not isinstance(value, bool)) or of_tensor


def holds(value: Any, kind: Any, inner: tuple[Any, ...]) -> bool:
    """Whether a value is a list or a mapping of what an annotation names in brackets.

    >>> holds([1, "a"], tuple, (int, str)), holds(range(3), Sequence, (int,)), holds({"a": 1}, Mapping, (str, str))
    (True, True, False)
    """
    if kind in (dict, Mapping):
        keys, values = inner or (Any, Any)
        return isinstance(value, Mapping) and all(fits(k, keys) and fits(v, values) for k, v in value.items())
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if kind is tuple and Ellipsis not in inner and inner:
        return several and len(value) == len(inner) and all(map(fits, value, inner))
    return several and all(fits(one, inner[0] if inner else Any) for one in value)


def wanted(hint: Any) -> str:
    """What an annotation names, in words.

    >>> wanted(Sequence[int] | None), wanted(Literal["a", "b"])
    ('a list of whole numbers, or None', "'a' or 'b'")
    """
    if isinstance(hint, TypeVar):
        return " or ".join(map(wanted, hint.__constraints__ or (hint.__bound__ or Any,)))
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in UNIONS:
        said = list(dict.fromkeys(wanted(one) for one in inner))
        return ", or ".join([", ".join(said[:-1]), said[-1]]) if len(said) > 1 else said[0]
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is Callable:
        return f"a function of {counted(len(inner[0]), 'argument')}" if isinstance(inner[0], list) else "a function"
    if origin is tuple and Ellipsis not in inner:
        return f"({', '.join(map(wanted, inner))})"
    if (origin or hint) in LISTS:
        kind = inner[0] if inner else Any
        return "a list" if kind is Any else f"a list of {plural(wanted(kind))}"
    hint = origin if origin in WORDS else hint
    if hint in WORDS:
        return WORDS[hint]
    if (dims := getattr(hint, "dim_str", None)) is not None:
        return f"a tensor ({', '.join(dims.split())})"
    return article(getattr(origin or hint, "__name__", str(hint)))


def plural(what: str) -> str:
    """Several of what an annotation names."""
    if what.startswith("a list of "):
        return f"lists of {what.removeprefix('a list of ')}"
    return f"{what.removeprefix('an ').removeprefix('a ')}s" if what.startswith(("a ", "an ")) else f"({what})"
