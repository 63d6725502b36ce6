"""Where files of models are: folders, single files and the hub."""

from __future__ import annotations

import re
from pathlib import Path

from embedlab.errors import ModelError, first_line
from embedlab.models import single_file as checkpoint

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


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
