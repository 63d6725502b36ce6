"""Embeddings → Embeddings: an operator is a noun with settings and one verb.

Any callable `(Embeddings, Lookup) -> Embeddings` is one; those here are frozen dataclasses that check their settings
when they are made. Operators are applied in the order given, to every text encoder of the model alike.
"""

from embedlab.operators.apply import Operator, edit
from embedlab.operators.arithmetic import Add, Average, Drop, Normalise, ProjectOut, Scale, Subtract
from embedlab.operators.chance import Noise, Rotate, Shuffle
from embedlab.operators.interpolate import Interpolate, lerp, slerp, slerp_whole
from embedlab.operators.order import Permute, Reverse, Swap
from embedlab.operators.places import Freeze, Place, Shift, Stretch, stretched
from embedlab.operators.replace import Replace

__all__ = [
    "Add",
    "Average",
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
    "edit",
    "lerp",
    "slerp",
    "slerp_whole",
    "stretched",
]
