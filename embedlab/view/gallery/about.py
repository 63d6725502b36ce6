"""What an axis is, in a sentence: the comments of the YAML files that have the setting."""

from __future__ import annotations

from collections.abc import Sequence

from embedlab.sweep.roles import PARTS, PRESETS
from embedlab.sweep.settings import alone, of_option, options

OWN = {
    "seed": "The noise that a picture begins with: the same seed begins with the same noise at all other settings.",
    "repeat": "Jobs that differ in nothing else, in the order of the sweep.",
    "sweep": "Which of the sweeps of this page it is from.",
    "name": "What its list of prompts calls a job.",
    "operators": "Which edits there are, in their order",
}


def about_axis(key: str, values: Sequence[str] = ()) -> str:
    """What a setting is, by the comment behind it; of a choice what its options are.

    >>> about_axis("guidance.scale")
    'How strongly the prompt is followed; 1 is the prompt alone, without the negative one'
    >>> about_axis("guidance", ["pag", "seg"]).split(":")[0], about_axis("operators.mine.strength")
    ('pag', 'The setting operators.mine.strength.')
    """
    if key in OWN:
        return OWN[key]
    first, _, rest = key.partition(".")
    if first in (*PARTS, *PRESETS) and not rest:
        said = options(first)
        known = [f"{value}: {said[value].rstrip('.')}" for value in values[:8] if said.get(value)]
        return "; ".join(known) or f"The choice of {first}."
    found = [one.comment for one in alone() if one.key == key]
    if first in PARTS:
        there = options(first)
        name = rest.split(".")[0]
        chosen = [name] if first == "operators" and name in there else [] if first == "operators" else list(there)
        inside = [one for option in ("default", *chosen) if option in there for one in of_option(first, option)]
        found += [one.comment for one in inside if one.key == key]
    text = next(filter(None, found), "")
    return text[:1].upper() + text[1:] or f"The setting {key}."
