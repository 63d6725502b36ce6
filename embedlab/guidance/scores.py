"""Scores that a picture can be led by: a colour, what CLIP says, another picture, where a word is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, mse_loss, normalize, pad

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
    and what is left sums to 1 again. Of a list of words the one that is looked at least counts. layers: blocks, modules
    or layers of the UNet, such as `mid` or `up.0.1`; left out, all.

    What the paper's code does beside, as diffusers' `StableDiffusionAttendAndExcitePipeline` has it:

    sharp: what is left of each place after the start and the last token is the softmax of so many times the mean
        probabilities (there 100).
    smooth: the map is blurred before its maximum is taken, over three by three places with exp(-(distance / 2 smooth)²)
        (there 0.5; its code says that this is a Gaussian's standard deviation, which would have 2 smooth² below).
    refine: by step how much has to be looked at the word before sampling goes on (there 0: 0.05, 10: 0.5, 20: 0.8 of
        50): latents are moved until the loss is at most 1 minus that, and once more, `iterations` times at the most.

    The UNet runs once more for each move, with gradients, on the row with the prompt alone. `form` has to be `unet`.

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
    sharp: float | None = None
    smooth: float | None = None
    refine: Mapping[int, float] | None = None
    iterations: int = 20
    reads = "attention"

    def __post_init__(self) -> None:
        check_part(self)

    def __call__(self, seen: Attended) -> Float[Tensor, ""]:
        if self.box is not None:
            return 1 - self._inside(seen, seen.columns(self.word))
        words = self.word if isinstance(self.word, list | tuple) else [self.word]
        start = seen.columns({"role": "bos"})
        of_size: dict[int, list[Tensor]] = {}
        for one in seen.layers.values():
            of_size.setdefault(one.shape[2], []).append(one[0].float())
        losses = []
        for columns in map(seen.columns, words):
            tops = [self._smoothed(self._map(of, columns, start), n, seen).max() for n, of in of_size.items()]
            losses.append(1 - torch.stack(tops).mean())
        return torch.stack(losses).max()

    def _map(
        self, layers: Sequence[Float[Tensor, "head query token"]], columns: Sequence[int], start: Sequence[int]
    ) -> Float[Tensor, " query"]:
        """How much each place looks at some columns, the start left out: the mean over heads and layers."""
        if self.sharp is None:
            left = [(1 - one[..., start].sum(-1)).clamp(min=torch.finfo(one.dtype).tiny) for one in layers]
            shares = [one[..., columns].sum(-1) / rest for one, rest in zip(layers, left, strict=True)]
            return torch.cat(shares).mean(0)
        mean = torch.cat(list(layers)).mean(0)
        last = mean.shape[-1] - 1
        unseen = torch.tensor([n in start or n == last for n in range(last + 1)], device=mean.device)
        shown = (mean * self.sharp).masked_fill(unseen, -torch.inf).softmax(-1)
        return shown[..., columns].sum(-1)

    def _smoothed(self, places: Float[Tensor, " query"], count: int, seen: Attended) -> Float[Tensor, "h w"]:
        heat = places.view(side_of(count, seen.size))
        if self.smooth is None:
            return heat
        line = torch.exp(-((torch.arange(-1.0, 2.0, device=heat.device) / (2 * self.smooth)) ** 2)).to(heat)
        kernel = torch.outer(line, line)
        way = "reflect" if min(heat.shape) > 1 else "replicate"
        padded = pad(heat[None, None], (1, 1, 1, 1), mode=way)
        blurred: Tensor = conv2d(padded, (kernel / kernel.sum())[None, None])[0, 0]
        return blurred

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
