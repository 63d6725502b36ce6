"""How well the maps of words lie on what was drawn: figures of attention."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embedlab.attention.maps import Maps, object_mask, overlap
from embedlab.cell import Cell
from embedlab.detector.detections import Detections
from embedlab.detector.loading import vocabulary_of
from embedlab.detector.network import SIDE
from embedlab.models import Model, Source
from embedlab.selector import format_selector

KINDS = ("iou", "inside")


def measured_words(cell: Cell, model: Model | Source) -> list[str]:
    """The names of the maps that are measured: those asked for, or of all words those that the detector knows.

    Nothing is measured of a model without a detector: whether its grounds are plain nobody knows.
    """
    if not cell.attention.maps or model.eye_folder is None:
        return []
    if cell.attention.words is not None:
        return list(dict.fromkeys(format_selector(word) for word in cell.attention.words))
    known = vocabulary_of(model.eye_folder)
    words = re.findall(r"[\w-]+", cell.wording)
    return [word for word in dict.fromkeys(words) if word.lower() in known.words]


def attended_names(words: Sequence[str]) -> list[str]:
    """The figures that `attended` gives of one picture.

    >>> attended_names(["cat"])
    ['attention/iou/cat', 'attention/inside/cat']
    """
    return [f"attention/{kind}/{word}" for word in words for kind in KINDS]


def attended(
    maps: Maps, words: Sequence[str], pictures: Float[Tensor, "image 3 height width"], found: Sequence[Detections]
) -> dict[str, Tensor]:
    """Of each picture, how maps and objects lie over each other.

    `attention/iou/WORD`: intersection over union of the object's mask with where the word's map has 0.4 of its maximum
    or more (DAAM, eq. 7). `attention/inside/WORD`: the share of the map that lies on the object. The mask is all that
    is not the plain ground; where the detector finds several objects and the word is one of them, what of that is in
    its box.

    >>> maps = Maps(("cat",), torch.ones(1, 1, 4, 4))
    >>> {name: one.tolist() for name, one in attended(maps, ["cat"], torch.zeros(1, 3, 8, 8), [Detections(())]).items()}
    {'attention/iou/cat': [0.0], 'attention/inside/cat': [0.0]}
    """
    figures: dict[str, list[float]] = {name: [] for name in attended_names(words)}
    for n, picture in enumerate(pictures):
        for word in words:
            values = overlap(maps.of(word)[n], mask_of(picture, found[n], word))
            for kind, value in zip(KINDS, values, strict=True):
                figures[f"attention/{kind}/{word}"].append(value)
    return {name: torch.tensor(values) for name, values in figures.items()}


def mask_of(picture: Float[Tensor, "3 height width"], found: Detections, word: str) -> Bool[Tensor, "y x"]:
    """The mask of the object that a word names, on a plain ground."""
    mask = object_mask(picture)
    mine = max(found.of(word), key=lambda thing: thing.probability, default=None)
    if mine is None or len(found.things) < 2:
        return mask
    height, width = mask.shape
    half = 0.55 * mine.size  # a box drawn a tenth larger, because the detector's are not to the pixel
    y, x = (torch.arange(height) + 0.5) * SIDE / height, (torch.arange(width) + 0.5) * SIDE / width
    return mask & ((y - mine.y).abs() <= half)[:, None] & ((x - mine.x).abs() <= half)[None]
