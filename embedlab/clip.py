"""The only file that knows how transformers spells CLIP.

A `Tower` is one text encoder with its tokenizer and the hidden state that its UNet was trained on. `forward` runs the
library's own forward on rows that we hand in: its embedding module is swapped for the length of one call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from embedlab.arguments import check_fields
from embedlab.display import Shown
from embedlab.errors import ModelError, SamplerError, brief
from embedlab.limits import WINDOW
from embedlab.prompt import tokenize


@dataclass(frozen=True)
class Tower(Shown):
    """A text encoder, its tokenizer, and which of its hidden states is read.

    `layer` counts back from the last one, as diffusers does: SD 1 and 2 read layer 0 through the final norm, SDXL reads
    layer 1 of both encoders without it. `states`, where an engine runs the encoder, takes summed rows and gives all
    hidden states and the final ones, or None for a call that the encoder has to run itself. `added` are the rows of
    the last words of the tokenizer, where those are concepts (textual inversion) that the encoder has no rows for.

    >>> from embedlab import models
    >>> (tower,) = models.load("emoji").towers
    >>> tower.token_table.shape[0], tower.position_table.shape[0], tower.layer
    (49408, 77, 0)
    """

    tokenizer: CLIPTokenizer
    encoder: CLIPTextModel | CLIPTextModelWithProjection
    layer: int = 0
    final_norm: bool = True
    states: Callable[[Tensor], tuple[Tensor, ...] | None] | None = field(default=None, repr=False, compare=False)
    added: Float[Tensor, "vector dim"] | None = field(default=None, repr=False, compare=False)
    _tables: dict[Any, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_fields(self)
        width = self.core.embeddings.token_embedding.weight.shape[1]
        if self.added is not None and self.added.shape[1] != width:
            raise ModelError(f"added is {brief(self.added)}; this text encoder's rows are of width {width}.")

    def __repr__(self) -> str:
        vocabulary, width = self.token_table.shape
        return f"Tower({type(self.encoder).__name__}, {vocabulary} words of width {width}, layer {self.layer})"

    @property
    def core(self) -> CLIPTextModel:
        """The encoder without head: transformers keeps it one level down where there is a projection."""
        core: CLIPTextModel = getattr(self.encoder, "text_model", self.encoder)
        return core

    @property
    def token_table(self) -> Float[Tensor, "vocab dim"]:
        """One row a vocabulary entry; with concepts a table of our own, and the encoder's stays as it is."""
        weight: Tensor = self.core.embeddings.token_embedding.weight
        if self.added is None:
            return weight
        own = weight.detach()
        key = (own.data_ptr(), own.dtype, own.device, 0 if own.is_inference() else own._version)
        if key not in self._tables:
            first = len(self.tokenizer) - len(self.added)
            self._tables.clear()
            with torch.inference_mode(False), torch.no_grad():  # whoever asks next may want gradients of other things
                parts = [own[:first], self.added.to(own), own[first + len(self.added) :]]
                self._tables[key] = torch.cat(parts)
        return self._tables[key]

    @property
    def position_table(self) -> Float[Tensor, "position dim"]:
        """One row a place in the window, 77 of them."""
        weight: Tensor = self.core.embeddings.position_embedding.weight
        return weight

    @property
    def width(self) -> int:
        """Width of token and position rows."""
        return self.token_table.shape[1]


def check_towers(towers: Any) -> None:
    """Refuse what are no text encoders with their tokenizers."""
    if isinstance(towers, list | tuple) and towers and all(isinstance(tower, Tower) for tower in towers):
        return
    raise ModelError(
        f"towers is {brief(towers)}; it has to be a list of Tower: model.towers, or text_encoders_of(pipeline)."
    )


@dataclass(frozen=True)
class States:
    """What an encoder makes of rows: every hidden state before the final norm, and the pooled output.

    `pooled` is read at the first true end of text (configs with `eos_token_id: 2` would take the highest id instead,
    which is wrong once tokens were added) and goes through the text projection where the encoder has one.
    """

    hidden: tuple[Float[Tensor, "batch position dim"], ...]
    last: Float[Tensor, "batch position dim"]
    pooled: Float[Tensor, "batch joint"]


class Rows(nn.Module):
    """Stands where the embedding module stood and answers with rows made elsewhere."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.rows = rows

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        return self.rows


_one_at_a_time = threading.RLock()


@contextmanager
def injected(core: CLIPTextModel, rows: Float[Tensor, "batch position dim"]) -> Iterator[None]:
    """Let the encoder meet `rows` in place of its embeddings; its own module is put back, also after an exception."""
    with _one_at_a_time:
        own = core.embeddings
        core.embeddings = Rows(rows)
        try:
            yield
        finally:
            core.embeddings = own


@contextmanager
def edited(core: CLIPTextModel, edits: Mapping[int, Callable[[Tensor], Tensor]]) -> Iterator[dict[int, Tensor]]:
    """Change what each layer gives to the next, for the length of a `with`; answers with what was put there.

    `edits` are by the number of the hidden state: 1 is what the first layer gives.
    """
    seen: dict[int, Tensor] = {}

    def hook(number: int) -> Callable[[nn.Module, Any, Any], Any]:
        def change(module: nn.Module, given: Any, out: Any) -> Any:
            own = out[0] if isinstance(out, tuple) else out
            seen[number] = edits[number](own)
            return (seen[number], *out[1:]) if isinstance(out, tuple) else seen[number]

        return change

    layers = core.encoder.layers
    handles = [layers[number - 1].register_forward_hook(hook(number)) for number in edits]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def forward(
    tower: Tower,
    ids: Int[Tensor, "batch position"],
    rows: Float[Tensor, "batch position dim"],
    mask: Int[Tensor, "batch position"] | None = None,
    edits: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
) -> States:
    """Run the library's own causal forward on edited rows; `ids` only says where each text ends.

    Rows where `mask` is 0 are attended to by no row; without a mask it is the causal one alone. `edits` change the
    hidden states before a layer, by its number from 1; that of all layers is what the final norm meets.
    """
    states = None if tower.states is None or mask is not None or edits else tower.states(rows)
    if states is None:
        masked = {} if mask is None else {"attention_mask": mask.to(rows.device)}
        with injected(tower.core, rows), edited(tower.core, edits or {}) as seen:
            out = tower.core(input_ids=ids.to(rows.device), output_hidden_states=True, **masked)
        hidden_states = [seen.get(n, one) for n, one in enumerate(out.hidden_states)]
        states = (*hidden_states, out.last_hidden_state)
    *hidden, last = states
    ends = (ids == tower.tokenizer.eos_token_id).int().argmax(dim=-1).to(rows.device)
    pooled = last[torch.arange(len(rows), device=rows.device), ends]
    if isinstance(tower.encoder, CLIPTextModelWithProjection):
        pooled = tower.encoder.text_projection(pooled)
    return States(tuple(hidden), last, pooled)


def read(tower: Tower, states: States, skip: int = 0) -> Float[Tensor, "batch position dim"]:
    """The hidden state that conditions the UNet, `skip` layers earlier than usual (clip skip)."""
    depth, layer = len(states.hidden) - 1, tower.layer + skip
    if not 0 <= layer <= depth:
        raise SamplerError(
            f"cannot skip {skip} layers: this text encoder has {depth}, of which {tower.layer} are skipped."
        )
    if layer == 0:
        return states.last if tower.final_norm else states.hidden[-1]
    hidden = states.hidden[-(layer + 1)]
    return tower.core.final_layer_norm(hidden) if tower.final_norm else hidden


def mixed(tower: Tower, states: States, mix: Sequence[tuple[int, float]]) -> Float[Tensor, "batch position dim"]:
    """A weighted sum of hidden states, each read with so many layers skipped; one alone is itself to the bit."""
    if len(mix) == 1 and mix[0][1] == 1:
        return read(tower, states, mix[0][0])
    return torch.stack([weight * read(tower, states, skip) for skip, weight in mix]).sum(0)


@torch.no_grad()
def check(tower: Tower) -> None:
    """Refuse an encoder whose hidden states or pooled output change by passing through our hands, by one bit."""
    ids = tokenize("a picture of a puppy", tower.tokenizer).ids.to(tower.token_table.device)
    rows = tower.token_table[ids] + tower.position_table[:WINDOW]
    ours = forward(tower, ids, rows)
    own = tower.core(input_ids=ids, output_hidden_states=True)
    same = torch.equal(ours.last, own.last_hidden_state)
    same &= all(torch.equal(a, b) for a, b in zip(ours.hidden, own.hidden_states, strict=True))
    if not same:
        kind = type(tower.encoder).__name__
        raise ModelError(
            f"this {kind} gives another output for its own embedding rows; embedlab cannot edit them faithfully."
        )
