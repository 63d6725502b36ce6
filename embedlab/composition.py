"""Sections of a prompt, and how they come together: one after the other, as a mean, or as predictions that are added.

A section is a text that is cut into windows by itself. All windows of a prompt stand in one table of ids, section after
section, so that every selector finds the words of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.errors import PromptError, listed
from embedlab.limits import Join
from embedlab.windows import Windows, joined, lengthened


@dataclass(frozen=True)
class Section:
    """Windows that were cut together; `first` is the number of its first window in the prompt."""

    windows: Windows
    first: int = 0

    @property
    def count(self) -> int:
        """How many windows there are."""
        return len(self.windows.ids)


@dataclass(frozen=True)
class Composed:
    """Prompts in one: `sum` adds their predictions (A1111's AND), `join` their rows, `blend` is their weighted mean.

    With weights that do not count as shares (`shares` off), a blend is the weighted sum.
    """

    how: Literal["sum", "join", "blend"]
    members: tuple[Layout, ...]
    weights: tuple[float, ...]
    shares: bool = True
    ways: tuple[str | None, ...] = ()  # of a sum, how each comes in where its word says it: perp, salient, top_k

    @property
    def count(self) -> int:
        """How many windows it comes to."""
        counts = [member.count for member in self.members]
        return max(counts) if self.how == "blend" else sum(counts)


WORDS = {"perp": "AND_PERP", "salient": "AND_SALT", "top_k": "AND_TOPK"}  # as sd-webui-neutral-prompt writes them
Layout: TypeAlias = Section | Composed


def sections(layout: Layout) -> Iterator[Section]:
    """All sections, in order."""
    if isinstance(layout, Section):
        yield layout
    else:
        for member in layout.members:
            yield from sections(member)


def named_sections(layout: Layout, name: str = "") -> Iterator[tuple[Section, str]]:
    """All sections, each with the prompts that it is of, as languages write them: `blend 0.3`, `and 1`."""
    if isinstance(layout, Section):
        yield layout, name
        return
    word = {"sum": "AND", "join": "and", "blend": "blend"}[layout.how]
    ways = layout.ways or (None,) * len(layout.members)
    for member, weight, way in zip(layout.members, layout.weights, ways, strict=True):
        said = WORDS[way] if way else word
        yield from named_sections(member, f"{name}, {said} {weight:g}".removeprefix(", "))


def padded(layout: Layout, count: int) -> Layout:
    """The same followed by empty windows, `count` in all."""
    if isinstance(layout, Section):
        return replace(layout, windows=lengthened(layout.windows, count))
    if layout.how == "blend":
        return replace(layout, members=tuple(padded(member, count) for member in layout.members))
    *others, last = layout.members
    return replace(layout, members=(*others, padded(last, last.count + count - layout.count)))


def settled(layout: Layout) -> Layout:
    """The same with the members of each blend of one length, and windows counted through."""
    return _numbered(_evened(layout), 0)[0]


def _evened(layout: Layout) -> Layout:
    if isinstance(layout, Section):
        return layout
    members = tuple(_evened(member) for member in layout.members)
    most = max(member.count for member in members)
    return replace(layout, members=tuple(padded(m, most) for m in members) if layout.how == "blend" else members)


def _numbered(layout: Layout, first: int) -> tuple[Layout, int]:
    if isinstance(layout, Section):
        return replace(layout, first=first), first + layout.count
    members = []
    for member in layout.members:
        numbered, first = _numbered(member, first)
        members.append(numbered)
    return replace(layout, members=tuple(members)), first


def matched(layouts: Sequence[Layout]) -> list[Layout]:
    """Layouts of a prompt before several text encoders with as many windows each; PromptError where that cannot be."""
    sums = [isinstance(layout, Composed) and layout.how == "sum" for layout in layouts]
    if not any(sums):
        most = max(layout.count for layout in layouts)
        return [settled(padded(layout, most)) for layout in layouts]
    counts = [len(layout.members) if isinstance(layout, Composed) else 1 for layout in layouts]
    if not all(sums) or len(set(counts)) > 1:
        raise PromptError(f"AND has to part the prompts of all text encoders alike; here are {listed(counts)} parts.")
    weights = [layout.weights for layout in layouts if isinstance(layout, Composed)]
    if len({layout.ways for layout in layouts if isinstance(layout, Composed)}) > 1:
        raise PromptError("AND, AND_PERP, AND_SALT and AND_TOPK have to join the prompts of all text encoders alike.")
    if len(set(weights)) > 1:
        said = " and ".join(listed(f"{weight:g}" for weight in one) for one in weights)
        raise PromptError(f"AND has to weigh the prompts of all text encoders alike; here are weights {said}.")
    pairs = zip(*(layout.members for layout in layouts if isinstance(layout, Composed)), strict=True)
    members = [matched(pair) for pair in pairs]
    return [
        settled(replace(layout, members=tuple(pair[n] for pair in members)))  # type: ignore[arg-type]
        for n, layout in enumerate(layouts)
    ]


def needs_empty(layout: Layout) -> bool:
    """Whether an empty prompt takes part, from which a weighted member of a join is reckoned."""
    if isinstance(layout, Section):
        return False
    own = layout.how == "join" and any(weight != 1 for weight in layout.weights)
    return own or any(needs_empty(member) for member in layout.members)


def streams(layout: Layout) -> list[tuple[float, Layout]]:
    """What the UNet is conditioned on, each by itself, with the weight of its prediction."""
    if isinstance(layout, Composed) and layout.how == "sum":
        return list(zip(layout.weights, layout.members, strict=True))
    return [(1.0, layout)]


def rows_joined(layout: Layout, join: Join) -> list[int]:
    """The row of the prompt that each row stands for; of a blend, that of its first member."""
    if isinstance(layout, Section):
        window = layout.windows.ids.shape[1]
        return [layout.first * window + row for row in joined(layout.count, join, window)]
    members = layout.members[:1] if layout.how == "blend" else layout.members
    return [row for member in members for row in rows_joined(member, join)]


def hidden_of(
    layout: Layout,
    states: Callable[[Section], Float[Tensor, "window position dim"]],
    empty: Float[Tensor, "position dim"] | None,
    join: Join,
) -> Float[Tensor, "row dim"]:
    """The hidden states of a prompt; `states` has those of each section, `empty` those of an empty window."""
    if isinstance(layout, Section):
        return join_states(states(layout), layout.windows, join)
    found = [hidden_of(member, states, empty, join) for member in layout.members]
    if layout.how == "join":
        parts = []
        for member, weight, one in zip(layout.members, layout.weights, found, strict=True):
            if weight == 1:
                parts.append(one)
                continue
            assert empty is not None
            blank = empty.expand(member.count, -1, -1)
            rows = blank.flatten(0, 1)[joined(member.count, join, blank.shape[1])]
            parts.append(rows + (one - rows) * weight)
        return torch.cat(parts)
    return weighted_sum(layout, found)


def pooled_of(
    layout: Layout,
    pooled: Callable[[Section], Float[Tensor, " joint"]],
    empty: Float[Tensor, " joint"] | None,
    how: str,
) -> Float[Tensor, " joint"]:
    """The pooled output of a prompt from those of its sections: of joined prompts the first, the last or a mean.

    The mean is by numbers of tokens where `how` is `weighted`, which weighs as the hidden states are weighed.
    """
    if isinstance(layout, Section):
        return pooled(layout)
    found = [pooled_of(member, pooled, empty, how) for member in layout.members]
    if layout.how == "blend":
        return weighted_sum(layout, found)
    if how in ("first", "last", "row"):
        return found[-1 if how == "last" else 0]
    counts = torch.ones(len(found))
    if how == "weighted":
        for n, (weight, one) in enumerate(zip(layout.weights, found, strict=True)):
            if weight != 1:
                assert empty is not None
                found[n] = empty + (one - empty) * weight
        counts = torch.tensor([float(sum(length_of(s) for s in sections(member))) for member in layout.members])
    share = (counts / counts.sum() if counts.any() else torch.ones_like(counts) / len(counts)).to(found[0])
    return (torch.stack(found) * share[:, None]).sum(0)


def length_of(section: Section) -> int:
    """How many tokens a section's text has."""
    return int((section.windows.pieces >= 0).sum())


def weighted_sum(layout: Composed, found: Sequence[Tensor]) -> Tensor:
    """The members of a blend by their weights; one that has all of it is itself to the bit."""
    total = sum(layout.weights) if layout.shares else 1.0
    weights = [weight / total for weight in layout.weights]
    if weights.count(1) == 1 and weights.count(0) == len(weights) - 1:
        return found[weights.index(1)]
    return torch.stack([weight * one for weight, one in zip(weights, found, strict=True)]).sum(0)


def join_states(
    hidden: Float[Tensor, "window position dim"], windows: Windows, join: Join = "windows"
) -> Float[Tensor, "row dim"]:
    """The hidden states of windows, one after the other.

    join: windows, each with its start and end (A1111, ComfyUI); run, one start and end for all (`no_boseos_middle` of
    diffusers' long prompt weighting); copied, the row of the first window's end stands at the end of each (compel's
    COPY_FIRST_CLS_TOKEN); merged, the mean of the ends does (its MERGE_CLS_TOKENS).
    """
    flat = hidden.flatten(0, 1)
    if join not in ("copied", "merged"):
        return flat[joined(len(hidden), join, hidden.shape[1])]
    ends = torch.tensor([n * hidden.shape[1] + end for n, end in enumerate(windows.ends)])
    flat = flat.clone()
    flat[ends] = flat[ends][:1] if join == "copied" else flat[ends].mean(0, keepdim=True)
    return flat
