"""A pipeline of diffusers as a model: its text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from embedlab import clip
from embedlab.clip import Tower
from embedlab.errors import ModelError, brief, check_kind, listed
from embedlab.limits import WINDOW, check_concepts
from embedlab.models import fits
from embedlab.models.concepts import entries_of, read_concepts, with_words
from embedlab.models.loading import towers_of
from embedlab.models.model import Model


class Pipeline(Protocol):
    """What a diffusers pipeline has at least, for those who check types."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any


TextEncoders: TypeAlias = Model | Pipeline | Tower | Sequence[Tower]  # what does wherever text encoders are asked for


def text_encoders_of(pipeline: TextEncoders, concepts: Any = ()) -> tuple[Tower, ...]:
    """The text encoders of a diffusers pipeline (SD 1, 2, XL and what is built on them), ready for operators.

    Those of a model, one alone and a list of them are themselves. `concepts` are files of textual inversion, as
    `Source` takes them; those that the pipeline has loaded are there
    without. The pipeline itself, its tokenizers and encoders are left as they are.

    Raises ModelError at once for encoders that are not CLIP's, or that do not belong to their tokenizers, and for
    concepts that do not fit them.

    >>> from diffusers import DiffusionPipeline
    >>> from embedlab.models import SHIPPED, load
    >>> pipeline = DiffusionPipeline.from_pretrained(SHIPPED["emoji"], safety_checker=None)
    >>> [tower.width for tower in text_encoders_of(pipeline)] == [tower.width for tower in load("emoji").towers]
    True
    """
    check_concepts(concepts)
    if (there := encoders_in(pipeline)) and not concepts:
        return there
    named = ("", "_2")
    pairs = [(getattr(pipeline, f"tokenizer{n}", None), getattr(pipeline, f"text_encoder{n}", None)) for n in named]
    found = [(t, e) for t, e in pairs if t is not None and e is not None]
    kind = type(pipeline).__name__
    if not found:
        raise ModelError(
            f"{brief(pipeline)} has no text encoders; a model (lab.load), model.towers, or a diffusers pipeline of "
            "SD 1, 2 or XL has them."
        )
    third = [name for name in ("transformer", "text_encoder_3", "tokenizer_3") if hasattr(pipeline, name)]
    if third:
        raise ModelError(
            f"a {kind} has a {third[0]}, which is conditioned in another way than a UNet; "
            "take a pipeline of SD 1, 2 or XL."
        )
    for words, encoder in found:
        check_pair(words, encoder)
    words, encoders = zip(*found, strict=True)
    widths = [encoder.config.hidden_size for encoder in encoders]
    added = read_concepts(entries_of(concepts), widths, words, kind)
    towers = towers_of([with_words(one, added) for one in words], encoders, added)
    for tower in towers:
        clip.check(tower)
    return towers


def encoders_in(given: Any) -> tuple[Tower, ...]:
    """The text encoders of a model, of one alone or of a list; none of what has to be looked into."""
    if isinstance(given, Model):
        return given.towers
    if isinstance(given, Tower):
        return (given,)
    every = isinstance(given, list | tuple) and all(isinstance(one, Tower) for one in given)
    return tuple(given) if every else ()


def text_encoder_of(given: TextEncoders, instead: str = "embed_all") -> Tower:
    """The only text encoder of what was given; ModelError where there are two, and one has to be named.

    >>> from embedlab import load
    >>> text_encoder_of(load("emoji")).width
    96
    """
    towers = text_encoders_of(given)
    if len(towers) > 1:
        raise ModelError(f"there are {len(towers)} text encoders; {instead} takes all, model.towers[0] is the first.")
    return towers[0]


def model_of(given: Model | Pipeline, name: str = "model") -> Model:
    """A model: itself, or a diffusers pipeline of SD 1, 2 or XL, whose parts are taken as they are, weights and all.

    Raises ModelError for a pipeline that embedlab cannot run, ConfigError for what is neither.

    >>> from diffusers import DiffusionPipeline
    >>> from embedlab.models import SHIPPED, load
    >>> pipeline = DiffusionPipeline.from_pretrained(SHIPPED["emoji"], safety_checker=None)
    >>> model = model_of(pipeline)
    >>> model.unet is pipeline.unet, model.scheduler["prediction_type"]
    (True, 'v_prediction')
    """
    if isinstance(given, Model):
        return given
    parts = ("unet", "vae", "scheduler", "text_encoder")
    if isinstance(given, str | type) or not all(hasattr(given, part) for part in parts):
        check_kind(given, Model, name, "lab.load(NAME) gives one, and a diffusers pipeline of SD 1, 2 or XL will do")
    called = type(given).__name__
    towers = text_encoders_of(given)
    pipeline: Any = given
    unet, vae, scheduler = dict(pipeline.unet.config), dict(pipeline.vae.config), dict(pipeline.scheduler.config)
    fits.check_channels(unet, vae, called)
    fits.check_unet(unet, vae, called)
    fits.check_vae(vae, len(towers), called)
    fits.check_scheduler(scheduler, called)
    scheduler["_class_name"] = type(pipeline.scheduler).__name__
    scheduler.setdefault("prediction_type", "epsilon")
    zero = bool(getattr(pipeline, "config", {}).get("force_zeros_for_empty_prompt", len(towers) > 1))
    return Model(called, towers, pipeline.unet, pipeline.vae, scheduler, zero)


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
