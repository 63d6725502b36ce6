"""Where files of models are: folders, single files and the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from embedlab.errors import ModelError, first_line, listed
from embedlab.models import single_file as checkpoint

if TYPE_CHECKING:
    from embedlab.models.source import Source

HUB_ID = re.compile(r"(?!.*(?:--|\.\.))(?=.{1,96}$)\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?")  # as the hub has it


def path_of(name: str) -> Path | None:
    """A path as it was typed, with `~` for a home; None where there can be no such path."""
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError):  # too long, nobody's home, NUL, not in this machine's alphabet
        return None
    return path


def place_of(name: str, setting: str) -> Path | str:
    """The folder, file or hub id that a part is taken from."""
    path = path_of(name)
    if path is not None and path.is_dir() and name:
        return path
    if path is not None and path.is_file():
        if setting == "vae" and checkpoint.ending_of(path) in checkpoint.ENDINGS:
            return path
        what = (
            "a folder, a hub id, or a file that ends in .safetensors or .ckpt"
            if setting == "vae"
            else "a folder or hub id"
        )
        raise ModelError(f"model.{setting} is the file '{name}'; it has to be {what}.")
    if HUB_ID.fullmatch(name):
        return name
    raise ModelError(f"there is no model.{setting} '{name[:200]}': no folder, no file, and no hub id (owner/name).")


def small_file(place: Path | str, path: str) -> Path | None:
    """A small file of a folder or hub id, where it is; None where it has none."""
    if isinstance(place, Path):
        return place / path if (place / path).exists() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(place, path))
    except LocalEntryNotFoundError:
        raise ModelError(f"the hub cannot be reached and '{place}' is not in its cache; name a folder.") from None
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"the hub does not give '{place}': {first_line(error)}") from None


def first_of(place: Path | str, *paths: str) -> str | None:
    """The first of these small files that a folder or hub id has; of a hub id, those in its cache come first."""
    if not isinstance(place, Path):
        from huggingface_hub import try_to_load_from_cache

        for path in paths:
            if isinstance(try_to_load_from_cache(place, path), str):
                return path
    return next((path for path in paths if small_file(place, path) is not None), None)


def identity_of(place: Path | str) -> list[str]:
    """What a model's files are: the commit on the hub, or the name and hash of every file that may be read."""
    if not isinstance(place, Path):
        name = first_of(place, "model_index.json", "config.json")
        found = small_file(place, name) if name else None
        if found is not None:
            return [place, found.parent.name]
        raise ModelError(f"the hub's '{place}' is no model: it has neither model_index.json nor config.json.")
    if place.is_file():
        return [checkpoint.hash_of(place)]
    kinds = (".safetensors", ".bin", ".json", ".txt")
    left = {"safety_checker", "onnx", "openvino", ".git", ".cache"}
    files = sorted(p for p in place.rglob("*") if p.suffix in kinds and p.is_file())
    files = [p for p in files if not left.intersection(p.relative_to(place).parts[:-1])]
    return [f"{path.relative_to(place).as_posix()} {checkpoint.hash_of(path)}" for path in files]


def variant_of(source: Source, part: str) -> str | None:
    """Which variant of a part's weights is read; ModelError in one line where there are none of them."""
    place, inner = weights_home(source, part)
    if not isinstance(place, Path) or place.is_file():
        return source.variant
    folder = place / inner
    if not folder.is_dir():
        raise ModelError(f"the model '{source.name}' lacks its part '{part}': there is no such folder in {place}.")
    checkpoint.check_regular(folder)
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    endings = r"safetensors|bin" if source.allow_pickle else "safetensors"
    found: dict[str | None, str] = {}
    files = {p.name for p in folder.iterdir()}
    for file in sorted(files):
        named = re.fullmatch(rf"(?:{stem}|pytorch_model)(-\d+-of-\d+)?(?:\.([\w-]+))?(-\d+-of-\d+)?\.({endings})", file)
        if named:
            found.setdefault(named[2], file)
    for index in folder.glob("*.index*.json"):
        shards = checkpoint.read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not {str(name) for name in shards.values()} <= files:
            raise ModelError(f"'{index}' names files that are not beside it; its weights are not all there.")
    if source.variant in found:
        return source.variant
    if None in found:  # as diffusers does: a part that has no such variant is read as it is
        return None
    there = [str(variant) for variant in found]
    pickled = [p.name for p in folder.glob("*.bin")]
    if there:
        wanted = f"no weights of variant {source.variant}" if source.variant else "weights only as a variant"
        raise ModelError(
            f"the part '{part}' of the model '{source.name}' has {wanted}: {listed(found.values())}; "
            f"set model.variant={there[0]}."
        )
    hint = f"; {listed(pickled, 3)} is a pickle, which model.allow_pickle=true reads" if pickled else ""
    hint = hint or "; there is " + (listed(sorted(p.name for p in folder.iterdir()), 5) or "nothing")
    raise ModelError(f"the part '{part}' of the model '{source.name}' cannot be read: it has no weights{hint}.")


def weights_home(source: Source, part: str) -> tuple[Path | str, str]:
    """Where the weights of a part are: as `home`, or a single file."""
    if part == "vae" and source.vae is not None:
        place = place_of(source.vae, "vae")
        if isinstance(place, Path) and place.is_file():
            return place, ""
    replaced = source.vae if part == "vae" else source.text_encoder if part.startswith("text_encoder") else None
    return (source.location, part) if replaced is None else source.home(part)
