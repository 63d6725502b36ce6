"""Attention of the UNet, looked at and edited: maps of words, prompt-to-prompt, a conditioning for each block."""

from embedlab.attention.edits import AttentionEdit, Confine, CopyCross, CopySelf, Reweight
from embedlab.attention.maps import Maps, object_mask, overlap, places_in, word_mass
from embedlab.attention.probabilities import probabilities_of
from embedlab.attention.settings import Attention

__all__ = [
    "Attention",
    "AttentionEdit",
    "Confine",
    "CopyCross",
    "CopySelf",
    "Maps",
    "Reweight",
    "object_mask",
    "overlap",
    "places_in",
    "probabilities_of",
    "word_mass",
]
