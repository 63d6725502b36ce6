"""Where sampling starts: noise, a picture, latents; and which part of a picture is left be."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from embedlab import images
from embedlab.checks import is_whole
from embedlab.display import Picture, Shown, block, facts, gallery, settings_of
from embedlab.errors import PictureError, SamplerError, brief
from embedlab.limits import SHIPPED, check_part, found, found_file, seeds_asked
from embedlab.sampler.handed_in import HandedIn, handed_in, latents_of
from embedlab.sampler.seeds import Variation, generators

HANDED_IN = ("picture", "latents", "mask", "depth")  # settings that are files or values in memory


@dataclass(frozen=True)
class Start(Shown):
    """Where sampling starts: from noise, from a picture (img2img, Meng et al. 2022), or from latents.

    `picture` is a path, the name of a picture that embedlab ships (`puppy.png`), a PIL image or a tensor (3, height,
    width) in [0, 1]. Of `step` (the first step that is run) and `strength` (the share of steps that is run, diffusers'
    word) one is given. A file is read at once; one that changes later is refused.

    `latents` are a `.safetensors`, `.npy` or `.pt` file, or a tensor, (channels, height, width) or several of these:
    of several, seed n has row n. Alone they are the noise that sampling starts with, as diffusers' argument `latents`;
    with `step` or `strength` they are a picture's, scaled as the UNet works on them, and noised to that step.

    `variation` turns each seed's noise toward that of another seed (`Variation`, or a mapping of its settings).

    `mask` is a picture of the size of `picture`: what is white in it is drawn anew, what is black stays, by putting
    the picture's latents back after each step, noised as far as the step has come (as diffusers' inpainting does with
    a UNet of four channels; Avrahami et al. 2022). Without `step` and `strength` the white part starts from noise.

    A UNet of inpainting (9 channels) is given the mask and the masked picture beside the latents, and nothing is put
    back; the picture's latents are the mean that the autoencoder gives. A UNet of depth (5 channels) is given `depth`,
    a picture in which white is near, as `StableDiffusionDepth2ImgPipeline` does; 8 bits of it are read.

    `warmup` is how a multistep sampler (lms, pndm) begins late. `history`: as it begins from noise, with an order that
    grows with the steps that were run. `diffusers`: as diffusers' pipelines do, which take the order from the place in
    the schedule, and leave noise that no step has taken away.

    Raises SamplerError for settings that do not fit together, PictureError for what is no picture.

    >>> Start("puppy.png", strength=0.6).first(steps=25)  # of 25 steps, the last 15 are run
    10
    >>> Start(variation={"seed": 7, "strength": 0.2}).variation
    Variation(seed=7, strength=0.2)
    """

    picture: Any = None
    step: int | None = None
    strength: float | None = None
    warmup: Literal["history", "diffusers"] = "history"
    latents: Any = None
    variation: Any = field(default_factory=Variation)
    mask: Any = None
    depth: Any = None

    def __post_init__(self) -> None:
        check_part(self)
        if not isinstance(self.variation, Variation):
            object.__setattr__(self, "variation", Variation(**dict(self.variation or {})))
        taken = {}
        for name in HANDED_IN:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, Path):
                value = str(value)
            elif not isinstance(value, str) and not hasattr(value, "content"):
                value = latents_of(value) if name == "latents" else images.pixels_of(value, f"start.{name}")
            object.__setattr__(self, name, value)
            path = None
            if isinstance(value, str):
                path = found_file(value, "start.latents") if name == "latents" else found(value, f"start.{name}")
            taken[name] = handed_in(name, value, path)
        object.__setattr__(self, "_taken", taken)
        if self.picture is not None and self.mask is not None:
            (high, wide), (h, w) = taken["picture"].shape, taken["mask"].shape
            if (h, w) != (high, wide):
                raise PictureError(
                    f"start.mask is {h} pixels high and {w} wide, and start.picture is {high} high and {wide} wide; "
                    "a mask has the size of its picture."
                )
        if "depth" in taken and len(set(taken["depth"].open().convert("L").getextrema())) == 1:
            raise PictureError("start.depth is the same all over; a depth map has something near, in white.")

    def _repr_html_(self) -> str:
        pictures = [Picture(one.open().convert("RGB"), name) for name, one in self.taken.items() if name != "latents"]
        shown = gallery(pictures) if pictures else ""
        return block(type(self).__name__, shown, facts(settings_of(self)), note="noise" if self.from_noise else "")

    @property
    def taken(self) -> Mapping[str, HandedIn]:
        """What was handed in, by the name of its setting."""
        return MappingProxyType(self.__dict__.get("_taken", {}))

    @property
    def path(self) -> Path | None:
        """Where the picture is, whatever the working directory became since; None for one in memory, and for noise."""
        return self.taken["picture"].path if "picture" in self.taken else None

    @property
    def content(self) -> str | None:
        """A hash of all that was handed in, of a picture that of its size and its colours; None for noise."""
        contents = {name: one.content for name, one in self.taken.items()}
        if set(contents) <= {"picture"}:
            return contents.get("picture")
        return " ".join(f"{name} {content}" for name, content in contents.items())

    @property
    def holds_a_picture(self) -> bool:
        """Whether the model finds a picture under the noise of the first step."""
        return not self.from_noise

    @property
    def from_noise(self) -> bool:
        """Whether there is nothing under the noise that sampling starts with."""
        return self.step is None and self.strength is None

    def open(self) -> Image.Image:
        """The picture, as RGB."""
        picture: Image.Image = self.taken["picture"].open()
        return picture

    def about(self, folder: Path) -> dict[str, Any] | None:
        """What is kept in a file in `folder` so that what was handed in is found from there and known again."""
        found: dict[str, Any] = {}
        for name, one in self.taken.items():
            about = {"content": one.content}
            if one.path is not None and one.path.parent != SHIPPED:
                about["path"] = os.path.relpath(one.path, folder.absolute())
            found |= about if name == "picture" else {name: about}
        return found or None

    def check_seeds(self, seeds: Sequence[int]) -> None:
        """Refuse seeds for which there are no latents among several."""
        if "latents" not in self.taken or (rows := self.taken["latents"].shape[0]) == 1:
            return
        if without := [seed for seed in seeds if seed >= rows]:
            raise SamplerError(
                f"start.latents holds {rows} latents, for the seeds 0 to {rows - 1}; seed {without[0]} has none."
            )

    def first(self, steps: int) -> int:
        """The first of `steps` that is run."""
        if self.from_noise:
            return 0
        if self.strength is not None:
            if not int(steps * self.strength):
                digits = 10 ** (2 + len(str(steps)))  # rounded up, because a little less would be none again
                raise SamplerError(
                    f"start.strength is {self.strength}: of {steps} steps none would be run; "
                    f"take {-(-digits // steps) / digits:g} or more."
                )
            return max(steps - min(int(steps * self.strength), steps), 0)
        assert self.step is not None
        if self.step >= steps:
            raise SamplerError(
                f"start.step is {self.step}, past the end: with {steps} steps it is {steps - 1} at the most."
            )
        return self.step


def encode_picture(
    picture: Any, model: Any, seeds: int | Sequence[int] | None = None, size: int | tuple[int, int] | None = None
) -> Float[Tensor, "image c h w"]:
    """A picture → scaled latents, as the UNet works on them: `decode(encode_picture(p, model), model)` is nearly p.

    picture: a path, the name of one that ships (`puppy.png`), a PIL image, an array or a tensor. model: a model, a
    diffusers pipeline or a VAE. seeds: the autoencoder answers with a distribution; each seed draws from it, and left
    out it is its mean, as one row. size: one side or (height, width) in pixels, to which the picture is cut; left out,
    its own, cut to whole latents.

    Raises PictureError for what is no picture, ModelError for what has no VAE, SamplerError for a size.

    >>> from embedlab import load
    >>> encode_picture("puppy.png", load("emoji"), size=128).shape
    torch.Size([1, 8, 16, 16])
    """
    vae = images.vae_of(model)
    if isinstance(picture, str | Path):
        picture = images.open_picture(found(str(picture), "picture"))
    elif not isinstance(picture, Image.Image):
        picture = images.pixels_of(picture, "picture").picture
    factor = 1 << (len(vae.config.block_out_channels) - 1)
    sides = (picture.height // factor * factor, picture.width // factor * factor) if size is None else size
    sides = (sides, sides) if is_whole(sides) else sides
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(is_whole(s) and 0 < s <= 8192 for s in sides):
        raise SamplerError(f"size is {brief(size)}; it has to be one side or (height, width) in pixels.")
    if any(side % factor for side in sides):
        raise SamplerError(f"size is {sides[0]} × {sides[1]}; both have to be multiples of {factor}, a latent's side.")
    scaled = images.to_tensor(picture, (sides[0], sides[1])).mul(2).sub(1)
    random = None if seeds is None else generators(seeds_asked(seeds))
    with torch.inference_mode():
        latents = picture_latents(vae, scaled, random)
    return latents.clone()  # a plain tensor, that may be written into


@torch.inference_mode()
def picture_latents(
    vae: Any, picture: Tensor, random: Sequence[torch.Generator] | None = None
) -> Float[Tensor, "image c h w"]:
    """Scaled latents of one picture (3, h, w) in [-1, 1], sampled anew for each generator as diffusers does.

    Without generators they are the mean, as one row. `encode_picture` takes pictures of any kind.

    >>> from embedlab import generators, models
    >>> picture_latents(models.load("emoji").vae, torch.zeros(3, 64, 64), generators([0, 1])).shape
    torch.Size([2, 8, 8, 8])
    """
    vae = images.vae_of(vae)
    if not isinstance(picture, Tensor) or picture.ndim != 3 or picture.shape[0] != 3:
        came = f"a tensor of shape {tuple(picture.shape)}" if isinstance(picture, Tensor) else brief(picture)
        raise PictureError(f"picture is {came}; it has to be a tensor (3, height, width) in [-1, 1] (encode_picture).")
    encoded = vae.encode(picture[None].to(vae.device, vae.dtype))
    if not hasattr(encoded, "latent_dist"):  # a tiny autoencoder has one answer
        return images.to_unet(encoded.latents.repeat(1 if random is None else len(random), 1, 1, 1), vae)
    posterior = encoded.latent_dist
    if random is None:
        return images.to_unet(posterior.mean, vae)
    drawn = [torch.randn(posterior.mean.shape[1:], generator=generator).to(posterior.mean) for generator in random]
    return images.to_unet(torch.stack([posterior.mean[0] + posterior.std[0] * d for d in drawn]), vae)
