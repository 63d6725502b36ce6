"""Embeddings → Embeddings, Conditioning → Conditioning: an operator is a noun with settings and one verb.

Any callable `(Embeddings, Lookup) -> Embeddings` is one; after the encoder (its `stage` is hidden, pooled or
conditioning) it is `(Conditioning, Texts) -> Conditioning`. Those here are frozen dataclasses that check their settings
when they are made. Operators are applied in the order given, to every text encoder of the model alike.
"""

from embedlab.operators.arithmetic import Add, Average, Drop, Normalise, ProjectOut, Scale, Subtract
from embedlab.operators.base import Operator, edit, edit_encoded
from embedlab.operators.conditioning import Blend, Concatenate, Truncate
from embedlab.operators.interpolate import Interpolate, lerp, slerp, slerp_whole
from embedlab.operators.order import Permute, Reverse, Swap
from embedlab.operators.positions import Freeze, Place, Shift, Stretch
from embedlab.operators.replace import Replace
from embedlab.operators.stochastic import Noise, Rotate, Shuffle

__all__ = [
    "Add",
    "Average",
    "Blend",
    "Concatenate",
    "Drop",
    "Freeze",
    "Interpolate",
    "Noise",
    "Normalise",
    "Operator",
    "Permute",
    "Place",
    "ProjectOut",
    "Replace",
    "Reverse",
    "Rotate",
    "Scale",
    "Shift",
    "Shuffle",
    "Stretch",
    "Subtract",
    "Swap",
    "Truncate",
    "edit",
    "edit_encoded",
    "lerp",
    "slerp",
    "slerp_whole",
]
