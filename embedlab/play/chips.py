"""Tokens → what is shown of them: words with their ids, windows, and the selector that a click chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedlab.errors import PromptError
from embedlab.prompt import Tokens, Word
from embedlab.select import roles
from embedlab.selector import ROLES

MOST = 8  # ids that a chip shows


def readings(read: Sequence[Tokens]) -> list[dict[str, Any]]:
    """What each text encoder reads of a prompt, from 1 on; those that read the same words in the same rows are one.

    The two of SDXL have one vocabulary and differ in what they pad with, which is told: `pads`, an id for each.

    >>> from embedlab.models import tokenizer
    >>> from embedlab.prompt import tokenize
    >>> cat, dog = (tokenize(text, tokenizer()) for text in ("a cat", "a dog"))
    >>> [one["encoders"] for one in readings([cat, cat])], [one["encoders"] for one in readings([cat, dog])]
    ([[1, 2]], [[1], [2]])
    """
    found: list[dict[str, Any]] = []
    for n, tokens in enumerate(read, start=1):
        windows = chips(tokens)
        pads = [
            id_ for window in windows for one in window["chips"] if one.get("role") == "pad" for id_ in one["ids"][:1]
        ]
        same = next((one for one in found if unpadded(one["windows"]) == unpadded(windows)), None)
        if same is None:
            found.append({"encoders": [n], "windows": windows, "pads": pads})
        else:
            same["encoders"].append(n)
            same["pads"] += pads
    return found


def unpadded(windows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Windows without the ids of their padding."""
    return [[{**one, "ids": []} if one.get("role") == "pad" else one for one in window["chips"]] for window in windows]


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
