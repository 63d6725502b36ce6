"""Source → Model: weights are read here, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from embedlab import clip
from embedlab.clip import Tower
from embedlab.errors import ModelError, first_line, listed
from embedlab.models import fits
from embedlab.models import single_file as checkpoint
from embedlab.models.concept_files import Concept
from embedlab.models.concepts import rows_added, with_words
from embedlab.models.device import pick_device, pick_dtype
from embedlab.models.fits import vae_kind
from embedlab.models.model import Model, Scorer
from embedlab.models.places import path_of, variant_of, weights_home

if TYPE_CHECKING:
    from embedlab.models.source import Source


def models_read() -> int:
    """How many times this process has read the weights of a model."""
    return read_model.cache_info().misses


@lru_cache(maxsize=2)
def read_model(source: Source) -> Model:
    """The whole model, checked by its small files first; the last two that were read are kept."""
    source.checked  # noqa: B018  (a model that cannot be run is refused there)
    device = pick_device(source.device)
    dtype = pick_dtype(source.dtype, device)
    encoders, unet, vae = read_parts(source, dtype)
    for part in (*encoders, unet, vae):
        part.to(device).eval().requires_grad_(False)
    unet.register_to_config(sample_size=source.sample_size)
    if device.type == "cpu":  # a fifth faster there: oneDNN convolves channels last without reordering
        unet.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    towers = towers_of(source.own_tokenizers, encoders)
    for tower in towers:
        clip.check(tower)
    return Model(
        name=source.name,
        towers=towers,
        unet=unet,
        vae=vae,
        scheduler=source.scheduler,
        zero_negative=bool(source.index.get("force_zeros_for_empty_prompt", len(towers) > 1)),
        scorer=_scorer(source, towers, device),
        concepts=source.names("concepts"),
        words=source.names("words"),
        eye_folder=source.eye_folder,
        source=source,
    )


_with_concepts: WeakValueDictionary[Any, Model] = WeakValueDictionary()  # as long as somebody has them


def with_concepts(asked: Source, concepts: tuple[Concept, ...]) -> Model:
    """A model whose text encoders know concepts; its weights are those of the model without."""
    source = replace(asked, concepts=())
    if (known := _with_concepts.get((source, concepts))) is not None:
        return known
    model = read_model(source)
    towers = tuple(
        replace(tower, tokenizer=with_words(tower.tokenizer, concepts), added=rows_added(concepts, n))
        for n, tower in enumerate(model.towers)
    )
    scorer = model.scorer
    if scorer is not None and scorer.text is model.towers[0]:
        scorer = replace(scorer, text=towers[0])
    made = _with_concepts[source, concepts] = replace(model, towers=towers, scorer=scorer, source=asked)
    return made


def read_towers(source: Source) -> tuple[Tower, ...]:
    """The text encoders of a model, without the rest of it where its parts can be read apart."""
    if source.single_file and source.text_encoder is None:
        return source.load().towers
    device = pick_device(source.device)
    encoders = _encoders(source, pick_dtype(source.dtype, device))
    ready = [encoder.to(device).eval().requires_grad_(False) for encoder in encoders]
    return towers_of(source.tokenizers, ready, source.loaded_concepts)


def towers_of(tokenizers: Any, encoders: Any, concepts: Sequence[Concept] = ()) -> tuple[Tower, ...]:
    """Tokenizers with their text encoders; those of SDXL are read at the last but one layer, without the final norm.

    `concepts` are those that the tokenizers know and the encoders do not.
    """
    joint = any(isinstance(e, CLIPTextModelWithProjection) for e in encoders)
    settings: dict[str, Any] = {"layer": 1, "final_norm": False} if joint else {}
    pairs = enumerate(zip(tokenizers, encoders, strict=True))
    return tuple(Tower(words, encoder, **settings, added=rows_added(concepts, n)) for n, (words, encoder) in pairs)


def read_parts(source: Source, dtype: torch.dtype) -> tuple[list[nn.Module], UNet2DConditionModel, Any]:
    """The text encoders, the UNet and the VAE, as their files have them."""
    state = checkpoint.weights_in(Path(source.location)) if source.single_file else {}
    if source.ema:
        state = checkpoint.averaged(state, source.name)
    if source.single_file and source.text_encoder is None:
        encoders = [_file_encoder(source, state, name, dtype) for name in source.encoders]
    else:
        encoders = _encoders(source, dtype)
    if source.single_file:
        unet = _file_part(source, state, UNet2DConditionModel, "unet", dtype)
    else:
        unet = _read(source, UNet2DConditionModel, "unet", dtype)
    return encoders, unet, _vae(source, state)


def _vae(source: Source, state: dict[str, Tensor]) -> Any:
    """The autoencoder, in float32: half precision overflows in SDXL's decoder, and it runs once a picture only."""
    kind = vae_kind(source.part("vae"))
    place, _ = weights_home(source, "vae")
    if isinstance(place, Path) and place.is_file():
        if place != source.location:
            state = checkpoint.weights_in(place)
        return _file_part(source, state, kind, "vae", torch.float32)
    return _read(source, kind, "vae", torch.float32)


def _encoders(source: Source, dtype: torch.dtype) -> list[nn.Module]:
    kinds = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}
    named = [(name, source.encoder_kind(name)) for name in source.encoders]
    for name, kind in named:
        if kind not in kinds:
            raise ModelError(f"the part '{name}' of '{source.name}' is a {kind}; embedlab edits {listed(kinds)}.")
    return [_read(source, kinds[kind], name, dtype) for name, kind in named]


def _read(source: Source, kind: Any, name: str, dtype: torch.dtype) -> Any:
    place, inner = weights_home(source, name)
    if isinstance(place, Path):
        if not (place / inner).is_dir():
            raise ModelError(f"the model '{source.name}' lacks its part '{name}': there is no such folder in {place}.")
        checkpoint.check_regular(place / inner)
    variant = None if name == "image_encoder" else variant_of(source, name)
    tries = [variant] if isinstance(place, Path) or variant is None else [variant, None]
    for n, one in enumerate(tries):
        try:
            part, info = kind.from_pretrained(
                place,
                subfolder=inner,
                torch_dtype=dtype,
                variant=one,
                use_safetensors=None if source.allow_pickle else True,
                output_loading_info=True,
            )
            break
        except Exception as error:
            if n + 1 < len(tries) and isinstance(error, OSError):
                continue
            reason = first_line(error)
            raise ModelError(f"the part '{name}' of the model '{source.name}' cannot be read: {reason}") from None
    if lacking := sorted(info["missing_keys"]):  # they would be filled at random
        raise ModelError(
            f"the part '{name}' of the model '{source.name}' lacks {len(lacking)} weights: {listed(lacking, 3)}."
        )
    return part


def _scorer(source: Source, towers: tuple[Tower, ...], device: torch.device) -> Scorer | None:
    """The scorer asked for, or the model's own image encoder."""
    if source.scorer:
        from transformers import CLIPModel  # noqa: PLC0415  a scorer of its own is rare

        place = source.scorer if (path := path_of(source.scorer)) is None or not path.is_dir() else path
        if isinstance(place, Path):
            checkpoint.check_regular(place)
        try:
            model, info = CLIPModel.from_pretrained(place, use_safetensors=True, output_loading_info=True)
            words = CLIPTokenizer.from_pretrained(place)
        except Exception as error:
            raise ModelError(f"the scorer '{source.scorer}' cannot be read: {first_line(error)}") from None
        if lacking := sorted(info["missing_keys"]):  # they would be filled at random
            few = listed(lacking, 3)
            raise ModelError(f"the scorer '{source.scorer}' lacks {len(lacking)} weights of a CLIP model: {few}.")
        model = model.to(device).eval().requires_grad_(False)
        text = CLIPTextModelWithProjection._from_config(model.config.text_config)
        text.text_model, text.text_projection = model.text_model, model.text_projection
        image = CLIPVisionModelWithProjection._from_config(model.config.vision_config)
        image.vision_model, image.visual_projection = model.vision_model, model.visual_projection
        return Scorer(
            Tower(words, text.to(device).eval()), image.to(device).eval(), **_normalisation(Path(source.scorer))
        )
    if not source.has_scorer:
        return None
    image = _read(source, CLIPVisionModelWithProjection, "image_encoder", torch.float32).to(device).eval()
    return Scorer(towers[0], image.requires_grad_(False), **_normalisation(Path(source.location) / "feature_extractor"))


def _normalisation(folder: Path) -> dict[str, tuple[float, ...]]:
    """The colour normalisation that an image encoder was trained with, where its folder tells."""
    file = folder / "preprocessor_config.json"
    config = checkpoint.read_json(file) if file.is_file() else {}
    colours = {k: config[f"image_{k}"] for k in ("mean", "std") if f"image_{k}" in config}
    for name, three in colours.items():
        if not (isinstance(three, list) and len(three) == 3 and fits.is_a(three, tuple[float, ...])):
            raise ModelError(f"'{file}' says image_{name} {repr(three)[:60]}; it has to be three numbers.")
    return {name: tuple(three) for name, three in colours.items()}


def _file_part(source: Source, state: dict[str, Tensor], kind: Any, name: str, dtype: torch.dtype) -> Any:
    """A UNet or VAE from a file in the original layout; diffusers renames the weights, and each has to be there."""
    from diffusers.loaders import single_file_utils as renaming  # noqa: PLC0415  for single files alone

    config = source.part(name)
    rename = renaming.convert_ldm_unet_checkpoint if name == "unet" else renaming.convert_ldm_vae_checkpoint
    with torch.device("meta"):
        try:
            part = kind.from_config(config)
        except Exception as error:
            raise ModelError(f"the config of the part '{name}' makes no {kind.__name__}: {first_line(error)}") from None
    own = part.state_dict()
    try:
        weights = state if own.keys() <= state.keys() else rename(dict(state), part.config)
    except KeyError as error:
        raise ModelError(f"the part '{name}' of '{source.name}' lacks the weight {error}.") from None
    except Exception as error:
        raise ModelError(f"the part '{name}' of '{source.name}' does not fit its layout: {first_line(error)}") from None
    _check_weights(source, name, own, weights)
    part.load_state_dict({key: weights[key].to(dtype) for key in own}, assign=True)
    return part


def _check_weights(source: Source, name: str, own: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Name the weights of a part that a file lacks, or that have another shape there."""
    if not weights:
        holds = listed(source.header.holds) or "none of a known part"
        raise ModelError(f"the file '{source.name}' has no {name}; it holds {holds}.")
    if lacking := sorted(own.keys() - weights.keys()):
        raise ModelError(
            f"the part '{name}' of the file '{source.name}' lacks {len(lacking)} weights: {listed(lacking, 3)}."
        )
    other = [key for key in own if own[key].shape != weights[key].shape]
    if other:
        here, there = tuple(weights[other[0]].shape), tuple(own[other[0]].shape)
        raise ModelError(
            f"the part '{name}' of the file '{source.name}' does not fit the layout of {Path(source.folder).name}: "
            f"{other[0]} is {here} where {there} belongs."
        )


def _file_encoder(source: Source, state: dict[str, Tensor], name: str, dtype: torch.dtype) -> nn.Module:
    """A text encoder from a file in the original layout."""
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm  # noqa: PLC0415  for single files alone

    kind = CLIPTextModelWithProjection if source.encoder_kind(name) == "CLIPTextModelWithProjection" else CLIPTextModel
    place, inner = source.home(name)
    try:
        encoder: nn.Module = create_diffusers_clip_model_from_ldm(
            kind, state, subfolder=inner, config=str(place), local_files_only=True
        )
    except Exception as error:
        raise ModelError(f"the part '{name}' of '{source.name}' does not fit its layout: {first_line(error)}") from None
    lacking = sorted(key for key, value in encoder.state_dict().items() if value.is_meta)
    if lacking:
        raise ModelError(
            f"the part '{name}' of the file '{source.name}' lacks {len(lacking)} weights: {listed(lacking, 3)}."
        )
    return encoder.to(dtype)
