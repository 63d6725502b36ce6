"""Small files and single files of models, read with care: nothing in them is run, and nothing is waited for."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from embedlab.errors import ModelError, listed
from embedlab.files import cache, written
from embedlab.limits import PREDICTIONS

LARGEST_JSON = 64 << 20  # bytes; a tokenizer has 3 MB
ENDINGS = (".safetensors", ".ckpt")
PREFIXES = {  # of the keys of a single file → the part that they belong to
    "model.diffusion_model.": "unet",
    "first_stage_model.": "vae",
    "cond_stage_model.": "text encoder",
    "conditioner.embedders.": "text encoder",
    "model_ema.": "averaged copy of the UNet (model_ema)",
}
WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}  # of the hidden states that a UNet reads
OTHERS = {  # in the names of weights of models that embedlab does not run
    "double_blocks.": "a Flux",
    "joint_blocks.": "a Stable Diffusion 3",
    "lora_up.weight": "a LoRA",
    "lora_A.weight": "a LoRA",
    "control_model.": "a ControlNet",
    "motion_modules.": "a motion module",
}


class Left:
    """Stands for a class of the training library in a checkpoint: it keeps its place, and nothing is run."""


@dataclass(frozen=True)
class Header:
    """What a single file says of itself: the shapes of its weights, its metadata, the steps that it was trained for."""

    shapes: dict[str, tuple[int, ...]] = field(repr=False)
    metadata: dict[str, str] = field(default_factory=dict)
    step: int | None = None

    @property
    def holds(self) -> list[str]:
        """The parts of a model that are there."""
        return [
            part
            for part in dict.fromkeys(PREFIXES.values())
            if any(key.startswith(prefix) for key in self.shapes for prefix, p in PREFIXES.items() if p == part)
        ]


def ending_of(path: Path) -> str:
    """The ending of a file in small letters: `.SAFETENSORS` is one, too."""
    return path.suffix.lower()


def regular(path: Path) -> Path:
    """The same path, where it is a file; a pipe or a device would be waited for without end."""
    if path.exists() and not path.is_file():
        raise ModelError(f"'{path}' is no regular file: a folder, a pipe or a device; a model is made of files.")
    return path


def check_regular(folder: Path) -> None:
    """Refuse a folder in which anything that a library may open is neither file nor folder, or far too large."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            continue
        if not path.is_file():
            why = "leads nowhere" if path.is_symlink() and not path.exists() else "is no regular file"
            raise ModelError(f"'{path}' {why}; a model is made of files.")
        if path.suffix == ".json" and path.stat().st_size > LARGEST_JSON:
            raise ModelError(f"'{path}' has {path.stat().st_size} bytes, which no small file of a model has.")


def read_json(path: Path, kind: type = dict) -> Any:
    """A JSON file that has to hold a `kind`."""
    try:
        if regular(path).stat().st_size > LARGEST_JSON:
            raise ModelError(f"'{path}' has {path.stat().st_size} bytes, which no small file of a model has.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except ModelError:
        raise
    except (ValueError, OSError) as error:
        raise ModelError(f"'{path}' cannot be read as JSON: {error}") from None
    except RecursionError:
        raise ModelError(f"'{path}' cannot be read as JSON: it is nested too deeply.") from None
    if not isinstance(value, kind):
        raise ModelError(f"'{path}' holds a {type(value).__name__}, not a {kind.__name__}.")
    return value


def header_of(path: Path) -> Header:
    """What a `.safetensors` or `.ckpt` file says of itself; its weights are not read."""
    stat = regular(path).stat()
    return _header(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _header(path: Path, size: int, changed: int) -> Header:
    if ending_of(path) == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
                return Header(shapes, dict(file.metadata() or {}))
        except (SafetensorError, OSError) as error:
            raise ModelError(f"'{path}' cannot be read as safetensors: {error}") from None
    state, step = _unpickled(path)
    return Header({k: tuple(v.shape) for k, v in state.items() if isinstance(v, Tensor)}, {}, step)


def weights_in(path: Path) -> dict[str, Tensor]:
    """The weights in a single file, under the names that diffusers knows; they stay on disk until they are used."""
    if ending_of(path) == ".safetensors":
        try:
            state: dict[str, Any] = load_file(regular(path))
        except (SafetensorError, OSError) as error:
            raise ModelError(f"'{path}' cannot be read as safetensors: {error}") from None
    else:
        state, _ = _unpickled(path)
    return {known_name(key): value for key, value in state.items() if isinstance(value, Tensor)}


def averaged(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights in a single file with the averaged copy of the UNet in the place of the plain one.

    The copy's names are the UNet's without dots: `model_ema.diffusion_modelout2weight`. ModelError where one lacks.

    >>> both = {"model.diffusion_model.out.weight": 0.0, "model_ema.diffusion_modeloutweight": 1.0}
    >>> averaged(both, "model.ckpt")["model.diffusion_model.out.weight"]
    1.0
    """
    copies = {
        key: f"model_ema.{key.removeprefix('model.').replace('.', '')}"
        for key in state
        if key.startswith("model.diffusion_model.")
    }
    if lacking := [copy for copy in copies.values() if copy not in state]:
        raise ModelError(
            f"the averaged copy of the UNet in '{name}' lacks {len(lacking)} weights: {listed(lacking, 3)}."
        )
    return {**state, **{key: state[copy] for key, copy in copies.items()}}


def known_name(key: str) -> str:
    """The name of a weight as most files spell it: early ones leave out `text_model.`

    >>> known_name("cond_stage_model.transformer.final_layer_norm.bias")
    'cond_stage_model.transformer.text_model.final_layer_norm.bias'
    """
    return re.sub(
        r"^(cond_stage_model|conditioner\.embedders\.0)\.transformer\.(embeddings|encoder|final_layer_norm)\.",
        r"\1.transformer.text_model.\2.",
        key,
    )


def _unpickled(path: Path) -> tuple[dict[str, Any], int | None]:
    """The tensors of a `.ckpt` and its count of steps; anything that is not plain tensors is refused and never run.

    Callbacks of the training library lie beside the weights of old ones: for these a class that does nothing stands in.
    """
    regular(path)
    try:
        asked = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of a form that torch.load takes, or refuses with its reason
        asked = []
    state = unpickled(path, [(Left, name) for name in asked if re.match(r"(pytorch_)?lightning\.", name)], mmap=True)
    step = state.get("global_step") if isinstance(state, dict) else None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise ModelError(f"'{path}' holds a {type(state).__name__}, not a dictionary of tensors.")
    return {str(key): value for key, value in state.items()}, step if isinstance(step, int) else None


def unpickled(path: Path, known: list[Any], mmap: bool = False) -> Any:
    """What a pickle of torch's holds. No code in it is run: it may name classes of tensors, and those `known`."""
    try:
        with torch.serialization.safe_globals(known):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it asks to run {named[1]}" if named else "it holds something else, or was cut short"
        raise ModelError(f"'{path}' is not plain tensors and is not opened: {found}.") from None


# ── identity ──────────────────────────────────────────────────────────────────────────────────────────────────────

LARGE = 1 << 20  # bytes from which a hash is worth remembering
SETTLED = 2.0  # seconds after which a file that is written again has another time


def hash_of(path: Path) -> str:
    """A hash of a whole file. Of a large one it is remembered by path, size, time and inode, so that it costs once.

    The notes are small files in the user's cache folder, which may be deleted.
    """
    path = path.resolve()
    stat = path.stat()
    if stat.st_size < LARGE:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    stamp = [str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino]
    note = cache() / "hashes" / f"{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:32]}.json"
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # none yet, or damaged: the file is hashed
        known = None
    if (
        isinstance(known, list)
        and len(known) == 5
        and known[:4] == stamp
        and re.fullmatch("[0-9a-f]{64}", str(known[4]))
    ):
        return str(known[4])
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    after = path.stat()
    same = (after.st_size, after.st_mtime_ns, after.st_ino) == tuple(stamp[1:])
    if same and time.time() - after.st_mtime > SETTLED:
        _remember(note, json.dumps([*stamp, found]))
    return found


def _remember(note: Path, text: str) -> None:
    if not note.is_absolute():  # nobody's home
        return
    with suppress(OSError, UnicodeError):  # a cache that cannot be written saves nothing, and harms nothing
        written(note, lambda file: file.write(text.encode()))


# ── what a file tells of its training ─────────────────────────────────────────────────────────────────────────────

SPELLINGS = {"epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
SPELLINGS |= {"v-prediction": "v_prediction", "sample": "sample", "x0": "sample"}


def predictions(path: Path, header: Header, layout: str | None) -> dict[str, str]:
    """What a single file tells of what its UNet predicts: reason → prediction type."""
    found: dict[str, str] = {}
    if "v_pred" in header.shapes:
        found["the file's key v_pred"] = "v_prediction"
    spelled = header.metadata.get("modelspec.prediction_type")
    if spelled is not None:
        if spelled.lower() not in SPELLINGS:
            raise ModelError(
                f"the metadata of '{path}' says modelspec.prediction_type '{spelled[:80]}', which is not known; "
                f"say which it is: model.prediction_type, one of {listed(PREDICTIONS)}."
            )
        found["its metadata modelspec.prediction_type"] = SPELLINGS[spelled.lower()]
    architecture = header.metadata.get("modelspec.architecture", "")
    if architecture.startswith("stable-diffusion-v2-"):
        kind = "v_prediction" if "-v" in architecture.removeprefix("stable-diffusion-v2") else "epsilon"
        found["its metadata modelspec.architecture"] = kind
    if (spelled := parameterization(path)) is not None:
        found[f"{path.with_suffix('.yaml').name} beside it"] = spelled
    if layout == "sd2" and header.step == 875_000:  # the only marker of 2.0-base, which diffusers reads, too
        found["its global_step 875000, that of 2.0-base"] = "epsilon"
    # stable-diffusion-2-inpainting and -depth were trained on from 2-base, as their cards say, their .yaml has no
    # parameterization, and diffusers takes them so; a file of somebody else's that says what it predicts is believed
    if not found and layout == "sd2" and (channels := channels_of(header)) in (5, 9):
        found[f"its UNet of {channels} channels, trained on from 2.0-base"] = "epsilon"
    return found


def parameterization(path: Path) -> str | None:
    """What a config of the original form, `NAME.yaml` beside `NAME.safetensors`, says that is predicted."""
    file = path.with_suffix(".yaml")
    if not file.is_file() or file.stat().st_size > 1 << 20:
        return None
    text = file.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^\s*parameterization:\s*['\"]?(\w+)", text, re.M)
    return SPELLINGS.get(found[1]) if found else None


def channels_of(header: Header) -> int | None:
    """How many channels the UNet of a file in the original layout takes."""
    first = header.shapes.get("model.diffusion_model.input_blocks.0.0.weight", ())
    return first[1] if len(first) == 4 else None


def side_of(header: Header) -> int | None:
    """The side of square pictures that a file's metadata says it was trained on, in pixels."""
    found = re.fullmatch(r"(\d{2,4})x(\d{2,4})", header.metadata.get("modelspec.resolution", ""))
    return int(found[1]) if found and found[1] == found[2] else None


def layout_of(path: Path) -> str:
    """Which of the known models a single file in the original layout holds, by the shapes of its weights."""
    shapes = header_of(path).shapes
    if "conditioner.embedders.1.model.ln_final.weight" in shapes:
        return "sdxl"
    if "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight" in shapes and (
        "conditioner.embedders.0.model.ln_final.weight" in shapes
    ):
        raise ModelError(f"'{path}' is the refiner of SDXL, which finishes pictures of the base model; name that.")
    block = "model.diffusion_model.input_blocks.{}.1.transformer_blocks.0.attn2.to_k.weight"
    for key in (block.format(1), block.format(4)):
        if key in shapes and len(shapes[key]) == 2 and (kind := WIDTHS.get(shapes[key][1])):
            return kind
    other = next((what for mark, what in OTHERS.items() if any(mark in key for key in shapes)), None)
    what = f"holds {other}" if other else "is not in the original layout of Stable Diffusion 1, 2 or XL"
    hint = "embedlab runs Stable Diffusion 1, 2 and XL" if other else "give model.config=FOLDER"
    raise ModelError(f"'{path}' {what}; {hint}.")
