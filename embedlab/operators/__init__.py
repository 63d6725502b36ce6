"""Embeddings → Embeddings: an operator is a noun with settings and one verb.

Any callable `(Embeddings, Lookup) -> Embeddings` is one; those here are frozen dataclasses that check their settings
when they are made. Operators are applied in the order given, to every text encoder of the model alike.
"""

from embedlab.operators.apply import Operator, edit
from embedlab.operators.interpolate import Interpolate, lerp, slerp
from embedlab.operators.replace import Replace

__all__ = ["Interpolate", "Operator", "Replace", "edit", "lerp", "slerp"]
