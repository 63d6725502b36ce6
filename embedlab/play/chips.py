"""Tokens → what is shown of them: words with their ids, windows, and the selector that a click chooses."""

from __future__ import annotations

from typing import Any

from embedlab.errors import PromptError
from embedlab.prompt import Tokens, Word
from embedlab.select import roles
from embedlab.selector import ROLES

MOST = 8  # ids that a chip shows


def chips(tokens: Tokens) -> list[dict[str, Any]]:
    """The windows of a prompt, each with the words that stand in it, from its start to its padding.

    >>> from embedlab.models import tokenizer
    >>> from embedlab.prompt import tokenize
    >>> (window,) = chips(tokenize("a cat and a cat", tokenizer()))
    >>> [chip["text"] for chip in window["chips"]], window["chips"][5]["selector"], window["taken"]
    (['start', 'a', 'cat', 'and', 'a', 'cat', 'end', 'padding'], {'word': 'cat', 'nth': 2}, 5)
    """
    size, ids = tokens.window, tokens.ids.flatten().tolist()
    masks: list[list[bool]] = roles(tokens).flatten(1).tolist()
    told: dict[str, list[bool]] = dict(zip(ROLES, masks, strict=True))
    found = []
    for window in range(len(tokens.ids)):
        rows = range(window * size, (window + 1) * size)
        mine = [
            shown(word.text, list(word.rows), ids, chosen_by(word, tokens))
            for word in tokens.words
            if word.rows[0] in rows
        ]
        quiet = []
        for role, text in (("bos", "start"), ("eos", "end"), ("pad", "padding")):
            at = [row for row in rows if told[role][row]]
            if at:
                selector: Any = {"role": role} if len(tokens.ids) == 1 else {"role": role, "window": window}
                quiet.append({**shown(text, at, ids, selector), "role": role})
        taken = sum(len(chip["rows"]) for chip in mine)
        found.append({"chips": [*quiet[:1], *mine, *quiet[1:]], "taken": taken, "of": size - 2})
    return found


def shown(text: str, rows: list[int], ids: list[int], selector: Any) -> dict[str, Any]:
    """A chip: what it says, its rows with their ids (of many the first), and the selector that a click chooses."""
    return {"text": text, "rows": rows, "ids": [ids[row] for row in rows[:MOST]], "selector": selector}


def chosen_by(word: Word, tokens: Tokens) -> Any:
    """The selector that means this word and no other: its text, with which occurrence it is, or else its rows."""
    try:
        there = tokens.rows(word.text)
    except PromptError:
        there = []
    if there == [word.rows]:
        return word.text
    if word.rows in there:
        return {"word": word.text, "nth": there.index(word.rows) + 1}
    return {"tokens": list(word.rows)}
