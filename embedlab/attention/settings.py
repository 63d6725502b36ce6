"""Settings of attention: which maps are kept, and how attention is edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedlab.attention.layers import chosen, layers_of
from embedlab.errors import ConfigError
from embedlab.limits import check_part
from embedlab.schedule import varies
from embedlab.selector import Selector


@dataclass(frozen=True)
class Attention:
    """What is kept of a UNet's cross-attention, and what is done to it; by default nothing, and no layer is touched.

    maps: whether maps of words are kept (`Rendered.maps`, `maps.safetensors` and heat maps in the job's folder). words:
    what they are of, words or selectors of rows, such as `{role: pad}`; left out, all words of the prompt. by: what
    they are kept apart by: step, layer, head. layers: those that are summed, by name of block, module or layer (`mid`,
    `down.1`, `up.0.1`); left out, all.

    On, layers that are watched or edited compute their probabilities in the open: fused attention and engines other
    than eager are not for them.

    >>> Attention().active, Attention(maps=True, words=["cat"]).active
    (False, True)
    """

    maps: bool = False
    words: Sequence[Selector] | None = None
    by: Sequence[str] = ()
    layers: Sequence[str] | None = None

    def __post_init__(self) -> None:
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
        return self.maps


def turned_off(attention: Attention, source: Any) -> str:
    """What is not as fast as it could be because attention is looked at; empty where it is not.

    >>> from embedlab import Source
    >>> turned_off(Attention(maps=True, layers=["mid"]), Source("emoji"))
    'attention is looked at: no fused attention in 1 of 5 cross-attention layers, no engine but eager'
    """
    if not attention.active:
        return ""
    there = layers_of(source.part("unet"))
    open_ = {layer.name for layer in chosen(attention.layers, there)} if attention.maps else set()
    return (
        f"attention is looked at: no fused attention in {len(open_)} of {len(there)} cross-attention layers, no engine "
        "but eager"
    )
