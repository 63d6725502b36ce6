"""How values show themselves in a notebook: pieces of HTML and SVG, pictures inside of a page, a short repr.

Knows none of embedlab's values: those bring their own texts, numbers and pictures.
"""

from embedlab.display.html import Chip, Html, block, chips, facts, join, table, tag
from embedlab.display.pictures import Picture, at_most, data_uri, gallery, grid, picture
from embedlab.display.short import Shown, settings_of, short
from embedlab.display.svg import Lane, curves, strip, timeline

__all__ = [
    "Chip",
    "Html",
    "Lane",
    "Picture",
    "Shown",
    "at_most",
    "block",
    "chips",
    "curves",
    "data_uri",
    "facts",
    "gallery",
    "grid",
    "join",
    "picture",
    "settings_of",
    "short",
    "strip",
    "table",
    "tag",
    "timeline",
]
