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
from dataclasses import dataclass
from functools import lru_cache
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from embedlab.errors import ConfigError

NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL")
LEAST = 8  # letters; a shorter value would be found in words
LONG = 32  # letters of a value without spaces, from which on its first half is a secret, too
RUNS = " \t\r\n\\'\""  # signs that quoting and folding multiply: a run of them is looked for as one
ANY, SOME = r"\\{0,64}", r"\\{1,64}"  # backslashes: each quoting within another doubles them
BLANK = "***"
JOINERS = "\u200c\u200d"  # of letters in Persian or Hindi, and of emoji


def redact(value: Any) -> Any:
    r"""A text, or texts in lists and mappings (keys, too), with secrets blanked, however they are quoted or escaped.

    Found are the value itself and what JSON, YAML, Python, Hydra, a shell, HTML, a URL or base64 make of it, one within
    another, also where a text is folded at its spaces; of a long one without spaces also its beginning.

    >>> os.environ["A_KEY"] = "it's a value"
    >>> redact({"a": "so it's a value", "b": ["it\\'s%20a+value", 1], "it's a value": "it's"})
    {'a': 'so ***', 'b': ['***', 1], '***': "it's"}
    """
    found = searches(secrets())
    return _redacted(value, found) if found else value


def _redacted(value: Any, found: tuple[Search, ...]) -> Any:
    if isinstance(value, str):
        kept, end = [], 0
        for first, last in _spans(value, found):
            kept += [value[end:first], BLANK]
            end = last
        return "".join(kept) + value[end:] if kept else value
    if isinstance(value, Mapping):
        return {_redacted(key, found): _redacted(inner, found) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner, found) for inner in value]
    return value


def secrets() -> tuple[str, ...]:
    """The secrets of the environment. The path of a file that is there is none: the file holds it."""
    found = {
        re.sub(r"""^[\s\\'"]+|[\s\\'"]+$""", "", text)
        for name in os.environ
        if _speaks_of_one(name) and (text := os.environ.get(name)) and not (text[0] in "/~" and _is_path(text))
    }
    found |= {unicodedata.normalize("NFC", text) for text in found}  # as a prompt is read
    return tuple(sorted((text for text in found if len(text) >= LEAST), key=lambda text: (-len(text), text)))


@lru_cache(maxsize=1024)
def _speaks_of_one(name: str) -> bool:
    return any(word in name.upper() for word in NAMES)


def secret_spans(text: str) -> list[tuple[int, int]]:
    """Where secrets stand in a text: what is cut out of it there has to be blanked, because a piece is not found.

    >>> os.environ["A_KEY"] = "it's a value"
    >>> secret_spans("so it's a value")
    [(3, 15)]
    """
    return _spans(text, searches(secrets()))


def _spans(text: str, found: tuple[Search, ...]) -> list[tuple[int, int]]:
    """Where something is found, in order; what overlaps is one span."""
    spans: list[tuple[int, int]] = []
    for first, last in sorted(span for search in found for span in search.spans(text)):
        if spans and first < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
        else:
            spans.append((first, last))
    return spans


def _is_path(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


@lru_cache(maxsize=8)
def searches(values: tuple[str, ...]) -> tuple[Search, ...]:
    """What finds some values in any form."""
    return tuple(Search.of(value) for value in values)


@dataclass(frozen=True)
class Sign:
    """How one sign of a value, or one of a run of spaces or of quotes, may be written."""

    forms: tuple[re.Pattern[str], ...]
    repeats: bool

    def ends(self, text: str, begins: Mapping[int, int]) -> dict[int, int]:
        """Where it may end if it stands at some places, each with where the value begins that leads there."""
        ends: dict[int, int] = {}
        places = sorted(begins)
        while places:
            place = heappop(places)
            begin = min(where[place] for where in (begins, ends) if place in where)
            for end in {match.end() for form in self.forms if (match := form.match(text, place))}:
                if self.repeats and end not in ends and end not in begins:
                    heappush(places, end)
                ends[end] = min(begin, ends.get(end, begin))
        return ends


@dataclass(frozen=True)
class Search:
    """Finds one value in every form, sign by sign.

    All places where a sign may end are followed at once, each only once: a large regular expression tries their
    combinations, which double with every space. So the work grows with the length of the text, whatever is in it.
    """

    first: re.Pattern[str]  # up to three signs, which tell quickly where it is not
    signs: tuple[Sign, ...]
    least: int  # as many of the signs as make it a secret
    encoded: re.Pattern[str]  # base64

    @classmethod
    def of(cls, value: str) -> Search:
        """What finds a value that begins and ends with neither a space nor a quote."""
        texts = re.findall(r"""[ \t\r\n]+|[\\'"]+|[^ \t\r\n\\'"]""", value)
        runs = [text[0] in RUNS for text in texts]
        forms = [_forms(text, folds=not run) for text, run in zip(texts, [*runs[1:], True], strict=True)]
        first = "".join(f"(?:{'|'.join(each)})" for each in forms[: max(1, min(3, (*runs, True).index(True)))])
        signs = tuple(Sign(tuple(map(re.compile, each)), run) for each, run in zip(forms, runs, strict=True))
        is_long = len(value) >= LONG and re.fullmatch(r"[\w.+/=:~@-]+", value) and not value.startswith("/")
        encoded = base64.b64encode(value.encode(errors="surrogateescape")).decode().rstrip("=")
        least = len(signs) // 2 if is_long else len(signs)
        return cls(re.compile(first), signs, least, re.compile(re.escape(encoded)))

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where it stands in a text."""
        yield from (found.span() for found in self.encoded.finditer(text))
        places: dict[int, int] = {}
        last = -1
        while found := self.first.search(text, last + 1):
            last = found.start()
            places[last] = last
        for number, sign in enumerate(self.signs, 1):
            places = sign.ends(text, places)
            if number >= self.least:
                yield from ((begin, end) for end, begin in places.items())


def _forms(text: str, folds: bool) -> tuple[str, ...]:
    """A sign, or one of a run of spaces or of quotes, in every form; YAML folds after one that it escapes."""
    if text.isascii() and text.isalnum():
        return (text,)
    if text[0] in " \t\r\n":
        return (rf"{ANY}\s|{SOME}[nrt]|\+|%20|%0[ADad]|%09|&#(?:10|13|9|32|xa|xA);",)
    if text[0] in "\\'\"":
        named = r"%27|%22|%5[cC]|&#0?39;|&#x27;|&#34;|&apos;|&quot;"
        return (rf"[\\'\"]|(?<=\\)\n\s*|{named}|u00(?:22|27|5[cC])|x(?:22|27|5[cC])",)
    code = ord(text)
    other = [re.escape(quote(text, safe="", errors="replace")), f"&#{code};", f"&#[xX]0*{code:x};"]
    other += [re.escape(html.escape(text)), rf"{SOME}U{code:08x}"]
    escaped = json.dumps(text)[1:-1]  # two of them for a sign beyond the first 65,536
    other.append(escaped.replace("\\u", rf"{SOME}u") if escaped.startswith("\\u") else rf"{SOME}u{code:04x}")
    if text.isspace():
        other += [r"\s", rf"{SOME}_"]  # a space that does not break is \_ in YAML
    if code < 256:
        other.append(rf"{SOME}x{code:02x}")
    fold = r"(?:\\\n[ \t]*)?" if folds else ""
    return rf"{ANY}{re.escape(text)}{fold}", rf"(?i:{'|'.join(dict.fromkeys(other))}){fold}"


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
        printed = printable(redact(text)).encode(encoding, "backslashreplace").decode(encoding)
        self._try(lambda: self.stream.write(printed))
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
