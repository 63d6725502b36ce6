"""Files of textual inversion ↔ concepts: the layouts of diffusers, A1111, ComfyUI and kohya; nothing in one is run."""

from __future__ import annotations

import hashlib
import io
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from embedlab.checks import in_choices
from embedlab.display import Shown
from embedlab.errors import ConfigError, ModelError, brief, counted, listed
from embedlab.files import write
from embedlab.limits import MOST_VECTORS
from embedlab.models import single_file as checkpoint
from embedlab.models.places import path_of

Layout = Literal["diffusers", "a1111", "comfyui"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
KEYS = ("clip_l", "clip_g", "clip_h")  # of text encoders: SD 1's and SDXL's first, SDXL's second, SD 2's
MOST_NAMES = 64  # of one file
LARGEST = 64 << 20  # bytes of a pickle; 75 vectors of SDXL have 600 kB
FOLDER = ("learned_embeds.safetensors", "learned_embeds.bin")  # what diffusers' training leaves in a folder
BUNDLED = re.compile(r"bundle_emb\.(?P<name>.+)\.(?P<key>string_to_param\.\*|clip_[lgh])")
LARGEST_TENSOR = 1 << 20  # numbers; 75 vectors of SDXL's second encoder have 96,000
SIGNS = {"lora_unet": "a LoRA", "lora_te": "a LoRA", "text_model.": "a text encoder", "to_k.weight": "a UNet"}
SIGNS |= checkpoint.OTHERS | {prefix: f"a {part}" for prefix, part in checkpoint.PREFIXES.items()}


@dataclass(frozen=True, eq=False)
class Concept(Shown):
    """A word that textual inversion learned: its name, and its vectors for each text encoder that it is for.

    `keys` say which encoders those are, as the files spell it (`clip_l`, `clip_g`, `clip_h`); "" where a file holds
    vectors for one and does not say.

    >>> import torch
    >>> cat = Concept("<my-cat>", (torch.ones(2, 768),))
    >>> cat.names, cat.vectors[0].shape
    (('<my-cat>', '<my-cat>_1'), torch.Size([2, 768]))
    """

    name: str
    vectors: tuple[Float[Tensor, "vector dim"], ...] = field(repr=False)
    keys: tuple[str, ...] = ("",)
    path: Path | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Concept) and (self.name, self.content) == (other.name, other.content)

    def __hash__(self) -> int:
        return hash((self.name, self.content))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each vector, as diffusers has them."""
        return (self.name, *(f"{self.name}_{k}" for k in range(1, len(self.vectors[0]))))

    @cached_property
    def content(self) -> str:
        """A hash of its vectors and the encoders that they are for; whatever it is called and however it is stored."""
        found = hashlib.sha256()
        for key, rows in sorted(zip(self.keys, self.vectors, strict=True), key=lambda pair: pair[0] or "clip_l"):
            which = "" if len(self.keys) == 1 else key
            found.update(f"{which} {tuple(rows.shape)} ".encode() + rows.numpy().tobytes())
        return found.hexdigest()


class Kept:
    """Stands for a ParameterDict of old torch in a file of A1111: it keeps what it held, and nothing is run."""


def load_concepts(path: Path | str, name: str | None = None) -> tuple[Concept, ...]:
    """The concepts in a file of textual inversion, or in a folder that diffusers' training left.

    Vectors are (vector, dim), float32. Most files hold one concept; one of several names gives one for each. It is
    called what the file calls it, else like the file; `name` calls it otherwise. Layouts: diffusers' `.bin` and
    `.safetensors`, A1111's `.pt`, `emb_params`, SDXL's `clip_l` with `clip_g`, and `bundle_emb` of LoRA files. A pickle
    is read with torch's `weights_only`, so that no code in it is run.

    Raises ModelError, in one line, for what is not there, damaged, of another kind or with code in it.

    >>> load_concepts("nowhere.pt")
    Traceback (most recent call last):
    ...
    embedlab.errors.ModelError: there is no concept 'nowhere.pt': no such file.
    """
    file = file_of(path)
    own = file.parent.name if file.name in FOLDER else file.stem
    found = [
        Concept(
            checked_name(called or own, file), tuple(vectors_of(v, file) for v in parts.values()), tuple(parts), file
        )
        for called, parts in (_safetensors(file) if checkpoint.ending_of(file) == ".safetensors" else _pickled(file))
    ]
    if name is not None:
        if len(found) > 1:
            names = listed(concept.name for concept in found)
            raise ModelError(f"'{file}' holds {len(found)} concepts ({names}); they cannot all be called '{name}'.")
        found = [replace(found[0], name=checked_name(name, file))]
    for concept in found:
        if len({len(rows) for rows in concept.vectors}) > 1:
            counts = listed(f"{len(rows)} ({key})" for key, rows in zip(concept.keys, concept.vectors, strict=True))
            raise ModelError(f"'{file}' has other numbers of vectors for its encoders, {counts}; they have to agree.")
    return tuple(found)


def file_of(path: Path | str) -> Path:
    """The file that is meant; ModelError where there is none."""
    if not isinstance(path, str | Path):
        raise ModelError(f"a concept is {brief(path)}; it has to be the path of a file.")
    file = path_of(str(path))
    if file is not None and file.is_dir():
        inside = next((file / name for name in FOLDER if (file / name).is_file()), None)
        if inside is None:
            raise ModelError(f"the folder '{path}' holds no concept: it has neither {FOLDER[0]} nor {FOLDER[1]}.")
        return inside
    if file is None or not file.exists():
        raise ModelError(f"there is no concept '{str(path)[:200]}': no such file.")
    return checkpoint.regular(file)


def checked_name(name: Any, file: Path | str) -> str:
    """A name as it is looked for in prompts; ModelError for what can be none."""
    text = unicodedata.normalize("NFC", name).strip() if isinstance(name, str) else ""
    if not text or len(text) > 100 or not text.isprintable() or re.search(r"<\|(start|end)oftext\|>", text):
        raise ModelError(f"a concept of '{file}' is called {brief(name)}, which is no name; give one: NAME={file}.")
    return text


def vectors_of(value: Any, file: Path | str) -> Float[Tensor, "vector dim"]:
    """Vectors as rows, in float32; ModelError for what are none."""
    if not isinstance(value, Tensor) or value.ndim not in (1, 2) or not value.is_floating_point() or not value.numel():
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else brief(value)
        raise ModelError(f"'{file}' holds {shape}, where a concept has vectors (vector, width).")
    rows = value.detach().to_dense().reshape(-1, value.shape[-1]).float().contiguous().clone()
    if rows.is_meta:
        raise ModelError(f"'{file}' holds a tensor without numbers (it is on the meta device).")
    if len(rows) > MOST_VECTORS:
        raise ModelError(f"'{file}' has {len(rows)} vectors for a concept; a window holds {MOST_VECTORS}.")
    if not torch.isfinite(rows).all():
        raise ModelError(f"'{file}' holds NaN or infinite numbers.")
    return rows


Found = list[tuple[str | None, dict[str, Any]]]  # the name that a file says, and the vectors for each encoder


def _safetensors(file: Path) -> Found:
    try:
        with safe_open(file, "pt") as opened:
            keys = list(opened.keys())
            bundled = [key for key in keys if BUNDLED.fullmatch(key)]
            if not bundled:
                _check_keys(keys, file)
            for key in bundled or keys:
                if math.prod(shape := opened.get_slice(key).get_shape()) > LARGEST_TENSOR:
                    raise ModelError(f"'{file}' holds a tensor of shape {tuple(shape)}, which is no concept's.")
            return arranged({key: opened.get_tensor(key) for key in bundled or keys}, file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"'{file}' cannot be read as safetensors: {error}") from None


def _pickled(file: Path) -> Found:
    if (size := file.stat().st_size) > LARGEST:
        raise ModelError(f"'{file}' has {size} bytes, which no file of textual inversion has.")
    stands_in = [(Kept, "torch.nn.modules.container.ParameterDict")]
    state = checkpoint.unpickled(file, stands_in)
    if isinstance(state, Tensor):
        return [(None, {"": state})]
    if isinstance(state, list) and state and all(isinstance(part, Mapping) for part in state):
        return [(None, _by_width([value for part in state for value in part.values()], file))]
    if not isinstance(state, Mapping):
        raise ModelError(f"'{file}' holds {brief(state)}, where a concept has vectors by name.")
    return arranged({str(key): value for key, value in state.items()}, file)


def _by_width(values: Sequence[Any], file: Path) -> dict[str, Any]:
    """The vectors in a list of dictionaries, as ComfyUI reads it: an encoder takes all that are as wide as its own."""
    widths: dict[int, list[Tensor]] = {}
    for value in values:
        rows = vectors_of(value, file)
        widths.setdefault(rows.shape[1], []).append(rows)
    if len(widths) not in (1, 2):
        wide = listed(sorted(widths)) or "none"
        raise ModelError(f"'{file}' is a list of vectors of {len(widths)} widths ({wide}); encoders have one or two.")
    joined = [torch.cat(widths[width]) for width in sorted(widths)]
    return {"": joined[0]} if len(joined) == 1 else dict(zip(KEYS, joined, strict=False))


def _check_keys(keys: Sequence[str], file: Path) -> None:
    """Refuse a file of another kind by its keys; ModelError says which kind."""
    found = ((what, mark, key) for mark, what in SIGNS.items() for key in keys)
    what = next((what for what, mark, key in found if (mark in key if "." in mark else key.startswith(mark))), None)
    if what is not None or len(keys) > MOST_NAMES or not keys:
        some = f": its keys are {listed(keys, 3)}" if keys else ": it is empty"
        raise ModelError(f"'{file}' is no file of textual inversion but {what or 'something else'}{some}.")


def arranged(state: Mapping[str, Any], file: Path) -> Found:
    """The concepts in a file's entries, by the layout that these are in; ModelError for one that is not known.

    >>> vector = torch.ones(768)
    >>> [(name, list(parts)) for name, parts in arranged({"<my-cat>": vector}, Path("cat.bin"))]
    [('<my-cat>', [''])]
    >>> [(name, list(parts)) for name, parts in arranged({"clip_l": vector, "clip_g": vector}, Path("cat.bin"))]
    [(None, ['clip_l', 'clip_g'])]
    """
    if "string_to_param" in state:
        held = state["string_to_param"]
        held = getattr(held, "_parameters", held) if isinstance(held, Kept) else held
        if not isinstance(held, Mapping) or not held or ("*" not in held and len(held) > 1):
            raise ModelError(f"'{file}' is in A1111's layout, and its string_to_param holds no vectors of '*'.")
        name = state.get("name")
        return [(name if name != "*" else None, {"": held["*"] if "*" in held else next(iter(held.values()))})]
    order = {key: n for n, key in enumerate((*KEYS, ""))}
    bundles: dict[str, dict[str, Any]] = {}
    for found in filter(None, map(BUNDLED.fullmatch, state)):
        key = found["key"] if found["key"] in KEYS else ""
        bundles.setdefault(found["name"], {})[key] = state[found.string]
    bundles = {name: dict(sorted(parts.items(), key=lambda part: order[part[0]])) for name, parts in bundles.items()}
    if bundles:
        return list(bundles.items())
    _check_keys(list(state), file)
    if keys := [key for key in KEYS if key in state]:
        return [(None, {key: state[key] for key in keys})]
    if "emb_params" in state:
        return [(None, {"": state["emb_params"]})]
    if wrong := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        layouts = "a name with its vectors (diffusers), string_to_param (A1111), emb_params, clip_l and clip_g (SDXL)"
        raise ModelError(f"'{file}' is in no known layout: beside {layouts} there is '{wrong[0][:80]}'.")
    return [(name, {"": value}) for name, value in state.items()]


def save_concept(
    path: Path | str,
    rows: Any,
    layout: Layout = "diffusers",
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write token rows as a concept that other tools load, whole or not at all.

    rows: (vector, width) or (width,), or a list of two for SDXL's encoders. layout: `diffusers` and `comfyui` write
    safetensors, `a1111` its `.pt`; where the path ends in `.bin`, `.pt` or `.safetensors`, that says which of the two.
    For two encoders all three are the same file, with `clip_l` and `clip_g`: diffusers takes its entries one by one.
    name: what it is called, by default like the file. A1111 and ComfyUI go by the file's name.

    Raises ConfigError for rows, layouts and names that are none, and where the file cannot be written.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_concept(f"{folder}/my-cat.safetensors", torch.ones(2, 768), name="<my-cat>")
    ...     load_concepts(path)[0].names
    ('<my-cat>', '<my-cat>_1')
    """
    in_choices(layout, "layout", LAYOUTS, ConfigError)
    target = (
        path_of(str(path)) if isinstance(path, str | Path) and str(path).strip() and "\0" not in str(path) else None
    )
    if target is None:
        raise ConfigError(f"{brief(path)} is no path of a file.")
    ending = checkpoint.ending_of(target)
    if ending not in (".safetensors", ".bin", ".pt"):
        raise ConfigError(f"'{target}' ends in {ending or 'nothing'!r}; a concept's file in .safetensors, .bin or .pt.")
    parts = list(rows) if isinstance(rows, list | tuple) else [rows]
    if len(parts) not in (1, 2):
        raise ConfigError(f"rows for {counted(len(parts), 'encoder')} came; a concept is for one, or for SDXL's two.")
    try:
        called = checked_name(target.stem if name is None else name, target)
        vectors = [
            vectors_of(part.cpu() if isinstance(part, Tensor) and not part.is_meta else part, target) for part in parts
        ]
    except ModelError as error:
        raise ConfigError(str(error)) from None
    if len({len(part) for part in vectors}) > 1:
        raise ConfigError(f"{listed(len(part) for part in vectors)} vectors for two encoders; they have to agree.")
    state: dict[str, Any]
    if len(vectors) == 2:
        state = dict(zip(KEYS, vectors, strict=False))
    elif layout == "diffusers":
        state = {called: vectors[0]}
    elif ending == ".safetensors" or layout == "comfyui":
        state = {"emb_params": vectors[0]}
    else:
        state = {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors[0]}, "name": called, "step": 0}
        state |= {"sd_checkpoint": None, "sd_checkpoint_name": None}
    data = io.BytesIO()
    if ending != ".safetensors":
        torch.save(state, data)
    try:
        write(
            target,
            save(state, metadata=None if metadata is None else dict(metadata))
            if ending == ".safetensors"
            else data.getvalue(),
        )
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"'{target}' cannot be written: {getattr(error, 'strerror', None) or error}.") from None
    return target
