r"""`language=comfyui`: `(x)` weighs 1.1 times what is around it, `(x:1.3)` 1.3 whatever that is; `\(` `\)` are text.

Nothing else has a meaning there, and nothing is an error: a parenthesis that is never closed is text, as is one that
was closed too often, until the count is even again.
"""

from __future__ import annotations

from embedlab.errors import LanguageError, PromptError
from embedlab.language.grammar import MOST_DEPTH, Sign, build, grammar, number, positional, signs
from embedlab.language.mixes import Stretch, literal, protected, with_mixes
from embedlab.language.tree import Mix, Node, Parts, Text, Weighted
from embedlab.language.writing import Writer

GRAMMAR = grammar(
    r"""
    start: part* -> parts
    part: TEXT -> text
        | MIX -> node
        | OPEN part* CLOSE -> weighted
    TEXT: /[^\\(){}|:]+|[{}|]|\\+(?=\\[()])|\\+/
    ESCAPED.3: /\\[()]/
    SLASHED.2: /\\+(?:[{}|:]|\Z)/
    COLON: ":"
    ROUND: "("
    ROUND_END: ")"
    %declare MIX OPEN CLOSE
    """,
    ["ESCAPED", "SLASHED", "COLON", "ROUND", "ROUND_END"],
)


def read(text: str, notes: list[str]) -> Parts:
    """The tree of a prompt as ComfyUI reads it."""

    def stretch(row: list[Stretch | Sign], inside: bool) -> Parts:
        found: list[Sign] = []
        for part in row:
            found += [part] if isinstance(part, Sign) else _signs(text, part, inside)
        return build(GRAMMAR, _matched(text, found, notes))

    return with_mixes(text, 0, len(text), stretch, notes)


def _signs(text: str, stretch: Stretch, inside: bool) -> list[Sign]:
    begin, end, followed = stretch
    found = signs(GRAMMAR, text[begin:end], begin)
    for sign in found:
        if sign.type == "ESCAPED":
            sign.type, sign.value = "TEXT", sign.value[1:]
        elif sign.type == "SLASHED":
            colon = sign.value[-1] == ":" and not inside
            if colon:  # the last one may begin a weight, and has to be found
                sign.type = "SLASHED_COLON"
            else:
                sign.type = "TEXT"
                if sign.value[-1] != "\\" or followed:
                    sign.value = literal(sign.value, inside)
    return found


def _matched(text: str, found: list[Sign], notes: list[str]) -> list[Sign]:
    """The signs as the grammar wants them: parentheses that ComfyUI reads are OPEN and CLOSE, all others are text."""
    pairs = _pairs(text, found, notes)
    openings = {close: opened for opened, close in pairs.items()}
    last_colon = -1
    gone: set[int] = set()
    ready: dict[int, Sign] = {n: Sign("OPEN", "(", found[n].begin, found[n].end) for n in pairs}
    for n, sign in enumerate(found):
        if sign.type.endswith("COLON"):
            last_colon = n
        elif n in openings:
            weight, replaces = 1.1, False
            if written := _weight(text, found, openings[n], last_colon, n):
                weight, replaces = number(written, text, found[last_colon].end), True
                gone.update(range(last_colon + 1, n))
                before = found[last_colon]
                ready[last_colon] = Sign("TEXT", before.value[:-1], before.begin, before.end - 1)
            ready[n] = Sign("CLOSE", (weight, replaces, ""), sign.begin, sign.end)
    texts = (Sign("MIX" if sign.type == "MIX" else "TEXT", sign.value, sign.begin, sign.end) for sign in found)
    return [ready.get(n, sign) for n, sign in enumerate(texts) if n not in gone]


def _weight(text: str, found: list[Sign], opened: int, colon: int, close: int) -> str:
    """The number behind the last colon within parentheses, as it is written; empty where there is none."""
    if colon <= opened or found[colon].end - 1 <= found[opened].end:
        return ""
    written = text[found[colon].end : found[close].begin]
    try:
        float(written)
    except ValueError:
        return ""
    return written


def _pairs(text: str, found: list[Sign], notes: list[str]) -> dict[int, int]:
    """Which parenthesis closes which."""
    pairs: dict[int, int] = {}
    begin, end = 0, len(found)
    for _ in range(MOST_DEPTH):
        level, stack = 0, []
        for n in range(begin, end):
            if found[n].type == "ROUND":
                if level >= 0:
                    stack.append(n)
                    if len(stack) > MOST_DEPTH:
                        message = f"more than {MOST_DEPTH} parentheses within each other are too many."
                        raise LanguageError(message, text, found[n].begin)
                level += 1
            elif found[n].type == "ROUND_END":
                level -= 1
                if level >= 0:
                    pairs[stack.pop()] = n
        if level < 0:
            notes.append("a ) closes nothing: it is text, and so is the next (")
        if not stack:
            return pairs
        notes.append(f"the ( at character {found[stack[0]].begin + 1} is never closed: what follows is text")
        pairs = {opened: close for opened, close in pairs.items() if opened < stack[0]}
        if found[end - 1].type != "ROUND_END" or stack[0] > end - 2:
            return pairs
        pairs[stack[0]] = end - 1  # ComfyUI looks at the last character alone
        colon = next((n for n in range(end - 1, stack[0], -1) if found[n].type.endswith("COLON")), -1)
        if _weight(text, found, stack[0], colon, end - 1):  # it takes the weight off, and looks again
            begin, end = stack[0] + 1, colon + (found[colon].type != "COLON")
        else:
            begin, end = stack[0] + 1, end - 1
    raise LanguageError(f"more than {MOST_DEPTH} parentheses are never closed.", text, found[begin].begin)


class ComfyUI(Writer):
    """A tree as ComfyUI reads it."""

    name = "comfyui"

    def text(self, node: Text, before: Node | None, after: Node | None, inside: tuple[str, ...]) -> str:
        choice = inside[-1:] == ("mix",)
        written = protected(node.text, "mix" in inside, isinstance(after, Mix) or (choice and after is None))
        return written.replace("(", "\\(").replace(")", "\\)")

    def write_weighted(self, node: Weighted, inside: tuple[str, ...]) -> str:
        weight = f":{positional(node.weight)}" if node.replaces else ""
        if not weight and node.weight != 1.1:
            raise PromptError(
                "language=comfyui has no weight that multiplies but 1.1; (x:1.3) replaces those around it."
            )
        return f"({self.parts(node.parts, (*inside, 'weighted'))}{weight})"
