"""Text → token ids, where each stands in the text, and which of them are one word."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import regex
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from embedlab.clean import BLANK, secret_spans
from embedlab.errors import PromptError, brief, check_kind
from embedlab.memo import Memo

MOST_TOKENS = 15_000  # two hundred windows, far beyond what people write; each costs a pass of the text encoder


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


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse what is no tokenizer."""
    check_kind(
        tokenizer,
        PreTrainedTokenizerBase,
        "tokenizer",
        "that of a model, a text encoder or a diffusers pipeline will do",
    )


def tokenizer_of(given: Any) -> CLIPTokenizer:
    """A tokenizer: itself, or the first one of a model, a source, a text encoder or a diffusers pipeline.

    Raises ConfigError for what has none.

    >>> from embedlab import load
    >>> model = load("emoji")
    >>> tokenizer_of(model) is tokenizer_of(model.towers[0]) is tokenizer_of(model.towers[0].tokenizer)
    True
    """
    found = given
    for name in ("towers", "tokenizers", "tokenizer"):
        several = getattr(found, name, None) if isinstance(getattr(found, name, None), list | tuple) else found
        found = several[0] if isinstance(several, list | tuple) and several else several
    found = found if isinstance(found, PreTrainedTokenizerBase) else getattr(found, "tokenizer", None)
    if not isinstance(found, PreTrainedTokenizerBase):
        check_tokenizer(given)
    return found


def pieces_of(text: str, tokenizer: CLIPTokenizer) -> tuple[Piece, ...]:
    """The tokens of a text (its composed form, Unicode's NFC) with their places in it; see `ids_of`."""
    if not isinstance(text, str):
        raise PromptError(f"a text was expected; {brief(text)} came.")
    check_tokenizer(tokenizer)
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
        if number not in name_of:
            continue
        name, k = name_of[number], 1
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
