"""Which token of one prompt each token of another has its attention from: prompt-to-prompt's mappers, at any length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embedlab.encoder import Conditioning
from embedlab.errors import OperatorError
from embedlab.select import roles
from embedlab.selector import ROLES
from embedlab.transfer import send

How = Literal["replace", "refine", "rows"]


@dataclass(frozen=True)
class Mapping:
    """How the tokens of a source make those of a target.

    matrix: the share of each of the source's tokens in each of the target's. found: the tokens of the target that have
    a counterpart; the others keep their own attention.
    """

    matrix: Float[Tensor, "source target"]
    found: Bool[Tensor, " target"]

    def __call__(self, theirs: Tensor, own: Tensor) -> Tensor:
        """The source's probabilities (…, token), as the target's tokens have them, and its own where there are none."""
        count, many = self.matrix.shape
        there = theirs[..., :count] @ send(self.matrix, theirs.device).to(theirs.dtype)
        found = send(self.found, own.device)
        if own.shape[-1] > many:  # what hides beyond, where prompts of several lengths are one batch
            there = torch.nn.functional.pad(there, (0, own.shape[-1] - many))
            found = torch.nn.functional.pad(found, (0, own.shape[-1] - many))
        return torch.where(found, there, own)


def mapping_of(source: Conditioning, target: Conditioning, how: How | None = None) -> Mapping:
    """Which tokens of a source those of a target have their attention from.

    replace: the n-th word's from the n-th word; where their token counts differ, each token of the target has an equal
    share of the sum over the source's (prompt-to-prompt's replacement mapper). refine: words that both have, found by
    global alignment of tokens (Needleman and Wunsch; match 1, mismatch −1, gap 0); new ones have none. rows: the same
    row. None: replace where there are as many words, else refine. Start, end and padding are each other's.

    Raises OperatorError for replace where the numbers of words differ.
    """
    ours, theirs = words_in(target), words_in(source)
    if how is None:
        how = "replace" if len(ours) == len(theirs) else "refine"
    if how == "replace" and len(ours) != len(theirs):
        raise OperatorError(
            f"attention is copied word by word (how: replace), and the source has {len(theirs)} words, the target "
            f"{len(ours)}; take how: refine."
        )
    matrix = torch.zeros(len(source.hidden), len(target.hidden))
    if how == "rows":
        for n in range(min(matrix.shape)):
            matrix[n, n] = 1
    else:
        _others(matrix, source, target)
    if how == "replace":
        for (_, mine), (_, other) in zip(ours, theirs, strict=True):
            if len(mine) == len(other):
                matrix[other, mine] = 1
            else:
                for column in mine:
                    matrix[other, column] = 1 / len(mine)
    elif how == "refine":
        own_ids, own_columns = _tokens_of(ours)
        ids, columns = _tokens_of(theirs)
        for column, place in zip(own_columns, aligned(ids, own_ids), strict=True):
            if place is not None:
                matrix[columns[place], column] = 1
    return Mapping(matrix, matrix.any(0))


def words_in(conditioning: Conditioning) -> list[tuple[list[int], list[int]]]:
    """The words of a conditioning that reach the UNet whole: ids of their tokens, and their columns."""
    tokens = conditioning.tokens
    if tokens is None:
        raise OperatorError("this conditioning does not know its tokens; attention is copied row by row: how: rows.")
    where = {row: n for n, row in enumerate(conditioning.rows) if row >= 0}
    ids = tokens.ids.flatten().tolist()
    found = []
    for word in tokens.words:
        if all(row in where for row in word.rows):
            found.append(([ids[row] for row in word.rows], [where[row] for row in word.rows]))
    return found


def _tokens_of(words: Sequence[tuple[list[int], list[int]]]) -> tuple[list[int], list[int]]:
    """The ids of all tokens of some words, and their columns."""
    return [i for ids, _ in words for i in ids], [n for _, columns in words for n in columns]


def _others(matrix: Tensor, source: Conditioning, target: Conditioning) -> None:
    """Start, end and padding: the same column where that is of the role, else the nearest that is."""
    there = _roles(source)
    for column, role in _roles(target).items():
        fit = [n for n, other in there.items() if other == role]
        if fit and role != "words":
            matrix[column if there.get(column) == role else min(fit, key=lambda n: (abs(n - column), n)), column] = 1


def _roles(conditioning: Conditioning) -> dict[int, str]:
    """The role of each column that stands for a row of its own prompt."""
    assert conditioning.tokens is not None
    masks = roles(conditioning.tokens).flatten(1)
    return {
        n: next(role for role, mask in zip(ROLES, masks, strict=True) if mask[row])
        for n, row in enumerate(conditioning.rows)
        if row >= 0
    }


def aligned(source: Sequence[int], target: Sequence[int]) -> list[int | None]:
    """For each token of a target its place in a source, by global alignment; None for what is new.

    Needleman and Wunsch (1970): match 1, mismatch −1, gap 0, ties as in prompt-to-prompt (a gap before a pair).

    >>> aligned([1, 2, 3], [1, 9, 2, 3]), aligned([1, 2], [2])
    ([0, None, 1, 2], [1])
    """
    rows, columns = len(source), len(target)
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            pair = best[i - 1][j - 1] + (1 if source[i - 1] == target[j - 1] else -1)
            best[i][j] = max(best[i][j - 1], best[i - 1][j], pair)
    found: list[int | None] = [None] * columns
    i, j = rows, columns
    while i and j:
        if best[i][j] == best[i][j - 1]:
            j -= 1
        elif best[i][j] == best[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            found[j] = i
    return found
