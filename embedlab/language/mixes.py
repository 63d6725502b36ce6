r"""Ours, in every language: `{puppy|skunk:0.3}`, token rows mixed in place.

Braces are a mix when they hold a `|` of their own and no choice is blank; all other braces are text. A choice is a
prompt of its own, with everything that its language has. A backslash before `{` or `}` makes it text, and inside a mix
one before `|` or `:`. As on some command lines, backslashes are themselves everywhere else: before such a sign, two
stand for one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from embedlab.errors import LanguageError
from embedlab.language.grammar import MOST_DEPTH, NUMBER, Sign, mixed, number
from embedlab.language.tree import Break, Member, Mix, Parts, Text, walk

SIGNS = re.compile(r"(?<!\\)(\\*)([{}|:])")
Stretch = tuple[int, int, bool]  # begin, end, and whether a sign of a mix follows
Read = Callable[[list["Stretch | Sign"], bool], Parts]


@dataclass
class _Braces:
    begin: int
    bars: list[int] = field(default_factory=list)
    colons: list[int] = field(default_factory=list)
    mixes: list[Mix] = field(default_factory=list)


def with_mixes(text: str, begin: int, end: int, read: Read, notes: list[str]) -> Parts:
    """Read a stretch of a prompt: mixes innermost first, then what is around them.

    `read` gets a row of stretches of text and of mixes (as signs of the kind MIX), and whether it is inside a mix.
    """
    stack = [_Braces(begin)]
    for found in SIGNS.finditer(text, begin, end):
        if len(found[1]) % 2:
            continue
        here, sign = found.start(2), found[2]
        if sign == "{":
            if len(stack) > MOST_DEPTH:
                raise LanguageError(f"more than {MOST_DEPTH} brackets within each other are too many.", text, here)
            stack.append(_Braces(here))
        elif sign == "|":
            stack[-1].bars.append(here)
        elif sign == ":":
            stack[-1].colons.append(here)
        elif len(stack) > 1:
            braces = stack.pop()
            made = _mix(text, braces, here, read)
            if made is None and braces.bars:
                notes.append(f"'{text[braces.begin : here + 1][:40]}' has a blank choice: it is read as text")
            stack[-1].mixes += braces.mixes if made is None else [made]
            if made is None:  # braces of text: what is inside counts for those around
                stack[-1].bars += braces.bars
                stack[-1].colons += braces.colons
    for unclosed in stack[1:]:
        if unclosed.bars:
            notes.append(f"'{text[unclosed.begin :][:20]}…' is never closed: it is read as text")
    return read(_row([mix for braces in stack for mix in braces.mixes], begin, end, last=False), False)


def _row(mixes: list[Mix], begin: int, end: int, last: bool) -> list[Stretch | Sign]:
    row: list[Stretch | Sign] = []
    for mix in mixes:
        row += [(begin, mix.begin, True), Sign("MIX", mix, mix.begin, mix.end)]
        begin = mix.end
    row.append((begin, end, last))
    return [part for part in row if isinstance(part, Sign) or part[0] < part[1]]


def _mix(text: str, braces: _Braces, close: int, read: Read) -> Mix | None:
    """The mix between two braces, or None where they are none."""
    if not braces.bars:
        return None
    edges = [braces.begin, *braces.bars, close]
    colons, mixes = iter(braces.colons), iter(braces.mixes)
    colon, mix = next(colons, None), next(mixes, None)
    found: list[tuple[int, int, str | None, list[Mix]]] = []
    for left, right in pairwise(edges):
        start, stop, weight, inner, last = left + 1, right, None, [], None
        while colon is not None and colon < right:
            last, colon = colon, next(colons, None)
        while mix is not None and mix.begin < right:
            inner.append(mix)
            mix = next(mixes, None)
        if last is not None and NUMBER.fullmatch(text[last + 1 : right].strip()):
            stop, weight = last, text[last + 1 : right]
        if not text[start:stop].strip():
            return None
        found.append((start, stop, weight, inner))
    choices = []
    for start, stop, weight, inner in found:
        parts = read(_row(inner, start, stop, last=True), True)
        if not any(isinstance(node, Text) and node.text.strip() for node, _, _ in walk(parts)):
            raise LanguageError("a choice of {…} has no words.", text, start)
        if any(isinstance(node, Break) for node, _, _ in walk(parts)):
            raise LanguageError("BREAK cannot stand inside {…}: rows are mixed in place.", text, start)
        value = None if weight is None else number(weight, text, stop + 1)
        choices.append(Member(parts, value, begin=start, end=stop))
    return mixed(tuple(choices), text, braces.begin, close + 1)


def literal(written: str, inside: bool) -> str:
    r"""What backslashes before a sign stand for.

    >>> literal(r"\{", False), literal(r"\\", True), literal(r"\|", False)
    ('{', '\\', '\\|')
    """
    run = written.rstrip("{}|:")
    sign = written[len(run) :]
    if sign and sign in "|:" and not inside:
        return written
    return run[: len(run) // 2] + sign


def protected(text: str, inside: bool, followed: bool) -> str:
    r"""A text in which no brace means anything; `followed` by a sign of a mix.

    >>> protected("{a|b}", False, False), protected("{a|b}", True, False)
    ('\\{a|b\\}', '\\{a\\|b\\}')
    """
    signs = "[{}|:]" if inside else "[{}]"
    doubled = re.sub(rf"(?<!\\)(\\*)({signs})", lambda found: found[1] * 2 + "\\" + found[2], text)
    if not followed:
        return doubled
    return doubled + doubled[len(doubled.rstrip("\\")) :]
