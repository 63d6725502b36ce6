"""A pipeline of diffusers as a model: its text encoders."""

from __future__ import annotations

from typing import Any

from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from embedlab import clip
from embedlab.clip import Tower
from embedlab.errors import ModelError, listed
from embedlab.limits import WINDOW, check_concepts
from embedlab.models import fits
from embedlab.models.concepts import entries_of, read_concepts, with_words
from embedlab.models.loading import towers_of


def text_encoders_of(pipeline: Any, concepts: Any = ()) -> tuple[Tower, ...]:
    """The text encoders of a diffusers pipeline (SD 1, 2, XL and what is built on them), ready for operators.

    `concepts` are files of textual inversion, as `Source` takes them; those that the pipeline has loaded are there
    without. The pipeline itself, its tokenizers and encoders are left as they are.

    Raises ModelError at once for encoders that are not CLIP's, or that do not belong to their tokenizers, and for
    concepts that do not fit them.

    >>> from diffusers import DiffusionPipeline
    >>> from embedlab.models import SHIPPED, load
    >>> pipeline = DiffusionPipeline.from_pretrained(SHIPPED["emoji"], safety_checker=None)
    >>> [tower.width for tower in text_encoders_of(pipeline)] == [tower.width for tower in load("emoji").towers]
    True
    """
    named = ("", "_2")
    pairs = [(getattr(pipeline, f"tokenizer{n}", None), getattr(pipeline, f"text_encoder{n}", None)) for n in named]
    found = [(t, e) for t, e in pairs if t is not None and e is not None]
    kind = type(pipeline).__name__
    if not found:
        raise ModelError(f"a {kind} has no text_encoder with a tokenizer; take a pipeline of SD 1, 2 or XL.")
    third = [name for name in ("transformer", "text_encoder_3", "tokenizer_3") if hasattr(pipeline, name)]
    if third:
        raise ModelError(
            f"a {kind} has a {third[0]}, which is conditioned in another way than a UNet; "
            "take a pipeline of SD 1, 2 or XL."
        )
    for words, encoder in found:
        check_pair(words, encoder)
    check_concepts(concepts)
    words, encoders = zip(*found, strict=True)
    widths = [encoder.config.hidden_size for encoder in encoders]
    added = read_concepts(entries_of(concepts), widths, words, kind)
    towers = towers_of([with_words(one, added) for one in words], encoders, added)
    for tower in towers:
        clip.check(tower)
    return towers


def check_pair(words: Any, encoder: Any) -> None:
    """Refuse a text encoder that is not CLIP's, or a tokenizer of another one."""
    if not isinstance(encoder, CLIPTextModel | CLIPTextModelWithProjection):
        kind = type(encoder).__name__
        raise ModelError(f"the text encoder is a {kind}; embedlab edits {listed(fits.TEXT_ENCODERS)}.")
    if not isinstance(words, CLIPTokenizer):
        raise ModelError(f"the tokenizer is a {type(words).__name__}; CLIP's text encoders take a CLIPTokenizer.")
    tower = Tower(words, encoder)
    rows, places = len(tower.token_table), len(tower.position_table)
    if len(words) > rows:
        raise ModelError(
            f"the tokenizer knows {len(words)} tokens, and the encoder has rows for {rows}: of two models."
        )
    if words.bos_token_id is None or words.eos_token_id is None or words.pad_token_id is None:
        raise ModelError("the tokenizer has no start, end or padding token; CLIP's has all three.")
    if places < WINDOW:
        raise ModelError(f"the text encoder has {places} positions; a window has {WINDOW}.")
