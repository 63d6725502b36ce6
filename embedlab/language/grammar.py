"""What the grammars share: signs out of lark's lexers, signs into its parsers, and what becomes of each rule."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lark import Lark, Transformer

from embedlab.errors import LanguageError
from embedlab.language.tree import (
    Alternation,
    And,
    Blend,
    Break,
    Edit,
    Joined,
    Member,
    Mix,
    Node,
    Parts,
    Swap,
    Text,
    Weighted,
)

MOST_DEPTH = 64  # brackets within brackets; 1.1 to the 64th is a weight of 445, far beyond what anybody means
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


@dataclass
class Sign:
    """A token of a prompt: its kind, what it says, and where it stands."""

    type: str
    value: Any
    begin: int
    end: int


class Raw:
    """Keeps the kinds of tokens that only the lexer has: they become others before the parser sees them."""

    def __init__(self, *kinds: str) -> None:
        self.always_accept = kinds

    def process(self, stream: Iterator[Any]) -> Iterator[Any]:
        return stream


def grammar(rules: str, raw: Sequence[str]) -> Lark:
    """A parser of a language; its rules build nodes while they are read, so no tree is walked twice."""
    return Lark(rules, parser="lalr", lexer="basic", postlex=Raw(*raw), transformer=Build(), maybe_placeholders=False)


def signs(lark: Lark, text: str, begin: int) -> list[Sign]:
    """The tokens of a stretch that begins at `begin` of the prompt."""
    return [
        Sign(token.type, str(token), begin + int(token.start_pos or 0), begin + int(token.end_pos or 0))
        for token in lark.lex(text)
    ]


def build(lark: Lark, read: Iterable[Sign]) -> Parts:
    """The nodes of a row of signs."""
    parser = lark.parse_interactive()
    for sign in read:
        parser.feed_token(sign)  # type: ignore[arg-type]  # it asks for the type of a token alone
    found: Parts = parser.feed_eof()
    return found


def number(written: str, text: str, place: int) -> float:
    """A number in a prompt; one that is none or not finite is refused."""
    try:
        value = float(written)
    except ValueError:
        raise LanguageError(f"'{written.strip()[:40]}' is no number; 1.2 is one.", text, place) from None
    if not math.isfinite(value) or abs(value) > 3.4e38:
        raise LanguageError(f"{written.strip()[:40]} is no finite number of float32.", text, place)
    return value


def positional(value: float) -> str:
    """A number without an exponent, and the same number when it is read again.

    >>> positional(1e-05), positional(1.2)
    ('0.00001', '1.2')
    """
    written = repr(float(value))
    mantissa, _, exponent = written.partition("e")
    if not exponent:
        return written
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, rest = mantissa.lstrip("-").partition(".")
    shift = int(exponent)
    if shift < 0:
        return f"{sign}0.{'0' * (-shift - 1)}{whole}{rest}"
    return f"{sign}{whole}{rest.ljust(shift, '0')}.0"


def joined(children: Iterable[Any], between: str = "") -> Parts:
    """Nodes in order, neighbouring texts as one; what is empty is left out, groups without a weight are opened."""
    found: list[Node] = []
    run: list[Text] = []

    def close() -> None:
        if said := between.join(text.text for text in run):
            found.append(Text(said, begin=run[0].begin, end=run[-1].end))
        run.clear()

    waiting = [iter(list(children))]
    while waiting:
        node = next(waiting[-1], None)
        if node is None:
            waiting.pop()
        elif isinstance(node, tuple):
            waiting.append(iter(node))
        elif isinstance(node, Text):
            if node.text:
                run.append(node)
        else:
            close()
            found.append(node)
    close()
    return tuple(found)


def between_signs(children: Sequence[Any]) -> list[list[Any]]:
    """What stands between the signs of a rule."""
    found: list[list[Any]] = []
    for child in children:
        if isinstance(child, Sign):
            found.append([])
        else:
            found[-1].append(child)
    return found[:-1]


class Build(Transformer[Any, Any]):
    """From rules to nodes. A sign that closes carries the number that belongs to the whole."""

    def text(self, found: list[Any]) -> Node:
        (sign,) = found
        return Text(sign.value, begin=sign.begin, end=sign.end)

    def node(self, found: list[Any]) -> Node:
        value: Node = found[0].value
        return value

    def break_(self, found: list[Any]) -> Node:
        return Break(begin=found[0].begin, end=found[0].end)

    def parts(self, found: list[Any]) -> Parts:
        return joined(found)

    def words(self, found: list[Any]) -> Parts:
        return joined(found, " ")

    def group(self, found: list[Any]) -> Parts:
        return joined(found[1:-1], " ")

    def weighted(self, found: list[Any]) -> Node:
        opened, *inner, closed = found
        weight, replaces, between = closed.value
        return Weighted(joined(inner, between), weight, replaces, begin=opened.begin, end=closed.end)

    def edit(self, found: list[Any]) -> Node:
        before, after = between_signs(found)
        at, clock = found[-1].value
        return Edit(joined(before), joined(after), at, clock, begin=found[0].begin, end=found[-1].end)

    def alternation(self, found: list[Any]) -> Node:
        choices = tuple(joined(inner) for inner in between_signs(found))
        return Alternation(choices, begin=found[0].begin, end=found[-1].end)

    def swap(self, found: list[Any]) -> Node:
        before, after = between_signs(found)
        options = found[-1].value
        return Swap(joined(before, " "), joined(after, " "), options, begin=found[0].begin, end=found[-1].end)

    def several(self, found: list[Any]) -> Parts:
        """Whole prompts with weights: the last sign says what they make, the others their weights."""
        kind, weights, between, options = found[-1].value
        ends = [child for child in found if isinstance(child, Sign)]
        members = tuple(
            Member(joined(inner, between), weight, begin=left.end, end=right.begin)
            for inner, weight, left, right in zip(between_signs(found), weights, ends, ends[1:], strict=False)
        )
        kinds: dict[str, Any] = {"and": And, "joined": Joined, "blend": Blend}
        return (kinds[kind](members, *options, begin=found[0].begin, end=found[-1].end),)


def mixed(choices: tuple[Member, ...], text: str, begin: int, end: int) -> Mix:
    """A mix whose weights can be shares."""
    written = [choice.weight for choice in choices if choice.weight is not None]
    if len(written) == len(choices) and not abs(sum(written)) > 1e-9:
        raise LanguageError("the weights of {…} sum to zero; leave one out, and it gets the rest of 1.", text, begin)
    return Mix(choices, begin=begin, end=end)
