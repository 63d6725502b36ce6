"""A cell, checked against a model before weights are read."""

from __future__ import annotations

import zlib
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.cell import Cell, cells_per_call, denoiser_calls, picture_size
from embedlab.embeddings import Embeddings, Lookup
from embedlab.encoder import Conditioning, Texts
from embedlab.errors import OperatorError, SamplerError
from embedlab.models import Source
from embedlab.operators.base import edit_encoded, edit_with
from embedlab.prompt import Tokens, joined, tokenize
from embedlab.schedule import value_of
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
    picture_size(cell, source)
    seen: dict[str, Tokens] = {}
    for one in {id(one): one for one in cells_per_call(cell, denoiser_calls(cell, source.scheduler))}.values():
        seen |= {tokens.text: tokens for tokens in _check_text(one, source)}
    return tuple(seen.values())


def _check_text(cell: Cell, source: Source) -> list[Tokens]:
    encoder = cell.encoder
    for name in source.encoders:
        depth, layer = source.config_value(name, "num_hidden_layers"), int(len(source.encoders) > 1)
        if max(encoder.skips) + layer > depth:
            raise SamplerError(
                f"encoder.skip is {max(encoder.skips)}, but the part '{name}' has {depth} layers; skip {depth - layer} "
                "at the most."
            )

    concepts = concepts_of(source.tokenizers)

    def rows_of(text: str) -> list[tuple[Embeddings, Lookup]]:
        rows = []
        for words, width in zip(source.tokenizers, source.widths, strict=True):
            tokens = tokenize(text, words, encoder.truncate, encoder.window, concepts)
            table, positions = dummy_table(len(words), width), dummy_table(encoder.window, width)
            position = positions.expand(len(tokens.ids), -1, -1)
            rows.append((Embeddings(tokens, table[tokens.ids], position, positions), Lookup(words, table)))
        return rows

    def conditioning_of(text: str) -> Conditioning:
        tokens, *_ = (tokenize(text, words, encoder.truncate, encoder.window, concepts) for words in source.tokenizers)
        rows = tuple(joined(len(tokens.ids), value_of(encoder.join), encoder.window))
        width = (
            source.config_value(source.encoders[-1], "projection_dim")
            if len(source.encoders) > 1
            else source.widths[-1]
        )
        # as an encoder's, a row is made by the ids up to it: texts that begin alike have equal rows there
        ids = tokens.ids.tolist()
        past = [zlib.crc32(str(window[: n + 1]).encode()) % 40_009 for window in ids for n in range(len(window))]
        hidden = dummy_table(40_009, sum(source.widths))[[past[row] for row in rows]]
        return Conditioning(hidden, dummy_table(40_009, width)[past[len(ids[0]) - 1]], tokens, rows)

    parts, lookups = zip(*rows_of(cell.text), strict=True)
    edit_with(parts, cell.operators, lookups)
    edit_encoded(conditioning_of(cell.text), cell.operators, Texts(conditioning_of))
    pooled = [operator for operator in cell.operators if getattr(operator, "stage", None) == "pooled"]
    if pooled and source.part("unet").get("addition_embed_type") != "text_time":
        raise OperatorError(
            f"'{pooled[0]}' edits the pooled output, and the UNet of '{source.name}' takes none; "
            "take stage hidden, or an SDXL model."
        )
    negative = value_of(cell.guidance.negative)
    if negative is not None and source.part("unet").get("time_cond_proj_dim"):
        raise SamplerError(
            f"the UNet of '{source.name}' takes the guidance scale as a number and no negative prompt "
            "(time_cond_proj_dim); leave guidance.negative out."
        )
    seen = [part.tokens for part in parts]
    if negative is not None:
        seen.append([tokenize(negative, words, encoder.truncate, encoder.window) for words in source.tokenizers][-1])
    return seen


@lru_cache(maxsize=64)
def dummy_table(height: int, width: int) -> Float[Tensor, "row width"]:
    """A table of rows that all differ and have a length, in the memory of one vector: row r begins at its entry r."""
    vector = torch.randn(height + width, generator=torch.Generator().manual_seed(0))
    return vector.as_strided((height, width), (1, 1))
