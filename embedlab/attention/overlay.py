"""Maps of words as pictures: heat laid over what was drawn, and the files of a job."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import save

from embedlab.attention.maps import Maps, heat_image, upsampled
from embedlab.clean import redact
from embedlab.files import write


def overlaid(picture: Image.Image, heat: Float[torch.Tensor, "y x"], share: float = 0.65) -> Image.Image:
    """A picture in grey, a map laid over it: the hotter the brighter, the map's maximum is yellow.

    `share` is how much of the picture the hottest place hides.

    >>> overlaid(Image.new("RGB", (8, 8)), torch.ones(2, 2)).size
    (8, 8)
    """
    size = (picture.height, picture.width)
    whole = upsampled(heat.flatten(), (heat.shape[0], heat.shape[1]), size)
    level = (whole / whole.max().clamp(min=1e-12)).cpu()
    cover = Image.fromarray((255 * (0.25 + (share - 0.25) * level)).byte().numpy())
    return Image.composite(heat_image(whole), picture.convert("L").convert("RGB"), cover)


def file_names(words: tuple[str, ...]) -> list[str]:
    """A name for the file of each word, in letters, digits and dashes; what is left with none has its number.

    >>> file_names(("cat", "role pad", "<my-cat>", "猫"))
    ['cat', 'role-pad', 'my-cat', '3']
    """
    names = ["-".join(re.findall(r"[a-z0-9]+", str(redact(word)).lower()))[:40] for word in words]
    return [name if name and names.count(name) == 1 else f"{name}-{n}".strip("-") for n, name in enumerate(names)]


def save_maps(path: Path, maps: Mapping[str, Maps], settings: Mapping[str, Any]) -> None:
    """Write maps as one safetensors file: `NAME heat` (image, word, h, w) and `NAME parts`, words and axes beside."""
    tensors: dict[str, torch.Tensor] = {}
    about = dict(settings)
    for name, one in maps.items():
        tensors[f"{name} heat"] = one.heat.contiguous()
        if one.parts is not None:
            tensors[f"{name} parts"] = one.parts.contiguous()
        about[name] = redact(about_maps(one))
    write(path, save(tensors, {"maps": json.dumps(about)}))


def about_maps(maps: Maps) -> dict[str, Any]:
    """What of maps is no array."""
    return {"words": list(maps.words), "by": list(maps.by), "layers": list(maps.layers)}


def maps_of(about: Mapping[str, Any], heat: torch.Tensor, parts: torch.Tensor | None) -> Maps:
    """The other way.

    >>> maps_of({"words": ["cat"], "by": [], "layers": []}, torch.ones(1, 2, 2), None).words
    ('cat',)
    """
    return Maps(tuple(about["words"]), heat, tuple(about["by"]), tuple(about["layers"]), parts)
