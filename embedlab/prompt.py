"""Text → Tokens: ids in windows of 77, where each word landed, what was cut and what was left out.

A row is one place in the prompt, counted through all windows: row `r` stands in window `r // 77` at place `r % 77`. On
a stretched position table a window has more than 77 places; `Tokens.window` says how many.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from weakref import WeakKeyDictionary

import regex
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from embedlab.clean import BLANK, redact, secret_spans
from embedlab.errors import PromptError, brief, check_kind, listed
from embedlab.limits import WINDOW, Join
from embedlab.memo import Memo

MOST_TOKENS = 15_000  # two hundred windows, far beyond what people write; each costs a pass of the text encoder


@dataclass(frozen=True)
class Word:
    """One word of the prompt as the tokenizer sees it, and the rows of its tokens.

    The text of a word that is part of a secret of the environment is `***`.
    """

    text: str
    rows: tuple[int, ...]
    cut: bool = field(default=False, repr=False)  # whether the border between two windows runs through the word


@dataclass(frozen=True)
class Tokens:
    """A tokenized prompt. `dropped` holds the words that truncation left out.

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
            raise PromptError(f"a word of the prompt is a text; {phrase!r} is a {type(phrase).__name__}.")
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
        if found:
            return found
        if not self.words:
            raise PromptError(f"'{phrase}' is not in the prompt: the prompt is empty.")
        gone = f" (truncation left out {listed(self.dropped, 12)})" if self.dropped else ""
        raise PromptError(f"'{phrase}' is not in the prompt; its words are {listed(w.text for w in self.words)}{gone}.")

    def not_loaded(self) -> list[str]:
        """What the text writes as concepts are written, `<name>` or `embedding:name`, and is none."""
        known = {name.lower() for name in concepts_of([self.tokenizer])} | {word.text.lower() for word in self.words}
        found = regex.findall(r"<[\w][\w .-]*>|\bembedding:[\w.-]+", str(redact(self.text)), regex.IGNORECASE)
        return [name for name in dict.fromkeys(found) if name.lower() not in known]

    def notes(self) -> list[str]:
        """What a reader should know about this prompt: windows, words cut in two, words left out."""
        windows = len(self.ids)
        said = []
        if windows > 1:
            said.append(f"the prompt has {self.length} tokens and runs in {windows} windows of {self.window - 2}")
        if cut := [word.text for word in self.words if word.cut]:
            said.append(f"cut in two between windows: {listed(cut, 12)}")
        if strange := self.not_loaded():
            said.append(
                f"{listed(strange, 12)}: no concept of that name is loaded, so it is read as text; "
                "model.concepts=[PATH] loads one"
            )
        if self.dropped:
            said.append(f"truncated: {len(self.dropped)} words left out, from '{self.dropped[0]}' on")
        return said


def ids_of(text: str, tokenizer: CLIPTokenizer) -> list[int]:
    """Token ids of a text without start and end; special tokens inside it are refused.

    The name of a concept that was loaded as several vectors (`<my-cat>`, `<my-cat>_1`, …) stands for all of them, as in
    diffusers' `maybe_convert_prompt`.
    """
    return [piece.id for piece in pieces_of(text, tokenizer)]


@dataclass(frozen=True)
class Piece:
    """One token, and which characters of the text it stands for."""

    id: int
    begin: int
    end: int


def pieces_of(text: str, tokenizer: CLIPTokenizer) -> tuple[Piece, ...]:
    """The tokens of a text (its composed form, Unicode's NFC) with their places in it; see `ids_of`."""
    if not isinstance(text, str):
        raise PromptError(f"a text was expected; {brief(text)} came.")
    check_kind(
        tokenizer, PreTrainedTokenizerBase, "tokenizer", "one of source.tokenizers, or model.towers[0].tokenizer"
    )
    key = unicodedata.normalize("NFC", text), frozenset(tokenizer.get_added_vocab().items())
    return _PIECES.setdefault(tokenizer, Memo(4096))([key], lambda _: [_pieces(tokenizer, *key)])[0]


# a tokenizer has 25 MB: let it go with its model
_PIECES: WeakKeyDictionary[CLIPTokenizer, Memo[tuple[str, frozenset[tuple[str, int]]], tuple[Piece, ...]]]
_PIECES = WeakKeyDictionary()


def _pieces(tokenizer: CLIPTokenizer, text: str, added: frozenset[tuple[str, int]]) -> tuple[Piece, ...]:
    for special in (tokenizer.bos_token, tokenizer.eos_token):
        if special and special in text:
            raise PromptError(f"'{special}' inside a prompt would end it for the encoder; leave it out.")
    if regex.search(r"[\ud800-\udfff]", text):
        raise PromptError(f"{text!r:.200} holds characters that are no text (a broken encoding); type it again.")
    if len(text) > 16 * MOST_TOKENS:
        raise PromptError(f"the prompt has {len(text):,} characters; at most {16 * MOST_TOKENS:,} are read.")
    read = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False, return_offsets_mapping=True)
    if len(read.input_ids) > MOST_TOKENS:
        raise PromptError(f"the prompt has {len(read.input_ids):,} tokens; at most {MOST_TOKENS:,} are read.")
    number_of, name_of = dict(added), {number: name for name, number in added}
    pieces: list[Piece] = []
    for n, (number, span) in enumerate(zip(read.input_ids, read["offset_mapping"], strict=True)):
        pieces.append(Piece(number, *span))
        name, k = name_of.get(number), 1
        if number_of.get(f"{name}_1") in read.input_ids[n + 1 : n + 2]:
            continue  # written out by somebody already
        while (vector := number_of.get(f"{name}_{k}")) is not None:
            pieces.append(Piece(vector, *span))
            k += 1
    return tuple(pieces)


def concepts_of(tokenizers: Iterable[CLIPTokenizer]) -> tuple[str, ...]:
    """The names that were added to vocabularies, such as those of textual inversion, without the special tokens."""
    return tuple(
        dict.fromkeys(name for t in tokenizers for name in t.get_added_vocab() if name not in t.all_special_tokens)
    )


@lru_cache(maxsize=64)
def _word_pattern(concepts: tuple[str, ...]) -> regex.Pattern[str]:
    """CLIP's own: contractions, runs of letters, single digits, runs of other signs; and names of concepts, whole."""
    before, after = r"(?<!\w)", r"(?!\w)"  # `art` is not in `party`
    names = [
        before * name[0].isalnum() + regex.escape(name) + after * name[-1].isalnum()
        for name in sorted(concepts, key=len, reverse=True)
    ]
    own = [r"'s|'t|'re|'ve|'m|'ll|'d", r"\p{L}+", r"\p{N}", r"[^\p{White_Space}\p{L}\p{N}]+"]
    if concepts:  # a run of signs ends where a name begins
        own[-1] = rf"(?:(?!{'|'.join(names)})[^\p{{White_Space}}\p{{L}}\p{{N}}])+"
    return regex.compile("|".join([*names, *own]), regex.IGNORECASE)


def word_spans(text: str, pieces: Sequence[Piece], concepts: tuple[str, ...]) -> list[tuple[str, int, int]]:
    """Each word of a text with its first token and the one after its last; part of a secret is `***`."""
    composed = unicodedata.normalize("NFC", text)
    secret = secret_spans(composed)
    found, k = [], 0
    for word in _word_pattern(concepts).finditer(composed):
        begin = k
        while k < len(pieces) and pieces[k].begin < word.end():
            k += 1
        if k > begin:
            hidden = any(start < word.end() and word.start() < end for start, end in secret)
            found.append((BLANK if hidden else word[0], begin, k))
    return found


def tokenize(
    text: str,
    tokenizer: CLIPTokenizer,
    truncate: bool = False,
    window: int = WINDOW,
    concepts: tuple[str, ...] | None = None,
) -> Tokens:
    """Tokenize a prompt of any length: windows of start + 75 + end, the last one filled with padding.

    One window holds exactly what the tokenizer's own `padding="max_length"` gives. `truncate` keeps the first window.
    The empty prompt is fine: one window of start, end and padding.

    Where a word begins and ends is read from the text, so that all encoders of a model see the same words: a tokenizer
    that pads with "!" gives a written "!" no word border, and neither has the name of a concept. `concepts` are names
    that are one word, by default those added to this tokenizer.

    Raises PromptError for what is no text, for special tokens in it, and above 15,000 tokens.

    >>> from embedlab.models import tokenizer
    >>> t = tokenize("A picture of a puppy", tokenizer())
    >>> t.ids[0, :7].tolist(), t.words[-1]
    ([49406, 320, 1674, 539, 320, 6829, 49407], Word(text='puppy', rows=(5,)))
    """
    if not isinstance(text, str):
        raise PromptError(f"a prompt is a text; {brief(text)} is none.")
    pieces = pieces_of(text, tokenizer)
    body = window - 2
    words: list[Word] = []
    for word, begin, end in word_spans(text, pieces, concepts_of([tokenizer]) if concepts is None else concepts):
        rows = tuple(n // body * window + n % body + 1 for n in range(begin, end))
        words.append(Word(word, rows, begin // body != (end - 1) // body))

    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = [piece.id for piece in pieces]
    bodies = [ids[i * body : (i + 1) * body] for i in range(max(1, -(-len(ids) // body)))]
    table = torch.tensor([[bos, *row, eos, *[pad] * (body - len(row))] for row in bodies])
    tokens = Tokens(text, table, tuple(words), tokenizer)
    return first_window(tokens) if truncate else tokens


def first_window(tokens: Tokens) -> Tokens:
    """Truncate to one window; a word that does not fit whole loses the tokens beyond it and counts as left out."""
    if len(tokens.ids) == 1:
        return tokens
    inside = [(w, tuple(r for r in w.rows if r < tokens.window)) for w in tokens.words]
    return replace(
        tokens,
        ids=tokens.ids[:1],
        memo={},
        words=tuple(Word(w.text, rows) for w, rows in inside if rows),
        dropped=tuple(w.text for w, rows in inside if rows != w.rows),
    )


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
