"""Pieces of text with weights → windows of ids with a weight for each row: where a long prompt is cut, how it fills up.

A piece is a text with its weight, as a prompt language reads it; `BREAK` between two pieces begins a new window. What a
policy may not cut (a word, a weighted group, a concept of several vectors) is known from the text, not from the ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import CLIPTokenizer

from embedlab.checks import in_choices, is_number, whole_number
from embedlab.errors import PromptError, brief
from embedlab.limits import PADDINGS, SPLITS, WINDOW, Join, Padding, Split
from embedlab.token_ids import MOST_TOKENS, concepts_of, pieces_of, word_spans

COMMA = ",</w>"
SENTENCE_ENDS = frozenset({".</w>"})
PHRASE_ENDS = frozenset({".</w>", COMMA, ";</w>", ":</w>"})
BACKTRACK = 20  # tokens that A1111 goes back to a comma, its `comma_padding_backtrack`
LARGE = 8  # tokens from which ComfyUI cuts a segment, its `max_word_length`


@dataclass(frozen=True)
class Break:
    """Between two pieces: what follows begins a new window."""


BREAK = Break()
Pieces = Sequence[tuple[str, float] | Break]


class Token(NamedTuple):
    """One token of a prompt: its weight, the piece and the word that it is of, and its number in the prompt."""

    id: int
    text: str  # in the vocabulary: `</w>` ends a word
    weight: float
    piece: int
    word: int
    concept: bool
    number: int


Segments = tuple[tuple[Token, ...], ...]  # the tokens between breaks


@dataclass(frozen=True)
class Windows:
    """A prompt in windows of start + tokens + end + padding, as a text encoder reads it.

    Start, end and padding have weight 1, piece -1 and number -1. Rows where `mask` is 0 are attended to by none.
    `source` says at which row of the prompt the token vector of a place stands, which may have been edited, where these
    are a variant of a prompt; -1 is for those of the vocabulary. Position vectors are those of the prompt at the place.

    >>> from embedlab.models import tokenizer
    >>> one = windows_of([("a ", 1.0), ("red", 1.5), (" cat", 1.0)], tokenizer())
    >>> one.ids[0, :5].tolist(), one.weights[0, :5].tolist()
    ([49406, 320, 736, 2368, 49407], [1.0, 1.0, 1.5, 1.0, 1.0])
    """

    ids: Int[Tensor, "window position"]
    weights: Float[Tensor, "window position"]
    pieces: Int[Tensor, "window position"]
    numbers: Int[Tensor, "window position"]
    source: Int[Tensor, "window position"]
    segments: Segments = field(repr=False)
    how: Cutter = field(repr=False)
    mask: Int[Tensor, "window position"] | None = None

    @property
    def weighted(self) -> bool:
        """Whether any weight is another than 1."""
        return bool((self.weights != 1).any())

    @property
    def ends(self) -> list[int]:
        """Where each window ends: the place of its first end of text."""
        return [int(end) for end in (self.ids == self.how.eos).int().argmax(1)]

    @property
    def weight_of(self) -> dict[int, float]:
        """Each piece that has a token here, with its weight."""
        return dict(zip(self.pieces[self.pieces >= 0].tolist(), self.weights[self.pieces >= 0].tolist(), strict=True))

    @property
    def cut(self) -> tuple[list[int], list[int]]:
        """The numbers of words, and of weighted pieces, that the border between two windows runs through."""
        place = {int(n): w for w, row in enumerate(self.numbers.tolist()) for n in row if n >= 0}
        words: list[int] = []
        groups: list[int] = []
        for tokens in self.segments:
            for a, b in pairwise(tokens):
                if place.get(a.number) != place.get(b.number):
                    words += [a.word] * (a.word == b.word)
                    groups += [a.piece] * (a.piece == b.piece and a.weight != 1)
        return words, groups

    def cut_off(self, piece: int) -> bool:
        """Whether truncation left out a part of a piece."""
        tokens = [t for segment in self.segments for t in segment if t.piece == piece]
        return len(tokens) > int((self.pieces == piece).sum())

    def empty(self, count: int | None = None) -> Windows:
        """The empty prompt, filled up as this one is, once for each of its windows or so many times."""
        one, n = self.how(((),)), len(self.ids) if count is None else count
        rows: dict[str, Any] = {
            name: getattr(one, name).expand(n, -1) for name in ("ids", "weights", "pieces", "numbers")
        }
        return replace(one, **rows, source=torch.full((n, one.ids.shape[1]), -1))

    def masking(self, rows: Tensor) -> Windows:
        """The same with `rows` (window, position; true or false) attended to by none."""
        return replace(self, mask=1 - rows.long())

    def replacing(self, rows: Tensor, token: int) -> Windows:
        """The same with the token of this id in place of `rows` (window, position; true or false), at weight 1."""
        return replace(
            self,
            ids=self.ids.masked_fill(rows, token),
            weights=self.weights.masked_fill(rows, 1.0),
            numbers=self.numbers.masked_fill(rows, -1),
            source=self.source.masked_fill(rows, -1),
        )

    def without(self, piece: int) -> Windows:
        """The prompt without a piece: what follows moves up, and empty windows keep the number of windows."""
        kept = self.how(tuple(tuple(t for t in tokens if t.piece != piece) for tokens in self.segments))
        where = dict(zip(self.numbers.flatten().tolist(), self.source.flatten().tolist(), strict=True)) | {-1: -1}
        source = [[where.get(number, -1) for number in row] for row in kept.numbers.tolist()]
        return lengthened(replace(kept, source=torch.tensor(source)), len(self.ids))


@dataclass(frozen=True)
class Cutter:
    """How tokens become windows (see `windows_of`), with the ids that open, end and fill them."""

    bos: int
    eos: int
    pad: int
    split: Split
    backtrack: int
    window: int
    truncate: bool

    def __call__(self, segments: Segments) -> Windows:
        """Cut and fill: a window or more for each segment, none for an empty last one."""
        cut, body = CUTS[self.split], self.window - 2
        parts: list[Sequence[Token]] = []
        for n, tokens in enumerate(segments):
            begin = 0
            while len(tokens) - begin > body:
                end = cut(tokens, begin, body, self.backtrack)
                parts.append(tokens[begin:end])
                begin = end
            if begin < len(tokens) or (not tokens and n < len(segments) - 1):
                parts.append(tokens[begin:])
        parts = parts or [()]
        if self.truncate:
            parts = parts[:1]
        ids, weights, pieces, numbers = [], [], [], []
        for part in parts:
            rest = body - len(part)
            ids.append([self.bos, *(t.id for t in part), self.eos, *[self.pad] * rest])
            weights.append([1.0, *(t.weight for t in part), *[1.0] * (rest + 1)])
            pieces.append([-1, *(t.piece for t in part), *[-1] * (rest + 1)])
            numbers.append([-1, *(t.number for t in part), *[-1] * (rest + 1)])
        return Windows(
            torch.tensor(ids),
            torch.tensor(weights, dtype=torch.float64),
            torch.tensor(pieces),
            torch.tensor(numbers),
            torch.arange(len(parts) * self.window).view(len(parts), self.window),
            segments,
            self,
        )


def lengthened(windows: Windows, count: int) -> Windows:
    """A prompt followed by empty windows, `count` in all; one that has as many is itself."""
    more = count - len(windows.ids)
    if more <= 0:
        return windows
    empty = windows.empty(more)
    names = ("ids", "weights", "pieces", "numbers", "source")
    rows: dict[str, Any] = {name: torch.cat([getattr(windows, name), getattr(empty, name)]) for name in names}
    return replace(windows, **rows)


def segments_of(pieces: Pieces, tokenizer: CLIPTokenizer, concepts: tuple[str, ...] | None = None) -> Segments:
    """The tokens of pieces, each tokenized by itself, between breaks.

    `concepts` are added names that are one word, by default those of this tokenizer. Raises PromptError for what are no
    pieces, for weights that are no finite numbers, and above 15,000 tokens.
    """
    names = concepts_of([tokenizer]) if concepts is None else concepts
    if isinstance(pieces, str) or not isinstance(pieces, Sequence):
        raise PromptError(f"pieces is {brief(pieces)}; it has to be a list of (text, weight) and BREAK.")
    added = set(tokenizer.get_added_vocab().values())
    segments: list[tuple[Token, ...]] = []
    tokens: list[Token] = []
    count = word = 0
    for n, piece in enumerate(pieces):
        if isinstance(piece, Break):
            segments.append(tuple(tokens))
            tokens = []
            continue
        text, weight = checked(piece)
        read = pieces_of(text, tokenizer)
        texts = tokenizer.convert_ids_to_tokens([one.id for one in read])
        word_of = dict.fromkeys(range(len(read)), word)
        for _, begin, end in word_spans(text, read, names):
            word += 1
            word_of.update(dict.fromkeys(range(begin, end), word))
        word += 1
        for k, (one, spelled) in enumerate(zip(read, texts, strict=True)):
            tokens.append(Token(one.id, spelled, weight, n, word_of[k], one.id in added, count))
            count += 1
        if count > MOST_TOKENS:
            raise PromptError(f"the prompt has more than {MOST_TOKENS:,} tokens, which is the most that are read.")
    return (*segments, tuple(tokens))


def checked(piece: Any) -> tuple[str, float]:
    """A piece of a prompt; PromptError for what is none."""
    if not isinstance(piece, tuple) or len(piece) != 2 or not isinstance(piece[0], str):
        raise PromptError(f"{brief(piece)} is no piece of a prompt; one is (text, weight), or BREAK.")
    if not is_number(piece[1]):
        raise PromptError(f"the weight of {brief(piece[0])} is {brief(piece[1])}; it has to be a finite number.")
    return piece[0], float(piece[1])


def windows_of(
    pieces: Pieces,
    tokenizer: CLIPTokenizer,
    split: Split = "whole",
    padding: Padding = "own",
    window: int = WINDOW,
    backtrack: int = BACKTRACK,
    truncate: bool = False,
    concepts: tuple[str, ...] | None = None,
) -> Windows:
    """Pieces of text → windows of ids, with a weight for each row.

    split says where text that is longer than a window is cut:
      whole     never through a word, a weighted piece or a concept, unless it is longer than a window; after a
                punctuation mark where there is one among the last `backtrack` tokens
      hard      after 75 tokens
      comma     A1111: after the last comma, if it is among the last `backtrack` tokens; else hard; concepts stay whole
      word, phrase, sentence
                compel 2.5.1: after the last word; after the last of `. , ; :`, else word; after the last full stop,
                else phrase
      segment   ComfyUI: a piece of less than 8 tokens that does not fit begins the next window; a longer one is cut

    padding fills a window after its end: the tokenizer's own padding, its end of text, or id 0 ("!"). An empty prompt
    is one window; a BREAK at the end adds none (A1111).

    >>> from embedlab.models import tokenizer
    >>> long = [("cat " * 74, 1.0), ("red star", 1.2), BREAK, ("a dog", 1.0)]
    >>> [windows_of(long, tokenizer(), split).ends for split in ("whole", "hard")]
    [[75, 3, 3], [76, 2, 3]]
    """
    in_choices(split, "windows.split", SPLITS, PromptError)
    in_choices(padding, "windows.padding", PADDINGS, PromptError)
    window = whole_number(window, "windows.window", PromptError, least=3, most=100 * WINDOW)
    backtrack = whole_number(backtrack, "windows.backtrack", PromptError, most=window - 3)
    pad = {"own": tokenizer.pad_token_id, "eos": tokenizer.eos_token_id, "zero": 0}[padding]
    how = Cutter(tokenizer.bos_token_id, tokenizer.eos_token_id, pad, split, backtrack, window, truncate)
    return how(segments_of(pieces, tokenizer, concepts))


# ── where to cut: of the tokens from `begin` on, more than a window holds, which is the first of the next window ──────

Cut = Callable[[Sequence[Token], int, int, int], int]


def same_concept(a: Token, b: Token) -> bool:
    """Whether two neighbours are vectors of one concept."""
    return a.concept and a.word == b.word


def same_word(a: Token, b: Token) -> bool:
    """Whether two neighbours are of one word."""
    return a.word == b.word


def same_group(a: Token, b: Token) -> bool:
    """Whether two neighbours are of one word, or of one weighted piece."""
    return a.word == b.word or (a.piece == b.piece and a.weight != 1)


def same_segment(a: Token, b: Token) -> bool:
    """Whether two neighbours are of one group of ComfyUI: a piece, in which a concept stands alone."""
    return a.piece == b.piece and (a.concept, a.concept and a.word) == (b.concept, b.concept and b.word)


def run_at(tokens: Sequence[Token], at: int, same: Callable[[Token, Token], bool], most: int) -> tuple[int, int]:
    """The run that goes on from `at - 1` to `at`, its first token and the one after its last; `most` + 1 are seen."""
    first = last = at
    while first > 0 and last - first < most and same(tokens[first - 1], tokens[first]):
        first -= 1
    while first < last < len(tokens) and last - first <= most and same(tokens[last - 1], tokens[last]):
        last += 1
    return first, last


def whole_cut(tokens: Sequence[Token], begin: int, body: int, backtrack: int) -> int:
    """Ours: before what would be cut in two; after punctuation, if that is near."""
    limit, floor = begin + body, begin
    for same in (same_group, same_word):
        first, last = run_at(tokens, limit, same, body)
        if last - first <= body:  # it has room in a window of its own
            ends = [at for at in range(limit, floor, -1) if not same(tokens[at - 1], tokens[at])]
            near = (at for at in ends if limit - at <= backtrack and tokens[at - 1].text in PHRASE_ENDS)
            return next(near, ends[0])
        floor = max(floor, first - 1)
    return limit


def comma_cut(tokens: Sequence[Token], begin: int, body: int, backtrack: int) -> int:
    """A1111's; a concept that does not fit begins the next window, without a look for commas."""
    limit = begin + body
    end = next((at for at in range(limit, begin, -1) if not same_concept(tokens[at - 1], tokens[at])), limit)
    if end == limit and tokens[end].text != COMMA:
        return next((at for at in range(end, end - backtrack, -1) if tokens[at - 1].text == COMMA), end)
    return end


def marked_cut(*levels: Callable[[str], bool]) -> Cut:
    """compel's: after the last token that fits the first level, else the second, and so on; else hard."""

    def cut(tokens: Sequence[Token], begin: int, body: int, backtrack: int) -> int:
        limit = begin + body
        for fits in levels:
            for at in range(limit, begin, -1):
                if fits(tokens[at - 1].text):
                    return at
        return limit

    return cut


def segment_cut(tokens: Sequence[Token], begin: int, body: int, backtrack: int) -> int:
    """ComfyUI's."""
    limit = begin + body
    first, last = run_at(tokens, limit, same_segment, LARGE)
    if last - first >= LARGE:
        return limit
    return next((at for at in range(limit, begin, -1) if not same_segment(tokens[at - 1], tokens[at])), limit)


def hard_cut(tokens: Sequence[Token], begin: int, body: int, backtrack: int) -> int:
    """After as many as a window holds."""
    return begin + body


def ends_word(text: str) -> bool:
    """Whether a token of the vocabulary ends a word."""
    return text.endswith("</w>")


CUTS: dict[Split, Cut] = {
    "whole": whole_cut,
    "hard": hard_cut,
    "comma": comma_cut,
    "word": marked_cut(ends_word),
    "phrase": marked_cut(PHRASE_ENDS.__contains__, ends_word),
    "sentence": marked_cut(SENTENCE_ENDS.__contains__, PHRASE_ENDS.__contains__, ends_word),
    "segment": segment_cut,
}


def joined(windows: int, join: Join, window: int = WINDOW) -> list[int]:
    """The rows that reach the UNet: all of them, or one run of 75·k + 2 with only the outer start and end.

    >>> [len(joined(3, join)) for join in ("windows", "run")]
    [231, 227]
    """
    rows = range(windows * window)
    if join != "run":
        return list(rows)
    last = len(rows) - 1
    return [r for r in rows if r in (0, last) or r % window not in (0, window - 1)]
