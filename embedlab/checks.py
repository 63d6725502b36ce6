"""Settings checked: one answer that the value fits, or the error that is asked for, in one line.

No import of torch or numpy here: the command line refuses what is wrong before they are loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any, TypeGuard

from embedlab.arguments import plain
from embedlab.errors import EmbedlabError, brief, listed

LARGEST = 3.4e38  # float32's
EXACT = 2**53  # the largest whole number up to which floats have all; torch's own whole numbers end at 2^63


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether a setting is a whole number; YAML's true and false are not.

    >>> is_whole(3), is_whole(3.0), is_whole(True)
    (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a setting is a finite number, whole or not.

    >>> is_number(0.5), is_number(float("nan")), is_number(True)
    (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def whole_number(
    value: Any, name: str, error: type[EmbedlabError], least: int = 0, most: int | None = None, of: str = ""
) -> int:
    """A setting that has to be a whole number within bounds.

    >>> from embedlab.errors import ConfigError
    >>> whole_number(0, "every", ConfigError, least=1, of=" of steps")
    Traceback (most recent call last):
    ...
    embedlab.errors.ConfigError: every is 0; it has to be a whole number of steps, 1 or more.
    """
    value = plain(value)
    if is_whole(value) and least <= value and (most is None or value <= most):
        return value
    bounds = f", {least} or more" if most is None else f" from {least} to {most if most < EXACT else '2^63 - 1'}"
    raise error(f"{name} is {brief(value)}; it has to be a whole number{of}{bounds}.")


def is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether a setting is a list of some kind; a text is none, nor are bytes.

    >>> is_list([1]), is_list(range(2)), is_list("ab"), is_list(b"ab")
    (True, True, False, False)
    """
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def number_within(
    value: Any, name: str, error: type[EmbedlabError], least: float = 0, most: float | None = None
) -> None:
    """Refuse a setting that is no finite number within bounds.

    >>> from embedlab.errors import ConfigError
    >>> number_within(-1, "gpus", ConfigError)
    Traceback (most recent call last):
    ...
    embedlab.errors.ConfigError: gpus is -1; it has to be a number, 0 or more.
    """
    value = plain(value)
    if not (is_number(value) and least <= value and (most is None or value <= most)):
        bounds = f", {least:g} or more" if most is None else f" from {least:g} to {most:g}"
        raise error(f"{name} is {brief(value)}; it has to be a number{bounds}.")


def true_or_false(value: Any, name: str, error: type[EmbedlabError]) -> None:
    """Refuse a setting that is neither true nor false.

    >>> from embedlab.errors import ConfigError
    >>> true_or_false(1, "guided", ConfigError)
    Traceback (most recent call last):
    ...
    embedlab.errors.ConfigError: guided is 1; it has to be true or false.
    """
    if not isinstance(value := plain(value), bool):
        raise error(f"{name} is {brief(value)}; it has to be true or false.")


def finite_number(value: Any, name: str, error: type[EmbedlabError]) -> Any:
    """A setting that has to be a finite number: Python's, numpy's, or a tensor of one, which may be learned.

    >>> from embedlab.errors import OperatorError
    >>> finite_number(0.5, "weight", OperatorError)
    0.5
    >>> finite_number(10**30, "weight", OperatorError)
    Traceback (most recent call last):
    ...
    embedlab.errors.OperatorError: weight is a whole number beyond 2^53; write it with a point, such as 1e+30.
    """
    value = plain(value, arrays=False)
    if hasattr(value, "detach"):  # a tensor
        number = value.numel() == 1 and value.ndim < 2 and not value.is_complex() and str(value.dtype) != "torch.bool"
        number = number and not value.is_meta  # that has a shape, and no number
        size = abs(value.detach()) if number else math.inf
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        size = abs(value) if number else math.inf  # an int may be beyond all floats
    if number and LARGEST < size < math.inf:
        raise error(f"{name} is {brief(value)}; it has to be a finite number of float32, up to {LARGEST:g}.")
    if not number or not size <= LARGEST:
        raise error(f"{name} is {brief(value)}; it has to be a finite number.")
    if isinstance(value, Integral) and size > EXACT:
        raise error(f"{name} is a whole number beyond 2^53; write it with a point, such as {float(value):g}.")
    return value


def float_of(value: Any) -> float:
    """A number, or a tensor of one that may be learned, as a float.

    >>> float_of(2)
    2.0
    """
    return float(value.detach() if hasattr(value, "detach") else value)


def in_choices(value: Any, name: str, choices: Iterable[str], error: type[EmbedlabError]) -> None:
    """Refuse a setting that is none of some words.

    >>> from embedlab.errors import OperatorError
    >>> in_choices("bezier", "path", ("lerp", "slerp"), OperatorError)
    Traceback (most recent call last):
    ...
    embedlab.errors.OperatorError: path is 'bezier'; choose one of lerp, slerp.
    """
    if not isinstance(value, str) or value not in tuple(choices):
        came = f"'{value[:80]}'" if isinstance(value, str) else brief(value)
        raise error(f"{name} is {came}; choose one of {listed(choices)}.")
