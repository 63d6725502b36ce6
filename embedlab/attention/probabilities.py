"""The one place that opens diffusers' attention: processors that stand in for its own, for the length of a `with`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from embedlab.attention.layers import TAILS, Kind, Layer, chosen, layers_of
from embedlab.attention.maps import Probabilities

# (layer, probabilities) → probabilities, which the values are then summed with
See = Callable[[Layer, Probabilities], Probabilities]
# (layer, what a cross-attention reads) → what it reads instead
Reads = Callable[[Layer, Tensor], Tensor]


class Open:
    """An attention processor that computes its probabilities once, and shows them before it uses them.

    What diffusers' own `AttnProcessor` does, to rounding what its fused ones do. `asks` says for each call whether
    anybody looks; where nobody does, the processor whose place it took runs.
    """

    def __init__(
        self, layer: Layer, own: Any, see: See, asks: Callable[[Layer, int], bool], reads: Reads | None = None
    ):
        self.layer, self.own, self.see, self.asks, self.reads = layer, own, see, asks, reads

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **more: Any,
    ) -> Tensor:
        if self.reads is not None and encoder_hidden_states is not None:
            encoder_hidden_states = self.reads(self.layer, encoder_hidden_states)
        places = hidden_states.shape[1] if hidden_states.ndim == 3 else hidden_states[0, 0].numel()
        if not self.asks(self.layer, places):
            answer: Tensor = self.own(attn, hidden_states, encoder_hidden_states, attention_mask, temb, **more)
            return answer
        before = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        shape = hidden_states.shape
        if len(shape) == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        read = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            read = attn.norm_encoder_hidden_states(read)
        rows = len(read)
        query, key, value = (
            attn.head_to_batch_dim(made) for made in (attn.to_q(hidden_states), attn.to_k(read), attn.to_v(read))
        )
        mask = attn.prepare_attention_mask(attention_mask, read.shape[1], rows)
        probabilities = attn.get_attention_scores(query, key, mask).unflatten(0, (rows, attn.heads))
        probabilities = self.see(self.layer, probabilities)
        hidden_states = attn.batch_to_head_dim(torch.bmm(probabilities.flatten(0, 1), value))
        hidden_states = attn.to_out[1](attn.to_out[0](hidden_states))
        if len(shape) == 4:
            hidden_states = hidden_states.transpose(-1, -2).reshape(shape)
        if attn.residual_connection:
            hidden_states = hidden_states + before
        scaled: Tensor = hidden_states / attn.rescale_output_factor
        return scaled


_one_at_a_time = threading.RLock()


@contextmanager
def opened(unet: Any, made: Mapping[Kind, Mapping[Layer, Callable[[Any], Any]]]) -> Iterator[None]:
    """Put processors in place of a UNet's own, by layer; its own are put back, also after an exception.

    `made` has for each kind of attention and layer what makes a processor of the one that stood there.
    """
    before: list[tuple[Any, Any]] = []
    with _one_at_a_time:
        try:
            for kind, layers in made.items():
                for layer, make in layers.items():
                    attn = unet.get_submodule(f"{layer.path}.{TAILS[kind]}")
                    before.append((attn, attn.processor))
                    attn.processor = make(attn.processor)
            yield
        finally:
            for attn, own in reversed(before):
                attn.processor = own


@contextmanager
def probabilities_of(
    unet: Any, layers: Sequence[str] | None = None, kind: Kind = "cross"
) -> Iterator[dict[str, Probabilities]]:
    """See the attention probabilities of a UNet's calls within a `with`: by layer, those of the last call.

    Each is (row, head, place, token), sums to 1 over the tokens, and keeps gradients, so that a loss can be made of it
    (`word_mass`). `layers` names blocks, modules or layers, such as `mid` or `up.0.1`; left out, all. The UNet's own
    processors are back afterwards.

    Raises ConfigError for a layer that is not there.

    >>> from embedlab import models
    >>> model = models.load("emoji")
    >>> with torch.no_grad(), probabilities_of(model.unet, ["mid"]) as seen:
    ...     _ = model.unet(torch.zeros(1, 8, 16, 16), 500, torch.zeros(1, 77, 96))
    >>> {name: tuple(one.shape) for name, one in seen.items()}
    {'mid.0.0': (1, 4, 16, 77)}
    """
    seen: dict[str, Probabilities] = {}

    def see(layer: Layer, probabilities: Probabilities) -> Probabilities:
        seen[layer.name] = probabilities
        return probabilities

    def make(layer: Layer) -> Callable[[Any], Open]:
        return lambda own: Open(layer, own, see, lambda *_: True)

    with opened(unet, {kind: {layer: make(layer) for layer in chosen(layers, layers_of(unet.config))}}):
        yield seen
