"""What a setting says of rows: a selector, checked without any prompt; `select` finds its rows in one.

A selector is a word or phrase (every occurrence of it), a row number, a `Rows`, the same as a mapping, or a list of
selectors. Rows are counted through all windows: row `r` stands in window `r // 77` at place `r % 77`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from embedlab.checks import in_choices, is_whole
from embedlab.errors import OperatorError, brief, listed
from embedlab.schedule import Schedule, Setting, varies

Role = Literal["words", "bos", "eos", "pad", "all"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Rows:
    """Rows of a prompt. Settings given together narrow each other; a list of selectors joins what each selects.

    word: a word or phrase, every occurrence of it. nth: of those only the n-th, from 1; -1 is the last.
    tokens: row numbers, through all windows. role: `words`, `bos` (start of text), `eos` (the first end of text of each
    window, where CLIP pools), `pad` (what follows it) or `all`. window: a window, from 0. but: a selector to leave out.

    >>> from embedlab.models import tokenizer
    >>> from embedlab.prompt import tokenize
    >>> from embedlab.select import select
    >>> tokens = tokenize("a cat and a cat", tokenizer())
    >>> select(Rows(word="cat", nth=-1), tokens), select(Rows(role="words", but="a"), tokens)
    ([(5,)], [(2, 3, 5)])
    """

    word: Setting[str | None] = None
    nth: Setting[int | None] = None
    tokens: Setting[Sequence[int] | int | None] = None
    role: Setting[Role | None] = None
    window: Setting[int | None] = None
    but: Setting[Selector | None] = None

    def __post_init__(self) -> None:
        if varies(self):
            return  # checked as it is at each moment
        if self.word is not None and (not isinstance(self.word, str) or not self.word.strip()):
            raise OperatorError(f"word is {brief(self.word)}; it has to be a word or phrase of the prompt.")
        if self.role is not None:
            in_choices(self.role, "role", ROLES, OperatorError)
        if self.nth is not None and (self.word is None or not is_whole(self.nth) or self.nth == 0):
            raise OperatorError(
                f"nth is {brief(self.nth)}; it counts the occurrences of a `word` from 1, -1 is the last."
            )
        if self.window is not None and not is_whole(self.window):
            raise OperatorError(f"window is {brief(self.window)}; it has to be a whole number, 0 is the first.")
        if self.tokens is not None:
            many = tuple(self.tokens) if isinstance(self.tokens, list | tuple) else (self.tokens,)
            if not many or not all(is_whole(r) for r in many) or len(set(many)) < len(many):
                raise OperatorError(f"tokens is {brief(self.tokens)}; it has to be row numbers, each once.")
            object.__setattr__(self, "tokens", many)
        if self.but is not None:
            rows_of(self.but)
        if all(getattr(self, f.name) is None for f in fields(self)):
            raise OperatorError(f"a selector has to say something: {listed(f.name for f in fields(self))}.")

    def __str__(self) -> str:
        parts = [f"'{self.word}'"] if self.word is not None else []
        settings = {f.name: getattr(self, f.name) for f in fields(self)[1:]}
        return ", ".join(
            [*parts, *(f"{name} {format_selector(value)}" for name, value in settings.items() if value is not None)]
        )


OneSelector = str | int | Rows | Mapping[str, Any]
Selector = OneSelector | Sequence[OneSelector | Schedule[OneSelector]]


def rows_of(what: Any) -> tuple[Rows, ...]:
    """A setting as selectors to be joined; raises OperatorError for what is none."""
    if isinstance(what, Rows):
        return (what,)
    if isinstance(what, str):
        return (Rows(word=what),)
    if is_whole(what):
        return (Rows(tokens=(what,)),)
    if isinstance(what, Mapping):
        known = [f.name for f in fields(Rows)]
        if unknown := [key for key in what if key not in known]:
            raise OperatorError(f"a selector has no '{unknown[0]}'; it has {listed(known)}.")
        return (Rows(**what),)
    if isinstance(what, list | tuple) and what:
        if inner := [part for part in what if isinstance(part, list | tuple)]:
            raise OperatorError(f"rows holds the list {brief(inner[0])}; its selectors stand in one list.")
        return tuple(part for w in what for part in rows_of(w))
    raise OperatorError(f"rows is {brief(what)}; it has to be a word, a row number, a selector or a list of those.")


def words_of(what: Any) -> tuple[str, ...]:
    """The words that a setting names, for scores and labels; of one that changes over time, all it ever names."""
    if isinstance(what, Schedule):
        return tuple(word for value in getattr(what, "values", ()) for word in words_of(value))
    if isinstance(what, list | tuple) and varies(what):
        return tuple(word for part in what for word in words_of(part))
    named = [rows.word for rows in rows_of(what) if rows.word is not None]
    return tuple(word for name in named for word in (words_of(name) if isinstance(name, Schedule) else (name,)))


def format_selector(what: Any) -> str:
    """A selector in a label."""
    if isinstance(what, str | int | Schedule):
        return str(what)
    if isinstance(what, tuple) and all(isinstance(w, int) for w in what):
        return " ".join(map(str, what))
    if isinstance(what, list | tuple):
        return " + ".join(format_selector(part) for part in what)
    return " + ".join(str(rows) for rows in rows_of(what)) if what is not None else "None"
