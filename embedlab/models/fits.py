"""The one check of whether embedlab can run a model: what its UNet and its VAE ask for, beside what they are given.

It meets configurations alone, before weights are read. What is asked for is either given as diffusers gives it, or the
model is refused in one line; nothing that a UNet was trained on is left out in silence.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, VQModel

from embedlab.checks import is_whole
from embedlab.errors import ModelError, listed
from embedlab.limits import WINDOW
from embedlab.models.places import variant_of
from embedlab.models.single_file import PREFIXES

if TYPE_CHECKING:
    from embedlab.models.source import Source

TEXT_ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection")
VAES = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny, "VQModel": VQModel}
BESIDE = (
    "mask",
    "depth",
)  # what UNets take beside latents, as more channels: a mask with the masked picture, a depth map
MOST = 1 << 20  # of any whole number in a config of a part; vocabularies have 49,408 entries
SCHEDULE = {
    "num_train_timesteps": int,
    "beta_start": float,
    "beta_end": float,
    "beta_schedule": str,
    "steps_offset": int,
    "timestep_spacing": str,
    "rescale_betas_zero_snr": bool,
    "clip_sample": bool,
    "set_alpha_to_one": bool,
    "thresholding": bool,
}
GIVEN = {  # settings of a UNet that ask for something → the values with which embedlab gives it
    "addition_embed_type": (None, "text_time"),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "encoder_hid_dim_type": (None,),
    "encoder_hid_dim": (None,),
    "attention_type": ("default", None),
}
WANTS = {
    "addition_embed_type": "an additional embedding of kind {!r}",
    "class_embed_type": "a class embedding of kind {!r}",
    "num_class_embeds": "one of {} classes or noise levels, as upscalers are",
    "encoder_hid_dim_type": "hidden states of kind {!r}",
    "encoder_hid_dim": "hidden states {} wide that it projects itself",
    "attention_type": "attention of kind {!r}",
}


def check_source(source: Source) -> None:
    """Refuse a model that embedlab cannot run, before its weights are read; ModelError says in one line why."""
    check_configs(source)
    for part in ("unet", "vae", *source.encoders):
        variant_of(source, part)
    source.scheduler  # noqa: B018  (what nothing tells is refused there)
    source.loaded_concepts  # noqa: B018  (those of another model)


def check_configs(source: Source) -> None:
    """The same by its configurations alone: there may be no weights."""
    name = source.name
    if "transformer" in source.index or "text_encoder_3" in source.index:
        kind = str(source.index.get("_class_name", "pipeline"))[:80]
        raise ModelError(
            f"'{name}' is a {kind}: it has no UNet conditioned on CLIP alone; embedlab runs "
            "Stable Diffusion 1, 2 and XL."
        )
    unet, vae = source.part("unet"), source.part("vae")
    check_kinds(unet, "unet", kinds_of(UNet2DConditionModel), name)
    check_kinds(vae, "vae", kinds_of(vae_kind(vae)), name)
    for part, keys in (
        ("unet", ("in_channels", "block_out_channels", "sample_size")),
        ("vae", ("latent_channels",)),
    ):
        for key in keys:
            source.config_value(part, key)
    unet = defaults_of(UNet2DConditionModel) | unet
    if source.single_file:
        _check_file(source)
    check_channels(unet, vae, name)
    check_unet(unet, vae, name)
    check_vae(vae, len(source.encoders), name)
    check_scheduler(source.part("scheduler"), name)
    encoders = {part: source.part(part) for part in source.encoders}
    whole = ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings", "projection_dim")
    for part, config in encoders.items():
        kind = source.encoder_kind(part)
        if kind not in TEXT_ENCODERS:
            raise ModelError(f"the part '{part}' of '{name}' is a {kind[:80]}; embedlab edits {listed(TEXT_ENCODERS)}.")
        check_kinds(config, part, dict.fromkeys(whole, int), name)
        source.config_value(part, "hidden_size"), source.config_value(part, "num_hidden_layers")
    refiner = bool(source.index.get("requires_aesthetics_score"))
    check_text(unet, encoders, [len(words) for words in source.own_tokenizers], name, refiner)
    if not 0 < source.size <= 8192:
        raise ModelError(
            f"the model '{name}' says that its pictures have {source.size} pixels a side; no model's have."
        )


def _check_file(source: Source) -> None:
    """Refuse a single file whose UNet is of another kind than its layout, or that lacks a part."""
    header, name = source.header, source.name
    if marks := [key for key in ("edm_mean", "edm_vpred.sigma_max") if key in header.shapes]:
        raise ModelError(
            f"'{name}' was trained on noise of another form (EDM, by its key {marks[0]}), for which embedlab has "
            "no sampler; take a model that was trained with betas."
        )
    holds = header.holds
    if source.ema and PREFIXES["model_ema."] not in holds:
        raise ModelError(f"model.ema is true, and '{name}' holds no averaged copy of its UNet (model_ema).")
    needed = {"unet": "", "vae": "model.vae=PATH", "text encoder": "model.text_encoder=PATH"}
    if source.vae is not None:
        needed.pop("vae")
    if source.text_encoder is not None:
        needed.pop("text encoder")
    for part, setting in needed.items():
        if part not in holds and holds:
            hint = f"; name one: {setting}" if setting else ""
            raise ModelError(f"the file '{name}' has no {part}; it holds {listed(holds)}{hint}.")


def is_a(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is what an annotation says; lists stand for tuples, and null for what is left out.

    >>> is_a([8, 16], tuple[int, ...]), is_a("big", int | None), is_a({}, tuple[int]), is_a(2, float)
    (True, False, False, True)
    """
    if value is None or hint in (Any, inspect.Parameter.empty):
        return True
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(is_a(value, one) for one in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if hint in (tuple, list) or origin in (tuple, list):
        inner = [one for one in typing.get_args(hint) if one is not Ellipsis] or [Any]
        return isinstance(value, list | tuple) and all(any(is_a(v, one) for one in inner) for v in value)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if hint is float:
        return isinstance(value, int | float)
    return not isinstance(hint, type) or isinstance(value, hint)


def check_kinds(config: Mapping[str, Any], part: str, kinds: Mapping[str, Any], name: str) -> None:
    """Refuse settings of a part that are of another kind than the part takes, or beyond all measure."""
    for key, value in config.items():
        if key.startswith("_") or key not in kinds:
            continue
        says = f"the configuration of the part '{part}' of '{name}' says {key} {repr(value)[:60]}"
        if not is_a(value, kinds[key]):
            raise ModelError(f"{says}; it has to be {_said(kinds[key])}.")
        flat = value if isinstance(value, list | tuple) else [value]
        if len(flat) > 64 or any(type(v) is int and not -MOST <= v <= MOST for v in flat):
            raise ModelError(f"{says}, which no model has.")


def _said(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_said(one) for one in typing.get_args(hint)))
    return words.get(hint, "a list")


def kinds_of(kind: type) -> dict[str, Any]:
    """What the settings of a class of diffusers are, by its annotations."""
    return {key: hint for key, hint in typing.get_type_hints(kind.__init__).items() if key != "return"}  # type: ignore[misc]


def defaults_of(kind: type) -> dict[str, Any]:
    """What a class of diffusers takes for settings that a config leaves out."""
    empty = inspect.Parameter.empty
    return {k: p.default for k, p in inspect.signature(kind).parameters.items() if p.default is not empty}


def check_scheduler(config: Mapping[str, Any], name: str) -> None:
    """Refuse the config of a scheduler whose noise is not that of a model trained on betas."""
    check_kinds(config, "scheduler", SCHEDULE, name)
    steps = config.get("num_train_timesteps", 1000)
    if steps is not None and not 1 <= steps <= 100_000:
        raise ModelError(f"the scheduler of '{name}' has {steps} training timesteps; models have 1000.")
    kind = str(config.get("_class_name", ""))
    other = next(
        (word for word in ("EDM", "FlowMatch", "Consistency", "VQDiffusion", "ScoreSde") if word in kind), None
    )
    marks = [key for key in ("sigma_data", "use_flow_sigmas", "flow_shift") if config.get(key) not in (None, False)]
    if "flow_shift" in marks and not config.get("use_flow_sigmas"):  # solvers write it down with its default, 1
        marks.remove("flow_shift")
    if other or marks:
        what = f"a {kind[:80]}" if other else f"one with {marks[0]}"
        raise ModelError(
            f"the scheduler of '{name}' is {what}: its UNet was trained on noise of another form (EDM, flow matching), "
            "for which embedlab has no sampler; take a model that was trained with betas."
        )


def vae_kind(vae: Mapping[str, Any]) -> Any:
    """The class of an autoencoder, by its config; AutoencoderKL where that says none, or one that is refused later."""
    return VAES.get(str(vae.get("_class_name")), AutoencoderKL)


def beside_latents(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> str | None:
    """What a UNet takes beside latents: `mask` with a masked picture, `depth`, or nothing.

    >>> [beside_latents({"in_channels": channels}, {"latent_channels": 4}) for channels in (4, 5, 9)]
    [None, 'depth', 'mask']
    """
    latent = vae["latent_channels"]
    if not is_whole(latent):
        return None
    return {2 * latent + 1: "mask", latent + 1: "depth"}.get(unet["in_channels"])


def check_unet(unet: Mapping[str, Any], vae: Mapping[str, Any], name: str) -> None:
    """Refuse a UNet that asks for what embedlab does not give."""
    kind = unet.get("_class_name", "UNet2DConditionModel")
    if kind != "UNet2DConditionModel":
        raise ModelError(f"the UNet of '{name}' is a {str(kind)[:80]}; embedlab runs a UNet2DConditionModel.")
    for key, given in GIVEN.items():
        if unet.get(key) not in given:
            raise ModelError(
                f"the UNet of '{name}' asks for {WANTS[key].format(unet[key])} ({key}), which embedlab does not give."
            )
    if unet["out_channels"] != vae["latent_channels"]:
        raise ModelError(
            f"the UNet of '{name}' returns {unet['out_channels']} channels for {vae['latent_channels']}: it predicts "
            "more than noise, or takes a picture beside the latents; embedlab does not run it."
        )
    size = unet.get("sample_size")
    if not isinstance(size, int) and not (isinstance(size, list | tuple) and len(set(size)) == 1):
        raise ModelError(
            f"the UNet of '{name}' has the sample_size {size!r}: embedlab needs one side in latents, such as 64."
        )


def check_channels(unet: Mapping[str, Any], vae: Mapping[str, Any], name: str) -> None:
    """Refuse a UNet whose latents are not those of its VAE, alone or with what `beside_latents` names."""
    channels, latent = unet["in_channels"], vae["latent_channels"]
    if (wide := vae.get("vq_embed_dim") or latent) != latent:
        raise ModelError(
            f"the VAE of '{name}' makes latents of {wide} channels (vq_embed_dim) and says {latent} (latent_channels); "
            "embedlab runs those where they are the same."
        )
    if channels == latent or beside_latents(unet, vae):
        return
    kinds = {8: "a model that edits pictures by instruction", 7: "an upscaler"}
    raise ModelError(
        f"the UNet of '{name}' takes {channels} channels where latents have {latent}: "
        f"{kinds.get(channels, 'a model of another kind, or the VAE of another model')}, which embedlab does not run."
    )


def check_vae(vae: Mapping[str, Any], encoders: int, name: str) -> None:
    """Refuse a VAE whose latents are scaled in a way that diffusers' pipeline of this model does not know."""
    kind = vae.get("_class_name", "AutoencoderKL")
    if kind not in VAES:
        raise ModelError(f"the VAE of '{name}' is a {str(kind)[:80]}; embedlab decodes with {listed(VAES)}.")
    if vae.get("shift_factor"):
        raise ModelError(
            f"the VAE of '{name}' has shift_factor {vae['shift_factor']}, as those of SD 3 and Flux; pipelines of "
            "SD 1, 2 and XL leave it out, so that pictures would be wrong. Name the model's own VAE: model.vae=PATH."
        )
    mean, std = vae.get("latents_mean"), vae.get("latents_std")
    if mean is None and std is None:
        return
    if mean is None or std is None or len(mean) != vae["latent_channels"] or len(std) != vae["latent_channels"]:
        raise ModelError(
            f"the VAE of '{name}' has latents_mean {mean} and latents_std {std}; both have to be "
            f"{vae['latent_channels']} numbers."
        )
    if encoders < 2:
        raise ModelError(
            f"the VAE of '{name}' has latents_mean and latents_std, which only pipelines of SDXL know; name the "
            "model's own VAE: model.vae=PATH."
        )


def check_text(
    unet: Mapping[str, Any], encoders: Mapping[str, Mapping[str, Any]], words: Sequence[int], name: str, refiner: bool
) -> None:
    """Refuse text encoders that do not make what the UNet is told; `words` are the lengths of their vocabularies."""
    widths = [encoder["hidden_size"] for encoder in encoders.values()]
    asked = unet.get("cross_attention_dim", 1280)
    wanted = set(asked) if isinstance(asked, list | tuple) else {asked}
    pooled = list(encoders.values())[-1].get("projection_dim", 512)
    if (extra := unet.get("addition_embed_type") == "text_time") and len(encoders) < 2:
        what = "the refiner of SDXL, which finishes pictures of the base model" if refiner else "it has one"
        raise ModelError(
            f"the UNet of '{name}' takes a pooled text embedding and sizes, which come from the two "
            f"text encoders of SDXL: {what}; name the base model."
        )
    if wanted != {sum(widths)}:
        sum_of = " + ".join(map(str, widths))
        raise ModelError(
            f"the UNet of '{name}' asks for hidden states {listed(sorted(wanted))} wide, and its text encoders make "
            f"{sum_of}: a text encoder of another model; name its own: model.text_encoder=PATH."
        )
    joint = unet.get("projection_class_embeddings_input_dim")
    each = unet.get("addition_time_embed_dim")
    if extra and joint != 6 * (each or 0) + pooled:
        raise ModelError(
            f"the UNet of '{name}' asks for {joint} numbers of text and sizes, where SDXL's six sizes of {each} "
            f"each and a pooled text of {pooled} make {6 * (each or 0) + pooled}; it is a refiner, or of another kind."
        )
    for (part, encoder), length in zip(encoders.items(), words, strict=True):
        if encoder.get("max_position_embeddings", WINDOW) < WINDOW:
            raise ModelError(
                f"the part '{part}' of '{name}' has {encoder['max_position_embeddings']} positions; "
                f"a window has {WINDOW}."
            )
        if length > encoder.get("vocab_size", 49408):
            raise ModelError(
                f"the tokenizer of the part '{part}' of '{name}' knows {length} tokens, and the encoder has rows for "
                f"{encoder.get('vocab_size', 49408)}: they are of two models."
            )
