"""A batch of pictures, watched: maps summed up and attention edited while its UNet runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from embedlab.attention.align import Mapping as Mapped
from embedlab.attention.align import mapping_of
from embedlab.attention.edits import AttentionEdit, Scene
from embedlab.attention.layers import Kind, Layer, chosen, layers_of, side_of
from embedlab.attention.maps import Maps, Probabilities, summed, upsampled
from embedlab.attention.probabilities import Open, opened
from embedlab.attention.words import Slots, slots_of
from embedlab.encoder import Conditioning
from embedlab.errors import SamplerError
from embedlab.transfer import send

UNCONDITIONAL = -1
Row = tuple[int, int]  # a row of the UNet's batch: whose picture it is of, and which of its prompt's streams, or none


class Watched:
    """A UNet of whose rows the watch knows which picture they are of; anything else is the UNet's own.

    Whoever calls it says before what its rows read: `reading(conditionings)` is the UNet for calls of those rows. They
    are known by identity: each picture of a watched batch has Conditionings of its own (`Watch.calls`).
    """

    def __init__(self, unet: Any, watch: Watch):
        self.unet, self.watch = unet, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unet, name)

    def reading(self, conditionings: Sequence[Conditioning]) -> Reading:
        """The UNet, for calls whose rows read these."""
        return Reading(self.watch, self.unet, conditionings)


class Reading:
    """A watched UNet, for calls whose rows read some conditionings.

    keys: what has to be equal for rows of equal latents to be one: what is read, also in blocks of its own, and what is
    done to its attention. asked: how many rows these would be if each picture that copies had a source of its own.
    """

    def __init__(self, watch: Watch, unet: Any, conditionings: Sequence[Conditioning]):
        self.watch, self.unet = watch, unet
        rows = [watch.whose.get(id(one), (UNCONDITIONAL, UNCONDITIONAL)) for one in conditionings]
        others = Counter(watch.sources.values())
        self.asked = sum(max(others[picture], 1) for picture, _ in rows)
        self.keys = [(one.content, *watch.done_to.get(id(one), ())) for one in conditionings]
        self.each = rows
        self.rows = [[row] for row in rows]

    def merge(self, back: Sequence[int], many: int) -> None:
        """Say at which of `many` rows of a call each of those that were asked for stands."""
        self.rows = [[] for _ in range(many)]
        for row, at in zip(self.each, back, strict=True):
            self.rows[at].append(row)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.watch.rows = self.rows
        try:
            return self.unet(*args, **kwargs)
        finally:
            self.watch.rows = []


class Watch:
    """What is kept of the attention of a batch, and what is done to it.

    pictures: for each picture its conditioning in each call of the UNet (`CallConditioning`), whose cell says in
    `attention` what is asked. size: of the latents. steps: the step of each call. `calls` are the conditionings that
    the UNet has to be called with: those of each picture are its own objects. sources: for each picture that copies the
    number of the one that it copies from. alike: of a conditioning what has to be equal for its edits to do the same.
    """

    def __init__(
        self,
        unet: Any,
        pictures: Sequence[Sequence[Any]],
        size: tuple[int, int],
        steps: Sequence[int],
        sources: Mapping[int, int] | None = None,
        alike: Callable[[Any], Hashable] = id,
    ):
        self.sources = dict(sources or {})
        self.mappings: dict[Any, Any] = {}
        self.unet, self.size, self.steps = unet, size, steps
        self.alike = alike
        self.whose: dict[int, Row] = {}  # by identity of a Conditioning
        self.done_to: dict[int, tuple[Hashable, ...]] = {}  # what is done to those who read it, where anything is
        self.pictures = [self._own(n, calls) for n, calls in enumerate(pictures)]
        self.layers = layers_of(unet.config)
        self.asked = [calls[0].cell.attention for calls in pictures]
        self.call, self.rows = 0, list[list[Row]]()  # rows that are equal are one, of several pictures
        self.slots: dict[int, Slots] = {
            n: slots_of(asked.words, calls)
            for n, (asked, calls) in enumerate(zip(self.asked, pictures, strict=True))
            if asked.maps
        }
        self.summing = {n: {layer.name for layer in chosen(self.asked[n].layers, self.layers)} for n in self.slots}
        self.sums: dict[tuple[int, str], Tensor] = {}  # by picture and layer: (step or 1, head, place, slot)
        self.blocked = any(one.layers for calls in self.pictures for one in calls)
        self.watched = Watched(unet, self)

    @property
    def calls(self) -> list[tuple[Any, ...]]:
        """For each call of the UNet the conditionings of all pictures."""
        return list(zip(*self.pictures, strict=True))

    def _own(self, picture: int, calls: Sequence[Any]) -> list[Any]:
        """A picture's conditionings as objects of its own; what was one in several calls is one still."""
        made: dict[int, Any] = {}
        for one in calls:
            if id(one) not in made:
                others = tuple((weight, replace(stream)) for weight, stream in one.cond.others)
                own = replace(one, cond=replace(one.cond, others=others), uncond=replace(one.uncond))
                streams = own.cond.streams
                self.whose |= {id(stream): (picture, n) for n, (_, stream) in enumerate(streams)}
                self.whose[id(own.uncond)] = picture, UNCONDITIONAL
                self.done_to |= {id(stream): self._done_to(picture, own, n) for n, (_, stream) in enumerate(streams)}
                made[id(one)] = own
        return [made[id(one)] for one in calls]

    def _done_to(self, picture: int, own: Any, stream: int) -> tuple[Hashable, ...]:
        """What is done to the attention of those who read a stream; nothing where nothing is."""
        blocks = [(name, one.streams[stream][1].content) for name, one in own.layers.items()]
        edits = [edit for edit in own.cell.attention.edits if not edit.neutral]
        return (*blocks, *([stream, self.sources.get(picture), self.alike(own)] if edits else []))

    def during(self, call: int, denoise: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """A denoiser of which the watch knows which call of the schedule it makes."""

        def told(x: Tensor, t: Tensor) -> Tensor:
            self.call = call
            return denoise(x, t)

        return told

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand in the place of the UNet's processors, for as long as it has to be watched."""
        kinds: dict[Kind, list[Layer]] = {"cross": self.layers}
        if any(edit.kind == "self" for calls in self.pictures for one in calls for edit in one.cell.attention.edits):
            kinds["self"] = self.layers
        made = {
            kind: {
                layer: partial(
                    Open,
                    layer,
                    see=partial(self._see, kind),
                    asks=partial(self._asks, kind),
                    reads=self._reads if kind == "cross" and self.blocked else None,
                )
                for layer in layers
            }
            for kind, layers in kinds.items()
        }
        with opened(self.unet, made):
            yield

    def _reads(self, layer: Layer, hidden: Tensor) -> Tensor:
        """What a layer reads: of pictures whose operators name blocks what those make that work in it."""
        read = hidden
        for row, (picture, stream) in self._firsts():
            call = self.pictures[picture][self.call]
            if stream == UNCONDITIONAL or layer.name not in call.layers:
                continue
            own = call.layers[layer.name].streams[stream][1].hidden
            read = read.clone() if read is hidden else read
            read[row, : len(own)] = own.to(read)
        return read

    def _firsts(self) -> Iterator[tuple[int, Row]]:
        """The rows of this call, each as the first of those that it is of: it stands for all of them."""
        return ((n, same[0]) for n, same in enumerate(self.rows) if same)

    def _asks(self, kind: Kind, layer: Layer, places: int) -> bool:
        summed_here = kind == "cross" and any(layer.name in names for names in self.summing.values())
        return summed_here or any(self._edits(n, kind, layer, places) for n in range(len(self.pictures)))

    def _edits(self, picture: int, kind: Kind, layer: Layer, places: int) -> list[AttentionEdit]:
        """What is done to a layer of a picture in this call."""
        edits = self.pictures[picture][self.call].cell.attention.edits
        return [
            edit
            for edit in edits
            if edit.kind == kind
            and not edit.neutral
            and edit.works_in(layer)
            and places <= getattr(edit, "most", places)
        ]

    def _see(self, kind: Kind, layer: Layer, probabilities: Probabilities) -> Probabilities:
        probabilities = self._edited(kind, layer, probabilities)
        if kind == "cross":
            self._add(layer, probabilities)
        return probabilities

    def _edited(self, kind: Kind, layer: Layer, probabilities: Probabilities) -> Probabilities:
        """Probabilities after the edits of each picture, which copy from others as they were before."""
        places = probabilities.shape[2]
        edited = probabilities
        for row, (picture, stream) in self._firsts():
            edits = [] if stream == UNCONDITIONAL else self._edits(picture, kind, layer, places)
            if not edits:
                continue
            own = self.pictures[picture][self.call].cond.streams[stream][1]
            one, side = probabilities[row], side_of(places, self.size)
            for edit in edits:
                theirs = mapping = None
                if edit.copies:
                    theirs, source = self._source(probabilities, picture, stream)
                    mapping = self._mapping(source, own, edit) if kind == "cross" else None
                one = edit(one, Scene(layer, side, own, theirs, mapping))
            edited = edited.clone() if edited is probabilities else edited
            edited[row] = one
        return edited

    def _source(self, probabilities: Probabilities, picture: int, stream: int) -> tuple[Tensor, Conditioning]:
        """The probabilities of a picture's source, and what that is conditioned on."""
        number = self.sources[picture]
        streams = self.pictures[number][self.call].cond.streams
        stream = min(stream, len(streams) - 1)
        there = [row for row, same in enumerate(self.rows) if (number, stream) in same]
        if not there:
            raise SamplerError("attention is copied from a source that is not in this call of the UNet.")
        return probabilities[there[0]], streams[stream][1]

    def _mapping(self, source: Conditioning, own: Conditioning, edit: Any) -> Mapped:
        key = (id(source), id(own), edit.how)
        if key not in self.mappings:
            self.mappings[key] = mapping_of(source, own, edit.how)
        found: Mapped = self.mappings[key]
        return found

    def _add(self, layer: Layer, probabilities: Probabilities) -> None:
        """Sum up what each picture's conditional rows give to the words that its maps are of."""
        for row, (picture, stream) in ((n, one) for n, same in enumerate(self.rows) for one in same):
            if stream == UNCONDITIONAL or layer.name not in self.summing.get(picture, ()):
                continue
            slots = self.slots[picture]
            columns, there = slots.at(self.call, stream)
            if not columns:
                continue
            seen = probabilities[row][:, :, columns].detach().float()
            key = picture, layer.name
            if key not in self.sums:
                kept = max(self.steps) + 1 if "step" in self.asked[picture].by else 1
                self.sums[key] = seen.new_zeros(kept, *seen.shape[:2], slots.count)
            total = self.sums[key][self.steps[self.call] if len(self.sums[key]) > 1 else 0]
            if len(there) == slots.count:
                total += seen
            else:
                total.index_add_(2, send(torch.tensor(there), seen.device), seen)

    def maps(self, picture: int) -> Maps | None:
        """The maps of a picture, once it is done; None of one that asks for none."""
        if picture not in self.slots:
            return None
        asked, slots = self.asked[picture], self.slots[picture]
        names = [layer.name for layer in self.layers if (picture, layer.name) in self.sums]
        sums = {name: self.sums[picture, name] for name in names}
        sides = {name: side_of(one.shape[2], self.size) for name, one in sums.items()}
        heat = slots.words_of(summed({name: one.sum(0) for name, one in sums.items()}, sides, self.size))
        by = tuple(axis for axis in ("step", "layer", "head") if axis in asked.by)
        parts = None
        if by:
            whole = [upsampled(one.movedim(-1, 2), sides[name], self.size) for name, one in sums.items()]
            if "head" not in by:
                whole = [one.mean(1) for one in whole]  # step, slot, h, w
            if "head" in by:  # heads that a layer lacks are zeros
                most = max(one.shape[1] for one in whole)
                whole = [functional.pad(one, (0,) * 6 + (0, most - one.shape[1])) for one in whole]
            stacked = torch.stack(whole, 1)  # step, layer, head where asked, slot, h, w
            stacked = stacked if "layer" in by else stacked.mean(1)
            stacked = slots.words_of(stacked)
            parts = (stacked if "step" in by else stacked[0]).cpu()
        return Maps(slots.names, heat.cpu(), by, tuple(names) if "layer" in by else (), parts)
