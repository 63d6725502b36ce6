"""What every setting of a config is for: one table, from which whoever asks reads the settings that concern it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Role:
    """What depends on a setting, and what it is made of.

    draws       pictures that depend on it: `all`, only the `edited` ones, or none ("")
    identifies  whether the result of a job depends on it, and so the key by which that is found again
    resumes     whether it may be given anew when a sweep is resumed
    part        `one` callable's keyword list, with a folder in conf; named `slots` of such; or a value ("")
    unnamed     keys of it that do not stand in the name of a job
    """

    draws: Literal["all", "edited", ""] = ""
    identifies: bool = False
    resumes: bool = False
    part: Literal["one", "slots", ""] = ""
    unnamed: tuple[str, ...] = ()


TRACKER = ("tracker", *(f"tracker.{key}" for key in ("mode", "project", "entity", "tags", "trackers", "uri")))
ROLES = {
    "prompt": Role("all", True),
    "prompt_2": Role("all", True),
    **dict.fromkeys(("language", "weighting", "windows", "pooled"), Role("all", True)),  # of encoder, which has them
    "model": Role("all", True, part="one", unnamed=("model", "model.device", "model.dtype", "model.scorer")),
    "operators": Role("edited", True, part="slots"),
    "encoder": Role("all", True, part="one"),
    "guidance": Role("all", True, part="one"),
    "sampler": Role("all", True, part="one"),
    "start": Role("all", True, part="one"),
    "attention": Role("all", True, part="one"),
    "metrics": Role("", True, part="one"),
    "tracker": Role(resumes=True, part="one", unnamed=TRACKER),
    "seeds": Role("", True, unnamed=("seeds",)),  # each picture is of one seed
    "size": Role("all", True),
    "engine": Role(resumes=True, part="one", unnamed=("engine",)),
    "at_once": Role(resumes=True, unnamed=("at_once",)),
    "store": Role(resumes=True, unnamed=("store",)),
    "objective": Role(resumes=True, unnamed=("objective",)),
    "export": Role("", True, unnamed=("export",)),
    "explain": Role(unnamed=("explain",)),
    "group": Role(resumes=True, unnamed=("group",)),
}
SETTINGS = tuple(ROLES)
PRESETS = ("tool", "experiment")  # choices that set several of them
PARTS = tuple(name for name, role in ROLES.items() if role.part)
OF_EDITED = tuple(name for name, role in ROLES.items() if role.draws)  # what an edited picture depends on
OF_UNEDITED = tuple(name for name, role in ROLES.items() if role.draws == "all")
OF_NO_RESULT = ("hydra.", *(name for name, role in ROLES.items() if not role.identifies))  # prefixes of overrides
RESUMING = ("hydra.", "hydra/launcher", *(name for name, role in ROLES.items() if role.resumes))  # the same
UNNAMED = ("experiment", *(key for role in ROLES.values() for key in role.unnamed))
