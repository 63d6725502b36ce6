"""Tokens and a selector → rows: which rows of a prompt a setting speaks of."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from embedlab.errors import OperatorError, counted, listed
from embedlab.prompt import Tokens
from embedlab.schedule import value_of
from embedlab.selector import ROLES, Rows, rows_of

Spans = list[tuple[int, ...]]  # rows: a span for each occurrence


def roles(tokens: Tokens) -> Bool[Tensor, "role window position"]:
    """One mask a role, in the order of `ROLES`."""
    places = torch.arange(tokens.ids.shape[1])
    bos = (places == 0).expand(tokens.ids.shape)
    ended = (tokens.ids == tokens.tokenizer.eos_token_id).int().cumsum(1)
    eos = (ended == 1) & (tokens.ids == tokens.tokenizer.eos_token_id)
    words = (ended == 0) & ~bos
    return torch.stack([words, bos, eos, (ended > 0) & ~eos, torch.ones_like(bos)])


def select(what: Any, tokens: Tokens) -> Spans:
    """The rows that a setting names, in spans: one for each occurrence of a word, one for everything else.

    Spans are of one length, so that an operator can treat them together: where they are not, they become one. So do the
    selectors of a list: their rows are one group, in the order of the prompt.
    Raises PromptError for a word that is not there, OperatorError for a selector that matches nothing.
    """
    key = repr(what)
    if key not in tokens.memo:
        tokens.memo[key] = _selected(what, tokens)
    return tokens.memo[key]


def _selected(what: Any, tokens: Tokens) -> Spans:
    parts = rows_of(what)
    spans = list(dict.fromkeys(span for rows in parts for span in _spans(rows, tokens)))
    if (
        len(parts) == 1
        and len({len(span) for span in spans}) == 1
        and len({r for s in spans for r in s}) == sum(map(len, spans))
    ):
        return spans
    return [tuple(sorted({row for span in spans for row in span}))]


def _spans(rows: Rows, tokens: Tokens) -> Spans:
    spans = _occurrences(rows, tokens) if rows.word is not None else []
    if spans and (rows.tokens, rows.role, rows.window, rows.but) == (None,) * 4:
        return spans
    height, length = tokens.ids.shape
    kept = _mask(spans, tokens) if spans else torch.ones(height, length, dtype=torch.bool)
    if rows.tokens is not None and (rows.word, rows.role, rows.window, rows.but) == (None,) * 4:
        return [_in_reach(rows, tokens)]  # in the order given
    if rows.tokens is not None:
        kept = kept & _mask([_in_reach(rows, tokens)], tokens)
    if rows.role is not None:
        kept = kept & roles(tokens)[ROLES.index(rows.role)]
    if (window := value_of(rows.window)) is not None:
        if not 0 <= window < height:
            raise OperatorError(f"there is no window {window}; this prompt has windows 0 to {height - 1}.")
        kept = kept & (torch.arange(height) == window)[:, None]
    if rows.but is not None:
        kept = kept & ~_mask(select(rows.but, tokens), tokens)
    if not kept.any():
        counts = ", ".join(f"{int(mask.sum())} {role}" for mask, role in zip(roles(tokens), ROLES, strict=True))
        raise OperatorError(
            f"the rows ({rows}) match nothing; in {height} {'window' if height == 1 else 'windows'} this prompt has "
            f"{counts} rows, and the words {listed((w.text for w in tokens.words), 12)}."
        )
    whole = [span for span in spans if bool(kept.view(-1)[list(span)].all())]
    return whole or [tuple(kept.flatten().nonzero().flatten().tolist())]


def _in_reach(rows: Rows, tokens: Tokens) -> tuple[int, ...]:
    assert isinstance(rows.tokens, tuple)
    if wrong := [r for r in rows.tokens if not 0 <= r < tokens.ids.numel()]:
        raise OperatorError(f"there is no row {wrong[0]}; this prompt has rows 0 to {tokens.ids.numel() - 1}.")
    return rows.tokens


def _occurrences(rows: Rows, tokens: Tokens) -> Spans:
    word, nth = value_of(rows.word), value_of(rows.nth)
    assert word is not None
    spans = tokens.rows(word)
    if nth is None:
        return spans
    if abs(nth) > len(spans):
        raise OperatorError(f"'{word}' stands {counted(len(spans), 'time')}; there is no occurrence {nth}.")
    return [spans[nth - (nth > 0)]]


def _mask(spans: Spans, tokens: Tokens) -> Bool[Tensor, "window position"]:
    mask = torch.zeros(tokens.ids.shape, dtype=torch.bool)
    mask.view(-1)[[row for span in spans for row in span]] = True
    return mask
