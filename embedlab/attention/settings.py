"""Settings of attention: which maps are kept, and how attention is edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedlab.attention.edits import AttentionEdit
from embedlab.attention.layers import chosen, layers_of
from embedlab.display import Shown
from embedlab.errors import ConfigError, brief, listed
from embedlab.limits import check_part
from embedlab.parsed_prompt import ParsedPrompt
from embedlab.schedule import Schedule, Setting, varies, within
from embedlab.selector import Selector


@dataclass(frozen=True)
class Attention(Shown):
    """What is kept of a UNet's cross-attention, and what is done to it; by default nothing, and no layer is touched.

    maps: whether maps of words are kept (`Rendered.maps`, `maps.safetensors` and heat maps in the job's folder). words:
    what they are of, words or selectors of rows, such as `{role: pad}`; left out, all words of the prompt. by: what
    they are kept apart by: step, layer, head. layers: those that are summed, by name of block, module or layer (`mid`,
    `down.1`, `up.0.1`); left out, all. edits: what is done to attention, in order (`CopyCross`, `CopySelf`, `Reweight`,
    `Confine`, each of them perhaps in a `During`). source: the prompt that copies are taken from, drawn beside from the
    same noise; left out, the cell's own without its operators. It is also what the edited picture is compared with.

    On, layers that are watched or edited compute their probabilities in the open: fused attention and engines other
    than eager are not for them.

    >>> Attention().active, Attention(maps=True, words=["cat"]).active
    (False, True)
    """

    maps: bool = False
    words: Sequence[Selector] | None = None
    by: Sequence[str] = ()
    layers: Sequence[str] | None = None
    edits: Sequence[AttentionEdit | Schedule[Any]] | Mapping[str, AttentionEdit | Schedule[Any]] = ()
    source: Setting[str | ParsedPrompt] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.edits, Mapping | list | tuple):
            raise ConfigError(f"attention.edits is {brief(self.edits)}; it has to be a list of edits.")
        edits = tuple(self.edits.values() if isinstance(self.edits, Mapping) else self.edits)
        object.__setattr__(self, "edits", tuple(edit for edit in edits if edit is not None))
        for edit in self.edits:
            if not isinstance(edit, AttentionEdit | Schedule):
                raise ConfigError(
                    f"attention.edits holds {brief(edit)}; an edit is CopyCross, CopySelf, Reweight or Confine, or a "
                    "During of one."
                )
        if self.source is not None and not isinstance(self.source, str | ParsedPrompt | Schedule):
            raise ConfigError(f"attention.source is {brief(self.source)}; it has to be a prompt.")
        if varies([self.maps, self.words, self.by, self.layers]):
            raise ConfigError("what attention maps are kept of cannot change over time; edits can.")
        check_part(self)
        for name in ("words", "by", "layers"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value) if isinstance(value, list | tuple) else (value,))

    @property
    def active(self) -> bool:
        """Whether any layer has to be watched or edited."""
        return self.maps or any(not isinstance(edit, AttentionEdit) or not edit.neutral for edit in self.edits)

    def notes(self) -> list[str]:
        """What is set and does nothing, for people.

        >>> Attention(words=["cat"]).notes()
        ['attention.words says what maps are of, and none are kept: attention=maps']
        """
        idle = [name for name in ("words", "by", "layers") if getattr(self, name)] if not self.maps else []
        return [f"attention.{name} says what maps are of, and none are kept: attention=maps" for name in idle]

    @property
    def copies(self) -> bool:
        """Whether attention is copied; of edits that change over time, whether it is now."""
        return any(isinstance(edit, AttentionEdit) and edit.copies and not edit.neutral for edit in self.edits)

    @property
    def label(self) -> str:
        """What is done to attention, in a few characters."""
        return ", ".join(map(str, self.edits))

    def unedited(self) -> Attention:
        """The same maps, and no edits."""
        return replace(self, edits=(), source=None) if self.edits or self.source is not None else self


def turned_off(attention: Attention, source: Any) -> str:
    """What is not as fast as it could be because attention is looked at; empty where it is not.

    >>> from embedlab import Source
    >>> turned_off(Attention(maps=True, layers=["mid"]), Source("emoji"))
    'attention is looked at: no fused attention in 1 of 5 cross-attention layers, no engine but eager'
    """
    if not attention.active:
        return ""
    there = layers_of(source.part("unet"))
    kinds = {"cross": {layer.name for layer in chosen(attention.layers, there)} if attention.maps else set[str]()}
    for part in within(attention.edits):
        if isinstance(part, AttentionEdit):
            kinds.setdefault(part.kind, set()).update(layer.name for layer in there if part.works_in(layer))
    said = [f"{len(names)} of {len(there)} {kind}-attention layers" for kind, names in kinds.items() if names]
    beside = "; the source of each seed is drawn beside" if copies_ever(attention) else ""
    return f"attention is looked at: no fused attention in {listed(said)}, no engine but eager{beside}"


def copies_ever(attention: Attention) -> bool:
    """Whether attention is copied at any time."""
    return any(isinstance(part, AttentionEdit) and part.copies for part in within(attention.edits))
