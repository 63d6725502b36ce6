"""The tree of a prompt: the same small nodes for every language, each with its place in the text.

`begin` and `end` are offsets in the text that was read; they do not count when trees are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Clock = Literal["fraction", "steps"]


@dataclass(frozen=True)
class Span:
    """Where a node stands in the text."""

    begin: int = field(default=0, kw_only=True, compare=False)
    end: int = field(default=0, kw_only=True, compare=False)


@dataclass(frozen=True)
class Text(Span):
    """Words as the tokenizer gets them: escapes undone."""

    text: str


@dataclass(frozen=True)
class Break(Span):
    """BREAK: the rest of the prompt begins a new window."""


@dataclass(frozen=True)
class Weighted(Span):
    """Parts whose weight is multiplied by `weight`; with `replaces`, it is `weight`, whatever stands around it."""

    parts: Parts
    weight: float
    replaces: bool = False


@dataclass(frozen=True)
class Edit(Span):
    """`before` until a time, `after` from then on; `at` is a fraction of the steps or a number of steps."""

    before: Parts
    after: Parts
    at: float
    clock: Clock


@dataclass(frozen=True)
class Alternation(Span):
    """The choices in turn, one a step."""

    choices: tuple[Parts, ...]


@dataclass(frozen=True)
class Member(Span):
    """One of several prompts or choices, with its weight where one was written.

    `way` is how a prompt that AND joins comes in, where its word says it: `perp`, `salient` or `top_k`.
    """

    parts: Parts
    weight: float | None = None
    way: str | None = None


@dataclass(frozen=True)
class Mix(Span):
    """Token rows mixed in place. `shares` are the weights of the mixture and sum to 1.

    A choice without a weight gets what the others leave of 1, in equal parts; when all have weights, these are divided
    by their sum.

    >>> Mix((Member((Text("puppy"),)), Member((Text("skunk"),), 0.3))).shares
    (0.7, 0.3)
    """

    choices: tuple[Member, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """How much of each choice, in order."""
        written = [choice.weight for choice in self.choices if choice.weight is not None]
        open_ones = len(self.choices) - len(written)
        if not open_ones:
            return tuple(weight / sum(written) for weight in written)
        left = (1 - sum(written)) / open_ones
        return tuple(left if choice.weight is None else choice.weight for choice in self.choices)


@dataclass(frozen=True)
class Swap(Span):
    """compel's `.swap()`: drawn as `original`, with the words of `edited` under the same attention."""

    original: Parts
    edited: Parts
    options: tuple[tuple[str, float | str], ...] = ()


@dataclass(frozen=True)
class And(Span):
    """A1111's AND: the predictions of several prompts added, each by its weight, which is 1 where none was written."""

    prompts: tuple[Member, ...]


@dataclass(frozen=True)
class Joined(Span):
    """compel's `.and()`: the hidden states of several prompts, one after the other."""

    prompts: tuple[Member, ...]


@dataclass(frozen=True)
class Blend(Span):
    """compel's `.blend()`: the weighted mean of the conditionings of several prompts, or their weighted sum."""

    prompts: tuple[Member, ...]
    normalize: bool = True


Node: TypeAlias = Text | Break | Weighted | Edit | Alternation | Mix | Swap | And | Joined | Blend
Parts: TypeAlias = tuple[Node, ...]


@dataclass(frozen=True)
class Parsed:
    """A prompt as its language reads it. `notes` say what the language did without a word, a line each."""

    text: str = field(compare=False)
    language: str
    root: Parts
    notes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Piece(Span):
    """A run of words of one weight, for tables; `within` says which branch of which node it stands in, outermost first.

    BREAK is a piece of its own with `is_break`.
    """

    text: str
    weight: float
    within: tuple[str, ...] = ()
    is_break: bool = False


def branches(node: Node) -> list[tuple[str, Parts]]:
    """What stands inside a node, and the name of each branch."""
    match node:
        case Weighted():
            return [("", node.parts)]
        case Edit():
            when = f"{node.at:g} of the steps" if node.clock == "fraction" else f"step {node.at:g}"
            return [(f"until {when}", node.before), (f"from {when}", node.after)]
        case Alternation():
            turns = len(node.choices)
            return [(f"turn {n} of {turns}", parts) for n, parts in enumerate(node.choices, 1)]
        case Mix():
            return [(f"mixed {share:g}", c.parts) for c, share in zip(node.choices, node.shares, strict=True)]
        case Swap():
            return [("swap: original", node.original), ("swap: edited", node.edited)]
        case And() | Joined() | Blend():
            name = type(node).__name__.lower()
            return [(f"{name} {1 if m.weight is None else m.weight:g}", m.parts) for m in node.prompts]
        case _:
            return []


def walk(parts: Parts) -> Iterator[tuple[Node, tuple[Weighted, ...], tuple[str, ...]]]:
    """Every node in the order of the text, with the weighted groups around it and the branches it stands in."""
    stack: list[tuple[Node, tuple[Weighted, ...], tuple[str, ...]]] = [(node, (), ()) for node in reversed(parts)]
    while stack:
        node, groups, within = stack.pop()
        yield node, groups, within
        inside = (*groups, node) if isinstance(node, Weighted) else groups
        for name, inner in reversed(branches(node)):
            there = (*within, name) if name else within
            stack.extend((part, inside, there) for part in reversed(inner))


def product(groups: tuple[Weighted, ...], language: str) -> float:
    """The weight inside some groups, multiplied in the order in which the language does."""
    last = max((n for n, group in enumerate(groups) if group.replaces), default=-1)
    factors = [group.weight for group in groups[max(last, 0) :]]
    weight = 1.0
    for factor in reversed(factors) if language == "a1111" else factors:
        weight *= factor
    return weight


def pieces(parsed: Parsed) -> tuple[Piece, ...]:
    """The prompt as a flat list of texts with their weights, unmerged, each with its place in the text."""
    found = []
    for node, groups, within in walk(parsed.root):
        if isinstance(node, Text):
            weight = product(groups, parsed.language)
            found.append(Piece(node.text, weight, within, begin=node.begin, end=node.end))
        elif isinstance(node, Break):
            weight = -product(groups, parsed.language)
            found.append(Piece("BREAK", weight, within, is_break=True, begin=node.begin, end=node.end))
    return tuple(found)


def fragments(parsed: Parsed) -> list[tuple[str, float]]:
    """The pieces as the tool lists them: neighbours of one weight as one (ComfyUI keeps them apart).

    >>> from embedlab.language import parse
    >>> fragments(parse("a ((red)) cat", "a1111"))
    [('a ', 1.0), ('red', 1.2100000000000002), (' cat', 1.0)]
    """
    runs: list[tuple[list[str], float, bool, tuple[str, ...]]] = []
    between = " " if parsed.language == "compel" else ""
    for piece in pieces(parsed):
        same = bool(runs) and runs[-1][1:] == (piece.weight, False, piece.within) and not piece.is_break
        if same and parsed.language != "comfyui":
            runs[-1][0].append(piece.text)
        else:
            runs.append(([piece.text], piece.weight, piece.is_break, piece.within))
    return [(between.join(texts), weight) for texts, weight, _, _ in runs] or [("", 1.0)]
