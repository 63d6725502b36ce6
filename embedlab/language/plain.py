"""`language=plain`: text, and the mixes that every language has."""

from __future__ import annotations

from embedlab.language.grammar import Sign, build, grammar, signs
from embedlab.language.mixes import Stretch, literal, protected, with_mixes
from embedlab.language.tree import Mix, Node, Parts, Text
from embedlab.language.writing import Writer

GRAMMAR = grammar(
    r"""
    start: part* -> parts
    part: TEXT -> text
        | MIX -> node
    TEXT: /[^\\{}|:]+|[{}|:]|\\+/
    SLASHED.2: /\\+(?:[{}|:]|\Z)/
    %declare MIX
    """,
    ["SLASHED"],
)


def read(text: str, notes: list[str]) -> Parts:
    """The tree of a plain prompt."""

    def stretch(row: list[Stretch | Sign], inside: bool) -> Parts:
        return build(GRAMMAR, (sign for part in row for sign in of(part, inside)))

    def of(part: Stretch | Sign, inside: bool) -> list[Sign]:
        if isinstance(part, Sign):
            return [part]
        begin, end, followed = part
        found = signs(GRAMMAR, text[begin:end], begin)
        for sign in found:
            if sign.type == "SLASHED":
                sign.type = "TEXT"
                if sign.end < end or sign.value[-1] != "\\" or followed:
                    sign.value = literal(sign.value, inside)
        return found

    return with_mixes(text, 0, len(text), stretch, notes)


class Plain(Writer):
    """A tree as plain text."""

    name = "plain"

    def text(self, node: Text, before: Node | None, after: Node | None, inside: tuple[str, ...]) -> str:
        mix = "mix" in inside
        return protected(node.text, mix, isinstance(after, Mix) or (mix and after is None))
