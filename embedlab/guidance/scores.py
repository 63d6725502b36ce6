"""Scores that a picture can be led by: a colour, what CLIP says of it, how far it is from another picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, mse_loss, normalize

from embedlab import images
from embedlab.errors import SamplerError
from embedlab.limits import check_part, found
from embedlab.metrics.clip_score import image_features, text_features

Picture = Float[Tensor, "1 3 height width"]


@dataclass(frozen=True)
class Colour:
    """How far the mean pixel is from a colour: the mean of |channel - value| over the channels that are given.

    `Colour(blue=0.9)` is the loss of the Stable Diffusion Deep Dive, "more blue".

    >>> Colour(blue=0.9)(torch.zeros(1, 3, 2, 2)).item()
    0.8999999761581421
    """

    red: float | None = None
    green: float | None = None
    blue: float | None = None

    def __post_init__(self) -> None:
        check_part(self)

    def __call__(self, picture: Picture) -> Float[Tensor, ""]:
        wanted = {n: value for n, value in enumerate((self.red, self.green, self.blue)) if value is not None}
        parts = [torch.abs(picture[:, n] - value).mean() for n, value in wanted.items()]
        return parts[0] if len(parts) == 1 else torch.stack(parts).mean()


@dataclass(frozen=True)
class Likeness:
    """1 - the cosine of a picture with a text, or with another picture, by the CLIP model that scores pictures.

    >>> from embedlab import load
    >>> score = Likeness(text="a cat").prepare(load("emoji"), (128, 128))
    >>> score(torch.full((1, 3, 128, 128), 0.5)).shape
    torch.Size([])
    """

    text: str | None = None
    picture: str | None = None

    def __post_init__(self) -> None:
        check_part(self)

    @property
    def asks_scorer(self) -> bool:
        """Whether it needs the CLIP model that scores pictures."""
        return True

    @property
    def files(self) -> list[Path]:
        """The picture that it is compared with."""
        return [] if self.picture is None else [found(self.picture, "guidance.loss.score.picture")]

    def prepare(self, model: Any, size: tuple[int, int]) -> Callable[[Picture], Float[Tensor, ""]]:
        """The score by a model's scorer; SamplerError for a model that has none."""
        scorer = scorer_of(model, "Likeness")
        if self.text is not None:
            wanted = text_features(scorer, [self.text])[0]
        else:
            wanted = image_features(scorer, images.to_tensor(images.open_picture(self.files[0]))[None])[0]

        def score(picture: Picture) -> Float[Tensor, ""]:
            return 1 - image_features(scorer, picture.cpu())[0] @ wanted.clone()

        return score


@dataclass(frozen=True)
class Distance:
    """How far a picture is from another one, which is cut to its shape.

    by: `latents`, the mean squared difference of their latents; `features`, of unit vectors at every place of the
    hidden states of the CLIP model that scores pictures, the mean over its layers (as LPIPS does with a VGG's, Zhang et
    al. 2018, eq. 1, without learned weights).

    >>> from embedlab import load
    >>> distance = Distance("puppy.png").prepare(load("emoji"), (128, 128))
    >>> distance.reads, distance(torch.zeros(1, 8, 16, 16)).item() > 0.1
    ('latents', True)
    """

    picture: str
    by: Literal["latents", "features"] = "latents"

    def __post_init__(self) -> None:
        check_part(self)

    @property
    def asks_scorer(self) -> bool:
        """Whether it needs the CLIP model that scores pictures."""
        return self.by == "features"

    @property
    def files(self) -> list[Path]:
        """The picture that it is compared with."""
        return [found(self.picture, "guidance.loss.score.picture")]

    def prepare(self, model: Any, size: tuple[int, int]) -> Any:
        """The score by a model's VAE or scorer, for pictures of a height and width."""
        picture = images.to_tensor(images.open_picture(self.files[0]), size)[None]
        if self.by == "latents":
            encoded = model.vae.encode((picture * 2 - 1).to(model.vae.device, model.vae.dtype))
            latents = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
            return OfLatents(images.to_unet(latents, model.vae).float().clone())
        scorer = scorer_of(model, "Distance(by='features')")
        wanted = [one.clone() for one in layers(scorer, picture)]

        def score(picture: Picture) -> Float[Tensor, ""]:
            pairs = zip(layers(scorer, picture), wanted, strict=True)
            return torch.stack([mse_loss(one, other, reduction="sum") / one.shape[1] for one, other in pairs]).mean()

        return score


@dataclass(frozen=True, eq=False)
class OfLatents:
    """The mean squared difference from some latents."""

    wanted: Float[Tensor, "1 c h w"]
    reads = "latents"

    def __call__(self, x0: Float[Tensor, "1 c h w"]) -> Float[Tensor, ""]:
        return mse_loss(x0.float(), self.wanted.to(x0.device))


def layers(scorer: Any, picture: Picture) -> list[Float[Tensor, "1 position width"]]:
    """The hidden states of a scorer's image encoder after each layer, of length 1 at every place."""
    weight = scorer.image.vision_model.embeddings.patch_embedding.weight
    side = scorer.image.config.image_size
    mean, std = (torch.tensor(v, device=weight.device).view(3, 1, 1) for v in (scorer.mean, scorer.std))
    small = interpolate(picture.to(weight), (side, side), mode="bicubic", antialias=True)
    states = scorer.image(pixel_values=(small - mean) / std, output_hidden_states=True).hidden_states
    return [normalize(one.float(), dim=-1) for one in states[1:]]


def scorer_of(model: Any, name: str) -> Any:
    """The CLIP model that looks at pictures."""
    if model.scorer is None:
        raise SamplerError(f"the score {name} asks a CLIP model, and '{model.name}' has none: model.scorer=FOLDER.")
    return model.scorer
