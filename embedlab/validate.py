"""A cell, checked against a model before weights are read."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.attention.edits import AttentionEdit
from embedlab.attention.layers import chosen, layers_of
from embedlab.attention.settings import Attention, copies_ever
from embedlab.cell import Cell, cells_per_call, denoiser_calls, described, picture_size
from embedlab.clean import redact
from embedlab.composition import rows_joined, streams
from embedlab.condition import negatives_of, prompts_of
from embedlab.embeddings import Embeddings, Lookup
from embedlab.encoder import Conditioning, Texts, layout_of, reads_of
from embedlab.errors import ConfigError, LanguageError, OperatorError, PromptError, SamplerError, brief, counted, listed
from embedlab.guidance import Guidance, Loss, check_loss, left_out, masks_of, ways_of
from embedlab.images import open_picture
from embedlab.limits import WINDOW, Join
from embedlab.models import Source
from embedlab.operators.base import applied, check_operators, edit_streams, edit_with, layer_of, named
from embedlab.prompt import Tokens
from embedlab.sampler import Inversion
from embedlab.schedule import value_of, within
from embedlab.select import select
from embedlab.token_ids import concepts_of


def validate(cell: Cell, source: Source) -> tuple[Tokens, ...]:
    """Refuse what is wrong with a cell before weights are read; answers with the tokens of its texts.

    Operators meet rows of the right shapes, so words that are not there, token counts that differ and vectors of
    another width raise here; a cell that changes over time is checked as it is in every call.

    Raises ModelError for a model that cannot be run, SamplerError for sizes, schedules and layers that it does not
    have, PromptError and OperatorError for texts and operators that do not fit.

    >>> from embedlab import Replace
    >>> [tokens.length for tokens in validate(Cell("a puppy"), Source("emoji"))]
    [2]
    >>> validate(Cell("a puppy", [Replace("dog", "cat")]), Source("emoji"))
    Traceback (most recent call last):
    ...
    embedlab.errors.PromptError: 'dog' is not in the prompt; its words are a, puppy.
    """
    source.checked  # noqa: B018  (a model that cannot be run is refused there)
    _check_start(cell, source)
    if (shown := described(cell)) is not None:
        _check_text(shown.parsed(), source)
    seen: dict[str, Tokens] = {}
    attention = cell.parsed().attention
    if attention.active:
        _check_layers(attention, source)
    if copies_ever(attention):
        seen |= {tokens.text: tokens for tokens in validate(cell.source(), source)}
    calls = denoiser_calls(cell, source.scheduler)
    now = cells_per_call(cell, calls)
    first = {id(one): n for n, one in reversed(list(enumerate(now)))}
    for n in sorted(first.values()):
        try:
            seen |= {tokens.text: tokens for tokens in _check_text(now[n], source)}
        except (PromptError, OperatorError) as error:
            if len(first) == 1 or isinstance(error, LanguageError):
                raise
            raise type(error)(
                f"in step {calls[n].step}, where the prompt is {brief(str(redact(str(now[n].prompt))))}: {error}"
            ) from None
    _check_mapped(cell, list(seen.values()))
    return tuple(seen.values())


def _check_start(cell: Cell, source: Source) -> None:
    """Refuse a size that cannot be, and latents and masks of another shape than the model's."""
    height, width = picture_size(cell, source)
    taken, channels = cell.start.taken, source.config_value("vae", "latent_channels")
    if "latents" in taken and (given := taken["latents"].shape)[1] != channels:
        raise SamplerError(
            f"start.latents has the shape {given[1:]}; latents of '{source.name}' have {channels} channels, such as "
            f"({channels}, {height // source.factor}, {width // source.factor})."
        )
    beside = source.beside
    if beside and isinstance(cell.start, Inversion):
        raise SamplerError(
            f"start=inversion runs the UNet of '{source.name}' on latents alone, and it takes more beside them; take "
            "another model, or another start."
        )
    if beside == "mask" and not {"picture", "mask"} <= set(taken):
        raise SamplerError(
            f"'{source.name}' is an inpainting model, which takes a picture and a mask beside the latents: "
            "start=picture start.picture=… start.mask=…"
        )
    if beside == "depth" and "depth" not in taken:
        raise SamplerError(
            f"'{source.name}' is a depth model, which takes a depth map beside the latents: start.depth=…, "
            "a picture in which white is near."
        )
    if "depth" in taken and beside != "depth":
        raise SamplerError(f"start.depth is for a depth model, and '{source.name}' takes no depth map; leave it out.")
    if "latents" in taken and "mask" in taken and taken["mask"].shape != (height, width):
        high, wide = taken["mask"].shape
        raise SamplerError(
            f"start.mask is {high} pixels high and {wide} wide, and start.latents is that of a picture {height} high "
            f"and {width} wide; a mask has the size of its picture."
        )


def _check_layers(attention: Attention, source: Source) -> None:
    """Refuse layers that a UNet does not have."""
    there = layers_of(source.part("unet"))
    if not there:
        raise ConfigError(f"the UNet of '{source.name}' has no cross-attention; attention has nothing to look at.")
    chosen(attention.layers, there, "attention.layers")
    for part in within(attention.edits):
        if isinstance(part, AttentionEdit):
            chosen(getattr(part, "layers", None), there, f"layers of '{part}'")


def _check_edits(cell: Cell, tokens: Tokens, source: Source) -> None:
    """Refuse edits of attention that do not fit the prompt of this moment, or that of what they copy from."""
    for edit in cell.attention.edits:
        if (rows := getattr(edit, "rows", None)) is not None:
            try:
                select(rows, tokens)
            except (PromptError, OperatorError) as error:
                raise type(error)(f"'{edit}': {error}") from None
        if getattr(edit, "how", None) == "replace":
            other = validate(cell.source(), source)[0]
            if len(other.words) != len(tokens.words):
                raise OperatorError(
                    f"'{edit}' is word by word (how: replace), and the source has {counted(len(other.words), 'word')}, "
                    f"the target {len(tokens.words)}; take how: refine."
                )


def _check_blocks(cell: Cell, source: Source) -> None:
    """Refuse operators in blocks that a UNet does not have, and of what no block reads."""
    for operator in cell.operators:
        if (blocks := getattr(operator, "blocks", None)) is not None:
            chosen(blocks, layers_of(source.part("unet")), f"blocks of '{named(operator)}'")
            if getattr(operator, "stage", None) == "pooled":
                raise OperatorError(
                    f"'{named(operator)}' edits the pooled output, which no block reads; leave blocks out."
                )


def _check_inside(
    cell: Cell, source: Source, tokens: Sequence[Tokens], read: Callable[[str], Sequence[Tokens]]
) -> None:
    """Refuse operators at layers that a text encoder does not have, and that do not fit the rows there."""
    for n, (name, width) in enumerate(zip(source.encoders, source.widths, strict=True)):
        depth = source.config_value(name, "num_hidden_layers")

        def states(one: Tokens, width: int = width) -> Conditioning:
            ids = one.ids.flatten().tolist()
            hidden = dummy_table(40_009, width)[[i % 40_009 for i in ids]]
            return Conditioning(hidden, hidden[0], one, tuple(range(len(ids))), widths=(width,))

        def states_of(text: str, n: int = n, states: Callable[[Tokens], Conditioning] = states) -> Conditioning:
            return states(read(text)[n])

        for operator in check_operators(cell.operators):
            layer = layer_of(operator)
            if layer is None or getattr(operator, "encoder", None) not in (None, n + 1):
                continue
            if layer > depth:
                raise OperatorError(
                    f"'{named(operator)}' is at layer {layer} of the part '{name}', which has {depth}: 0 to {depth}."
                )
            applied(states(tokens[n]), [operator], Texts(states_of))


def _check_mapped(cell: Cell, texts: Sequence[Tokens]) -> None:
    """Refuse words of maps that are in none of a cell's texts."""
    for word in (cell.attention.words or ()) if cell.attention.maps else ():
        refused = []
        for tokens in texts:
            try:
                select(word, tokens)
            except (PromptError, OperatorError) as error:
                refused.append(error)
        if len(refused) == len(texts):
            raise type(refused[0])(f"attention.words: {refused[0]}")


def _check_settings(cell: Cell, source: Source) -> None:
    """Refuse what a model cannot be asked for, whatever the texts say."""
    encoder, count = cell.encoder, len(source.encoders)
    for name in source.encoders:
        depth, layer = source.config_value(name, "num_hidden_layers"), int(count > 1)
        if max(encoder.skips) + layer > depth:
            raise SamplerError(
                f"encoder.skip is {max(encoder.skips)}, but the part '{name}' has {depth} layers; skip {depth - layer} "
                "at the most."
            )
    for setting, (_, second) in {"prompt_2": prompts_of(cell), "guidance.negative_2": negatives_of(cell)}.items():
        if second is not None and count == 1:
            raise PromptError(f"{setting} is for a second text encoder; '{source.name}' has one.")
    if (balance := value_of(encoder.balance)) is not None and len(balance) != count:
        raise SamplerError(
            f"encoder.balance has {counted(len(balance), 'number')}; '{source.name}' has "
            f"{counted(count, 'text encoder')}."
        )
    zeros, steps = cell.guidance.settings.get("zero_init_steps", 0), cell.sampler.steps
    if value_of(zeros) >= steps:
        raise SamplerError(
            f"guidance.settings.zero_init_steps is {zeros}, and there are {counted(steps, 'step')}: nothing would be "
            "predicted."
        )
    left_out(cell.guidance, source.part("unet"))  # what is not there is refused
    if not cell.guidance.plain and source.part("unet").get("time_cond_proj_dim"):
        raise SamplerError(
            f"the UNet of '{source.name}' takes the guidance scale as a number (time_cond_proj_dim), so that there is "
            "nothing else to guide it: guidance=default guidance.rescale=0 guidance.interval=null."
        )
    if negatives_of(cell) != (None, None) and source.part("unet").get("time_cond_proj_dim"):
        raise SamplerError(
            f"the UNet of '{source.name}' takes the guidance scale as a number and no negative prompt "
            "(time_cond_proj_dim); leave guidance.negative out."
        )


def _check_concepts(tokens: Sequence[Tokens], source: Source) -> None:
    """Refuse names that are written as concepts are, and are none."""
    if strange := list(dict.fromkeys(name for one in tokens for name in one.not_loaded())):
        there = concepts_of(source.tokenizers)
        raise PromptError(
            f"the prompt names {listed(strange, 12)}, and no concept of that name is loaded "
            f"({f'there are {listed(there, 12)}' if there else 'there is none'}): model.concepts=[PATH] loads one; "
            f"'{strange[0].replace('<', '< ').replace(':', ' : ')}' would be text."
        )


def _check_text(cell: Cell, source: Source) -> list[Tokens]:
    encoder = cell.encoder
    _check_settings(cell, source)
    places = [source.part(name).get("max_position_embeddings", WINDOW) for name in source.encoders]

    def rows_of(tokens: Sequence[Tokens]) -> list[tuple[Embeddings, Lookup]]:
        rows = []
        for one, words, width in zip(tokens, source.tokenizers, source.widths, strict=True):
            table, positions = dummy_table(len(words), width), dummy_table(one.window, width)
            position = positions.expand(len(one.ids), -1, -1)
            rows.append((Embeddings(one, table[one.ids], position, positions), Lookup(words, table)))
        return rows

    def conditioning_of(read: Sequence[Tokens]) -> Conditioning:
        tokens = read[0]
        join: Join = value_of(encoder.join)
        width = (
            source.config_value(source.encoders[-1], "projection_dim")
            if len(source.encoders) > 1
            else source.widths[-1]
        )
        # as an encoder's, a row is made by the ids up to it: texts that begin alike have equal rows there
        ids = tokens.ids.tolist()
        past = [zlib.crc32(str(window[: n + 1]).encode()) % 40_009 for window in ids for n in range(len(window))]
        pooled = dummy_table(40_009, width)[past[len(ids[0]) - 1]]
        streamed = []
        for k, (weight, layout) in enumerate(streams(layout_of(tokens))):
            rows, reads = tuple(rows_joined(layout, join)), reads_of(read, k, join)
            hidden = dummy_table(40_009, sum(source.widths))[[past[row] for row in rows]]
            streamed.append(
                (weight, Conditioning(hidden, pooled, tokens, rows, widths=tuple(source.widths), reads=reads))
            )
        (weight, first), *others = streamed
        return replace(first, weight=weight, others=tuple(others))

    def read(text: Any, second: Any = None) -> list[Tokens]:
        texts = [text, *[text if second is None else second] * (len(source.encoders) - 1)]
        return encoder.tokenize_all(texts, source.tokenizers, places)

    tokens = read(*prompts_of(cell))
    _check_concepts(tokens, source)
    parts, lookups = zip(*rows_of(tokens), strict=True)
    edit_with(parts, cell.operators, lookups)
    _check_blocks(cell, source)
    _check_inside(cell, source, tokens, read)
    _check_edits(cell, tokens[0], source)
    texts = Texts(lambda text: conditioning_of(read(text)))
    edited = edit_streams(conditioning_of(tokens), cell.operators, texts)
    if (word := getattr(getattr(cell.guidance.loss, "score", None), "word", None)) is not None:
        try:
            edited.spans(word)
        except (PromptError, OperatorError) as error:
            raise type(error)(f"guidance.loss.score.word: {error}") from None
    pooled = [operator for operator in cell.operators if getattr(operator, "stage", None) == "pooled"]
    if pooled and source.part("unet").get("addition_embed_type") != "text_time":
        raise OperatorError(
            f"'{pooled[0]}' edits the pooled output, and the UNet of '{source.name}' takes none; "
            "take stage hidden, or an SDXL model."
        )
    weights = [weight for weight, _ in streams(layout_of(tokens[0]))]
    _check_guidance(cell, source, len(weights))
    if weights != [1] and source.part("unet").get("time_cond_proj_dim"):
        raise PromptError(
            "AND and the weight of a whole prompt say how far predictions go from an unconditional one, and the UNet "
            f"of '{source.name}' has none "
            "(time_cond_proj_dim)."
        )
    seen = [part.tokens for part in parts]
    negative, second = negatives_of(cell)
    if negative is not None or second is not None:
        seen.append(read(negative or "", second)[-1])
    return seen


def _check_guidance(cell: Cell, source: Source, prompts: int) -> None:
    """Refuse ways, regions and a loss that do not fit so many prompts, or the picture."""
    guidance, (height, width) = cell.guidance, picture_size(cell, source)
    small = height // source.factor, width // source.factor
    ways = value_of(guidance.combine)
    if guidance.guider == "sega":
        _check_concept_directions(guidance, prompts)
    elif prompts > 1 or not isinstance(ways, str):
        ways_of(ways, prompts)
    if guidance.regions is not None:
        masks_of(guidance.regions, prompts, small)
    if (loss := guidance.loss) is not None:
        if getattr(loss.score, "asks_scorer", False) and not source.has_scorer:
            raise SamplerError(f"the loss {loss.name} asks a CLIP model, and there is none: model.scorer=FOLDER.")
        if loss.of_attention:
            _check_attended(cell, loss, source)
        for file in loss.files:
            open_picture(file)
        check_loss(loss, (height, width), (source.part("unet").get("out_channels", 4), *small))


def _check_concept_directions(guidance: Guidance, prompts: int) -> None:
    """Refuse SEGA without concepts, and what it does in its own way."""
    if prompts < 2:
        raise SamplerError(
            "guidance=sega leads toward the prompts after an AND, and there is none: language=a1111 "
            "'prompt=\"a puppy AND glasses\"'."
        )
    if guidance.regions is not None:
        raise SamplerError("guidance=sega finds by itself where concepts are; leave guidance.regions out.")
    if guidance.combine != "sum":
        raise SamplerError("guidance=sega joins prompts in its own way; leave guidance.combine and AND_… out.")


def _check_attended(cell: Cell, loss: Loss, source: Source) -> None:
    """Refuse a loss of attention at layers that a UNet does not have, or beside what makes the attention another."""
    there = layers_of(source.part("unet"))
    if not there:
        raise SamplerError(f"guidance.loss reads cross-attention, and the UNet of '{source.name}' has none.")
    chosen(getattr(loss.score, "layers", None), there, "guidance.loss.score.layers")
    if past := [step for step in getattr(loss.score, "refine", None) or () if step >= cell.sampler.steps]:
        raise SamplerError(
            f"guidance.loss.score.refine names step {past[0]}, past the end: with {cell.sampler.steps} steps it is "
            f"{cell.sampler.steps - 1} at the most."
        )
    if cell.attention.edits or any(getattr(part, "blocks", None) is not None for part in cell.operators):
        raise SamplerError(
            "guidance.loss reads the UNet's own attention, which attention.edits and operators with blocks change; "
            "take one of them."
        )


@lru_cache(maxsize=64)
def dummy_table(height: int, width: int) -> Float[Tensor, "row width"]:
    """A table of rows that all differ and have a length, in the memory of one vector: row r begins at its entry r."""
    vector = torch.randn(height + width, generator=torch.Generator().manual_seed(0))
    return vector.as_strided((height, width), (1, 1))
