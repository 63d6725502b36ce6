"""A prompt in its language → what a cell has: a text as it is, or a tree whose changes over time are schedules.

`[a:b:0.5]` becomes a `Switch` and `[a|b]` an `Alternate` on A1111's clock; `resolve` gives the tree of a moment.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from embedlab import language as languages
from embedlab.errors import PromptError
from embedlab.language.tree import Alternation, And, Break, Edit, Member, Mix, Node, Parts, Swap, Text, Weighted
from embedlab.schedule import Alternate, Schedule, Setting, Switch


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt as its language reads it. `parts` are the nodes of its tree, and schedules of such parts.

    `text` is what was written, `notes` what the language did without a word. `str` writes the tree of a moment.

    >>> from embedlab.schedule import Moment, resolve
    >>> prompt = parsed("a [cat:dog:0.5]", "a1111")
    >>> [str(resolve(prompt, Moment(n, n, 2, 0.0, 0.0, calls=2))) for n in (0, 1, 2)]
    ['a cat', 'a cat', 'a dog']
    """

    text: str
    language: str
    parts: tuple[Any, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return languages.write(tuple(flat(self.parts)), self.language)


@lru_cache(maxsize=4096)
def parsed(text: str, language: str) -> str | ParsedPrompt:
    """A prompt in a language; one that says nothing but itself stays a text. Raises LanguageError as `parse` does.

    >>> parsed("a cat", "a1111"), type(parsed("a (cat:1.2)", "a1111")).__name__
    ('a cat', 'ParsedPrompt')
    """
    tree = languages.parse(text, language)
    if tree.root in ((), (Text(text),)) and not tree.notes:
        return text
    return ParsedPrompt(text, language, scheduled(tree.root), tree.notes)


def parsed_setting(prompt: Setting[Any], language: str) -> Setting[Any]:
    """The same of a prompt that changes over time: each of its texts is read."""
    if isinstance(prompt, Schedule):
        values = tuple(parsed_setting(value, language) for value in prompt.values)  # type: ignore[attr-defined]
        same = all(new is old for new, old in zip(values, prompt.values, strict=True))  # type: ignore[attr-defined]
        return prompt if same else dataclasses.replace(prompt, values=values)  # type: ignore[type-var]
    return parsed(prompt, language) if isinstance(prompt, str) else prompt


def ways_in(prompt: Any, combine: Any) -> Any:
    """`guidance.combine` of a prompt whose words say how its parts come in (AND_PERP); as it is where none does.

    A plain AND is as `combine` says, in one word or in a list; PromptError for a list that says another thing.

    >>> ways_in(parsed("a cat AND_PERP a hat AND snow", "a1111"), "sum"), ways_in(parsed("a AND b", "a1111"), "sum")
    (['perp', 'sum'], 'sum')
    """
    if isinstance(prompt, Schedule):
        values = [ways_in(value, combine) for value in prompt.values]  # type: ignore[attr-defined]
        same = all(value is combine for value in values)
        return combine if same else dataclasses.replace(prompt, values=values)  # type: ignore[type-var]
    root = prompt.parts[0] if isinstance(prompt, ParsedPrompt) and prompt.parts else None
    said = [member.way for member in root.prompts[1:]] if isinstance(root, And) else []
    if not any(said):
        return combine
    given = [combine] * len(said) if isinstance(combine, str) else combine
    fits = isinstance(given, list | tuple) and len(given) == len(said)
    if not fits or (given is combine and any(way not in (None, one) for way, one in zip(said, given, strict=True))):
        raise PromptError(
            "the prompt says by itself how its parts come together (AND_PERP, AND_SALT, AND_TOPK); guidance.combine is "
            "one word, for those that a plain AND joins."
        )
    return [way or one for way, one in zip(said, given, strict=True)]


def text_of(prompt: Any) -> str:
    """A prompt as it was written."""
    return prompt.text if isinstance(prompt, ParsedPrompt) else str(prompt)


def wording(prompt: Any) -> str:
    """The words of a prompt without the signs of its language, as it ends: what pictures of it are scored with.

    Words of a weight of 0 or less are left out; of a mix, the choice that has most of it is taken.

    >>> wording(parsed("a (red:1.2) [cat:dog:0.5] on {blue|green:0.8}, (stars:-1)", "a1111"))
    'a red dog on green'
    >>> wording(parsed("a red++ cat.swap(dog) on grass", "compel"))
    'a red cat on grass'
    """
    if not isinstance(prompt, ParsedPrompt):
        return str(prompt)
    between = " " if prompt.language == "compel" else ""  # whose texts end before the space
    words = " ".join(between.join(_words(prompt.parts)).split())
    return re.sub(r"(\W)(?=\1)|\s(?=[,.;:!?])|[\s,]+$", "", words)


def _words(parts: tuple[Any, ...]) -> Iterator[str]:
    for node in parts:
        match node:
            case tuple():
                yield from _words(node)
            case Schedule():
                yield from _words(node.values[-1])  # type: ignore[attr-defined]
            case Text():
                yield node.text
            case Break():
                yield " "
            case Weighted():
                yield from _words(node.parts) if node.weight > 0 else ()
            case Mix():
                yield from _words(max(zip(node.shares, node.choices, strict=True), key=lambda pair: pair[0])[1].parts)
            case Swap():
                yield from _words(node.original)
            case _:
                for member in node.prompts:
                    yield from _words(member.parts) if member.weight is None or member.weight > 0 else ()
                    yield ", "


def scheduled(parts: Parts) -> tuple[Any, ...]:
    """Parts in which edits and alternations are schedules."""
    return tuple(_scheduled(node) for node in parts)


def _scheduled(node: Node | Member) -> Any:
    match node:
        case Edit():
            at = max(0.0, float(node.at)) if node.clock == "fraction" else max(0, int(node.at))
            return Switch((scheduled(node.before), scheduled(node.after)), at, "a1111")
        case Alternation():
            return Alternate(tuple(scheduled(choice) for choice in node.choices), clock="a1111")
    changed: dict[str, Any] = {}
    for name in ("parts", "original", "edited"):
        if hasattr(node, name):
            changed[name] = scheduled(getattr(node, name))
    for name in ("choices", "prompts"):
        if hasattr(node, name):
            changed[name] = tuple(_scheduled(member) for member in getattr(node, name))
    return dataclasses.replace(node, **changed) if changed else node


def flat(parts: tuple[Any, ...]) -> Iterator[Node]:
    """The nodes of resolved parts, in order, where those of a schedule's value stand in a tuple of their own."""
    for node in parts:
        if isinstance(node, tuple):
            yield from flat(node)
            continue
        changed: dict[str, Any] = {}
        for name in ("parts", "original", "edited"):
            if hasattr(node, name):
                changed[name] = tuple(flat(getattr(node, name)))
        for name in ("choices", "prompts"):
            if hasattr(node, name):
                members = getattr(node, name)
                changed[name] = tuple(dataclasses.replace(one, parts=tuple(flat(one.parts))) for one in members)
        yield dataclasses.replace(node, **changed) if changed else node
