"""Conditionings for other tools: the tensors that a diffusers pipeline takes, alone or in a file with their recipe."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from embedlab.clean import BLANK, redact
from embedlab.clip import Tower
from embedlab.condition import condition
from embedlab.encoder import equal_lengths
from embedlab.errors import ConfigError, PromptError, brief, public_name
from embedlab.files import write
from embedlab.limits import MOST_VECTORS
from embedlab.models import TextEncoders, text_encoders_of
from embedlab.models.concept_files import save_concept
from embedlab.transfer import content_of

KEY = "embedlab"  # the metadata entry of a safetensors file that holds the recipe


def edited_rows(cell: Any, towers: TextEncoders) -> dict[str, Tensor]:
    """What meets each text encoder after the edit: `token` and `position` rows (window, place, width), and the `ids`.

    With two encoders those of the second are `token_2` and so on, as diffusers numbers its parts.

    >>> import torch
    >>> from embedlab import Cell, Replace, models
    >>> cat, edited = (
    ...     edited_rows(Cell(*cell), models.load("emoji").towers)
    ...     for cell in (("a cat",), ("a puppy", [Replace("puppy", "cat")]))
    ... )
    >>> torch.equal(edited["token"], cat["token"]), torch.equal(edited["ids"], cat["ids"]), edited["token"].shape
    (True, False, torch.Size([1, 77, 96]))
    """
    (one,) = condition([cell], text_encoders_of(towers))
    rows: dict[str, Tensor] = {}
    for n, part in enumerate(one.edited, 1):
        end = f"_{n}" if n > 1 else ""
        rows |= {f"token{end}": part.token, f"position{end}": part.position, f"ids{end}": part.tokens.ids}
    return rows


def edited_words(cell: Any, towers: Sequence[Tower]) -> dict[str, list[Tensor]]:
    """The words whose token rows an edit changed → their rows (token, width) as edited, before each text encoder.

    Changed words that stand side by side are one phrase; of a word that stands there twice the first is taken, and
    words of secrets are left out.

    >>> from embedlab import Cell, Interpolate, models
    >>> half = Cell("a puppy", [Interpolate("puppy", "skunk", 0.5)])
    >>> {word: rows[0].shape for word, rows in edited_words(half, models.load("emoji").towers).items()}
    {'puppy': torch.Size([1, 96])}
    """
    (one,) = condition([cell], towers)
    changed = [(a.token != b.token).any(-1).flatten() for a, b in zip(one.original, one.edited, strict=True)]
    words = one.original[0].tokens.words
    if any(len(part.tokens.words) != len(words) for part in one.original):
        return {}
    runs: list[list[int]] = []
    for n in range(len(words)):
        hit = any(bool(rows[list(p.tokens.words[n].rows)].any()) for rows, p in zip(changed, one.original, strict=True))
        if hit and runs and runs[-1][-1] == n - 1:
            runs[-1].append(n)
        elif hit:
            runs.append([n])
    found: dict[str, list[Tensor]] = {}
    for run in runs:
        texts = [words[n].text for n in run]
        if BLANK not in texts:
            spans = [[row for n in run for row in part.tokens.words[n].rows] for part in one.edited]
            rows = [part.token.flatten(0, 1)[span] for part, span in zip(one.edited, spans, strict=True)]
            found.setdefault(" ".join(texts), rows)
    return found


def save_edited_words(folder: Path, cell: Any, towers: Sequence[Tower], made_by: Any = None) -> list[Path]:
    """Write each edited word as a concept that A1111, ComfyUI and diffusers load, `concept.safetensors` and so on.

    A word that encoders read as unequal numbers of tokens, or as more than a window holds, is none.
    """
    files: list[Path] = []
    for word, rows in edited_words(cell, towers).items():
        if len({len(part) for part in rows}) == 1 and len(rows[0]) <= MOST_VECTORS:
            path = folder / f"concept{f'-{len(files) + 1}' if files else ''}.safetensors"
            name = word if word.startswith("<") else f"<{word.replace(' ', '-')[:80]}>"
            files.append(save_concept(path, rows, name=name, metadata={KEY: as_text(made_by, path)}))
    return files


def prompt_embeds(cell: Any, towers: TextEncoders, zero_negative: bool | None = None) -> dict[str, Tensor]:
    """A cell as keywords for a diffusers pipeline: `pipe(**prompt_embeds(cell, pipe))`.

    `prompt_embeds` and `negative_prompt_embeds` (1, row, width), with two encoders also `pooled_prompt_embeds` and
    `negative_pooled_prompt_embeds` (1, joint). Pipelines want both of one length: each is repeated as a whole until
    they are (`equal_lengths`), which changes nothing of what the UNet makes of them. `zero_negative` makes no negative
    prompt zeros, as SDXL's pipeline does (`force_zeros_for_empty_prompt`); left out, it does so with two encoders.

    >>> from embedlab import Cell, load
    >>> edited = prompt_embeds(Cell("a cat"), load("emoji"))
    >>> {name: tuple(tensor.shape) for name, tensor in edited.items()}
    {'prompt_embeds': (1, 77, 96), 'negative_prompt_embeds': (1, 77, 96)}
    """
    towers = text_encoders_of(towers)
    zero = len(towers) > 1 if zero_negative is None else zero_negative
    (one,) = condition([cell], towers, zero)
    if one.cond.others or one.cond.weight != 1:
        raise PromptError("a prompt with AND is several conditionings, and a pipeline takes one.")
    cond, uncond = equal_lengths([one.cond, one.uncond])
    embeds = {"prompt_embeds": cond.hidden[None], "negative_prompt_embeds": uncond.hidden[None]}
    if len(towers) > 1:
        embeds |= {"pooled_prompt_embeds": cond.pooled[None], "negative_pooled_prompt_embeds": uncond.pooled[None]}
    return {name: tensor.clone() for name, tensor in embeds.items()}


def recipe(value: Any) -> Any:
    """A cell, or any part of it, as plain values: what a file says of how it was made.

    >>> from embedlab import Scale
    >>> recipe(Scale("cat", 2))
    {'_target_': 'embedlab.Scale', 'blocks': None, 'rows': 'cat', 'encoder': None, 'by': 2, 'stage': 'token'}
    """
    if isinstance(value, Tensor | np.ndarray):
        return {"tensor": list(value.shape), "sha256": content_of(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {f.name: recipe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"_target_": public_name(type(value)), **own}
    if isinstance(value, Mapping):
        return {str(key): recipe(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [recipe(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def save_embeds(path: Path | str, embeds: Mapping[str, Tensor], made_by: Any = None) -> Path:
    """Write tensors as safetensors, whole or not at all, with a recipe (a cell, or any JSON) inside.

    Raises ConfigError for what are no named tensors, and where the file cannot be written.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_embeds(f"{folder}/rows.safetensors", {"puppy": torch.ones(1, 4)}, {"prompt": "a puppy"})
    ...     load_embeds(path)
    ({'puppy': tensor([[1., 1., 1., 1.]])}, {'prompt': 'a puppy'})
    """
    path = path_of(path)
    named = isinstance(embeds, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in embeds.items())
    if not named or not embeds:
        raise ConfigError(f"embeds is {brief(embeds)}; it has to be named tensors, as prompt_embeds gives.")
    if gone := [name for name, tensor in embeds.items() if tensor.is_meta]:
        raise ConfigError(f"the tensor '{gone[0]}' has no numbers (it is on the meta device).")
    tensors = {name: tensor.detach().cpu().to_dense().contiguous().clone() for name, tensor in embeds.items()}
    text = as_text(made_by, path)
    try:
        write(path, save(tensors, metadata={KEY: text}))
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"'{path}' cannot be written: {getattr(error, 'strerror', None) or error}.") from None
    return path


def as_text(made_by: Any, path: Path) -> str:
    """A recipe as JSON, without secrets."""
    try:
        return json.dumps(redact(recipe(made_by)), ensure_ascii=False, allow_nan=True)
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"the recipe of '{path}' cannot be written: {error}.") from None


def is_path(text: str) -> bool:
    """Whether a text can be a path at all: no NUL, no broken characters."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def path_of(path: Any) -> Path:
    """A path that was handed in; ConfigError for what is none."""
    if not isinstance(path, str | Path) or not str(path).strip() or not is_path(str(path)):
        raise ConfigError(f"{brief(path)} is no path of a file.")
    return Path(path)


def load_embeds(path: Path | str) -> tuple[dict[str, Tensor], Any]:
    """The tensors of a file, ready for a pipeline, and its recipe; None where it has none.

    Raises ConfigError where there is no file that can be read, or it is no safetensors file.

    >>> load_embeds("nowhere.safetensors")
    Traceback (most recent call last):
    embedlab.errors.ConfigError: there is no file 'nowhere.safetensors'.
    """
    path = path_of(path)
    try:
        if not path.is_file():  # a pipe or a device would never end
            raise ConfigError(f"there is no file '{path}'." if not path.exists() else f"'{path}' is no regular file.")
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no iterator of its own)
            inside = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"'{path}' is not a safetensors file that can be read: {error}") from None
    try:
        return tensors, json.loads(inside) if inside else None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the recipe inside '{path}' cannot be read: {error}") from None
