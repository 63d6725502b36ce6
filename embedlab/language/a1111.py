r"""`language=a1111`: the prompts of stable-diffusion-webui and Forge. They raise nothing; the notes say what they did.

`(x)` `(x:1.3)` `[x]` weights · BREAK · AND with weights, and AND_PERP, AND_SALT and AND_TOPK of sd-webui-neutral-prompt
· `[a:b:0.5]` `[a:0.5]` `[a::0.5]` editing · `[a|b]` alternation · `\` before a sign. AND is looked for first, anywhere;
then schedules; then weights, whose two kinds of brackets need not be nested in each other, and which end with the
prompt where nothing closes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from embedlab.errors import LanguageError, PromptError
from embedlab.language.grammar import MOST_DEPTH, Sign, build, grammar, joined, number, positional, signs
from embedlab.language.mixes import Stretch, with_mixes
from embedlab.language.tree import Alternation, And, Break, Edit, Member, Mix, Node, Parts, Text, Weighted, walk
from embedlab.language.writing import Writer

GRAMMAR = grammar(
    r"""
    start: part* -> parts
    part: TEXT -> text
        | MIX -> node
        | BREAK -> break_
        | OPEN part* CLOSE -> weighted
        | EDIT part* EDIT_BAR part* EDIT_END -> edit
        | TURN part* (TURN_BAR part*)+ TURN_END -> alternation
    TEXT: /(?:(?!\bBREAK\b)[^\\()\[\]:{}|])+|[{}]/
    BREAK.2: /\bBREAK\b/
    ESCAPED.2: /\\[()\[\]\\{}|]|\\:(?!\s*[+-]?[.\d]+\s*\))/
    DROPPED: /\\/
    ROUND: "("
    SQUARE: "["
    ROUND_WEIGHT.2: /:\s*[+-]?[.\d]+\s*\)/
    ROUND_END: ")"
    SQUARE_END: "]"
    COLON: ":"
    BAR: "|"
    %declare MIX OPEN CLOSE EDIT EDIT_BAR EDIT_END TURN TURN_BAR TURN_END
    """,
    ["ESCAPED", "DROPPED", "ROUND", "SQUARE", "ROUND_WEIGHT", "ROUND_END", "SQUARE_END", "COLON", "BAR"],
)
# AND of A1111, and the words that sd-webui-neutral-prompt puts beside it, each with the way of `guidance.combine`
WAYS = {"AND": None, "AND_PERP": "perp", "AND_SALT": "salient", "AND_TOPK": "top_k"}
WORDS = {way: word for word, way in WAYS.items()}
AND = re.compile(r"\bAND(?:_PERP|_SALT|_TOPK)?\b")
PART_WEIGHT = re.compile(r":\s*([-+]?(?:[0-9]+\.?|[0-9]*\.[0-9]+))\s*\Z")
WHEN = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
CLOSED = {"ROUND_END": "ROUND", "ROUND_WEIGHT": "ROUND", "SQUARE_END": "SQUARE"}
UP, DOWN = 1.1, 1 / 1.1


@dataclass(eq=False)
class _Bracket:
    """An open bracket: its own bars and colons, and whether a schedule may stand around what it holds."""

    kind: str
    begin: int  # its sign
    bars: list[int] = field(default_factory=list)
    colons: list[int] = field(default_factory=list)
    fits: bool = True
    weight: float = UP
    schedule: list[tuple[int, str, Any]] = field(default_factory=list)


def read(text: str, notes: list[str]) -> Parts:
    """The tree of a prompt as A1111 and Forge read it."""
    members, begin, way = [], 0, None
    edges = [(found.start(), found.end(), WAYS[found[0]]) for found in AND.finditer(text)]
    for stop, following, next_way in [*edges, (len(text), len(text), None)]:
        weight, end = 1.0, stop
        if found := PART_WEIGHT.search(text, begin, stop):
            weight, end = number(found[1], text, found.start(1)), found.start()
        end = begin + len(text[begin:end].rstrip())
        parts = with_mixes(text, begin, end, lambda row, inside: _stretch(text, row, notes), notes)
        members.append(Member(_stripped(parts), weight, way, begin=begin, end=end))
        begin, way = following, next_way
    if len(members) == 1 and members[0].weight == 1:
        return members[0].parts
    if len(members) == 1:
        written = f":{members[0].weight:g}"
        notes.append(
            f"the prompt ends in {written}, its weight as a whole and no text; end it in {written}:1 for the text"
        )
    return (And(tuple(members), begin=0, end=len(text)),)


def _stripped(parts: Parts) -> Parts:
    """Without blanks at the end, which a backslash may have kept."""
    last = parts[-1] if parts else None
    if not isinstance(last, Text) or not last.text[-1:].isspace():
        return parts
    text = last.text.rstrip()
    return (*parts[:-1], *([Text(text, begin=last.begin, end=last.end)] if text else []))


def _stretch(text: str, row: list[Stretch | Sign], notes: list[str]) -> Parts:
    read_signs: list[Sign] = []
    for part in row:
        read_signs += [part] if isinstance(part, Sign) else signs(GRAMMAR, text[part[0] : part[1]], part[0])
    _trim_breaks(read_signs)
    return build(GRAMMAR, _resolved(text, read_signs, notes))


def _trim_breaks(read_signs: list[Sign]) -> None:
    """Blanks around BREAK belong to it."""
    for n, sign in enumerate(read_signs):
        if sign.type == "BREAK":
            if n and read_signs[n - 1].type == "TEXT":
                read_signs[n - 1].value = read_signs[n - 1].value.rstrip()
            if n + 1 < len(read_signs) and read_signs[n + 1].type == "TEXT":
                read_signs[n + 1].value = read_signs[n + 1].value.lstrip()


class _Matching:
    """Which bracket closes which, and what stands between them."""

    def __init__(self, text: str, read_signs: list[Sign]) -> None:
        self.text, self.signs = text, read_signs
        self.events: dict[int, list[tuple[str, _Bracket]]] = {}  # instead of a sign
        self.open: list[_Bracket] = []
        self.schedules: list[_Bracket] = []
        self.stray = False  # a bar that no alternation has: A1111 then reads no schedule at all
        self.crossed = False

    def run(self) -> None:
        for n, sign in enumerate(self.signs):
            if sign.type in ("ROUND", "SQUARE"):
                if len(self.open) >= MOST_DEPTH:
                    message = f"more than {MOST_DEPTH} brackets within each other are too many."
                    raise LanguageError(message, self.text, sign.begin)
                self.open.append(_Bracket(sign.type, n, weight=UP if sign.type == "ROUND" else DOWN))
                self.events[n] = [("OPEN", self.open[-1])]
            elif sign.type == "BAR":
                if self.open:
                    self.open[-1].bars.append(n)
                else:
                    self.stray = True
            elif sign.type == "COLON" and self.open:
                self.open[-1].colons.append(n)
            elif sign.type in CLOSED:
                self.close(n, sign)
            elif sign.type == "DROPPED" and self.text[sign.end : sign.end + 1] in ("", "\n"):
                self.stray = True
        self.stray |= any(bracket.bars for bracket in self.open)

    def close(self, n: int, sign: Sign) -> None:
        kind = CLOSED[sign.type]
        places = [k for k, bracket in enumerate(self.open) if bracket.kind == kind]
        if not places:  # text
            if self.open:
                self.open[-1].fits = False
            return
        bracket = self.open.pop(places[-1])
        crossed = self.open[places[-1] :]
        if sign.type == "ROUND_WEIGHT":
            bracket.weight = number(sign.value[1:-1], self.text, sign.begin)
            bracket.colons.append(n)
        self.events[n] = [("CLOSE", other) for other in reversed(crossed)]
        self.events[n] += [("CLOSE", bracket), *(("OPEN", other) for other in crossed)]
        if crossed:
            self.crossed = True
            for other in [bracket, *self.open]:
                other.fits = False
        if not self.scheduled(bracket, n):
            self.stray |= bool(bracket.bars)
            most = 1 if kind == "ROUND" else 0
            bracket.fits &= not bracket.bars and len(bracket.colons) <= most
        if self.open and not crossed:
            self.open[-1].fits &= bracket.fits

    def scheduled(self, bracket: _Bracket, n: int) -> bool:
        """Whether square brackets hold an alternation or an edit."""
        if bracket.kind != "SQUARE" or not bracket.fits:
            return False
        if bracket.bars and not bracket.colons:
            turns = [(bar, "TURN_BAR", None) for bar in bracket.bars]
            bracket.schedule = [(bracket.begin, "TURN", None), *turns, (n, "TURN_END", None)]
        elif not bracket.bars and 1 <= len(bracket.colons) <= 2:
            last = bracket.colons[-1]
            between = self.signs[last + 1 : n]
            written = between[0].value.strip() if len(between) == 1 and between[0].type == "TEXT" else ""
            if not WHEN.fullmatch(written):
                return False
            value = number(written, self.text, between[0].begin)
            clock = "fraction" if "." in written else "steps"
            at = value if clock == "fraction" else int(value)
            bar = bracket.colons[0] if len(bracket.colons) == 2 else bracket.begin
            begins = [(bracket.begin, "EDIT", None), (bar, "EDIT_BAR", None)]
            bracket.schedule = [*begins, (last, "", None), (last + 1, "", None), (n, "EDIT_END", (at, clock))]
        else:
            return False
        self.schedules.append(bracket)
        return True


def _resolved(text: str, read_signs: list[Sign], notes: list[str]) -> list[Sign]:
    """The signs as the grammar wants them: every bracket closed, and each kind told apart."""
    matching = _Matching(text, read_signs)
    matching.run()
    marks: dict[int, list[tuple[str, Any]]] = {}
    if matching.stray and matching.schedules:
        notes.append("a | outside of [a|b] keeps A1111 from reading [a:b:0.5] and [a|b]: they are weights here")
    else:
        for bracket in matching.schedules:
            for n, kind, value in bracket.schedule:
                marks.setdefault(n, []).append((kind, value))
    found: list[Sign] = []
    for n, sign in enumerate(read_signs):
        if n in marks:
            found += [Sign(kind, value, sign.begin, sign.end) for kind, value in marks[n] if kind]
        elif n in matching.events:
            for kind, bracket in matching.events[n]:
                found.append(Sign(kind, (bracket.weight, False, ""), sign.begin, sign.end))
        elif sign.type in ("MIX", "BREAK"):
            found.append(sign)
        elif sign.type != "DROPPED":
            value = sign.value[1:] if sign.type == "ESCAPED" else sign.value
            found.append(Sign("TEXT", value, sign.begin, sign.end))
    last = read_signs[-1].end if read_signs else 0
    found += [Sign("CLOSE", (bracket.weight, False, ""), last, last) for bracket in reversed(matching.open)]
    if matching.open:
        names = "".join("(" if bracket.kind == "ROUND" else "[" for bracket in matching.open)
        notes.append(f"{names} is never closed: it weighs everything to the end of the prompt")
    if matching.crossed:
        notes.append("( ) and [ ] cross each other: each weighs what it holds")
    if any(sign.type == "BREAK" for sign in read_signs) and _break_inside(found):
        notes.append(
            "BREAK stands inside brackets: A1111 weighs it and reads it as a word; here it begins a new window"
        )
    return found


def _break_inside(found: list[Sign]) -> bool:
    depth = 0
    for sign in found:
        depth += (sign.type == "OPEN") - (sign.type == "CLOSE")
        if sign.type == "BREAK" and depth:
            return True
    return False


def stages(
    root: Parts, steps: int, base_steps: int | None = None, old_rule: bool = False
) -> tuple[tuple[int, Parts], ...]:
    """What A1111 encodes for each stretch of steps: the last step of each, and the tree without edits and alternations.

    A number with a point is a fraction of the steps, one without is a step; in a second pass (`base_steps` of the first
    were drawn before) they count from 1.0 and from `base_steps`. With `old_rule`, all below 1 are fractions. A stage
    that ends at step 5 is drawn at A1111's steps 0 to 5.

    >>> from embedlab.language import parse, write
    >>> [(end, write(parts, "a1111")) for end, parts in stages(parse("a [cat:dog:0.5] x", "a1111").root, steps=10)]
    [(5, 'a cat x'), (10, 'a dog x')]
    """

    def when(node: Edit) -> int:
        if old_rule:
            return min(steps, int(node.at * steps if node.at < 1 else node.at))
        if node.clock == "fraction":
            return min(steps, int((node.at - (1.0 if base_steps is not None else 0.0)) * steps))
        return min(steps, int(node.at) - (base_steps or 0))

    ends = {steps}
    for node, _, _ in walk(root):
        if isinstance(node, Edit) and when(node) >= 1:
            ends.add(when(node))
        elif isinstance(node, Alternation):
            ends.update(range(1, steps + 1))

    def at_step(parts: Parts, step: int) -> Parts:
        from_here: list[Node] = []
        for node in parts:
            match node:
                case Edit():
                    from_here += at_step(node.before if step <= when(node) else node.after, step)
                case Alternation():
                    from_here += at_step(node.choices[(step - 1) % len(node.choices)], step)
                case Weighted():
                    from_here.append(
                        Weighted(at_step(node.parts, step), node.weight, node.replaces, begin=node.begin, end=node.end)
                    )
                case And():
                    prompts = tuple(_with(member, at_step(member.parts, step)) for member in node.prompts)
                    from_here.append(And(prompts, begin=node.begin, end=node.end))
                case Mix():
                    choices = tuple(_with(member, at_step(member.parts, step)) for member in node.choices)
                    from_here.append(Mix(choices, begin=node.begin, end=node.end))
                case _:
                    from_here.append(node)
        return joined(from_here)

    return tuple((end, at_step(root, end)) for end in sorted(ends))


def _with(member: Member, parts: Parts) -> Member:
    return replace(member, parts=parts)


class A1111(Writer):
    """A tree as A1111 reads it."""

    name = "a1111"

    def text(self, node: Text, before: Node | None, after: Node | None, inside: tuple[str, ...]) -> str:
        written = re.sub(r"[\\()\[\]{}|]", r"\\\g<0>", node.text)
        if inside:
            written = written.replace(":", "\\:")
        written = re.sub(rf"\b(?={AND.pattern}|BREAK\b)([AB])", r"\1\\", written)
        left = "\\" if isinstance(before, Break) and written[:1].isspace() else ""
        right = "\\" if isinstance(after, Break) and written[-1:].isspace() else ""
        return f"{left}{written}{right}"

    def whole(self, parts: Parts) -> str:
        """A prompt whose end would be read as its weight gets one."""
        written = self.parts(parts)
        return f"{written}:1" if PART_WEIGHT.search(written) and not isinstance(parts[0], And) else written

    def write_and(self, node: And, inside: tuple[str, ...]) -> str:
        if inside:
            raise PromptError("language=a1111 splits a prompt at AND first; AND inside of brackets cannot be written.")
        written = ""
        for n, member in enumerate(node.prompts):
            weight = 1 if member.weight is None else member.weight
            part = self.whole(member.parts) if weight == 1 else f"{self.parts(member.parts)}:{positional(weight)}"
            apart = "\\" if n and re.match(r"\w", part) else ""
            written += f"{f' {WORDS[member.way]}' if n else ''}{apart}{part}"
        return written

    def write_weighted(self, node: Weighted, inside: tuple[str, ...]) -> str:
        if node.replaces:
            raise PromptError("language=a1111 multiplies weights; one that replaces those around it cannot be written.")
        return f"({self.parts(node.parts, (*inside, 'weighted'))}:{positional(node.weight)})"

    def write_break(self, node: Break, inside: tuple[str, ...]) -> str:
        return " BREAK "

    def write_edit(self, node: Edit, inside: tuple[str, ...]) -> str:
        at = positional(node.at) if node.clock == "fraction" else str(int(node.at))
        within = (*inside, "edit")
        return f"[{self.parts(node.before, within)}:{self.parts(node.after, within)}:{at}]"

    def write_alternation(self, node: Alternation, inside: tuple[str, ...]) -> str:
        return f"[{'|'.join(self.parts(choice, (*inside, 'turn')) for choice in node.choices)}]"
