"""Text → Tokens: ids in windows of 77, where each word landed, what was cut and what was left out.

A row is one place in the prompt, counted through all windows: row `r` stands in window `r // 77` at place `r % 77`. On
a stretched position table a window has more than 77 places; `Tokens.window` says how many.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import CLIPTokenizer

from embedlab.errors import PromptError, listed

WINDOW = 77

Join = Literal["windows", "run", "truncate"]
JOINS: tuple[Join, ...] = ("windows", "run", "truncate")


@dataclass(frozen=True)
class Word:
    """One word of the prompt as the tokenizer sees it, and the rows of its tokens."""

    text: str
    rows: tuple[int, ...]
    cut: bool = field(default=False, repr=False)  # whether the border between two windows runs through the word


@dataclass(frozen=True)
class Tokens:
    """A tokenized prompt. `dropped` holds the words that truncation left out."""

    text: str
    ids: Int[Tensor, "window place"]
    words: tuple[Word, ...]
    tokenizer: CLIPTokenizer = field(repr=False, compare=False)
    dropped: tuple[str, ...] = ()
    memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)  # selections made before

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

    def notes(self) -> list[str]:
        """What a reader should know about this prompt: windows, words cut in two, words left out."""
        windows = len(self.ids)
        said = []
        if windows > 1:
            said.append(f"the prompt has {self.length} tokens and runs in {windows} windows of {self.window - 2}")
        if cut := [word.text for word in self.words if word.cut]:
            said.append(f"cut in two between windows: {listed(cut, 12)}")
        if self.dropped:
            said.append(f"truncated: {len(self.dropped)} words left out, from '{self.dropped[0]}' on")
        return said


def ids_of(text: str, tokenizer: CLIPTokenizer) -> list[int]:
    """Token ids of a text without start and end; special tokens inside it are refused."""
    return list(_ids(text, tokenizer, len(tokenizer)))  # tokens may be added later, by textual inversion


@lru_cache(maxsize=4096)
def _ids(text: str, tokenizer: CLIPTokenizer, count: int) -> tuple[int, ...]:
    for special in (tokenizer.bos_token, tokenizer.eos_token):
        if special and special in text:
            raise PromptError(f"'{special}' inside a prompt would end it for the encoder; leave it out.")
    if re.search(r"[\ud800-\udfff]", text):
        raise PromptError(f"{text!r} holds characters that are no text (a broken encoding); type it again.")
    return tuple(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)


def tokenize(text: str, tokenizer: CLIPTokenizer, truncate: bool = False, window: int = WINDOW) -> Tokens:
    """Tokenize a prompt of any length: windows of start + 75 + end, the last one filled with padding.

    One window holds exactly what the tokenizer's own `padding="max_length"` gives. `truncate` keeps the first window.
    The empty prompt is fine: one window of start, end and padding.

    >>> from embedlab.models import tokenizer
    >>> t = tokenize("A picture of a puppy", tokenizer())
    >>> t.ids[0, :7].tolist(), t.words[-1]
    ([49406, 320, 1674, 539, 320, 6829, 49407], Word(text='puppy', rows=(5,)))
    """
    if not isinstance(text, str):
        raise PromptError(f"a prompt is a text; {text!r} is a {type(text).__name__}.")
    ids = ids_of(text, tokenizer)
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    pieces = tokenizer.convert_ids_to_tokens(ids)

    body = window - 2
    words: list[Word] = []
    begin = 0
    for i, piece in enumerate(pieces):
        if piece.endswith("</w>") or i == len(pieces) - 1:
            rows = tuple(k // body * window + k % body + 1 for k in range(begin, i + 1))
            words.append(Word(text[spans[begin][0] : spans[i][1]], rows, begin // body != i // body))
            begin = i + 1

    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
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


def check_join(join: str) -> None:
    """Refuse an unknown way of joining windows."""
    if join not in JOINS:
        raise PromptError(f"windows cannot be joined by '{join}'; choose one of {listed(JOINS)}.")
