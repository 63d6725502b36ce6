"""Text → Tokens: ids in windows of 77, where each word landed, what was cut and what was left out.

A row is one place in the prompt, counted through all windows: row `r` stands in window `r // 77` at place `r % 77`. On
a stretched position table a window has more than 77 places; `Tokens.window` says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import regex
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import CLIPTokenizer

from embedlab.clean import BLANK, redact, secret_spans
from embedlab.composition import Composed, Layout, Section, named_sections, needs_empty, sections, settled, streams
from embedlab.display import Chip, Html, Shown, block, chips, join, short, table, tag
from embedlab.errors import PromptError, brief, counted, listed
from embedlab.language import foreign
from embedlab.language.tree import And, Blend, Break, Joined, Mix, Swap, Text, Weighted, product
from embedlab.limits import WINDOW, Padding, Split
from embedlab.parsed_prompt import ParsedPrompt, flat
from embedlab.token_ids import concepts_of, ids_of, pieces_of, tokenizer_of, word_spans
from embedlab.windows import BACKTRACK, BREAK, windows_of
from embedlab.windows import Break as NewWindow

SWAPPED = ".swap() copies attention in the prompt alone; here it is read as its first text"


@dataclass(frozen=True)
class Word:
    """One word of the prompt as the tokenizer sees it, and the rows of its tokens.

    The text of a word that is part of a secret of the environment is `***`.
    """

    text: str
    rows: tuple[int, ...]
    cut: bool = field(default=False, repr=False)  # whether the border between two windows runs through the word


@dataclass(frozen=True)
class PromptPiece:
    """A run of words of one weight: how many tokens it has, the windows that they stand in, what is done with it.

    `within` says which of several prompts in one it is of, such as `blend 0.3`; `mixed` what is mixed in its place.
    """

    text: str
    weight: float
    tokens: int
    windows: tuple[int, ...]
    within: str = ""
    mixed: str = ""


@dataclass(frozen=True)
class Mixture:
    """Token rows that are mixed in place: each choice with its share, as texts and mixtures one after the other."""

    choices: tuple[tuple[float, tuple[str | Mixture, ...]], ...]

    def __str__(self) -> str:
        parts = [("".join(str(part).strip() for part in choice), share) for share, choice in self.choices]
        return "{" + "|".join(f"{text}:{share:.3g}" for text, share in parts) + "}"


@dataclass(frozen=True)
class Tokens(Shown):
    """A tokenized prompt. `dropped` holds the words that truncation left out.

    `layout` says which windows were cut together, with the weight of each row, and how they come together;
    `mixtures` which rows are mixed, and of what; `remarks` what the language did without a word.

    >>> from embedlab.models import tokenizer
    >>> tokens = tokenize("a cat and a cat", tokenizer())
    >>> tokens.ids.shape, tokens.rows("cat")
    (torch.Size([1, 77]), [(2,), (5,)])
    """

    text: str
    ids: Int[Tensor, "window position"]
    words: tuple[Word, ...]
    tokenizer: CLIPTokenizer = field(repr=False, compare=False)
    dropped: tuple[str, ...] = ()
    memo: dict[str, list[tuple[int, ...]]] = field(
        default_factory=dict, repr=False, compare=False
    )  # selections made before
    layout: Layout | None = field(default=None, repr=False, compare=False)
    mixtures: tuple[tuple[tuple[int, ...], Mixture], ...] = field(default=(), repr=False)
    remarks: tuple[str, ...] = field(default=(), repr=False, compare=False)
    pieces: tuple[PromptPiece, ...] = field(default=(), repr=False, compare=False)

    def __repr__(self) -> str:
        size = f"{counted(self.length, 'token')} in {counted(len(self.ids), 'window')} of {self.window}"
        return f"Tokens({short(self.text, 80)}, {size}{', weighted' if self.weighted else ''})"

    def _repr_html_(self) -> str:
        return block(
            shown_text(self.text), token_chips(self), pieces_table(self.pieces), notes_of(self), note=self.size
        )

    @property
    def size(self) -> str:
        """How long it is, in words."""
        return f"{counted(self.length, 'token')}, {counted(len(self.ids), 'window')} of {self.window}"

    @property
    def weighted(self) -> bool:
        """Whether any word has another weight than 1."""
        return self.layout is not None and any(one.windows.weighted for one in sections(self.layout))

    @property
    def needs_empty(self) -> bool:
        """Whether the empty prompt is encoded beside it."""
        return self.layout is not None and needs_empty(self.layout)

    @property
    def sections(self) -> list[Section]:
        """What was cut into windows together, in order."""
        return [] if self.layout is None else list(sections(self.layout))

    @property
    def window(self) -> int:
        """How many places a window has."""
        return self.ids.shape[1]

    @property
    def length(self) -> int:
        """How many tokens the text itself has, without start, end and padding."""
        return sum(len(word.rows) for word in self.words)

    def rows(self, phrase: str) -> list[tuple[int, ...]]:
        """The rows of every occurrence of a word or phrase, in order; they never overlap.

        Matching is by whole words on token ids, so case and spacing do not matter, punctuation does.
        Raises PromptError when there is none.
        """
        if not isinstance(phrase, str):
            raise PromptError(f"a word of the prompt is a text; {brief(phrase)} is none.")
        wanted = tuple(ids_of(phrase, self.tokenizer))
        flat = self.ids.flatten().tolist()
        found, i = [], 0
        while wanted and i < len(self.words):
            rows: list[int] = []
            j = i
            while j < len(self.words) and len(rows) < len(wanted):
                rows += self.words[j].rows
                j += 1
            if tuple(flat[r] for r in rows) == wanted:
                found.append(tuple(rows))
                i = j
            else:
                i += 1
        if not found and wanted:
            found = [rows for rows, mixture in self.mixtures if wanted in self._choices(mixture)]
        if found:
            return found
        if not self.words:
            raise PromptError(f"'{phrase}' is not in the prompt: the prompt is empty.")
        gone = f" (truncation left out {listed(self.dropped, 12)})" if self.dropped else ""
        raise PromptError(f"'{phrase}' is not in the prompt; its words are {listed(w.text for w in self.words)}{gone}.")

    def _choices(self, mixture: Mixture) -> list[tuple[int, ...]]:
        """The ids of each choice of a mixture that is a text."""
        texts = [parts[0] for _, parts in mixture.choices if len(parts) == 1]
        return [tuple(ids_of(text, self.tokenizer)) for text in texts if isinstance(text, str)]

    def not_loaded(self) -> list[str]:
        """What the text writes as concepts are written, `<name>` or `embedding:name`, and is none."""
        known = {name.lower() for name in concepts_of([self.tokenizer])} | {word.text.lower() for word in self.words}
        found = regex.findall(r"<(?=\d*\p{L})\w[\w.-]*>|\bembedding:[\w.-]+", str(redact(self.text)), regex.IGNORECASE)
        return [name for name in dict.fromkeys(found) if name.lower() not in known]

    def notes(self) -> list[str]:
        """What a reader should know about this prompt: windows, words cut in two, words left out."""
        windows = len(self.ids)
        said = list(self.remarks)
        if self.layout is not None and (parts := len(streams(self.layout))) > 1:
            said.append(f"the prompt is {parts} prompts whose predictions are added (AND), a row of the UNet for each")
        elif windows > 1:
            said.append(f"the prompt has {self.length} tokens and runs in {windows} windows of {self.window - 2}")
        if cut := [word.text for word in self.words if word.cut]:
            said.append(f"cut in two between windows: {listed(cut, 12)}")
        if groups := [piece.text.strip() for piece in self.pieces if len(piece.windows) > 1 and piece.weight != 1]:
            said.append(f"a phrase of one weight runs through the border of two windows: {listed(groups, 12)}")
        if strange := self.not_loaded():
            said.append(
                f"{listed(strange, 12)}: no concept of that name is loaded, so it is read as text; "
                "model.concepts=[PATH] loads one"
            )
        if tag := regex.search(r"<(?:lora|lyco|hypernet):[^<>]{1,80}>", str(redact(self.text))):
            said.append(f"'{tag[0]}' loads a network in A1111; here none is loaded, and it is read as text")
        if self.dropped:
            said.append(f"truncated: {len(self.dropped)} words left out, from '{self.dropped[0]}' on")
        return said


def shown_text(text: str) -> str:
    """A prompt as the title of a display: on one line, and not all of a long one.

    >>> shown_text(""), len(shown_text("cat " * 100))
    ('(the empty prompt)', 160)
    """
    line = " ".join(str(redact(text)).split())
    return (line if len(line) <= 160 else f"{line[:159]}…") or "(the empty prompt)"


def token_chips(tokens: Tokens, marked: Collection[int] = ()) -> Html:
    """The tokens of a prompt, a line a window: each with its id, its row and the word that it is of; padding as one."""
    words = {row: word for word in tokens.words for row in word.rows}
    ends = {tokens.tokenizer.bos_token_id: "start", tokens.tokenizer.eos_token_id: "end"}
    lines = []
    for n, ids in enumerate(tokens.ids[:8].tolist()):
        pieces = tokens.tokenizer.convert_ids_to_tokens(ids)
        line, padding = [], []
        for place, (number, piece) in enumerate(zip(ids, pieces, strict=True)):
            row = n * tokens.window + place
            said = f"id {number}, row {row}: window {n}, place {place}"
            if (word := words.get(row)) is not None:
                secret = word.text == BLANK
                of = f", {word.rows.index(row) + 1} of {len(word.rows)} of '{word.text}'" if len(word.rows) > 1 else ""
                text = BLANK if secret else str(piece).replace("</w>", "")
                below = "" if secret else str(number)
                line.append(Chip(text, below, BLANK if secret else said + of, "marked" if row in marked else "word"))
            elif (place and number in ends and any(p in words for p in (row - 1,))) or place == 0:
                line.append(Chip(ends.get(number, str(piece)), str(number), said, "marked" if row in marked else "end"))
            elif row in marked:
                line.append(Chip("padding", str(number), said, "marked"))
            else:
                padding.append(number)
        if padding:
            line.append(
                Chip(f"padding × {len(padding)}", str(padding[-1]), "what follows the end, and is filled up", "pad")
            )
        lines.append(line)
    more = len(tokens.ids) - len(lines)
    return join([chips(lines), tag('<span class="n">and {} more</span>', counted(more, "window")) if more > 0 else ""])


def pieces_table(pieces: Sequence[PromptPiece]) -> Html:
    """What a language reads of weights and mixes, piece by piece; nothing where it reads a plain text."""
    if not any(piece.weight != 1 or piece.within or piece.mixed for piece in pieces):
        return Html()
    heads = ("weight", "tokens", "windows", "of", "mixed", "text")
    rows = [
        (f"{p.weight:.4g}", p.tokens, ", ".join(map(str, p.windows)) or "left out", p.within, p.mixed, p.text)
        for p in pieces
    ]
    return table(heads, rows, right=("weight", "tokens"))


def notes_of(tokens: Tokens) -> Html:
    """What a reader should know about a prompt, a line each."""
    return join(tag('<div class="n">{}.</div>', note) for note in tokens.notes())


def tokenize(
    text: str | ParsedPrompt,
    tokenizer: CLIPTokenizer | Any,
    truncate: bool = False,
    window: int = WINDOW,
    concepts: tuple[str, ...] | None = None,
    split: Split = "hard",
    padding: Padding = "own",
    backtrack: int = BACKTRACK,
) -> Tokens:
    """Tokenize a prompt of any length: windows of start + 75 + end, the last one filled with padding.

    One window holds exactly what the tokenizer's own `padding="max_length"` gives. `truncate` keeps the first window.
    The empty prompt is fine: one window of start, end and padding. `text` may be a prompt that was parsed, in which
    nothing changes over time any more; `split`, `padding` and `backtrack` are those of `windows_of`. In the place of a
    tokenizer a model, a text encoder or a diffusers pipeline does: its first one is taken.

    Where a word begins and ends is read from the text, so that all encoders of a model see the same words: a tokenizer
    that pads with "!" gives a written "!" no word border, and neither has the name of a concept. `concepts` are names
    that are one word, by default those added to this tokenizer.

    Raises PromptError for what is no text, for special tokens in it, and above 15,000 tokens.

    >>> from embedlab.models import tokenizer
    >>> t = tokenize("A picture of a puppy", tokenizer())
    >>> t.ids[0, :7].tolist(), t.words[-1]
    ([49406, 320, 1674, 539, 320, 6829, 49407], Word(text='puppy', rows=(5,)))
    """
    if not isinstance(text, str | ParsedPrompt):
        raise PromptError(f"a prompt is a text; {brief(text)} is none.")
    tokenizer = tokenizer_of(tokenizer)
    names = concepts_of([tokenizer]) if concepts is None else tuple(concepts)
    parts, language, notes = ((Text(text),), "plain", ()) if isinstance(text, str) else _of(text)
    plans: list[_Plan] = []

    def section(parts: Sequence[Any]) -> Section:
        plan = _Plan(language, tokenizer)
        plan.read(parts, ())
        plans.append(plan)
        return Section(windows_of(plan.pieces, tokenizer, split, padding, window, backtrack, truncate, names))

    return tokens_of(_composed(parts, section), plans, text, tokenizer, names, notes)


def _of(prompt: ParsedPrompt) -> tuple[tuple[Any, ...], str, tuple[str, ...]]:
    return tuple(flat(prompt.parts)), prompt.language, prompt.notes


def tokens_of(
    layout: Layout,
    plans: Sequence[_Plan],
    text: str | ParsedPrompt,
    tokenizer: CLIPTokenizer,
    names: tuple[str, ...],
    notes: tuple[str, ...],
) -> Tokens:
    """Sections as one prompt: where its words are, and what is mixed."""
    layout = settled(layout)
    words: list[Word] = []
    dropped: list[str] = []
    mixtures = []
    pieces: list[PromptPiece] = []
    for (one, within), plan in zip(named_sections(layout), plans, strict=True):
        place = places_of(one)
        pieces += plan.described(place, one.windows.ids.shape[1], within)
        for name, numbers in plan.words(names):
            rows = tuple(place[n] for n in numbers if n in place)
            if rows:
                window = one.windows.ids.shape[1]
                words.append(Word(name, rows, rows[0] // window != rows[-1] // window))
            if len(rows) < len(numbers):
                dropped.append(name)
        for mixed, mixture in plan.mixed():
            mixtures.append((tuple(place[n] for n in mixed if n in place), mixture))
    ids = torch.cat([one.windows.ids for one in sections(layout)])
    written = text if isinstance(text, str) else text.text
    strange = foreign(written, "plain" if isinstance(text, str) else text.language)
    remarks = [*notes, *([strange[1].removesuffix(".")] if strange else [])]
    if any(plan.swaps for plan in plans):
        remarks.append(SWAPPED)
    return Tokens(
        written,
        ids,
        tuple(words),
        tokenizer,
        tuple(dropped),
        {},
        layout,
        tuple(mixtures),
        tuple(remarks),
        tuple(pieces),
    )


def places_of(section: Section) -> dict[int, int]:
    """The row of each token of a section, by its number in the text."""
    first = section.first * section.windows.ids.shape[1]
    numbers = section.windows.numbers.flatten().tolist()
    return {number: first + row for row, number in enumerate(numbers) if number >= 0}


def _composed(parts: Sequence[Any], section: Callable[[Sequence[Any]], Section]) -> Layout:
    """Sections, and how the language puts them together."""
    if len(parts) == 1 and isinstance(parts[0], And | Joined | Blend):
        node = parts[0]
        weights = tuple(1.0 if member.weight is None else float(member.weight) for member in node.prompts)
        members = tuple(_composed(member.parts, section) for member in node.prompts)
        if isinstance(node, Blend) and node.normalize and abs(sum(weights)) < 1e-8:
            raise PromptError(f"the weights of this blend, {listed(weights)}, sum to 0; there is no mean.")
        how = "sum" if isinstance(node, And) else "join" if isinstance(node, Joined) else "blend"
        ways = tuple(member.way for member in node.prompts) if how == "sum" else ()
        return Composed(how, members, weights, getattr(node, "normalize", True), ways)  # type: ignore[arg-type]
    return section(parts)


@dataclass
class _Plan:
    """The text of a section in pieces of one weight, as `windows_of` takes them."""

    language: str
    tokenizer: CLIPTokenizer
    pieces: list[tuple[str, float] | NewWindow] = field(default_factory=list)
    mixes: list[tuple[int, int, Mixture]] = field(default_factory=list)  # from this piece to before that one
    swaps: bool = False

    def read(self, parts: Sequence[Any], groups: tuple[Weighted, ...]) -> None:
        """Take parts in order; neighbours of one weight are one text, as in the tools (ComfyUI keeps them apart)."""
        for node in parts:
            match node:
                case Text():
                    self.add(node.text, product(groups, self.language))
                case Break():
                    self.pieces.append(BREAK)
                case Weighted():
                    self.read(node.parts, (*groups, node))
                case Mix():
                    first = len(self.pieces)
                    mixture, weight = mixture_of(node, groups, self.language)
                    self.pieces += [(text, weight) for text in self.longest(mixture)]
                    self.mixes.append((first, len(self.pieces), mixture))
                case Swap():
                    self.swaps = True
                    self.read(node.original, groups)
                case _:
                    raise PromptError(f"{type(node).__name__} stands inside a prompt; it has to be all of it.")

    def add(self, text: str, weight: float) -> None:
        """A text, beside its neighbour of the same weight."""
        last = self.pieces[-1] if self.pieces else BREAK
        after_mix = bool(self.mixes) and self.mixes[-1][1] == len(self.pieces)
        if isinstance(last, tuple) and last[1] == weight and self.language != "comfyui" and not after_mix:
            self.pieces[-1] = (last[0] + (" " if self.language == "compel" else "") + text, weight)
        else:
            self.pieces.append((text, weight))

    def longest(self, mixture: Mixture) -> list[str]:
        """The texts of the choice that has the most tokens: its ids stand for the mixture."""
        texts = [self.texts(parts) for _, parts in mixture.choices]
        counts = [sum(len(pieces_of(text, self.tokenizer)) for text in one) for one in texts]
        if not all(counts):
            raise PromptError("a choice of {…|…} has no tokens; name a word in each.")
        return texts[counts.index(max(counts))]

    def texts(self, parts: Sequence[str | Mixture]) -> list[str]:
        """A choice as texts, each mixture in it by its longest."""
        return [text for part in parts for text in (self.longest(part) if isinstance(part, Mixture) else [part])]

    def numbered(self) -> Iterator[tuple[int, str, int]]:
        """Each text with the number of its piece, and the number of its first token in the section."""
        count = 0
        for n, piece in enumerate(self.pieces):
            if isinstance(piece, tuple):
                yield n, piece[0], count
                count += len(pieces_of(piece[0], self.tokenizer))

    def described(self, place: Mapping[int, int], window: int, within: str) -> Iterator[PromptPiece]:
        """Each piece, where its tokens stand."""
        mixed = {begin: mixture for begin, _, mixture in self.mixes}
        rest = {n for begin, end, _ in self.mixes for n in range(begin + 1, end)}
        for n, text, first in self.numbered():
            if n in rest:
                continue
            count = len(pieces_of(text, self.tokenizer))
            windows = tuple(dict.fromkeys(place[k] // window for k in range(first, first + count) if k in place))
            piece = self.pieces[n]
            assert isinstance(piece, tuple)
            secret = any(secret_spans(text))
            yield PromptPiece(BLANK if secret else text, piece[1], count, windows, within, str(mixed.get(n, "")))

    def words(self, names: tuple[str, ...]) -> Iterator[tuple[str, range]]:
        """Each word with the numbers of its tokens."""
        for _, text, first in self.numbered():
            for name, begin, end in word_spans(text, pieces_of(text, self.tokenizer), names):
                yield name, range(first + begin, first + end)

    def mixed(self) -> Iterator[tuple[list[int], Mixture]]:
        """Each mixture with the numbers of the tokens that stand for it."""
        if not self.mixes:
            return
        tokens = {n: range(first, first + len(pieces_of(text, self.tokenizer))) for n, text, first in self.numbered()}
        for begin, end, mixture in self.mixes:
            yield [number for n in range(begin, end) for number in tokens[n]], mixture


def mixture_of(node: Mix, groups: tuple[Weighted, ...], language: str) -> tuple[Mixture, float]:
    """What a mix is made of, and its weight: the mean of its choices' by their shares.

    PromptError for what has no place inside of one.
    """

    def inside(parts: Sequence[Any], groups: tuple[Weighted, ...]) -> Iterator[tuple[str | Mixture, float]]:
        for part in parts:
            match part:
                case Text():
                    yield part.text, product(groups, language)
                case Mix():
                    yield mixture_of(part, groups, language)
                case Weighted():
                    yield from inside(part.parts, (*groups, part))
                case Break():
                    raise PromptError("BREAK stands in {…|…}, which mixes token rows; write it around the braces.")
                case _:
                    raise PromptError("{…|…} mixes token rows, and a choice of it holds whole prompts or .swap().")

    choices, weights = [], []
    for share, choice in zip(node.shares, node.choices, strict=True):
        found = list(inside(choice.parts, groups))
        if len({weight for _, weight in found}) > 1:
            raise PromptError("a choice of {…|…} has words of several weights; give all of it one.")
        choices.append((share, tuple(part for part, _ in found)))
        weights.append(found[0][1])
    if len(set(weights)) == 1:
        return Mixture(tuple(choices)), weights[0]
    return Mixture(tuple(choices)), sum(share * weight for (share, _), weight in zip(choices, weights, strict=True))


def of_layout(tokens: Tokens, layout: Layout) -> Tokens:
    """The same prompt followed by empty windows, as `matched` made them."""
    window = tokens.window
    moved: dict[int, int] = {}
    for old, new in zip(tokens.sections, sections(layout), strict=True):
        moved |= {old.first * window + r: new.first * window + r for r in range(old.count * window)}
    ids = torch.cat([one.windows.ids for one in sections(layout)])
    if len(ids) == len(tokens.ids):
        return tokens
    return replace(
        tokens,
        ids=ids,
        words=tuple(replace(word, rows=tuple(moved[row] for row in word.rows)) for word in tokens.words),
        mixtures=tuple((tuple(moved[row] for row in rows), mixture) for rows, mixture in tokens.mixtures),
        memo={},
        layout=layout,
    )
