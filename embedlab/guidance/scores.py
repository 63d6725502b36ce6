"""Scores that a picture can be led by: a colour, what CLIP says, another picture, where a word is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, mse_loss, normalize

from embedlab import images
from embedlab.attention.layers import side_of
from embedlab.attention.maps import Probabilities, places_in, word_mass
from embedlab.display import Shown
from embedlab.encoder import Conditioning
from embedlab.errors import SamplerError
from embedlab.limits import check_part, found
from embedlab.metrics.clip_score import image_features, text_features
from embedlab.selector import Selector

Picture = Float[Tensor, "1 3 height width"]


@dataclass(frozen=True)
class Colour(Shown):
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
class Likeness(Shown):
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
class Distance(Shown):
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


@dataclass(frozen=True, eq=False)
class Attended:
    """What a score that has `reads = "attention"` gets: the cross-attention of the row with the prompt of a picture.

    layers: by layer its probabilities, (1, head, query, token), with gradients. told: the conditioning of that row,
    which knows where the words stand (`spans`). size: height and width of the latents.
    """

    layers: Mapping[str, Probabilities]
    told: Conditioning
    size: tuple[int, int]

    def columns(self, rows: Selector) -> list[int]:
        """Where the tokens of a selector stand among the hidden states."""
        return sorted({n for span in self.told.spans(rows) for n in span})


@dataclass(frozen=True)
class Mass(Shown):
    """How little a word of the prompt is looked at, in a box or where it is looked at most.

    word: a word or selector; of prompts that AND joins, of the first. box: left, top, right and bottom in shares of the
    picture; the loss is 1 - the share of the word's attention that falls into it, the mean over layers
    (`attention.maps.word_mass`). Without a box it is 1 - the maximum over places of the word's attention, as
    Attend-and-Excite's (Chefer et al. 2023, eq. 1): the sum over the word's tokens, the mean over the heads and layers
    of one resolution, and the mean of what comes of each resolution. The start token is left out as the paper has it,
    what is left sums to 1 again; the map is not smoothed, and nothing is iterated. layers: blocks, modules or layers of
    the UNet, such as `mid` or `up.0.1`; left out, all.

    The UNet runs once more for it, with gradients, on the row with the prompt alone. `form` has to be `unet`.

    Raises SamplerError for a box in which no place of these layers has its middle.

    >>> from embedlab import load
    >>> from embedlab.attention.probabilities import probabilities_of
    >>> from embedlab.encoder import embed_all, encode
    >>> model = load("emoji")
    >>> (told,) = encode([embed_all("a cat", model.towers)], model.towers)
    >>> with torch.no_grad(), probabilities_of(model.unet) as seen:
    ...     _ = model.unet(torch.zeros(1, 8, 16, 16), 500, told.hidden[None])
    >>> 0 < Mass("cat", box=[0, 0, 0.5, 1])(Attended(seen, told, (16, 16))).item() < 1
    True
    """

    word: Selector
    box: Sequence[float] | None = None
    layers: Sequence[str] | None = None
    reads = "attention"

    def __post_init__(self) -> None:
        check_part(self)

    def __call__(self, seen: Attended) -> Float[Tensor, ""]:
        columns = seen.columns(self.word)
        if self.box is not None:
            return 1 - self._inside(seen, columns)
        start = seen.columns({"role": "bos"})
        of_size: dict[int, list[Tensor]] = {}
        for one in seen.layers.values():
            known = one[0].float()
            left = (1 - known[..., start].sum(-1)).clamp(min=torch.finfo(known.dtype).tiny)
            of_size.setdefault(known.shape[1], []).append(known[..., columns].sum(-1) / left)
        return 1 - torch.stack([torch.cat(maps).mean(0).max() for maps in of_size.values()]).mean()

    def _inside(self, seen: Attended, columns: Sequence[int]) -> Float[Tensor, ""]:
        assert self.box is not None
        shares = []
        for one in seen.layers.values():
            places = places_in(self.box, side_of(one.shape[2], seen.size)).to(one.device)
            if places.any():
                shares.append(word_mass(one.float(), columns, places)[0])
        if not shares:
            raise SamplerError(
                f"guidance.loss.score.box is {list(self.box)}, and no place of these layers has its middle there; take "
                "a larger box, or layers of a higher resolution."
            )
        return torch.stack(shares).mean()


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
