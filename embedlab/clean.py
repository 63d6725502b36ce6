"""What is written or printed, fit to be seen: without the secrets of the environment, without what drives a terminal.

A secret is the value of an environment variable whose name speaks of a key, token, secret, password or credential.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from embedlab.errors import ConfigError

NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL")
LEAST = 8  # letters; a shorter value would be found in words
LONG = 32  # letters of a value without spaces, from which on its first half is a secret, too
BLANK = "***"
QUOTES = ("\\", "'", '"')
JOINERS = "\u200c\u200d"  # of letters in Persian or Hindi, and of emoji


def redact(value: Any) -> Any:
    r"""A text, or texts in lists and mappings (keys, too), with secrets blanked, however they are quoted or escaped.

    Found are the value itself and what JSON, YAML, Python, Hydra, a shell, HTML, a URL or base64 make of it, one within
    another, also where a text is folded at its spaces; of a long one without spaces also its beginning.

    >>> os.environ["A_KEY"] = "it's a value"
    >>> redact({"a": "so it's a value", "b": ["it\\'s%20a+value", 1], "it's a value": "it's"})
    {'a': 'so ***', 'b': ['***', 1], '***': "it's"}
    """
    found = pattern(secrets())
    return value if found is None else _redacted(value, found)


def _redacted(value: Any, found: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return found.sub(BLANK, value)
    if isinstance(value, Mapping):
        return {_redacted(key, found): _redacted(inner, found) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner, found) for inner in value]
    return value


def secrets() -> tuple[str, ...]:
    """The secrets of the environment. The path of a file that is there is none: the file holds it."""
    found = {
        re.sub(r"""^[\s\\'"]+|[\s\\'"]+$""", "", text)
        for name, text in os.environ.items()
        if any(word in name.upper() for word in NAMES) and not (text.startswith(("/", "~")) and _is_path(text))
    }
    found |= {unicodedata.normalize("NFC", text) for text in found}  # as a prompt is read
    return tuple(sorted((text for text in found if len(text) >= LEAST), key=lambda text: (-len(text), text)))


def secret_spans(text: str) -> list[tuple[int, int]]:
    """Where secrets stand in a text: what is cut out of it there has to be blanked, because a piece is not found.

    >>> os.environ["A_KEY"] = "it's a value"
    >>> secret_spans("so it's a value")
    [(3, 15)]
    """
    found = pattern(secrets())
    return [] if found is None else [match.span() for match in found.finditer(text)]


def _is_path(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


@lru_cache(maxsize=8)
def pattern(values: tuple[str, ...]) -> re.Pattern[str] | None:
    """What finds some values in any form."""
    return re.compile("|".join(f"(?:{_forms(value)})" for value in values)) if values else None


def _forms(value: str) -> str:
    found = re.findall(r"""[ \t\r\n+]*[ \t\r\n][ \t\r\n+]*|[\\'"]+|[^ \t\r\n\\'"]""", value)
    parts = [_part(part, before[-1] in QUOTES) for before, part in pairwise(["x", *found])]
    if len(value) >= LONG and re.fullmatch(r"[\w.+/=:~@-]+", value) and not value.startswith("/"):
        size = max(8, len(parts) // 40)
        begin, rest = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        told = ""
        for k in reversed(range(0, len(rest), size)):
            told = f"(?:{''.join(rest[k : k + size])}{told})?"
        whole = "".join(begin) + told
    else:
        whole = "".join(parts)
    return f"{whole}|{re.escape(base64.b64encode(value.encode(errors='surrogateescape')).decode().rstrip('='))}"


def _part(text: str, after_quotes: bool = False) -> str:
    """A sign, or a run of spaces or of quotes, in every form.

    No text can be read in two ways: what fails after n signs would be tried again in 2^n. So no form stands twice, and
    backslashes after a run of quotes are the run's.
    """
    if text.isascii() and text.isalnum():
        return text
    if set(text) & set(" \t\r\n"):  # with the plus signs in it, as a space of a form may be one
        return r"(?:\\*[\s+]|\\+[nrt]|%20|%2[bB]|%0[ADad]|%09|&#(?:10|13|9|32|43|xa|xA|x2[bB]);)+"
    if text[0] in QUOTES:
        named = r"%27|%22|%5[cC]|&#0?39;|&#x27;|&#34;|&apos;|&quot;"
        return rf"(?:[\\'\"]|(?<=\\)\n\s*|{named}|u00(?:22|27|5[cC])|x(?:22|27|5[cC]))+"
    code = ord(text)
    plain, any_, some = re.escape(text), "" if after_quotes else r"\\*", "" if after_quotes else r"\\+"
    forms = [re.escape(quote(text, safe="", errors="replace")), f"&#{code};", f"&#[xX]0*{code:x};"]
    forms += [re.escape(html.escape(text)), rf"{some}U{code:08x}"]
    units = json.dumps(text)[1:-1].split("\\")[1:]  # two above U+FFFF
    forms.append(some + r"\\+".join(units) if units else rf"{some}u{code:04x}")
    if text.isspace():
        plain = r"\s"
        forms.append(rf"{some}_")  # a space that does not break is \_ in YAML
    if code < 256:
        forms.append(rf"{some}x{code:02x}")
    others = "|".join(form for form in dict.fromkeys(forms) if form != re.escape(text))
    return rf"(?:{any_}{plain}|(?i:{others}))(?:\\\n\s*)?"  # YAML folds after an escape


def printable(text: str) -> str:
    r"""A text in which signs that drive a terminal, or turn the direction of what follows, are written as escapes.

    >>> print(printable("a\x1b[31m b\u202e\u200d"), printable("it is\nthis"))
    a\x1b[31m b\u202e‍ it is
    this
    """
    return text if text.isprintable() else "".join(sign if _shows(sign) else _escape(sign) for sign in text)


def _shows(sign: str) -> bool:
    return sign.isprintable() or sign in "\n" + JOINERS or unicodedata.category(sign) in ("Zs", "Cn")


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def one_line(text: Any) -> str:
    r"""A text on one line, printable.

    >>> one_line("a\n  b\x07")
    'a b\\x07'
    """
    return printable(" ".join(str(text).split()))


def check_name(path: Path) -> None:
    """Refuse a path to be made whose name holds a secret: names cannot be blanked."""
    there = next((one for one in (path, *path.parents) if os.path.lexists(one)), Path())
    name = os.path.relpath(path, there)
    if redact(name) != name:
        raise ConfigError(f"'{redact(str(path))}' would be named after a secret of the environment; name it otherwise.")


class CleanStream:
    """A text stream that prints what is fit to be seen; the sign that its encoding lacks is written as an escape.

    When nobody reads it any more, as after `| head`, the rest is dropped.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        shown = printable(redact(text)).encode(encoding, "backslashreplace").decode(encoding)
        self._try(lambda: self.stream.write(shown))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, act: Any) -> None:
        try:
            act()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def clean_streams() -> Iterator[None]:
    """Print nothing but what is fit to be seen, until the block ends."""
    before = sys.stdout, sys.stderr
    with ExitStack() as held:
        streams = []
        for stream in before:
            if stream is None:  # closed by the caller, as by >&-
                stream = held.enter_context(open(os.devnull, "w"))  # noqa: PLW2901
            streams.append(stream if isinstance(stream, CleanStream) else CleanStream(stream))
        sys.stdout, sys.stderr = streams
        try:
            yield
        finally:
            for stream in streams:
                stream.flush()
            sys.stdout, sys.stderr = before


def drawn_on(stream: TextIO) -> TextIO:
    """The stream on which something may be drawn with a terminal's own signs: the terminal, where it is one."""
    return stream.stream if isinstance(stream, CleanStream) and stream.isatty() else stream
