"""A tree as text again: what the languages' writers share. Trees are no deeper than what can be read."""

from __future__ import annotations

from abc import ABC, abstractmethod

from embedlab.errors import PromptError
from embedlab.language.grammar import positional
from embedlab.language.tree import Member, Mix, Node, Parts, Text


class Writer(ABC):
    """Writes what its language has; a node that it lacks is refused."""

    name = ""
    between = ""

    def whole(self, parts: Parts) -> str:
        """A whole prompt."""
        return self.parts(parts)

    def parts(self, parts: Parts, inside: tuple[str, ...] = ()) -> str:
        """Parts in order; `inside` names what stands around them, outermost first."""
        around = [None, *parts, None]
        return self.between.join(self.node(node, around[n], around[n + 2], inside) for n, node in enumerate(parts))

    def node(self, node: Node, before: Node | None, after: Node | None, inside: tuple[str, ...]) -> str:
        if isinstance(node, Text):
            return self.text(node, before, after, inside)
        if isinstance(node, Mix):
            return "{" + "|".join(self.choice(choice, (*inside, "mix")) for choice in node.choices) + "}"
        written = getattr(self, f"write_{type(node).__name__.lower()}", None)
        if written is None:
            raise PromptError(f"language={self.name} has nothing for {type(node).__name__}; another language may.")
        return str(written(node, inside))

    def choice(self, choice: Member, inside: tuple[str, ...]) -> str:
        weight = "" if choice.weight is None else f":{positional(choice.weight)}"
        return self.parts(choice.parts, inside) + weight

    @abstractmethod
    def text(self, node: Text, before: Node | None, after: Node | None, inside: tuple[str, ...]) -> str:
        """A text, escaped so that it means itself."""
