"""What the settings of each part may be: a part checks itself by this, the command line does before torch is loaded.

`CHECKS` has for each part the settings that are looked at together, and the function that raises what is wrong with
them. No import of torch or numpy here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from embedlab.arguments import check_fields, plain, settle_numbers, takes
from embedlab.checks import (
    finite_number,
    float_of,
    in_choices,
    is_list,
    is_number,
    is_whole,
    number_within,
    true_or_false,
    whole_number,
)
from embedlab.errors import (
    ConfigError,
    ModelError,
    OperatorError,
    PictureError,
    PromptError,
    SamplerError,
    brief,
    counted,
    listed,
    perhaps,
    public_name,
)
from embedlab.schedule import format_number, varies
from embedlab.scheduler_options import (
    check_eta,
    check_options,
    check_order,
    check_scheduler,
    check_sigmas,
    check_spacing,
    check_zero,
)
from embedlab.selector import words_of

WINDOW = 77  # places of a window of CLIP
SHIPPED = Path(__file__).parent / "pictures"
LONGEST_BLUR = 9999999.0  # of attention's queries, as far as diffusers has it: all of them are their mean
LARGEST = 8192  # pixels a side; beyond, a typing error is likelier than a machine that can
LANGUAGES = ("plain", "a1111", "compel", "comfyui")
Split = Literal["whole", "hard", "comma", "word", "phrase", "sentence", "segment"]
SPLITS: tuple[Split, ...] = get_args(Split)
Padding = Literal["own", "eos", "zero"]
PADDINGS: tuple[Padding, ...] = get_args(Padding)
Join = Literal["windows", "run", "copied", "merged", "truncate"]
JOINS: tuple[Join, ...] = get_args(Join)
Pooled = Literal["weighted", "first", "last", "mean", "row", "raw"]
POOLED: tuple[Pooled, ...] = get_args(Pooled)
Normaliser = Literal["length", "mean"]
NORMALISERS: tuple[Normaliser, ...] = get_args(Normaliser)
WEIGHTINGS = (
    *("comfy++", "masked", "a1111", "a1111_sample", "a1111_window", "no_norm", "comfyui", "compel", "compel_remove"),
    *("adv_compel", "down_weight", "perp", "perpendicular", "lpw", "lpw_xl", "sd_embed"),
)
StageName = Literal["token", "position", "both", "hidden", "pooled", "conditioning"]
Stage = (
    StageName | Mapping[str, int]
)  # the mapping is {layer: n}, the hidden states before the n-th layer of the encoder
STAGES: dict[str, tuple[str, ...]] = {
    "token": ("token",),
    "position": ("position",),
    "both": ("token", "position"),
    "hidden": ("hidden",),
    "pooled": ("pooled",),
    "conditioning": ("hidden", "pooled"),
}
Lengths = Literal["error", "repeat", "resample", "zero"]
LENGTHS: tuple[Lengths, ...] = get_args(Lengths)
Way = Literal["lerp", "slerp", "slerp_whole"]
PATHS: tuple[Way, ...] = get_args(Way)
Warmup = Literal["history", "diffusers"]
WARMUPS: tuple[Warmup, ...] = get_args(Warmup)
Table = Literal["token", "position"]
TABLES: tuple[Table, ...] = get_args(Table)
By = Literal["denoising", "clip"]
BYS: tuple[By, ...] = get_args(By)
MOST_VECTORS = 75  # a window of CLIP holds no more
WATCHED = ("latents", "predictions", "curves")
DTYPE_NAMES = ("float32", "float16", "bfloat16")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
FIXED = {
    "embedlab.Sampler": "sampler",
    "embedlab.Start": "start",
    "embedlab.Inversion": "start",
}  # at all times the same
Check = Callable[..., object]


def check_settings(part: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings of a part, by its public name; a check of settings that are not all there is left out.

    >>> check_settings("embedlab.Sampler", {"steps": 0})
    Traceback (most recent call last):
    ...
    embedlab.errors.SamplerError: sampler.steps is 0; it has to be a whole number from 1 to 1000.
    """
    for name, value in settings.items():
        if part in FIXED and name != "prompt" and varies(value):
            raise SamplerError(
                f"{FIXED[part]}.{name} is a {type(value).__name__}, and it cannot change over time; give one value."
            )
    for names, check in CHECKS.get(part, {}).items():
        if all(name in settings for name in names.split()):
            check(*(settings[name] for name in names.split()))


def check_part(part: Any) -> None:
    """Refuse the settings of a part, by the checks of its class, or of the first that it derives from that has some.

    Those that have no check have to be of the kind that they are annotated with. Numbers of numpy and torch become
    Python's.
    """
    settle_numbers(part)
    name = next((name for kind in type(part).__mro__ if (name := public_name(kind)) in CHECKS), "")
    check_settings(name, vars(part))
    check_fields(part, [one for names in CHECKS.get(name, {}) for one in names.split()])


# ── sampling ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_steps(steps: Any) -> None:
    """How many steps."""
    whole_number(steps, "sampler.steps", SamplerError, least=1, most=1000)


def steps_kept(keep: Any, steps: int) -> tuple[int, ...]:
    """The steps that `sampler.keep` names, each once; -1 is what there is before the first.

    `every 5` is 0, 5, 10, … and the last, as CompVis' samplers log; `all` is every step, `start` what comes before.
    Raises SamplerError for what is no step.

    >>> steps_kept("every 4", 10), steps_kept(["start", 2, "every 5"], 6)
    ((0, 4, 8, 9), (-1, 0, 2, 5))
    """
    found: set[int] = set()
    if not isinstance(keep, str) and not is_list(keep):
        raise SamplerError(f"sampler.keep is {brief(keep)}; it has to be a list of steps: sampler.keep=[0,5].")
    for one in [keep] if isinstance(keep, str) else keep:
        words = one.split() if isinstance(one, str) else []
        if words in (["start"], ["all"]):
            found |= {-1} if words == ["start"] else {*range(steps)}
        elif len(words) == 2 and words[0] == "every" and words[1].isdecimal() and int(words[1]):
            found |= {*range(0, steps, int(words[1])), steps - 1}
        elif isinstance(one, str):
            raise SamplerError(
                f"sampler.keep is {brief(one)}; it takes steps, such as [0,5], and start, all, and every N: every 5."
            )
        elif not is_whole(one) or not -1 <= one < steps:
            raise SamplerError(f"sampler.keep names step {brief(one)}; there are steps 0 to {steps - 1}, and start.")
        else:
            found.add(int(one))
    return tuple(sorted(found))


def check_keep(keep: Any, steps: Any) -> None:
    """Steps of those that there are."""
    steps_kept(keep, steps)


def check_watch(watch: Any, keep: Any) -> None:
    """What is written down beside pictures; tensors are those of kept steps."""
    if not is_list(watch):
        raise SamplerError(
            f"sampler.watch is {brief(watch)}; it has to be a list of {listed(WATCHED)}: sampler.watch=[curves]."
        )
    for one in watch:
        in_choices(one, "sampler.watch", WATCHED, SamplerError)
    if (tensors := [one for one in watch if one != "curves"]) and not keep:
        raise SamplerError(
            f"sampler.watch={tensors[0]} is of steps that are kept, and none is: sampler.keep='every 5'."
        )


def check_warmup(warmup: Any) -> None:
    """How a multistep sampler begins late."""
    in_choices(warmup, "start.warmup", WARMUPS, SamplerError)


def check_step_and_strength(step: Any, strength: Any) -> None:
    """One of the two, or neither, each in its bounds."""
    if step is not None and strength is not None:
        raise SamplerError(f"start.step ({brief(step)}) and start.strength ({brief(strength)}) say the same; give one.")
    if step is not None:
        whole_number(step, "start.step", SamplerError)
    if strength is not None and not (is_number(strength) and 0 < strength <= 1):
        raise SamplerError(f"start.strength is {brief(strength)}; it has to be above 0 and at most 1.")


def check_picture_start(picture: Any, step: Any, strength: Any, mask: Any) -> None:
    """A picture with a step, a strength or a mask."""
    if picture is not None and step is None and strength is None and mask is None:
        raise SamplerError("a picture to start from needs one of start.step and start.strength.")


def check_latents_start(latents: Any, step: Any, strength: Any, mask: Any) -> None:
    """Latents alone are noise; those of a picture have a step or a strength, which a mask needs."""
    if latents is not None and mask is not None and step is None and strength is None:
        raise SamplerError(
            "start.mask leaves a part of a picture be, and start.latents without start.step or start.strength are "
            "noise; give one of these, or start.picture."
        )


def check_start(picture: Any, latents: Any, step: Any, strength: Any, warmup: Any, mask: Any) -> None:
    """A picture or latents, or nothing that belongs to one."""
    if picture is not None and latents is not None:
        raise SamplerError("start.picture and start.latents both came; sampling starts from one.")
    if picture is not None or latents is not None:
        return
    if step is not None or strength is not None or warmup != "history":
        raise SamplerError(
            "start.step, start.strength and start.warmup need a picture to start from: set start.picture."
        )
    if mask is not None:
        raise SamplerError("start.mask says which part of a picture is drawn anew: set start.picture.")


def check_variation(variation: Any) -> None:
    """A seed with a strength, as a mapping."""
    if variation is None or hasattr(variation, "strength"):
        return
    if not isinstance(variation, Mapping):
        raise SamplerError(f"start.variation is {brief(variation)}; it is written {{seed: 7, strength: 0.2}}.")
    if unknown := [name for name in variation if name not in ("seed", "strength")]:
        raise SamplerError(
            f"start.variation has {str(unknown[0])[:80]}{perhaps(unknown[0], ('seed', 'strength'))}; it is written "
            "{seed: 7, strength: 0.2}."
        )
    check_varied(variation.get("seed"), variation.get("strength", 0.0))


def check_varied(seed: Any, strength: Any) -> None:
    """Another seed, and how far toward it."""
    if not is_number(strength) or not 0 <= strength <= 1:
        raise SamplerError(f"start.variation.strength is {brief(strength)}; it has to be from 0 to 1.")
    if seed is not None:
        whole_number(seed, "start.variation.seed", SamplerError, most=2**63 - 1)
    elif strength:
        raise SamplerError(f"start.variation.strength is {strength}, and toward no seed: set start.variation.seed.")


UNCONDITIONALS = ("own", "prompt", "null_text")


def check_inverted(picture: Any, latents: Any, depth: Any, variation: Any) -> None:
    """A picture, and nothing beside but a mask."""
    if picture is None:
        raise SamplerError("start=inversion finds the noise of a picture: set start.picture.")
    check_variation(variation)
    given: list[str] = [name for name, value in (("latents", latents), ("depth", depth)) if value is not None]
    varied = variation.get("strength") if isinstance(variation, Mapping) else getattr(variation, "strength", 0)
    if given or varied:
        raise SamplerError(
            f"start=inversion starts from the noise that it finds; leave start.{(given or ['variation'])[0]} out."
        )


def check_shown(prompt: Any) -> None:
    """What a picture shows, or none."""
    if prompt is not None and not is_prompt(prompt):
        raise SamplerError(f"start.prompt is {brief(prompt)}; it has to be a text that says what the picture shows.")


LATENT_ENDINGS = (".safetensors", ".npy", ".pt")


def check_latents(latents: Any) -> None:
    """A file of latents has to be there; those in memory have a shape, and are looked at elsewhere."""
    if latents is None or hasattr(latents, "shape") or hasattr(latents, "content"):
        return
    path = found_file(str(latents) if isinstance(latents, Path) else latents, "start.latents")
    if path.suffix.lower() not in LATENT_ENDINGS:
        raise SamplerError(f"start.latents is '{path}'; its name has to end in {listed(LATENT_ENDINGS)}.")


def found_file(name: Any, setting: str) -> Path:
    """The absolute path of a file that a setting names."""
    if not isinstance(name, str):
        raise SamplerError(f"{setting} is {brief(name)}; it has to be a path, or a tensor.")
    if name == "???":
        raise SamplerError(f"{setting} is still to be given: the path of a .safetensors, .npy or .pt file.")
    try:
        if (path := Path(name).expanduser()).is_file():
            return path.absolute()
    except (OSError, RuntimeError, ValueError):  # too long, nobody's home, not in this machine's alphabet
        pass
    where = "" if Path(name).is_absolute() else f" in '{Path.cwd()}'"
    raise SamplerError(f"there is no file {repr(name)[:200]}{where} for {setting}.")


def check_picture(picture: Any, setting: str = "start.picture") -> None:
    """A picture that is named has to be there; one in memory has a shape or a size, and is looked at elsewhere."""
    if picture is not None and not hasattr(picture, "size") and not hasattr(picture, "content"):
        found(str(picture) if isinstance(picture, Path) else picture, setting)


def found(picture: Any, setting: str = "start.picture") -> Path:
    """The absolute path of a picture that is named by a path, or by the name of one that embedlab ships."""
    if not isinstance(picture, str):
        raise PictureError(f"{setting} is {brief(picture)}; it has to be a path, a PIL image or a tensor.")
    if picture == "???":
        raise PictureError(f"{setting} is still to be given: the path of a picture, or one that ships, as puppy.png.")
    try:
        for path in (Path(picture).expanduser(), SHIPPED / picture):
            if path.is_file():
                return path.absolute()
    except (OSError, RuntimeError, ValueError):  # too long, nobody's home, not in this machine's alphabet
        pass
    where = "" if Path(picture).is_absolute() else f" in '{Path.cwd()}'"
    shipped = listed(sorted(path.name for path in SHIPPED.iterdir()))
    raise PictureError(f"there is no picture {repr(picture)[:200]}{where}; shipped are {shipped}.")


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Refuse seeds that are no whole numbers in reach of torch's generator."""
    seeds = plain(seeds)
    if not is_list(seeds) or not seeds:
        raise SamplerError(
            f"seeds is {brief(seeds)}; it has to be a list of whole numbers, one a picture: seeds=[0,1]."
        )
    if wrong := [s for s in seeds if not is_whole(s) or not 0 <= s < 2**63]:
        raise SamplerError(f"seed {brief(wrong[0])} is no whole number from 0 to 2^63 - 1.")
    if twice := [s for n, s in enumerate(seeds) if s in seeds[:n]]:
        raise SamplerError(f"seed {twice[0]} is there twice; it would give the same picture twice.")
    return tuple(seeds)


def seeds_asked(seeds: Any) -> tuple[int, ...]:
    """Seeds of which one may come by itself.

    >>> seeds_asked(3), seeds_asked(range(2))
    ((3,), (0, 1))
    """
    seeds = plain(seeds)
    return check_seeds([seeds] if is_whole(seeds) else seeds)


def check_at_once(at_once: Any) -> int:
    """A batch size; ConfigError for what is none."""
    return whole_number(at_once, "at_once", ConfigError, least=1, of=" of pictures")


# ── guidance, encoder, metrics, model ─────────────────────────────────────────────────────────────────────────────


def check_guidance_scale(scale: Any, name: str = "guidance.scale") -> None:
    """Of 1 or more."""
    if finite_number(scale, name, SamplerError) < 1:
        raise SamplerError(f"{name} is {scale}; 1 is the prompt alone, larger values follow it closer.")


def number_of(name: str, least: float | None = None, most: float | None = None) -> Check:
    """The check that a guider's setting is a number, within bounds if there are any."""
    whole = f"guidance.settings.{name}"

    def check(value: Any) -> None:
        if least is None:
            finite_number(value, whole, SamplerError)
        else:
            number_within(value, whole, SamplerError, least, most)

    return check


def yes_of(name: str) -> Check:
    """The check that a guider's setting is true or false."""
    return lambda value: true_or_false(value, f"guidance.settings.{name}", SamplerError)


def count_of(name: str) -> Check:
    """The check that a guider's setting is a whole number."""
    return lambda value: whole_number(value, f"guidance.settings.{name}", SamplerError)


def or_none(check: Check) -> Check:
    """The same check of what may be left out."""
    return lambda value: None if value is None else check(value)


def numbers_of(name: str) -> Check:
    """The check that a guider's setting is a list of numbers."""

    def check(value: Any) -> None:
        if not isinstance(value, list | tuple) or not value:
            raise SamplerError(
                f"guidance.settings.{name} is {brief(value)}; it has to be a list of numbers, the finest first: [10,5]."
            )
        for one in value:
            finite_number(one, f"guidance.settings.{name}", SamplerError)

    return check


def axes_of(name: str) -> Check:
    """The check that a guider's setting is one axis of a latent picture, or several."""

    def check(value: Any) -> None:
        axes = value if isinstance(value, list | tuple) else [value]
        if not axes or not all(is_whole(axis) and -3 <= axis <= 3 and axis for axis in axes):
            raise SamplerError(
                f"guidance.settings.{name} is {brief(value)}; axes go from 1 (channels) to 3, or -3 to -1."
            )

    return check


def layers_of(name: str) -> Check:
    """The check that a guider's setting names transformer blocks of a UNet; whether they are there, a model says."""

    def check(value: Any) -> None:
        names = value if isinstance(value, list | tuple) else [value]
        if not names or not all((isinstance(one, str) and one) or (is_whole(one) and one >= 0) for one in names):
            raise SamplerError(
                f"guidance.settings.{name} is {brief(value)}; it names blocks of the UNet: mid, [mid,up.1], [0,3]."
            )

    return check


Settings = dict[str, tuple[Check, Any]]  # by the name of a guider's setting: its check, and what it is when left out
ORIGINAL: Settings = {"use_original_formulation": (yes_of("use_original_formulation"), False)}


def of_apg(scale: float | None, momentum: float | None, rescale: float, eta: float) -> Settings:
    """The settings that both kinds of adaptive projected guidance have."""
    name = "adaptive_projected_guidance_"
    of_scale: Settings = {} if scale is None else {f"{name}scale": (number_of(f"{name}scale"), scale)}
    return {
        **of_scale,
        f"{name}momentum": (or_none(number_of(f"{name}momentum")), momentum),
        f"{name}rescale": (number_of(f"{name}rescale"), rescale),
        "eta": (number_of("eta"), eta),
        **ORIGINAL,
    }


def of_worse(name: str, scale: str, start: float, stop: float) -> Settings:
    """The settings of a guider that leads away from what a UNet with blocks left out or blurred predicts."""
    return {
        scale: (number_of(scale), 2.8),
        f"{name}_start": (number_of(f"{name}_start", 0, 1), start),
        f"{name}_stop": (number_of(f"{name}_stop", 0, 1), stop),
        f"{name}_layers": (layers_of(f"{name}_layers"), ("mid",)),
        **ORIGINAL,
    }


# the class of diffusers and its settings by its own names; what all guiders have is `Guidance`'s own: guidance_scale is
# `scale`, guidance_rescale is `rescale`, start and stop are `interval`
GUIDERS: dict[str, tuple[str, Settings]] = {
    "cfg": ("ClassifierFreeGuidance", ORIGINAL),
    "cfg_zero_star": (
        "ClassifierFreeZeroStarGuidance",
        {"zero_init_steps": (count_of("zero_init_steps"), 1), **ORIGINAL},
    ),
    "apg": (
        "AdaptiveProjectedGuidance",
        {
            **of_apg(None, None, 15.0, 1.0),
            "adaptive_projected_guidance_norm_dim": (or_none(axes_of("adaptive_projected_guidance_norm_dim")), None),
        },
    ),
    "apg_mix": (
        "AdaptiveProjectedMixGuidance",
        {
            **of_apg(10.0, -0.5, 10.0, 0.0),
            "adaptive_projected_guidance_start_step": (count_of("adaptive_projected_guidance_start_step"), 5),
        },
    ),
    "fdg": (
        "FrequencyDecoupledGuidance",
        {
            "guidance_scales": (or_none(numbers_of("guidance_scales")), None),
            "parallel_weights": (or_none(numbers_of("parallel_weights")), None),
            **ORIGINAL,
        },
    ),
    "mambo_g": ("MagnitudeAwareGuidance", {"alpha": (number_of("alpha"), 8.0), **ORIGINAL}),
    "tcfg": ("TangentialClassifierFreeGuidance", ORIGINAL),
    "auto": ("AutoGuidance", {"auto_guidance_layers": (layers_of("auto_guidance_layers"), ("mid",)), **ORIGINAL}),
    "pag": ("PerturbedAttentionGuidance", of_worse("perturbed_guidance", "perturbed_guidance_scale", 0.01, 0.2)),
    "slg": ("SkipLayerGuidance", of_worse("skip_layer_guidance", "skip_layer_guidance_scale", 0.01, 0.2)),
    "seg": (
        "SmoothedEnergyGuidance",
        {
            **of_worse("seg_guidance", "seg_guidance_scale", 0.0, 1.0),
            "seg_blur_sigma": (number_of("seg_blur_sigma", 0.01, LONGEST_BLUR), LONGEST_BLUR),
            "seg_blur_threshold_inf": (number_of("seg_blur_threshold_inf"), 9999.0),
        },
    ),
}
LAYERS = {  # of those that need a worse UNet: which of their settings names its blocks
    "auto": "auto_guidance_layers",
    "pag": "perturbed_guidance_layers",
    "slg": "skip_layer_guidance_layers",
    "seg": "seg_guidance_layers",
}
WAYS = ("sum", "mean", "perp", "salient", "top_k")
TOP = 0.05  # the share of entries that `top_k` keeps, as sd-webui-neutral-prompt does
SEGA: Settings = {
    "edit_guidance_scale": (number_of("edit_guidance_scale"), 5.0),
    "edit_warmup_steps": (count_of("edit_warmup_steps"), 10),
    "edit_cooldown_steps": (or_none(count_of("edit_cooldown_steps")), None),
    "edit_threshold": (number_of("edit_threshold", 0, 1), 0.9),
    "edit_momentum_scale": (number_of("edit_momentum_scale"), 0.1),
    "edit_mom_beta": (number_of("edit_mom_beta"), 0.4),
}
GUIDERS["sega"] = ("SemanticStableDiffusionPipeline", SEGA)
FORMS = ("latents", "unet", "universal")
INTERVAL_CLOCKS = ("step", "fraction", "timestep", "sigma")


def check_guider(guider: Any, settings: Any) -> None:
    """A name of `GUIDERS`, with settings that it has."""
    in_choices(guider, "guidance.guider", GUIDERS, SamplerError)
    there = GUIDERS[guider][1]
    if not isinstance(settings, Mapping):
        raise SamplerError(f"guidance.settings is {brief(settings)}; it has to be names with values: {{eta: 0.0}}.")
    for name, value in settings.items():
        if name not in there:
            own = {"guidance_scale": "guidance.scale", "guidance_rescale": "guidance.rescale"}
            own |= dict.fromkeys(("start", "stop"), "guidance.interval")
            instead = f"; take {own[name]}" if name in own else perhaps(name, there)
            raise SamplerError(
                f"guidance={guider} has no setting '{str(name)[:80]}'{instead}; guidance.settings may hold "
                f"{listed(there)}."
            )
        if not varies(value) and not (isinstance(value, Mapping) and "_target_" in value):  # it may change over time
            there[name][0](value)
    check_times(guider, settings)
    if guider == "fdg" and (weights := settings.get("parallel_weights")) is not None:
        scales = settings.get("guidance_scales") or (1, 1)
        if len(weights) != len(scales):
            raise SamplerError(
                f"guidance.settings.parallel_weights has {counted(len(weights), 'number')} for {len(scales)} of "
                "guidance_scales."
            )


def check_times(guider: str, settings: Mapping[str, Any]) -> None:
    """The share of steps after which a guider begins, and that at which it ends, in this order."""
    for name, (_, usual) in GUIDERS[guider][1].items():
        if name.endswith("_start"):
            stop = name.replace("_start", "_stop")
            begin, end = settings.get(name, usual), settings.get(stop, GUIDERS[guider][1][stop][1])
            if is_number(begin) and is_number(end) and begin > end:
                raise SamplerError(
                    f"guidance.settings: {name} is {begin} and {stop} is {end}, so that it never works; the share of "
                    "steps at which it ends has to be the larger one."
                )


def check_rescale(rescale: Any) -> None:
    """From nothing to all."""
    number_within(rescale, "guidance.rescale", SamplerError, 0, 1)


def check_interval(interval: Any, clock: Any) -> None:
    """Two times in the order in which the clock shows them, or none."""
    in_choices(clock, "guidance.clock", INTERVAL_CLOCKS, SamplerError)
    if interval is None:
        return
    pair = interval if isinstance(interval, list | tuple) else ()
    if len(pair) != 2 or not all(is_number(time) and time >= 0 for time in pair):
        raise SamplerError(f"guidance.interval is {brief(interval)}; it has to be two times, [begin, end]: [0.2, 0.8].")
    falls = clock in ("timestep", "sigma")
    if (pair[0] <= pair[1]) if falls else (pair[0] >= pair[1]):
        way = "fall: the noisy end comes first" if falls else "rise"
        raise SamplerError(f"guidance.interval is {list(pair)}; on the clock {clock} its times have to {way}.")


def check_loss_setting(loss: Any) -> None:
    """A loss, or none."""
    if loss is not None and not hasattr(loss, "score") and not (isinstance(loss, Mapping) and "_target_" in loss):
        raise SamplerError(
            f"guidance.loss is {brief(loss)}; it has to be a Loss: guidance=loss, or guidance.loss={{_target_: "
            "embedlab.guidance.Loss, score: …}."
        )


def check_score(score: Any) -> None:
    """A callable, or what makes one."""
    made = isinstance(score, Mapping) and "_target_" in score
    if isinstance(score, type) or not (takes(score, 1) or hasattr(score, "prepare") or made):
        raise SamplerError(
            f"the score of guidance.loss is {brief(score)}; it has to be a callable of a picture, such as "
            "{_target_: embedlab.guidance.Colour, blue: 0.9}."
        )


def check_form(form: Any) -> None:
    """How a gradient is taken and used."""
    in_choices(form, "guidance.loss.form", FORMS, SamplerError)


def check_reading(score: Any, form: Any) -> None:
    """Attention has a gradient through the UNet alone."""
    if getattr(score, "reads", "") == "attention" and form != "unet":
        raise SamplerError(
            f"guidance.loss.form is {form}, and {brief(score)} reads the UNet's attention, whose gradient goes through "
            "the UNet: guidance.loss.form=unet."
        )


def check_excited(box: Any, sharp: Any, smooth: Any) -> None:
    """How the map of a word is made before its maximum is taken."""
    for name, value, such in (("sharp", sharp, "100"), ("smooth", smooth, "0.5")):
        if value is None:
            continue
        if not is_number(value) or not value > 0:
            raise SamplerError(
                f"guidance.loss.score.{name} is {brief(value)}; it has to be a number above 0, as {such}."
            )
        if box is not None:
            raise SamplerError(
                f"guidance.loss.score.{name} is of a word's maximum, and a box has none; leave one of them out."
            )


def check_refine(refine: Any, iterations: Any) -> None:
    """By step what has to be reached, and in how many moves at the most."""
    whole_number(iterations, "guidance.loss.score.iterations", SamplerError, least=1, of=" of moves")
    if refine is None:
        return
    pairs = list(refine.items()) if isinstance(refine, Mapping) else []
    good = all(is_whole(step) and step >= 0 and is_number(share) and 0 <= share <= 1 for step, share in pairs)
    if not pairs or not good:
        raise SamplerError(
            f"guidance.loss.score.refine is {brief(refine)}; it has to say by step how much of the attention is to be "
            "reached, from 0 to 1, as {0: 0.05, 10: 0.5, 20: 0.8}."
        )


def check_refined(score: Any, every: Any) -> None:
    """A loss is refined in steps in which it is asked."""
    steps = [step for step in getattr(score, "refine", None) or () if is_whole(step)]
    if is_whole(every) and every > 0 and (missed := [step for step in steps if step % every]):
        raise SamplerError(
            f"guidance.loss.score.refine names step {missed[0]}, in which a loss of guidance.loss.every={every} is not "
            "asked; name a multiple of it, or take guidance.loss.every=1."
        )


def check_every(every: Any) -> None:
    """Of how many steps one is asked."""
    whole_number(every, "guidance.loss.every", SamplerError, least=1, of=" of steps")


def check_loss_scale(scale: Any) -> None:
    """What a gradient is multiplied by."""
    finite_number(scale, "guidance.loss.scale", SamplerError)


def check_colour(red: Any, green: Any, blue: Any) -> None:
    """One channel at least."""
    channels = {"red": red, "green": green, "blue": blue}
    if all(value is None for value in channels.values()):
        raise SamplerError("the colour of guidance.loss names no channel; give red, green or blue, from 0 to 1.")
    for name, value in channels.items():
        if value is not None:
            number_within(value, f"guidance.loss.score.{name}", SamplerError, 0, 1)


def check_likeness(text: Any, picture: Any) -> None:
    """A text or a picture that is there, and not both."""
    if (text is None) == (picture is None):
        raise SamplerError(
            "a likeness is to a text or to a picture: give one of guidance.loss.score.text and .picture."
        )
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise SamplerError(f"guidance.loss.score.text is {brief(text)}; it has to be a text.")
    if picture is not None:
        found(picture, "guidance.loss.score.picture")


def check_distance(picture: Any, by: Any) -> None:
    """From a picture that is there."""
    in_choices(by, "guidance.loss.score.by", ("latents", "features"), SamplerError)
    found(picture, "guidance.loss.score.picture")


def check_combine(combine: Any) -> None:
    """A way, or one for each prompt after the first."""
    ways = combine if isinstance(combine, list | tuple) else [combine]
    if not ways:
        raise SamplerError(f"guidance.combine is empty; it has to be one of {listed(WAYS)}, or a list of them.")
    for way in ways:
        in_choices(way, "guidance.combine", WAYS, SamplerError)
    if "mean" in ways and "sum" in ways:
        raise SamplerError(
            "guidance.combine holds mean and sum; the prompts that are no exceptions are one or the other."
        )


def check_regions(regions: Any) -> None:
    """For each prompt a box in shares of the picture, a mask that is there, or nothing; or no list."""
    if regions is None:
        return
    if not isinstance(regions, list | tuple) or not regions:
        raise SamplerError(
            f"guidance.regions is {brief(regions)}; it has to be a list, for each prompt a box [left,top,right,bottom] "
            "in shares of the picture, the file of a mask, or null."
        )
    for one in regions:
        if one is None or (isinstance(one, str) and Path(one).is_file()):
            continue
        if isinstance(one, str):
            raise PictureError(f"guidance.regions names the mask {brief(one)}, and there is no such file.")
        box = one if isinstance(one, list | tuple) else ()
        if len(box) != 4 or not all(is_number(n) and 0 <= n <= 1 for n in box) or box[0] >= box[2] or box[1] >= box[3]:
            raise SamplerError(
                f"guidance.regions holds {brief(one)}; a box is [left,top,right,bottom] in shares of the picture, such "
                "as [0,0,0.5,1] for its left half."
            )


def is_prompt(value: Any) -> bool:
    """Whether a setting is a text, or a prompt that was parsed: it has parts in a language."""
    return isinstance(value, str) or (hasattr(value, "parts") and hasattr(value, "language"))


def check_negative(name: str) -> Check:
    """The check that a negative prompt is a text, or none."""

    def check(negative: Any) -> None:
        if negative is not None and not is_prompt(negative):
            raise SamplerError(f"guidance.{name} is {brief(negative)}; it has to be a text.")

    return check


def check_join(join: Any) -> None:
    """Refuse an unknown way of joining windows."""
    in_choices(join, "encoder.join", JOINS, PromptError)


def of(name: str, choices: Sequence[str]) -> Check:
    """The check that a setting of this name is one of some choices."""
    return lambda value: in_choices(value, name, choices, PromptError)


def check_backtrack(backtrack: Any) -> None:
    """How many tokens are gone back to a place to cut at."""
    whole_number(backtrack, "encoder.backtrack", PromptError, most=WINDOW - 3, of=" of tokens")


def check_normalise(normalise: Any) -> None:
    """One way after the other, or none."""
    if not is_list(normalise):
        raise PromptError(f"encoder.normalise is {brief(normalise)}; it has to be a list: encoder.normalise=[mean].")
    for one in normalise:
        in_choices(one, "encoder.normalise", NORMALISERS, PromptError)


def check_balance(balance: Any) -> None:
    """A factor for each text encoder, or none."""
    if balance is None:
        return
    if not is_list(balance) or not balance:
        raise SamplerError(
            f"encoder.balance is {brief(balance)}; it has to be a number for each encoder: encoder.balance=[1,0.5]."
        )
    for one in balance:
        finite_number(one, "encoder.balance", SamplerError)


def mix_of(skip: Any) -> tuple[tuple[int, float], ...]:
    """Counts of skipped layers with their weights, which sum to 1; SamplerError for what is no such mix.

    >>> mix_of(1), mix_of({0: 0.5, 2: 0.5})
    (((1, 1.0),), ((0, 0.5), (2, 0.5)))
    """
    if not isinstance(skip, Mapping | list | tuple):
        return ((whole_number(skip, "encoder.skip", SamplerError), 1.0),)
    pairs = [
        tuple(pair) if isinstance(pair, list | tuple) else (pair,)
        for pair in (skip.items() if isinstance(skip, Mapping) else skip)
    ]
    halves = not pairs or any(len(pair) != 2 for pair in pairs)
    layers = [] if halves else [pair[0] for pair in pairs if is_whole(pair[0])]
    if halves or len(set(layers)) < len(layers):
        raise SamplerError(f"encoder.skip is {brief(skip)}; a mix of layers is written {{0: 0.5, 2: 0.5}}.")
    mix = tuple((k, float(finite_number(w, f"weight of layer {k}", SamplerError))) for k, w in pairs)
    if abs(sum(w for _, w in mix) - 1) > 1e-6:
        raise SamplerError(f"the weights of encoder.skip, {listed(w for _, w in mix)}, do not sum to 1.")
    for count, _ in mix:
        whole_number(count, "encoder.skip", SamplerError)
    return mix


def check_stretch(stretch: Any) -> None:
    """Of the position table of all prompts."""
    if stretch is not None and not 1 <= finite_number(stretch, "encoder.stretch", SamplerError) <= 64:
        raise SamplerError(f"encoder.stretch is {stretch}; it goes from 1 to 64; 4 makes 248 positions.")


def check_template(template: Any) -> None:
    """A text with one place for a word."""
    if not isinstance(template, str) or template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise ConfigError(f"metrics.template is {brief(template)}; it needs one {{}}, where the word goes.")


def check_words(words: Any) -> None:
    """Words or phrases, or none."""
    if words is None:
        return
    if not is_list(words):
        raise ConfigError(f"metrics.words is {brief(words)}; it has to be a list: metrics.words=[cat,dog].")
    if wrong := [word for word in words if not isinstance(word, str) or not word.strip()]:
        raise ConfigError(f"metrics.words holds {brief(wrong[0])}; each has to be a word or phrase.")


def check_eye(eye: Any) -> None:
    """Whether a detector looks at pictures."""
    if not isinstance(eye, bool):
        raise ConfigError(f"metrics.eye is {brief(eye)}; it has to be true or false.")


def model_text(setting: str, needed: bool = False) -> Check:
    """The check that a model's setting is a text, or none where none is needed."""

    def check(value: Any) -> None:
        if not isinstance(value, str) and (value is not None or needed):
            raise ModelError(f"model.{setting} is {brief(value)}; it has to be a text.")

    return check


def check_dtype(dtype: Any) -> None:
    """A type of numbers by its name, or none."""
    model_text("dtype")(dtype)
    if dtype is not None and dtype not in DTYPE_NAMES:
        raise ModelError(f"dtype '{dtype}' is unknown; choose one of {listed(DTYPE_NAMES)}.")


def check_pickle(allow_pickle: Any) -> None:
    """Whether files that can run code are read."""
    true_or_false(allow_pickle, "model.allow_pickle", ModelError)


def check_concepts(concepts: Any) -> None:
    """Paths of files, each with a name or without, or none."""
    values = [*concepts.values()] if isinstance(concepts, Mapping) else concepts
    given = () if values is None else [values] if isinstance(values, str | Path) else values
    if not is_list(given) or any(not isinstance(one, str | Path) or not str(one) for one in given):
        raise ModelError(
            f"model.concepts is {brief(concepts)}; it has to be a list of files of textual inversion, "
            "[my-cat.pt,'<fog>=fog.safetensors'], or names with files, {my-cat: cat.pt}."
        )


def check_prediction(prediction_type: Any) -> None:
    """What a UNet predicts, or none."""
    model_text("prediction_type")(prediction_type)
    if prediction_type not in (None, *PREDICTIONS):
        given = prediction_type[:80]
        raise ModelError(f"model.prediction_type is '{given}'; choose one of {listed(PREDICTIONS)}.")


def check_zero_snr(zero_snr: Any) -> None:
    """Whether a model was trained down to no signal, or none."""
    if zero_snr is not None:
        true_or_false(zero_snr, "model.zero_snr", ModelError)


def check_variant(variant: Any) -> None:
    """A part of files' names, or none."""
    model_text("variant")(variant)
    if variant is not None and not re.fullmatch(r"[\w-]{1,40}", variant):
        raise ModelError(f"model.variant is {brief(variant)}; it is a word in the names of files, such as fp16.")


def check_device(device: Any) -> None:
    """A device by its name, or none; whether it is there is not asked."""
    if device is not None and not (isinstance(device, str) and re.fullmatch(r"cpu|mps|cuda(:\d+)?", device)):
        raise ModelError(f"{brief(device)} is no device that embedlab runs on; try cpu, cuda, cuda:0 or mps.")


# ── attention ─────────────────────────────────────────────────────────────────────────────────────────────────────────

AXES = ("step", "layer", "head")


def check_maps(maps: Any) -> None:
    """Whether maps are kept."""
    true_or_false(maps, "attention.maps", ConfigError)


def selector_of(name: str) -> Check:
    """The check that a setting of this name is a word, a selector of rows, or a list of those."""

    def check(rows: Any) -> None:
        try:
            words_of(rows)
        except OperatorError as error:
            text = str(error)
            named = f"{name} is{text.removeprefix('rows is')}" if text.startswith("rows is") else f"{name}: {text}"
            raise OperatorError(named) from None

    return check


def check_mapped_words(words: Any) -> None:
    """Words or selectors of rows, or none for all words."""
    if words is not None:
        selector_of("attention.words")(words if isinstance(words, list | tuple) else [words])


def check_axes(by: Any) -> None:
    """What maps are kept apart by."""
    asked = by if isinstance(by, list | tuple) else [by]
    for axis in asked:
        in_choices(axis, "attention.by", AXES, ConfigError)
    if "head" in asked and "layer" not in asked:
        raise ConfigError("attention.by is head alone; layers have heads of their own: attention.by=[layer,head].")


def check_layers(name: str) -> Check:
    """The check of a setting that names blocks, modules or layers of a UNet; whether they are there is asked later."""

    def check(layers: Any) -> None:
        named = layers if isinstance(layers, list | tuple) else [layers]
        wrong = [one for one in named if not isinstance(one, str) or not re.fullmatch(LAYER, one)]
        if layers is not None and (wrong or not named):
            raise ConfigError(
                f"{name} is {brief(wrong[0] if wrong else layers)}; it has to be a list of blocks, modules or layers "
                "of the UNet, such as [mid,down.1,up.0.1]."
            )

    return check


HOWS = ("replace", "refine", "rows")


def check_how(how: Any) -> None:
    """How the tokens of a source make those of a target."""
    if how is not None:
        in_choices(how, "how", HOWS, ConfigError)


def check_amount(amount: Any) -> None:
    """A part of the way."""
    if not 0 <= finite_number(amount, "amount", ConfigError) <= 1:
        raise ConfigError(f"amount is {amount}; it goes from 0, its own attention, to 1.")


def check_box(box: Any) -> None:
    """Left, top, right and bottom in shares of a picture."""
    sides = list(box) if isinstance(box, list | tuple) else []
    numbers = len(sides) == 4 and all(is_number(side) and 0 <= side <= 1 for side in sides)
    if not numbers or sides[0] >= sides[2] or sides[1] >= sides[3]:
        raise ConfigError(
            f"box is {sides or brief(box)}; it has to be left, top, right and bottom in shares of the picture, such as "
            "[0,0,0.5,1] for its left half."
        )


def check_box_or_none(box: Any) -> None:
    """A box, or none."""
    if box is not None:
        check_box(box)


LAYER = r"(down|up|mid|down_blocks|up_blocks|mid_block)(\.[a-z_\d]+)*"


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_batch(at_once: Any) -> None:
    """A batch size, or none."""
    if at_once is not None:
        check_at_once(at_once)


def check_export(export: Any) -> None:
    """Whether a job exports."""
    true_or_false(export, "export", ConfigError)


def check_group(group: Any) -> None:
    """A name of its runs in the tracker, or none."""
    if group is not None and not isinstance(group, str):
        raise ConfigError(f"group is {brief(group)}; it has to be a text.")


# ── learning ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_learned_word(word: Any) -> None:
    """What can be the name of a concept, or a word of a prompt."""
    fits = isinstance(word, str) and 0 < len(word) <= 100 and word == word.strip() and word.isprintable()
    if not fits or "=" in word or "<|" in word:
        raise ConfigError(f"word is {brief(word)}; it has to be the name of a concept, such as '<my-cat>'.")


def check_aim(like: Any, text: Any) -> None:
    """Images or a text, and not both."""
    one = isinstance(like, str | Path) or hasattr(like, "size")
    if not one and not isinstance(like, list | tuple):
        raise ConfigError(f"like is {brief(like)}; it has to be a list of images: like=[cat.png,cat-2.png].")
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise ConfigError(f"text is {brief(text)}; it has to be a text.")
    none = not one and not like
    if none == (text is None):
        what = "there is nothing to learn from" if none else "both like and text came"
        raise ConfigError(f"{what}; give one: like=[cat.png] or 'text=a picture of a cat'.")
    for picture in [] if one else like:
        if isinstance(picture, str | Path):
            found(str(picture))
    if isinstance(like, str | Path):
        found(str(like))


def check_by(by: Any, text: Any) -> None:
    """A loss, or none; denoising needs images."""
    if by is not None:
        in_choices(by, "by", BYS, ConfigError)
    if by == "denoising" and text is not None:
        raise ConfigError("by=denoising learns from images, and a text came; take by=clip, or like=[…].")


def check_table(table: Any, vectors: Any) -> None:
    """Which rows, and how many."""
    if table == "both":
        raise ConfigError(
            "table is 'both'; the encoder sees the sum of the two, so that one learns it all: token or position."
        )
    in_choices(table, "table", TABLES, ConfigError)
    whole_number(vectors, "vectors", ConfigError, least=1, most=MOST_VECTORS)
    if table == "position" and vectors != 1:
        raise ConfigError(f"vectors is {vectors}; a word has as many positions as tokens, so leave it out.")


def check_learning_prompt(prompt: Any) -> None:
    """A text or several, or none."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    if prompt is not None and not (
        isinstance(texts, list | tuple) and texts and all(isinstance(t, str) for t in texts)
    ):
        raise PromptError(f"prompt is {brief(prompt)}; it has to be a text, or a list of texts.")


def check_begin(begin: Any) -> None:
    """A word, or none."""
    if begin is not None and (not isinstance(begin, str) or not begin.strip()):
        raise ConfigError(f"begin is {brief(begin)}; it has to be a word or a phrase.")


def check_rate(rate: Any) -> None:
    """How far a step goes."""
    if not is_number(rate) or not 0 < rate <= 100:
        raise ConfigError(f"rate is {brief(rate)}; it has to be a number above 0, and at most 100.")


# ── anatomy ───────────────────────────────────────────────────────────────────────────────────────────────────────

ENDINGS = (".csv", ".json", ".html", ".svg", ".png")  # of its files; the first three are also those of a comparison


def whole(name: str, most: int) -> Check:
    """The check that a setting of this name is a whole number from 1."""
    return lambda value: whole_number(value, name, SamplerError, least=1, most=most)


def check_guided(guided: Any) -> None:
    """Whether the UNet sees each picture twice."""
    true_or_false(guided, "guided", SamplerError)


def check_sides(size: Any) -> None:
    """One side or two, or none; whether a model can have them is asked of the model."""
    sides = size if isinstance(size, list | tuple) and len(size) == 2 else [size]
    if size is not None and not all(is_whole(side) and side > 0 for side in sides):
        raise SamplerError(f"size is {brief(size)}; it has to be one side or [height, width] in pixels.")


def check_size_of_cell(size: Any) -> None:
    """The same of a cell, which may also have the size of its picture; how large it may be is asked of the model."""
    sides = size if is_list(size) and len(size) == 2 else [size]
    if (
        size is not None
        and not (isinstance(size, str) and size == "picture")
        and not all(is_whole(side) for side in sides)
    ):
        came = brief(list(size) if isinstance(size, tuple) else size)
        raise SamplerError(f"size is {came}; it has to be one side or [height, width] in pixels, or the word picture.")


def check_ending(path: Path, several: bool = False) -> str:
    """How a file is to be written, by its name; ConfigError for a name that does not say it."""
    ending = path.suffix.lower()
    fit = ENDINGS[:3] if several else ENDINGS
    if ending not in fit:
        what = "several values are written as" if several else "it has to end in"
        raise ConfigError(f"out is '{path}'; {what} {listed(fit)}.")
    return ending


# ── operators ─────────────────────────────────────────────────────────────────────────────────────────────────────


def number(name: str) -> Check:
    """The check that an operator's setting of this name is a finite number."""
    return lambda value: finite_number(value, name, OperatorError)


def check_rows(rows: Any) -> None:
    """A selector; left out where an operator has rows of its own."""
    if rows is not None:
        words_of(rows)


def check_stage(stage: Any) -> None:
    """A name of `STAGES`, or `{layer: n}`."""
    if isinstance(stage, Mapping):
        if list(stage) != ["layer"] or not is_whole(stage["layer"]) or not 0 <= stage["layer"] <= 1000:
            raise OperatorError(
                f"stage is {brief(dict(stage))}; a layer of the text encoder is {{layer: 3}}, and 0 what enters it."
            )
        return
    in_choices(stage, "stage", STAGES, OperatorError)


def check_lengths(lengths: Any) -> None:
    """Refuse an unknown policy for unequal token counts."""
    in_choices(lengths, "lengths", LENGTHS, OperatorError)


def check_path(path: Any) -> None:
    """A way from one vector to another."""
    in_choices(path, "path", PATHS, OperatorError)


def check_seed(seed: Any) -> None:
    """Refuse a seed that is no whole number in reach of torch's generator."""
    whole_number(seed, "seed", OperatorError, most=2**63 - 1)


def check_place(at: Any) -> None:
    """Refuse what is no place."""
    if not is_whole(at) or not 0 <= at < 10_000:
        raise OperatorError(f"at is {brief(at)}; it has to be a position, a whole number from 0.")


def check_target(to: Any) -> None:
    """A length of rows, by the mean one."""
    if finite_number(to, "to", OperatorError) <= 0:
        raise OperatorError(f"to is {to}; it has to be above 0, 1 is the mean length of the table's rows.")


def check_kept_places(keep: Any) -> None:
    """Places that are not stretched."""
    whole_number(keep, "keep", OperatorError, most=WINDOW - 1)


def check_factor(factor: Any) -> None:
    """Of a position table."""
    if not 1 <= finite_number(factor, "factor", OperatorError) <= 64:
        raise OperatorError(f"factor is {factor}; it has to be 1 or more, and 64 at most: 4 makes 248 positions of 77.")


def order_of(order: Any) -> tuple[int, ...]:
    """An order of rows; OperatorError for what is none."""
    numbers = tuple(order) if isinstance(order, list | tuple) else ()
    if not numbers or not all(is_whole(i) for i in numbers) or sorted(numbers) != list(range(len(numbers))):
        raise OperatorError(f"order is {brief(order)}; it has to hold each number from 0 up once, such as [1,0].")
    return numbers


def ends_of(toward: Any, weight: Any) -> list[tuple[Any, Any]]:
    """Each end of an interpolation with its weight; OperatorError where their counts differ.

    >>> ends_of(["cat", "dog"], [0.25, 0.5])
    [('cat', 0.25), ('dog', 0.5)]
    """
    if not isinstance(weight, list | tuple):
        if isinstance(toward, list | tuple) and any(isinstance(end, str) for end in toward):
            raise OperatorError(f"`toward` names {len(toward)} ends; give a list of as many weights.")
        return [(toward, weight)]
    if not isinstance(toward, list | tuple) or len(toward) != len(weight):
        many = len(toward) if isinstance(toward, list | tuple) else 1
        raise OperatorError(f"there are {len(weight)} weights for {many} ends of `toward`; each needs its own.")
    if not weight:
        raise OperatorError("`toward` names no end; name a word, or several with a weight each.")
    return list(zip(toward, weight, strict=True))


def source_of(name: str) -> Check:
    """The check that a setting of this name can say which rows are meant: a word, a number, vectors, a sum of those."""

    def check(value: Any) -> None:
        vectors = hasattr(value, "shape") and len(value.shape) in (1, 2) and not isinstance(value, type)
        if isinstance(value, str) or vectors or (is_whole(value) and value >= 0):
            return
        if isinstance(value, Mapping) and value:
            prompt = isinstance(value.get("prompt"), str)
            if prompt or ("rows" in value and not (is_number(value["rows"]) or hasattr(value["rows"], "numel"))):
                check_other_prompt(value)
                return
            for one, weight in value.items():
                check(one)
                finite_number(weight, f"weight of {one if isinstance(one, str) else brief(one)}", OperatorError)
        elif not isinstance(value, list | tuple) or not value or not all(is_row(row) for row in value):
            raise OperatorError(
                f"{name} is {brief(value)}; it has to be a word, a token id or a place, vectors, or a sum of those, "
                "such as {king: 1, man: -1, woman: 1}."
            )

    return check


def is_row(row: Any) -> bool:
    """Whether it is a vector, or a number of one."""
    numbers = row if isinstance(row, list | tuple) and row else [row]
    return hasattr(row, "shape") or all(map(is_number, numbers))


def check_other_prompt(value: Mapping[str, Any]) -> None:
    """Rows of another prompt."""
    if unknown := [key for key in value if key not in ("prompt", "rows")]:
        raise OperatorError(f"rows of another prompt are {{prompt: …, rows: …}}; {brief(unknown[0])} is neither.")
    if not isinstance(value.get("prompt"), str):
        raise OperatorError("rows of another prompt are {prompt: …, rows: …}; `prompt` is missing.")
    if value.get("rows") is not None:
        words_of(value["rows"])


def check_ends(toward: Any, weight: Any, stage: Any) -> None:
    """The ends of an interpolation."""
    ends = ends_of(toward, weight)
    for end, one in ends:
        finite_number(one, "weight", OperatorError)
        source_of("toward")(end)
    if stage == "both" and not all(isinstance(end, str) for end, _ in ends):
        raise OperatorError("stage is 'both', so `toward` has to be words of the prompt: an id has no position.")
    if len(ends) > 1 and (min(w for _, w in ends) < 0 or sum(w for _, w in ends) > 1 + 1e-9):
        raise OperatorError(f"weights {listed(w for _, w in ends)} have to be 0 or more and sum to 1 at the most.")


def check_word_for_both(by: Any, stage: Any) -> None:
    """What both a token and a position row are taken from."""
    if stage == "both" and not isinstance(by, str):
        raise OperatorError("stage is 'both', so `by` has to be a word of the prompt: an id has no position.")


def many(value: Any) -> tuple[Any, ...]:
    """One setting, or a list of them, as a tuple."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def check_prompts(prompts: Any, weight: Any) -> None:
    """Refuse what is no text, and weights that are not one each."""
    texts, weights = many(prompts), many(weight)
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise OperatorError(f"{brief(wrong[0])} is no prompt; it has to be a text.")
    if not texts:
        raise OperatorError("there is no other prompt; name one or several.")
    if len(weights) != len(texts):
        raise OperatorError(f"there are {len(weights)} weights for {len(texts)} prompts; each needs its own.")
    for one in weights:
        finite_number(one, "weight", OperatorError)


def check_joined(prompts: Any, weight: Any) -> None:
    """The same where one weight is for all."""
    check_prompts(prompts, weight if isinstance(weight, list | tuple) else (weight,) * len(many(prompts)))


def check_empty_or_own(lengths: Any) -> None:
    """How prompts of several lengths are blended."""
    in_choices(lengths, "lengths", ("empty", "own"), OperatorError)


def shares(weight: Any, own: Any) -> tuple[Any, ...]:
    """The weight of a prompt itself in a blend, and those of the others."""
    others = many(weight)
    return (1 - sum(others) if own is None else own, *others)


def check_shares(weight: Any, own: Any) -> None:
    """Weights of which there is a mean."""
    if own is not None:
        finite_number(own, "own", OperatorError)
    if abs(float_of(sum(shares(weight, own)))) < 1e-8:
        weights = listed(format_number(w) for w in shares(weight, own))
        raise OperatorError(f"the weights {weights} sum to 0; there is no mean.")


def check_count(to: Any) -> None:
    """How many rows are left."""
    if not is_whole(to) or to == 0:
        raise OperatorError(f"to is {brief(to)}; it has to be a number of rows, such as 16.")


def check_encoder(encoder: Any) -> None:
    """One text encoder of several, or all."""
    if encoder is not None:
        whole_number(encoder, "encoder", OperatorError, least=1, most=2)


BLOCKS: dict[str, Check] = {"blocks": check_layers("blocks")}
ROWS: dict[str, Check] = {"rows": check_rows, "stage": check_stage, "encoder": check_encoder, **BLOCKS}
WEIGHT = {"weight": number("weight")}
DIRECTION = {"direction": source_of("direction")}
CHECKS: dict[str, dict[str, Check]] = {
    "embedlab.anatomy": {
        "pictures": whole("pictures", 4096),
        "steps": whole("steps", 10_000),
        "tokens": whole("tokens", 100_000),
        "guided": check_guided,
        "size": check_sides,
        "dtype": check_dtype,
    },
    "embedlab.Source": {
        "name": model_text("name", needed=True),
        "dtype": check_dtype,
        **{name: model_text(name) for name in ("config", "scorer", "vae", "text_encoder")},
        "allow_pickle": check_pickle,
        "concepts": check_concepts,
        "prediction_type": check_prediction,
        "zero_snr": check_zero_snr,
        "ema": lambda ema: true_or_false(ema, "model.ema", ModelError),
        "variant": check_variant,
        "device": check_device,
    },
    "embedlab.Cell": {"size": check_size_of_cell},
    "embedlab.Encoder": {
        "language": of("language", LANGUAGES),
        "weighting": of("weighting", WEIGHTINGS),
        "normalise": check_normalise,
        "windows": of("windows", SPLITS),
        "backtrack": check_backtrack,
        "padding": of("encoder.padding", PADDINGS),
        "join": check_join,
        "pooled": of("pooled", POOLED),
        "balance": check_balance,
        "skip": mix_of,
        "stretch": check_stretch,
    },
    "embedlab.Guidance": {
        "scale": check_guidance_scale,
        "negative": check_negative("negative"),
        "negative_2": check_negative("negative_2"),
        "guider settings": check_guider,
        "rescale": check_rescale,
        "interval clock": check_interval,
        "combine": check_combine,
        "regions": check_regions,
        "loss": check_loss_setting,
    },
    "embedlab.Loss": {
        "score": check_score,
        "scale": check_loss_scale,
        "every": check_every,
        "form": check_form,
        "score form": check_reading,
        "score every": check_refined,
    },
    "embedlab.Colour": {"red green blue": check_colour},
    "embedlab.Likeness": {"text picture": check_likeness},
    "embedlab.Distance": {"picture by": check_distance},
    "embedlab.Mass": {
        "word": selector_of("word"),
        "box": check_box_or_none,
        "layers": check_layers("guidance.loss.score.layers"),
        "box sharp smooth": check_excited,
        "refine iterations": check_refine,
    },
    "embedlab.Sampler": {
        "scheduler": check_scheduler,
        "steps": check_steps,
        "keep steps": check_keep,
        "scheduler eta": check_eta,
        "scheduler sigmas": check_sigmas,
        "scheduler spacing steps sigmas": check_spacing,
        "scheduler zero_snr": check_zero,
        "scheduler order": check_order,
        "scheduler options": check_options,
        "watch keep": check_watch,
    },
    "embedlab.Start": {
        "warmup": check_warmup,
        "step strength": check_step_and_strength,
        "picture step strength mask": check_picture_start,
        "latents step strength mask": check_latents_start,
        "picture latents step strength warmup mask": check_start,
        "picture": check_picture,
        "mask": lambda mask: check_picture(mask, "start.mask"),
        "depth": lambda depth: check_picture(depth, "start.depth"),
        "latents": check_latents,
        "variation": check_variation,
    },
    "embedlab.Inversion": {
        "warmup": check_warmup,
        "picture latents depth variation": check_inverted,
        "mask": lambda mask: check_picture(mask, "start.mask"),
        "step strength": check_step_and_strength,
        "picture": check_picture,
        "prompt": check_shown,
        "scale": lambda scale: check_guidance_scale(scale, "start.scale"),
        "unconditional": lambda value: in_choices(value, "start.unconditional", UNCONDITIONALS, SamplerError),
        "iterations": lambda number: whole_number(number, "start.iterations", SamplerError, least=1, most=1000),
    },
    "embedlab.Variation": {"seed strength": check_varied},
    "embedlab.Attention": {
        "maps": check_maps,
        "words": check_mapped_words,
        "by": check_axes,
        "layers": check_layers("attention.layers"),
    },
    "embedlab.CopyCross": {
        "rows": check_rows,
        "how": check_how,
        "amount": check_amount,
        "layers": check_layers("layers"),
    },
    "embedlab.CopySelf": {
        "amount": check_amount,
        "most": lambda most: whole_number(most, "most", ConfigError, least=1, of=" of places"),
        "layers": check_layers("layers"),
    },
    "embedlab.Reweight": {"rows": words_of, "by": number("by"), "layers": check_layers("layers")},
    "embedlab.Confine": {
        "rows": words_of,
        "box": check_box,
        "amount": check_amount,
        "layers": check_layers("layers"),
    },
    "embedlab.Metrics": {"template": check_template, "words": check_words, "eye": check_eye},
    "embedlab.Job": {"seeds": check_seeds, "at_once": check_batch, "export": check_export, "group": check_group},
    "embedlab.learn": {
        "word": check_learned_word,
        "like text": check_aim,
        "by text": check_by,
        "table vectors": check_table,
        "prompt": check_learning_prompt,
        "begin": check_begin,
        "hard": lambda hard: true_or_false(hard, "hard", ConfigError),
        "steps": lambda steps: whole_number(steps, "steps", ConfigError, least=1, most=100_000),
        "rate": check_rate,
        "batch": lambda batch: whole_number(batch, "batch", ConfigError, least=1, most=1024),
        "seed": lambda seed: whole_number(seed, "seed", ConfigError, most=2**63 - 1),
    },
    "embedlab.OnRows": ROWS,  # somebody's own
    "embedlab.Add": ROWS | DIRECTION | WEIGHT,
    "embedlab.Average": ROWS | WEIGHT,
    "embedlab.Blend": BLOCKS
    | {"prompts weight": check_prompts, "lengths": check_empty_or_own, "weight own": check_shares},
    "embedlab.Concatenate": BLOCKS | {"prompts weight": check_joined},
    "embedlab.Drop": ROWS,
    "embedlab.Freeze": ROWS | {"at": check_place} | WEIGHT,
    "embedlab.Interpolate": {"lengths": check_lengths} | ROWS | {"path": check_path, "toward weight stage": check_ends},
    "embedlab.Noise": ROWS | {"amount": number("amount"), "seed": check_seed},
    "embedlab.Normalise": ROWS | WEIGHT | {"to": check_target},
    "embedlab.Permute": ROWS | {"order": order_of},
    "embedlab.Place": ROWS | {"at": check_place},
    "embedlab.ProjectOut": ROWS | DIRECTION | WEIGHT,
    "embedlab.Replace": {"lengths": check_lengths} | ROWS | {"by stage": check_word_for_both, "by": source_of("by")},
    "embedlab.Reverse": ROWS,
    "embedlab.Rotate": ROWS | {"angle": number("angle"), "seed": check_seed},
    "embedlab.Scale": ROWS | {"by": number("by")},
    "embedlab.Shift": ROWS | {"by": number("by")},
    "embedlab.Shuffle": ROWS | {"seed": check_seed},
    "embedlab.Stretch": ROWS | {"keep": check_kept_places, "factor": check_factor},
    "embedlab.Subtract": ROWS | DIRECTION | WEIGHT,
    "embedlab.Truncate": BLOCKS | {"to": check_count},
    "embedlab.Swap": ROWS | {"by": words_of, "lengths": check_lengths},
}
