"""Pictures → detections, by the detector that a model brings."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from embedlab.detector.detections import Detections, look
from embedlab.detector.loading import read_detector
from embedlab.errors import ModelError, PictureError, brief, check_kind
from embedlab.images.pixels import pictures_in
from embedlab.models import Model


def detect(pictures: Float[Tensor, "image 3 height width"], model: Model) -> list[Detections]:
    """Which objects are on pictures in [0, 1], where, in what colour, and on what ground, each with its probability.

    pictures: a tensor, or what `render` gives.

    The detector lies in the model's folder `eye` and is read when it is asked for first. It was trained on pictures of
    its model's objects alone. Each picture is looked at by itself, so that the figures do not depend on the others.

    Raises ModelError for a model without a detector, PictureError for what are no pictures.

    >>> from dataclasses import replace
    >>> import torch
    >>> from embedlab import load
    >>> blind = replace(load("emoji"), eye_folder=None)
    >>> detect(torch.zeros(1, 3, 128, 128), blind)
    Traceback (most recent call last):
    ...
    embedlab.errors.ModelError: the model 'emoji' has no detector: its folder has no 'eye'; load one that has.
    """
    check_kind(model, Model, "model", "lab.load(NAME) gives one")
    pictures = pictures_in(pictures)
    if not isinstance(pictures, Tensor):
        raise PictureError(f"pictures is {brief(pictures)}; it has to be a tensor (image, 3, height, width) in [0, 1].")
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise PictureError(f"pictures are {tuple(pictures.shape)}; they have to be (image, 3, height, width).")
    if model.eye_folder is None:
        raise ModelError(f"the model '{model.name}' has no detector: its folder has no 'eye'; load one that has.")
    return look(read_detector(model.eye_folder, model.device), pictures.to(model.device).mul(2).sub(1), at_once=1)
