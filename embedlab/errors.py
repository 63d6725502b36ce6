"""What can be wrong, as one small tree. A message says what came, what would fit and what to try.

EmbedlabError
├── PromptError     a prompt, or a word that an operator looks for in it
│   └── LanguageError  a prompt that is malformed in its language; knows the line and the column
├── OperatorError   an operator's settings, or vectors that do not fit the rows
├── ModelError      a model that is not there, lacks a part or cannot be read
├── SamplerError    scheduler, steps, start, guidance, sizes, seeds
├── PictureError    an input picture
└── ConfigError     anything else that was configured: folders, trackers, metrics
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import SequenceMatcher
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any

LINES = re.compile(r"\s*\n\s*")  # a message is one line, whatever it quotes


class EmbedlabError(ValueError):
    """Base of all errors that a user's input can cause; the command line prints it as one line.

    >>> from embedlab import Scale
    >>> Scale("cat", by="twice")
    Traceback (most recent call last):
    embedlab.errors.OperatorError: by is 'twice'; it has to be a finite number.
    """

    def __init__(self, *said: object) -> None:
        super().__init__(*(LINES.sub(" ", one) if isinstance(one, str) else one for one in said))


class PromptError(EmbedlabError):
    """A prompt, or a word that an operator looks for in it."""


class LanguageError(PromptError):
    """A prompt that is malformed in its language: where, and what is wrong there.

    `line` and `column` count from 1, and `place` is the offset in the text.
    """

    def __init__(self, message: str, text: str, place: int) -> None:
        before = text[:place]
        self.line, self.column, self.place = before.count("\n") + 1, place - (before.rfind("\n") + 1) + 1, place
        piece = text[place : place + 20].partition("\n")[0]
        at = f"at {piece!r}" if piece.strip() else "at its end"
        super().__init__(f"line {self.line}, column {self.column} of the prompt, {at}: {message}")


class OperatorError(EmbedlabError):
    """An operator's settings, or vectors that do not fit the rows."""


class NoRowsError(OperatorError):
    """Rows that a prompt has, and this conditioning of it does not: those of another part of AND, or cut off."""


class ModelError(EmbedlabError):
    """A model that is not there, lacks a part or cannot be read."""


class SamplerError(EmbedlabError):
    """Scheduler, steps, start, guidance, sizes, seeds."""


class PictureError(EmbedlabError):
    """An input picture."""


class EngineError(EmbedlabError):
    """An engine that is not here, or that cannot run a part of a model."""


class ConfigError(EmbedlabError):
    """Anything else that was configured: folders, trackers, metrics."""


def listed(names: Iterable[object], most: int = 40) -> str:
    """Names for a message, cut when there are very many.

    >>> listed(["a", "b"]), listed("abc", most=2)
    ('a, b', 'a, b, … (3 in all)')
    """
    texts = [str(name) for name in names]
    return ", ".join(texts) if len(texts) <= most else f"{', '.join(texts[:most])}, … ({len(texts)} in all)"


def alike(a: str, b: str) -> float:
    """How alike two names are, 0 to 1; a beginning and a plural are nearly the same."""
    a, b = a.lower().replace("-", "_"), b.lower().replace("-", "_")
    if a == b:
        return 1.0
    if len(a) > 2 and b.startswith(a):
        return 0.95
    return SequenceMatcher(None, a, b).ratio()


def nearest(name: str, names: Iterable[str], least: float = 0.75) -> str | None:
    """The name most like another; None where none is at least so much alike.

    >>> nearest("etta", ["eta", "alpha"]), nearest("x", ["eta", "alpha"])
    ('eta', None)
    """
    best = max(names, key=lambda other: alike(name, other), default=None)
    return best if best is not None and alike(name, best) >= least else None


def perhaps(name: object, names: Iterable[str]) -> str:
    """What to put behind a name that is not there: the one that was meant, if one is near or has it as a part.

    >>> perhaps("etta", ["eta", "alpha"]), perhaps("momentum", ["edit_momentum", "alpha"]), perhaps("x", ["eta"])
    (' (did you mean eta?)', ' (did you mean edit_momentum?)', '')
    """
    known, asked = list(names), str(name)
    holding = [one for one in known if f"_{asked.lower()}_" in f"_{one.lower()}_"]
    found = nearest(asked, known, 0.7) or (holding[0] if len(holding) == 1 else None)
    return f" (did you mean {found}?)" if found else ""


PLAIN = bool | int | float | str | bytes


def brief(value: Any) -> str:
    """A value in a message: numbers and texts as they are, cut when long; what is large by its kind.

    >>> brief(3), brief("x" * 90)[-4:], brief(EmbedlabError()), brief({"layer": 99}), brief([0, 0, 2, 1])
    ('3', "xx…'", 'an EmbedlabError', '{layer: 99}', '[0, 0, 2, 1]')
    >>> import torch
    >>> brief(torch.zeros(2, 3)), brief(torch.tensor(0.5)), brief(int)
    ('a Tensor of shape (2, 3)', 'tensor(0.5000)', 'the class int')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, partial):
        return brief(value.func)
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return f"the function {value.__name__}"
    if value is None or isinstance(value, PLAIN):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:78]}…{text[0]}"
    if isinstance(value, Mapping) and len(value) <= 3 and all(map(is_plain, value.values())):
        return "{" + ", ".join(f"{str(key)[:40]}: {brief(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple) and (len(value) <= 4 or all(map(is_plain, value))):
        left, right = "[]" if isinstance(value, list) else "()"
        text = ", ".join(brief(part) for part in value[:40])
        return left + (text if len(text) <= 80 or len(value) <= 4 else f"{text[:78]}…") + right
    if (shape := getattr(value, "shape", None)) is not None and hasattr(value, "item"):
        if not len(shape) and not getattr(value, "is_meta", False):
            return repr(value)[:80]
        return f"{article(type(value).__name__)} of shape {tuple(shape)}"
    return article(type(value).__name__)


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a text, true, false or nothing."""
    return value is None or isinstance(value, PLAIN)


def article(noun: str) -> str:
    """A noun with its article.

    >>> article("Cell"), article("Encoder")
    ('a Cell', 'an Encoder')
    """
    return f"{'an' if noun[:1] in 'AEIOaeio' else 'a'} {noun}"


def check_kind(value: Any, kind: type | tuple[type, ...], name: str, hint: str) -> None:
    """Refuse what a function was handed in place of a `kind`: what came, and what would fit.

    >>> check_kind("emoji", int, "model", "lab.load(NAME) gives one")
    Traceback (most recent call last):
    embedlab.errors.ConfigError: model is 'emoji'; it has to be an int: lab.load(NAME) gives one.
    """
    if not isinstance(value, kind):
        wanted = " or ".join(article(k.__name__) for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise ConfigError(f"{name} is {brief(value)}; it has to be {wanted}: {hint}.")


def check_list(value: Any, kind: type, name: str, hint: str) -> None:
    """Refuse what is no list of a `kind`.

    >>> check_list(3, int, "seeds", "seeds=[0]")
    Traceback (most recent call last):
    embedlab.errors.ConfigError: seeds is 3; it has to be a list of int: seeds=[0].
    """
    if not isinstance(value, list | tuple) or not all(isinstance(part, kind) for part in value):
        raise ConfigError(f"{name} is {brief(value)}; it has to be a list of {kind.__name__}: {hint}.")


def public_name(kind: type) -> str:
    """The name by which a class is known in stores and files, wherever in embedlab it stands.

    >>> from embedlab import Scale
    >>> public_name(Scale), public_name(dict)
    ('embedlab.Scale', 'builtins.dict')
    """
    house, inside, _ = kind.__module__.partition(".")
    return f"{house if inside and house == 'embedlab' else kind.__module__}.{kind.__qualname__}"


def not_a_prompt(typed: str) -> str:
    r"""What to say of a prompt that is no text, by what was typed.

    >>> not_a_prompt("1e999")
    'a prompt is a text; 1e999 is none, but \'prompt="1e999"\' is.'
    """
    as_text = shlex.quote('prompt="' + typed.replace('"', '\\"') + '"')
    return f"a prompt is a text; {typed} is none, but {as_text} is."


def first_line(error: Exception) -> str:
    """The first line of what a library says, or the kind of its error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def counted(number: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "chunk"), counted(2, "chunk")
    ('1 chunk', '2 chunks')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Let somebody's own code not end the process: SystemExit and its like become a RuntimeError. Ctrl-C stays Ctrl-C.

    >>> with contained("my operator"):
    ...     raise SystemExit(7)
    Traceback (most recent call last):
        ...
    RuntimeError: my operator raised SystemExit(7)
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and of_a_signal(error):
            raise
        said = ", ".join(f"{word!r:.80}" for word in error.args)
        raise RuntimeError(f"{what} raised {type(error).__name__}({said})") from error


def of_a_signal(error: KeyboardInterrupt) -> bool:
    """Whether it was raised by whoever listens to signals, as far as that can be told, and not by other code."""
    ears = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    if signal.default_int_handler in ears:  # it leaves no frame behind
        return True
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is None or any(getattr(ear, "__code__", None) is last.tb_frame.f_code for ear in ears)
