r"""`language=compel`: `word++` `(phrase)1.2` `"quoted"++` `.attend()` · `.swap()` · whole prompts: `.blend()` `.and()`.

Words are what blanks part; a parenthesis or a quote means something where a word begins, and only when all it holds
can be read, else it is text up to the next blank. `+` is 1.1 and `-` is 0.9, as often as they stand there. Texts of one
weight are joined by one blank. Of compel's eight escapes, 2.5.1 undoes three (of brackets and quotes); here all are.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from embedlab.errors import LanguageError, PromptError
from embedlab.language.grammar import MOST_DEPTH, Sign, build, grammar, number, positional, signs
from embedlab.language.mixes import Stretch, literal, protected, with_mixes
from embedlab.language.tree import Blend, Joined, Member, Node, Parts, Swap, Text, Weighted
from embedlab.language.writing import Writer

GRAMMAR = grammar(
    r"""
    start: part* -> words
         | SEVERAL part* (SEVERAL_BAR part*)* SEVERAL_END -> several
    part: TEXT -> text
        | MIX -> node
        | GROUP part* GROUP_END -> group
        | OPEN part* CLOSE -> weighted
        | SWAP part* SWAP_BAR part* SWAP_END -> swap
    BLANK: /[ \t\n\r\x0b\x0c]+/
    ESCAPED.3: /\\[(),".+=-]/
    SLASHED.2: /\\+(?:[{}|:]|\Z)/
    TEXT: /[A-Za-z]+(?: [A-Za-z]+)*(?= [A-Za-z])|[^ \t\n\r\x0b\x0c(),".+=\\{}|:-]+|[{}|:]|\\+(?=\\[(),".+=-])|\\+/
    SIGNS: /\++|-+/
    ROUND: "("
    ROUND_END: ")"
    QUOTE: "\""
    COMMA: ","
    DOT: "."
    EQUALS: "="
    %declare MIX OPEN CLOSE GROUP GROUP_END SWAP SWAP_BAR SWAP_END SEVERAL SEVERAL_BAR SEVERAL_END
    """,
    ["BLANK", "ESCAPED", "SLASHED", "SIGNS", "ROUND", "ROUND_END", "QUOTE", "COMMA", "DOT", "EQUALS"],
)
WORD = ("TEXT", "ESCAPED", "SLASHED")
SYNTAX = ("ROUND", "ROUND_END", "QUOTE", "COMMA", "DOT", "EQUALS", "SIGNS")
WEIGHT = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)|-?[0-9]+")
SWAP_OPTIONS = ("s_start", "s_end", "t_start", "t_end", "shape_freedom")
ARGUMENTS = re.compile(r"\s*\.(attend|swap|blend|and|add)\s*\(", re.ASCII)
LORA = re.compile(r"(?:useLora|withLora)\s*\(\s*[\w-]+\s*(?:,\s*[+-]?[0-9]*\.?[0-9]+\s*)?\)", re.ASCII)
OPTION = re.compile(r"\s*([A-Za-z0-9_-]+)\s*(?:=\s*([A-Za-z0-9_.+-]+)\s*)?")
UP, DOWN = 1.1, 0.9
LONGEST_OPTIONS = 200  # characters
Found = tuple[int, list[Sign]]  # where the reader is then, and what it read


def read(text: str, notes: list[str]) -> Parts:
    """The tree of a prompt as compel reads it."""

    def stretch(row: list[Stretch | Sign], inside: bool) -> Parts:
        found: list[Sign] = []
        for part in row:
            found += [part] if isinstance(part, Sign) else _signs(text, part, inside)
        reader = _Reader(text, found, notes)
        return build(GRAMMAR, _runs(reader.prompt() if inside else reader.several() or reader.prompt()))

    return with_mixes(text, 0, len(text), stretch, notes)


def _signs(text: str, stretch: Stretch, inside: bool) -> list[Sign]:
    begin, end, followed = stretch
    found = signs(GRAMMAR, text[begin:end], begin)
    for sign in found:
        if sign.type == "ESCAPED":
            sign.value = sign.value[1:]
        elif sign.type == "SLASHED" and (sign.value[-1] != "\\" or followed):
            sign.value = literal(sign.value, inside)
    return found


def _runs(found: list[Sign]) -> Iterator[Sign]:
    """The same with neighbouring texts as one, as they are in the tree: a parser takes its time for each."""
    for kind, same in groupby(found, attrgetter("type")):
        said = list(same)
        texts = [sign for sign in said if sign.value] if kind == "TEXT" else []
        if len(texts) > 1:
            yield Sign("TEXT", " ".join(sign.value for sign in texts), texts[0].begin, texts[-1].end)
        else:
            yield from said


def _power(base: float, times: int) -> float:
    """A power, or infinity where no float is as large."""
    return float("inf") if base > 1 and times > 7000 else float(base**times)


def _cut_at_weights(text: str, found: list[Sign]) -> Iterator[Sign]:
    """The signs, the text behind a weight as one of its own: in `(x)1.2foo` the weight ends at the f."""
    end = 0  # of the last weight
    for n, sign in enumerate(found):
        if sign.type == "TEXT" and sign.begin < end < sign.end:
            yield Sign("TEXT", sign.value[: end - sign.begin], sign.begin, end)
            yield Sign("TEXT", sign.value[end - sign.begin :], end, sign.end)
        else:
            yield sign
        if sign.type in ("ROUND_END", "QUOTE") and n + 1 < len(found):
            weight = WEIGHT.match(text, sign.end, found[-1].end)
            end = weight.end() if weight else end


@dataclass
class _Reader:
    """Reads from left to right, without going back over what was read: what was tried in a place is remembered."""

    text: str
    signs: list[Sign]
    notes: list[str]
    tried: dict[tuple[str, int, int], Found | None] = field(default_factory=dict)
    depth: int = 0

    def __post_init__(self) -> None:
        self.signs = list(_cut_at_weights(self.text, self.signs))
        self.begins = [sign.begin for sign in self.signs]
        self.quotes = [n for n, sign in enumerate(self.signs) if sign.type == "QUOTE"]
        self.closes = [n for n, sign in enumerate(self.signs) if sign.type == "ROUND_END"]
        self.parting: set[int] = set()  # commas that compel puts a blank behind: every second one of a row has none
        for n, sign in enumerate(self.signs):
            if sign.type == "COMMA" and not (n - 1 in self.parting and self.signs[n - 1].type == "COMMA"):
                self.parting.add(n)

    def kind(self, n: int, end: int) -> str:
        return self.signs[n].type if n < end else ""

    def blanks(self, n: int, end: int) -> int:
        while self.kind(n, end) == "BLANK":
            n += 1
        return n

    def at(self, place: int) -> int:
        """The sign that begins at a place of the text, or the next one."""
        return bisect_right(self.begins, place - 1)

    def here(self, n: int) -> int:
        return self.signs[n].begin if n < len(self.signs) else len(self.text)

    # words and what stands for one

    def word(self, n: int, end: int) -> int:
        """Where the word that begins at `n` ends; `n` where there is none."""
        while n < end:
            sign = self.signs[n]
            safe = sign.type == "SIGNS" and len(sign.value) == 1 and self.kind(n + 1, end) not in ("", "BLANK", *SYNTAX)
            if sign.type not in WORD and not safe:
                break
            n += 1
        return n

    def texts(self, begin: int, end: int) -> list[Sign]:
        """Signs as one word of text."""
        if begin == end:
            return []
        value = "".join(sign.value for sign in self.signs[begin:end])
        return [Sign("TEXT", value, self.signs[begin].begin, self.signs[end - 1].end)]

    def round(self, n: int, end: int) -> Found | None:
        """`( … )`, all of whose content can be read."""
        if self.kind(n, end) != "ROUND":
            return None

        def read_it() -> Found | None:
            at, found = self.fragment(n + 1, end)
            return (at + 1, found) if self.kind(at, end) == "ROUND_END" else None

        return self.once("round", n, end, read_it)

    def once(self, what: str, n: int, end: int, read_it: Callable[[], Found | None]) -> Found | None:
        """What is read from a place, tried one time; not too deep."""
        key = what, n, end
        if key not in self.tried:
            self.depth += 1
            if self.depth > MOST_DEPTH:
                message = f"more than {MOST_DEPTH} parentheses within each other are too many."
                raise LanguageError(message, self.text, self.here(n))
            self.tried[key] = read_it()
            self.depth -= 1
        return self.tried[key]

    def quoted(self, n: int, end: int) -> int | None:
        """Where the quote that begins at `n` ends."""
        if self.kind(n, end) != "QUOTE":
            return None
        after = bisect_right(self.quotes, n)
        if after == len(self.quotes) or self.quotes[after] >= end:
            return None
        close = self.quotes[after]
        lines = any(sign.type == "BLANK" and re.search(r"[\n\r]", sign.value) for sign in self.signs[n + 1 : close])
        return None if lines else close

    def target(self, n: int, end: int) -> Found | None:
        """A quote, parentheses or a word."""
        if (close := self.quoted(n, end)) is not None:
            at, found = self.fragment(n + 1, close)
            if at == close:
                return close + 1, found
        if done := self.round(n, end):
            return done
        stop = self.word(n, end)
        return (stop, self.texts(n, stop)) if stop > n else None

    def operator(self, n: int, at: int, end: int, found: list[Sign]) -> Found | None:
        """What stands right behind a target at `at`: a weight or a `.swap()`."""
        begin = self.here(n)
        opened = Sign("OPEN", "(", begin, begin)
        if named := self.named(at, end):
            name, inside = named
            if name == "swap":
                return self.swap(begin, found, inside, end)
            if name == "attend":
                close = self.blanks(inside, end)
                stop, weight = self.weight(close, end)
                stop = self.blanks(stop, end)
                if weight is not None and self.kind(stop, end) == "ROUND_END":
                    return stop + 1, [opened, *found, Sign("CLOSE", (weight, False, " "), begin, self.signs[stop].end)]
        of_a_word = self.kind(n, end) not in ("ROUND", "QUOTE")
        if of_a_word and self.kind(at, end) != "SIGNS":
            return None
        stop, weight = self.weight(at, end)
        if weight is None:
            return None
        return stop, [opened, *found, Sign("CLOSE", (weight, False, " "), begin, self.here(stop))]

    def weight(self, n: int, end: int) -> tuple[int, float | None]:
        """A weight that begins at `n`, and where it ends."""
        if self.kind(n, end) == "SIGNS":
            run = self.signs[n].value
            return n + 1, number(repr(_power(UP if run[0] == "+" else DOWN, len(run))), self.text, self.here(n))
        found = WEIGHT.match(self.text, self.here(n), self.signs[end - 1].end) if n < end else None
        if not found:
            return n, None
        return self.at(found.end()), number(found[0], self.text, self.here(n))

    def named(self, n: int, end: int) -> tuple[str, int] | None:
        """The name of an operator on what stands before, and where its arguments begin."""
        if self.kind(self.blanks(n, end), end) != "DOT":
            return None
        found = ARGUMENTS.match(self.text, self.here(n), self.signs[end - 1].end)
        return (found[1], self.at(found.end())) if found else None

    def swap(self, begin: int, found: list[Sign], n: int, end: int) -> Found | None:
        done = self.once("swap", n, end, lambda: self.fragment(n, end, commas=False))
        if done is None:
            return None
        at, edited = done
        options: list[tuple[str, float | str]] = []
        if self.kind(at, end) == "COMMA":
            after = bisect_right(self.closes, at)
            close = self.closes[after] if after < len(self.closes) else end
            if close >= end or self.here(close) - self.here(at) > LONGEST_OPTIONS:
                return None
            for one in self.text[self.here(at) + 1 : self.here(close)].split(","):
                option = OPTION.fullmatch(one)
                if not option:
                    return None
                written = option[2] or ""
                value = number(written, self.text, self.here(at)) if WEIGHT.fullmatch(written) else written
                options.append((option[1], value))
                self.note_option(option[1], value)
            at = close
        if self.kind(at, end) != "ROUND_END":
            return None
        bar = self.here(n)
        row = [Sign("SWAP", "", begin, begin), *found, Sign("SWAP_BAR", "", bar, bar), *edited]
        return at + 1, [*row, Sign("SWAP_END", tuple(options), self.signs[at].begin, self.signs[at].end)]

    def note_option(self, name: str, value: float | str) -> None:
        """Say what an option of a swap does not do; compel takes whatever is written there."""
        if name not in SWAP_OPTIONS:
            note = f".swap() has no option {name[:40]}, which does nothing; it has {', '.join(SWAP_OPTIONS)}"
        elif isinstance(value, str) or not 0 <= value <= 1:
            note = f".swap({name}={value}): {name} is a share, from 0 to 1"
        else:
            return
        self.notes += [] if note in self.notes else [note]

    def lora(self, n: int, end: int) -> int | None:
        if self.kind(n, end) != "TEXT" or not self.signs[n].value.endswith("Lora"):
            return None
        found = LORA.match(self.text, self.here(n), self.signs[end - 1].end)
        if not found:
            return None
        self.notes.append(f"'{found[0][:60]}' names a LoRA; load one with the model, it is left out of the text")
        return self.at(found.end())

    def item(self, n: int, end: int) -> Found | None:
        """One part that can be read: a mix, or a target with or without an operator."""
        if self.kind(n, end) == "MIX":
            return n + 1, [self.signs[n]]
        if (stop := self.lora(n, end)) is not None:
            return stop, []
        found = self.target(n, end)
        if not found:
            return None
        at, inner = found
        done = self.operator(n, at, end, inner)
        if done:
            return done
        group = self.kind(n, end) in ("ROUND", "QUOTE")
        begin = self.here(n)
        return at, [Sign("GROUP", "", begin, begin), *inner, Sign("GROUP_END", "", begin, begin)] if group else inner

    def fragment(self, n: int, end: int, commas: bool = True) -> Found:
        """Parts as long as they can be read, as inside of brackets, where a comma and a full stop stand alone."""
        found: list[Sign] = []
        while True:
            n = self.blanks(n, end)
            if commas and self.kind(n, end) in ("COMMA", "DOT"):
                found += self.texts(n, n + 1)
                n += 1
            elif done := self.item(n, end):
                n = done[0]
                found += done[1]
            else:
                return n, found

    def words(self, n: int, end: int) -> list[Sign]:
        """Everything, as outside of brackets: what cannot be read is a word up to the next blank."""
        found: list[Sign] = []
        while (n := self.blanks(n, end)) < end:
            if stop := self.alone(n, end):
                found += self.texts(n, stop)
                n = stop
                continue
            simple = self.word(n, end)
            done = self.item(n, end)
            if done and not (simple > n and done[0] == simple):  # a word alone may go on with other signs
                n = done[0]
                found += done[1]
                continue
            stop = n
            while self.kind(stop, end) not in ("", "BLANK", "MIX"):
                stop += 1
                if stop - 1 in self.parting and not self.text[self.here(stop) : self.here(stop) + 1].isspace():
                    break
            found += self.texts(n, stop)
            n = stop
        return found

    def alone(self, n: int, end: int) -> int:
        """Where a word ends, with its comma, behind which a blank and another word stand; 0 for all others."""
        if self.kind(n, end) != "TEXT":
            return 0
        stop = n + 2 if self.kind(n + 1, end) == "COMMA" else n + 1
        return stop if self.kind(stop, end) == "BLANK" and self.kind(stop + 1, end) == "TEXT" else 0

    def prompt(self) -> list[Sign]:
        return self.words(0, len(self.signs))

    # whole prompts

    def several(self) -> list[Sign] | None:
        """`("a", "b").blend(…)` and `.and(…)`, when the prompt is nothing else."""
        end = len(self.signs)
        n = self.blanks(0, end)
        first = n
        if self.kind(n, end) != "ROUND":
            return None
        members: list[tuple[int, list[Sign]]] = []
        while self.kind(n, end) in ("ROUND", "COMMA") and (n == first or self.kind(n, end) == "COMMA"):
            begin = self.blanks(n + 1, end)
            found = self.target(begin, end)
            if not found and (close := self.quoted(begin, end)) is not None:
                found = close + 1, self.words(begin + 1, close)
            if not found:
                return None
            members.append((begin, found[1]))
            n = self.blanks(found[0], end)
        named = self.named(n + 1, end) if self.kind(n, end) == "ROUND_END" else None
        if not named or named[0] in ("swap", "attend"):
            return None
        close = named[1]
        while self.kind(close, end) not in ("", "ROUND_END"):
            close += 1
        if close == end:
            return None
        kind = "blend" if named[0] == "blend" else "joined"
        weights, options = self.weights(kind, named[1], close, len(members))
        if (after := self.blanks(close + 1, end)) < end:
            if kind == "blend":
                message = ".blend(…) has to be the whole prompt; put what follows inside."
                raise LanguageError(message, self.text, self.here(after))
            self.notes.append(f"compel drops what follows .and(…): '{self.text[self.here(after) :][:40]}'")
        row: list[Sign] = []
        for k, (begin, found_signs) in enumerate(members):
            opened = Sign("SEVERAL_BAR" if k else "SEVERAL", "", self.here(begin if k else first), self.here(begin))
            row += [opened, *found_signs]
        return [*row, Sign("SEVERAL_END", (kind, weights, " ", options), self.here(n), self.signs[close].end)]

    def weights(self, kind: str, n: int, close: int, members: int) -> tuple[list[float | None], tuple[bool, ...]]:
        place = self.here(n)
        written = [part.strip() for part in self.text[place : self.here(close)].split(",")]
        written = [] if written == [""] else written
        options: tuple[bool, ...] = ()
        if kind == "blend" and written and written[-1] == "no_normalize":
            written, options = written[:-1], (False,)
        if not written:
            return [None] * members, options
        weights = [number(part, self.text, place) for part in written]
        if len(weights) != members:
            raise LanguageError(f"{len(weights)} weights for {members} prompts; give as many.", self.text, place)
        if kind == "blend" and not options and not abs(sum(weights)) > 1e-9:
            raise LanguageError("the weights sum to zero; add no_normalize, or change one.", self.text, place)
        return list(weights), options


class Compel(Writer):
    """A tree as compel reads it."""

    name = "compel"
    between = " "

    def text(self, node: Text, before: Node | None, after: Node | None, inside: tuple[str, ...]) -> str:
        words = [self.word(word, inside) for word in re.split(r"[ \t\n\r\x0b\x0c]+", node.text) if word]
        if words and (words[-1].endswith("\\") or words[-1].endswith(("useLora", "withLora"))):
            words.append('""')  # nothing, so that neither a sign nor parentheses follow
        return " ".join(words)

    def word(self, word: str, inside: tuple[str, ...]) -> str:
        """One word that means itself, in brackets or out of them."""
        bracketed = bool(inside) and inside[-1] != "mix"
        safe = protected(word, "mix" in inside, followed=False)
        if bracketed and safe in (",", "."):
            return safe
        written = []
        for n, sign in enumerate(safe):
            before, after = safe[n - 1 : n], safe[n + 1 : n + 2]
            escape = sign in '()"'
            escape |= sign in ",.=+-" and before == "\\"
            escape |= sign in "+-" and (not after or after in '(),".+=-\\')
            escape |= sign in ",.=" and bracketed
            escape |= sign == "," and bool(after)
            escape |= sign == "." and bool(ARGUMENTS.match(safe[n : n + 10] + "("))
            written.append(f"\\{sign}" if escape else sign)
        return "".join(written)

    def write_weighted(self, node: Weighted, inside: tuple[str, ...]) -> str:
        if node.replaces or node.weight < 0:
            raise PromptError("language=compel multiplies weights of 0 and more; another language has what is asked.")
        return f"({self.parts(node.parts, (*inside, 'weighted'))}){positional(node.weight)}"

    def write_swap(self, node: Swap, inside: tuple[str, ...]) -> str:
        within = (*inside, "swap")
        values = [(name, value if isinstance(value, str) else positional(value)) for name, value in node.options]
        options = "".join(f", {name}{value and f'={value}'}" for name, value in values)
        edited = self.parts(node.edited, within)
        if any(isinstance(part, Text) and {",", "."} & set(part.text.split()) for part in node.edited):
            edited = f"({edited})"  # where a comma alone would begin the options, and a full stop end the text
        return f"({self.parts(node.original, within)}).swap({edited}{options})"

    def write_joined(self, node: Joined, inside: tuple[str, ...]) -> str:
        return f"{self.members(node.prompts, inside)}.and({self.arguments(node.prompts)})"

    def write_blend(self, node: Blend, inside: tuple[str, ...]) -> str:
        written = [self.arguments(node.prompts), "" if node.normalize else "no_normalize"]
        return f"{self.members(node.prompts, inside)}.blend({', '.join(part for part in written if part)})"

    def members(self, prompts: tuple[Member, ...], inside: tuple[str, ...]) -> str:
        if inside:
            raise PromptError("language=compel has .blend() and .and() for whole prompts alone.")
        return "(" + ", ".join(f'"{self.parts(member.parts, ("quoted",))}"' for member in prompts) + ")"

    def arguments(self, prompts: tuple[Member, ...]) -> str:
        weights = [member.weight for member in prompts if member.weight is not None]
        return ", ".join(positional(weight) for weight in weights)
