"""compel's `.swap()` → prompt-to-prompt: what is drawn, what attention is copied from, and when."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from embedlab.attention.edits import CopyCross, CopySelf
from embedlab.language.tree import Swap
from embedlab.parsed_prompt import ParsedPrompt
from embedlab.schedule import During, Schedule, within

OPTIONS = {"s_start": 0.0, "s_end": 0.0, "t_start": 0.2, "t_end": 1.0}  # compel's, in shares of the steps


def with_attention(prompt: Any) -> tuple[Any, Any, tuple[Schedule[Any], ...]] | None:
    """A prompt with the second texts of its swaps, the one with the first texts, and the edits that join the two.

    `s_start` to `s_end` say when self-attention is copied, `t_start` to `t_end` when cross-attention is, word by word;
    `shape_freedom` f is compel's `s_end = 1 - f^(1/3)`. Of several swaps the earliest start and the latest end count.
    Of a prompt that changes over time each text has its own, and copies while it is drawn; where it has none, the
    source is that text itself. None for a prompt without a swap.

    >>> from embedlab.parsed_prompt import parsed
    >>> target, source, edits = with_attention(parsed("a cat.swap(dog, s_end=0.5) here", "compel"))
    >>> str(target), str(source), [str(edit) for edit in edits]
    ('a dog here', 'a cat here', ['self-attention copied from 0 until 0.5', 'cross-attention copied from 0.2 until 1'])
    """
    if isinstance(prompt, Schedule):
        values = getattr(prompt, "values", ())
        each = [with_attention(value) for value in values]
        if not any(each):
            return None

        def over_time(parts: Sequence[Any]) -> Any:
            changed: Any = prompt
            return dataclasses.replace(changed, values=tuple(parts))

        pairs = list(zip(values, each, strict=True))
        target, source = (over_time([v if one is None else one[n] for v, one in pairs]) for n in (0, 1))
        edits = [
            over_time([edit if one is other else None for other in each])
            for one in each
            for edit in (one[2] if one else ())
        ]
        return target, source, tuple(edits)
    swaps = [part for part in within(prompt) if isinstance(part, Swap)]
    if not swaps or not isinstance(prompt, ParsedPrompt):
        return None
    options = [options_of(swap) for swap in swaps]
    copied = []
    for sign, kind in (("s", CopySelf()), ("t", CopyCross())):
        begin, end = min(one[f"{sign}_start"] for one in options), max(one[f"{sign}_end"] for one in options)
        if end > begin:
            copied.append(During(kind, begin, end))
    return _with(prompt, "edited"), _with(prompt, "original"), tuple(copied)


def options_of(swap: Swap) -> dict[str, float]:
    """When a swap copies, by compel's rules.

    >>> options_of(Swap((), (), (("shape_freedom", 0.0),)))
    {'s_start': 0.0, 's_end': 1.0, 't_start': 0.2, 't_end': 1.0}
    """
    given = {name: float(value) for name, value in swap.options if not isinstance(value, str)}
    freedom = given.pop("shape_freedom", None)
    merged = OPTIONS | ({} if freedom is None else {"s_end": 1.0 - freedom ** (1 / 3)}) | given
    return {name: merged[name] for name in OPTIONS}


def _with(prompt: ParsedPrompt, which: str) -> ParsedPrompt:
    made = dataclasses.replace(prompt, parts=tuple(_parts(prompt.parts, which)))
    return dataclasses.replace(made, text=str(made))


def _parts(parts: tuple[Any, ...], which: str) -> Iterator[Any]:
    for node in parts:
        if isinstance(node, tuple):
            yield tuple(_parts(node, which))
        elif isinstance(node, Swap):
            yield tuple(_parts(getattr(node, which), which))
        else:
            changed: dict[str, Any] = {}
            if hasattr(node, "parts"):
                changed["parts"] = tuple(_parts(node.parts, which))
            for name in ("prompts", "choices"):
                if hasattr(node, name):
                    members = getattr(node, name)
                    changed[name] = tuple(
                        dataclasses.replace(one, parts=tuple(_parts(one.parts, which))) for one in members
                    )
            yield dataclasses.replace(node, **changed) if changed else node
