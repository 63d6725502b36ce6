"""What a pipeline is made of: components with their files, the scheduler in the field's words, the tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from safetensors import SafetensorError, safe_open

from embedlab.errors import ModelError
from embedlab.models import LAYOUTS, Source, fits
from embedlab.models import single_file as checkpoint
from embedlab.models.places import weights_home
from embedlab.structure.values import Component, File, Vocabulary

KINDS = (".safetensors", ".bin", ".ckpt", ".json", ".txt")
BETAS = {
    "linear": "betas that rise linearly (linear)",
    "scaled_linear": "betas whose square roots rise linearly (scaled_linear)",
    "squaredcos_cap_v2": "betas of a squared cosine (squaredcos_cap_v2)",
}
PREDICTS = {
    "epsilon": "the noise (epsilon)",
    "v_prediction": "the velocity, noise and picture mixed (v_prediction)",
    "sample": "the picture without noise (sample)",
}
SPACINGS = {
    "leading": "leading: evenly from the first one",
    "trailing": "trailing: evenly from the last one",
    "linspace": "linspace: evenly, with the first and the last one",
}


def components_of(source: Source) -> tuple[Component, ...]:
    """The components that `model_index.json` lists, as `print(pipe)` shows them, with their files on this machine."""
    found = []
    for name, value in source.index.items():
        if name.startswith("_") or not (isinstance(value, list) and len(value) == 2) or value[1] is None:
            continue
        files = tuple(file_of(path) for path in paths_of(source, name))
        found.append(Component(name, str(value[0]), str(value[1]), files))
    if source.single_file:
        found.append(Component("file", "", "all weights in one file", (file_of(Path(source.location)),)))
    return tuple(found)


def paths_of(source: Source, name: str) -> list[Path]:
    """The files of a component: in its folder, or in the hub's cache; none of a single file or a shipped layout."""
    place, inner = weights_home(source, name) if name in ("unet", "vae", *source.encoders) else source.home(name)
    if not isinstance(place, Path):
        from huggingface_hub import try_to_load_from_cache

        index = try_to_load_from_cache(place, "model_index.json")
        if not isinstance(index, str):
            return []
        place = Path(index).parent
    if place.is_file():
        return [place] if place != source.location else []
    if source.single_file and place == source.location:
        return []
    folder = place / inner
    if not folder.is_dir():
        return []
    checkpoint.check_regular(folder)
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS and path.is_file())


def file_of(path: Path) -> File:
    """A file's size, the dtypes in it and its hash, which is remembered for large files."""
    return File(path, path.stat().st_size, dtypes_of(path), checkpoint.hash_of(path))


def dtypes_of(path: Path) -> str:
    """The dtypes of the tensors in a safetensors file, most frequent first; empty for other files."""
    if path.suffix.lower() != ".safetensors":
        return ""
    try:
        with safe_open(path, "pt") as file:
            kinds = [file.get_slice(key).get_dtype() for key in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"'{path}' cannot be read as safetensors: {error}") from None
    return ", ".join(sorted(set(kinds), key=lambda kind: -kinds.count(kind)))


def scheduler_words(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a scheduler in the field's words; what its config leaves out is as its class has it.

    >>> scheduler_words({"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"})["predicts"]
    'the velocity, noise and picture mixed (v_prediction)'
    """
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    told = (fits.defaults_of(kind) if isinstance(kind, type) else {}) | dict(config)
    steps = told.get("num_train_timesteps", 1000)
    schedule = str(told.get("beta_schedule", "linear"))
    words = {
        "class": str(config.get("_class_name", "unknown")),
        "noise": f"{BETAS.get(schedule, f'betas ({schedule})')}, from {told.get('beta_start')} to "
        f"{told.get('beta_end')} over {steps} timesteps",
        "predicts": PREDICTS.get(str(told.get("prediction_type")), str(told.get("prediction_type"))),
    }
    if (spacing := told.get("timestep_spacing")) is not None:
        words["timesteps"] = SPACINGS.get(str(spacing), str(spacing))
        if told.get("steps_offset"):
            words["timesteps"] += f", shifted by {told['steps_offset']}"
    if told.get("rescale_betas_zero_snr"):
        words["last timestep"] = "no signal at all (rescale_betas_zero_snr)"
    if told.get("clip_sample"):
        words["predicted picture"] = f"clipped to ±{told.get('clip_sample_range', 1.0)} (clip_sample)"
    if "set_alpha_to_one" in told:
        first = "none (set_alpha_to_one)" if told["set_alpha_to_one"] else "that of timestep 0"
        words["noise after the last step"] = first
    return words


def vocabularies_of(source: Source) -> tuple[Vocabulary, ...]:
    """The tokenizers and their special tokens."""
    found = []
    for name, words in zip(source.encoders, source.own_tokenizers, strict=True):
        special = {
            role.removesuffix("_token"): (str(token), int(words.convert_tokens_to_ids(str(token))))
            for role in ("bos_token", "eos_token", "pad_token", "unk_token")
            if (token := getattr(words, role)) is not None
        }
        part = name.replace("text_encoder", "tokenizer")
        found.append(Vocabulary(part, type(words).__name__, len(words), int(words.model_max_length), special))
    return tuple(found)


def notices_of(source: Source) -> tuple[str, ...]:
    """What was taken for what, and why."""
    said = [f"{setting}: {why}" for setting, why in source.concluded.items()]
    if isinstance(source.location, Path) and LAYOUTS in source.location.parents:
        said.append("the configs are those that embedlab ships; there are no weights, so no files and no hashes")
    return tuple(said)
