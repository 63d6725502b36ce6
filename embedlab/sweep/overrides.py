"""Values as Hydra's command line takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from embedlab.errors import ConfigError, brief
from embedlab.sweep.config import escaped


def quoted(text: str) -> str:
    r"""A text as a value of Hydra's syntax that means itself, whatever signs are in it.

    >>> print(quoted("it's (x,y), ${a}"), quoted("a\\"))
    'it\'s (x,y), \${a}' 'a\\'
    """
    inside = escaped(text)
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), inside) + "'"


def unescaped(text: str) -> str:
    r"""A text of Hydra's with its `\${` as they are meant; one that takes values from elsewhere stays as it is.

    >>> print(unescaped(r"a \${b}"), unescaped(r"${a} \${b}"))
    a ${b} ${a} \${b}
    """
    marks = re.findall(r"(\\*)\$\{", text)
    return re.sub(r"(\\*)\\\1\$\{", r"\1${", text) if all(len(mark) % 2 for mark in marks) else text


def said(value: Any, place: str) -> str:
    """A value in Hydra's syntax; `place` says in an error whose it is.

    >>> print(said({"word": "a", "nth": [2, None]}, "rows"))
    {word:'a',nth:[2,null]}
    """
    if isinstance(value, str):
        return quoted(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(said(one, place) for one in value)}]"
    if isinstance(value, Mapping):
        for key in value:
            if not re.fullmatch(r"[\w. -]+", str(key), re.ASCII):
                raise ConfigError(f"{place} has the key {brief(key)}, which is none of a setting.")
        return f"{{{','.join(f'{key}:{said(one, place)}' for key, one in value.items())}}}"
    raise ConfigError(f"{place} is {brief(value)}; it has to be a text, a number, a list or a mapping.")
