"""latents ↔ images; files and tensors → pictures; the contact sheet; PNG with its settings inside."""

from embedlab.images.drawing import font, sheet, shorten
from embedlab.images.latents import decode, to_unet, to_vae, vae_of
from embedlab.images.pixels import Pixels, as_seen, content_of, open_picture, pixels_of, to_pil, to_tensor
from embedlab.images.png import KEY, encoded, is_whole, save, settings_of

__all__ = [
    "KEY",
    "Pixels",
    "as_seen",
    "content_of",
    "decode",
    "encoded",
    "font",
    "is_whole",
    "open_picture",
    "pixels_of",
    "save",
    "settings_of",
    "sheet",
    "shorten",
    "to_pil",
    "to_tensor",
    "to_unet",
    "to_vae",
    "vae_of",
]
