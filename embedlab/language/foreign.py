"""Which other language a prompt seems to be written in."""

from __future__ import annotations

import re

WEIGHT = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
SHAPES: dict[str, tuple[str, tuple[str, ...]]] = {  # what it looks like, and the languages that read it
    "a weight in parentheses": (rf"(?<!\\)\([^()\[\]]{{1,200}}:\s*{WEIGHT}\s*\)", ("a1111", "comfyui")),
    "double parentheses": (r"(?<!\\)\(\([^()]{1,200}\)\)(?![0-9.+-])", ("a1111", "comfyui")),
    "BREAK": (r"\bBREAK\b", ("a1111",)),
    "AND between prompts": (r"\S\s+AND(?:_PERP|_SALT|_TOPK)?\s+\S", ("a1111",)),
    "prompt editing": (rf"(?<!\\)\[[^\[\]:|]{{0,200}}(?::[^\[\]:|]{{0,200}})?:\s*{WEIGHT}\s*\]", ("a1111",)),
    "alternation": (r"(?<!\\)\[[^\[\]:|]{1,200}(?:\|[^\[\]:|]{0,200})+\]", ("a1111",)),
    "square brackets": (r"(?<![\\\w])\[[^\[\]:|]{1,200}\]", ("a1111",)),
    "a word with ++ or --": (r"(?:\w{1,40}|\)|\")(?:\+\+|--)+(?![\w+-])", ("compel",)),
    "a weight after parentheses": (rf"(?<!\\)\([^()]{{1,200}}\)(?:{WEIGHT}|[+-]+(?![\w]))", ("compel",)),
    "an operator on prompts": (r"\)\s*\.(?:blend|and|add|swap|attend)\s*\(", ("compel",)),
    "a swapped word": (r"\w\.swap\s*\(", ("compel",)),
}
COMPILED = {name: (re.compile(shape), languages) for name, (shape, languages) in SHAPES.items()}


def foreign(text: str, language: str = "plain") -> tuple[str, str] | None:
    """The language that a text seems to be written in, where `language` would not read it, and a notice that says so.

    >>> foreign("a (red:1.5) cat")[1]
    "'(red:1.5)' looks like a weight in parentheses, which is read with language=a1111 (or comfyui); here it is text."
    >>> foreign("a (red:1.5) cat", "a1111") is None, foreign("a red cat (2019)") is None
    (True, True)
    """
    votes: dict[str, int] = {}
    seen: list[tuple[int, str, str, tuple[str, ...]]] = []
    for name, (shape, languages) in COMPILED.items():
        if language not in languages and (found := shape.search(text)):
            seen.append((found.start(), found[0], name, languages))
            for n, other in enumerate(languages):
                votes[other] = votes.get(other, 0) + 2 - n
    if not votes:
        return None
    likely = max(votes, key=lambda other: votes[other])
    _, piece, name, languages = min(one for one in seen if likely in one[3])
    others = [other for other in languages if other != likely]
    also = f" (or {', '.join(others)})" if others else ""
    shown = piece if len(piece) <= 40 else piece[:39] + "…"
    notice = f"'{shown}' looks like {name}, which is read with language={likely}{also}; here it is text."
    return likely, notice
