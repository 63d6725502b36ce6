"""Which of the settings there are was meant, chosen or misspelt on a command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from embedlab.errors import listed, nearest
from embedlab.sweep.config import conf_dir
from embedlab.sweep.roles import PARTS, PRESETS
from embedlab.sweep.settings import Setting, alone, every, of_option, options, read_file

__all__ = [
    "CHOICES",
    "ELSEWHERE",
    "LONG",
    "OPEN",
    "OTHERS",
    "PLAINEST",
    "Setting",
    "advice",
    "alone",
    "as_text",
    "chosen",
    "every",
    "known",
    "meant",
    "mended",
    "nested",
    "of_group",
    "of_option",
    "options",
    "within",
]

LONG = 400  # signs of a command line that is still told whole

# what other tools call a setting or an option: by its name here, or by its key where several have that name
ELSEWHERE = {
    "scale": ("cfg", "cfg_scale", "guidance_scale"),
    "negative": ("negative_prompt", "neg", "uncond"),
    "sampler.steps": ("num_inference_steps", "num_steps", "n_steps", "sampling_steps"),
    "scheduler": ("sampler_name", "scheduler_name"),
    "seeds": ("seed",),
    "size": ("height", "width", "resolution", "image_size"),  # of several words a list, in this order
    "skip": ("clip_skip",),
    "at_once": ("batch_size", "batch"),
    "model.name": ("path", "checkpoint", "ckpt", "model_name", "model_id", "model_path"),
    "dtype": ("precision", "torch_dtype"),
    "strength": ("denoising_strength", "denoise"),
    "picture": ("image", "init_image", "start_image"),
    "dir": ("out", "outdir", "output", "output_dir"),
    "prompt": ("text",),
    "weight": ("alpha",),
    "toward": ("target",),
    "rows": ("word", "token"),
    "pndm": ("plms",),
    "eta": ("ddim_eta",),
    "dpm_2": ("dpm2", "k_dpm_2"),
    "dpm_2_ancestral": ("dpm2_a", "k_dpm_2_a"),
    "dpmpp_2m_sde": ("dpm++_2m_sde", "dpm++2m_sde", "sde-dpmsolver++"),
    "dpmpp_sde": ("dpm++_sde",),
    "euler_ancestral": ("euler_a", "k_euler_a", "eulera"),
    "dpmpp_2m": ("dpm++", "dpm++2m", "dpm++_2m", "dpmsolver++"),
    "dpmpp_2s": ("dpm++_2s", "dpm++2s", "dpm++_2s_a"),
    "silent": ("none", "off", "false", "no"),
}
# what other tools call an option of a group
CHOICES = {
    "attention": {"daam": "maps", "heat_map": "maps", "prompt_to_prompt": "p2p", "prompt2prompt": "p2p"},
    "guidance": {"cfg": "default", "classifier_free": "default", "perturbed_attention": "pag"},
    "start": {"img2img": "picture", "inpaint": "picture", "inpainting": "picture", "txt2img": "noise"},
}
OPEN = ("sampler.options", "guidance.settings")  # settings whose names are another library's
PLAINEST = ("picture",)  # of choices that share their settings those that are meant where nothing else says
OTHERS = {other: name for name, others in ELSEWHERE.items() for other in others}


@cache
def _chosen_in(path: Path) -> dict[str, list[str]]:
    found = {}
    for line in read_file(path)[0].get("defaults", []):
        for key, value in line.items() if isinstance(line, dict) else ():
            found[key.removeprefix("override ").lstrip("/")] = _names(value)
    return found


def _options_in(value: str) -> list[str]:
    return [one for one in re.sub(r"[\[\]\s]", "", value).split(",") if one]


def _names(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [] if value is None else [str(value)]


def chosen(words: Sequence[str]) -> dict[str, list[str]]:
    """The options that a command line chooses in each group, by itself and by its experiment.

    >>> chosen(["experiment=demo", "sampler=lms"])["operators"], chosen(["sampler=lms"])["sampler"]
    (['swap'], ['lms'])
    """
    picked = dict(_chosen_in(Path(conf_dir(), "config.yaml")))
    said = [word.lstrip("+").partition("=") for word in words]
    for key, _, value in said:
        if key == "experiment" and (file := Path(conf_dir(), "experiment", f"{value}.yaml")).is_file():
            picked |= _chosen_in(file)
    for key, _, value in said:
        if key in PARTS and (key == "operators" or all(name in options(key) for name in _options_in(value))):
            picked[key] = _options_in(value)
        elif key.startswith("operators."):  # one of somebody's own: +operators.louder._target_=…
            name = key.split(".")[1]
            if f"+operators.{name}" in {word.partition("=")[0].rsplit("._target_", 1)[0] for word in words}:
                picked["operators"] = [*picked.get("operators", []), name]
    return picked


def nested(group: str, *named: str) -> dict[str, list[str]]:
    """The names in each mapping that is a default of a group, or of some of its options, by its key.

    >>> nested("guidance")["guidance.loss.score"], nested("attention")["attention.edits.box"]
    (['blue', 'red', 'green'], ['rows', 'box', 'amount', 'layers'])
    """
    found: dict[str, list[str]] = {}

    def walk(key: str, value: Any) -> None:
        if isinstance(value, dict):
            names = [name for name in value if not name.startswith("_")]
            found[key] = list(dict.fromkeys([*found.get(key, []), *names]))
            for name in names:
                walk(f"{key}.{name}", value[name])

    for option in named or options(group):
        for setting in of_option(group, option):
            walk(setting.key, setting.default)
    return found


def within(key: str, *named: str) -> list[str]:
    """The names in a mapping that is a default of some options, by its key; none of one that is not there.

    >>> within("start.variation"), within("sampler.steps")
    (['seed', 'strength'], [])
    """
    group = key.partition(".")[0]
    return nested(group, *named).get(key, []) if group in PARTS and group != "operators" else []


def _inside(key: str) -> str | None:
    """A key within a mapping of a group, with the parts of it that are not there as what they are near to.

    >>> _inside("guidance.setings.eta"), _inside("guidance.loss.blue"), _inside("attention.edits.cross.amount")
    ('guidance.settings.eta', 'guidance.loss.score.blue', 'attention.edits.cross.operator.amount')
    """
    group, *rest = key.split(".")
    if group not in PARTS or group == "operators" or not rest:
        return None
    there, here = nested(group), group
    tops = sorted({s.name for option in options(group) for s in of_option(group, option)})
    for n, typed in enumerate(rest):
        names, part = tops if here == group else there.get(here, []), typed
        if part not in names:
            deeper = [inner for inner in there if inner.startswith(f"{here}.") and part in there[inner]]
            near = nearest(part, names, 0.7)
            if here != group and len(deeper) == 1:
                here = deeper[0]
            elif near is not None:
                part = near
            else:
                return None
        here = f"{here}.{part}"
        if here not in there and n + 1 < len(rest):
            return None
    return here if here != key and here.count(".") > 1 else None


def known(words: Sequence[str]) -> tuple[Setting, ...]:
    """The settings of the options that a command line chooses."""
    picked = chosen(words)
    inside = [s for g in PARTS for o in picked.get(g, ()) if o in options(g) for s in of_option(g, o)]
    return (*alone(), *inside)


def as_text(value: Any) -> str:
    """A default as a command line says it.

    >>> as_text(None), as_text([0, 1]), as_text(True), as_text("a dog")
    ('null', '[0, 1]', 'true', 'a dog')
    """
    return (
        value
        if isinstance(value, str)
        else "null"
        if value is None
        else str(value).replace("True", "true").replace("False", "false")
    )


# ── which was meant ───────────────────────────────────────────────────────────────────────────────────────────────


@cache
def _often() -> dict[str, int]:
    """How many of the shipped experiments choose each option: of several that would do, the usual one is named."""
    found: dict[str, int] = {}
    for path in Path(conf_dir(), "experiment").glob("*.yaml"):
        for name in (name for names in _chosen_in(path).values() for name in names):
            found[name] = found.get(name, 0) + 1
    return found


def meant(key: str, value: str, words: Sequence[str] = ()) -> Setting | str | None:
    """The setting that a key which is not there stands for, or the choice `group=option`; None where nothing is near.

    >>> meant("guidance", "5").key, meant("steps", "5").key, meant("seed", "3").key, meant("sampler.name", "euler")
    ('guidance.scale', 'sampler.steps', 'seeds', 'sampler=euler')
    >>> meant("weight", "0.5").key, meant("weight", "0.5", ["operators=[add]"]).key
    ('operators.interpolate.weight', 'operators.add.weight')
    """
    *outer, last = key.split(".")
    first = outer[0] if outer else last
    if key in PRESETS:
        option = nearest(value, list(options(key)))
        return option and f"{key}={option}"
    if key in PARTS:
        return _of_group(key, value, words)
    if (inside_a_value := _inside(key)) is not None:
        top = ".".join(inside_a_value.split(".")[:2])
        holds = [s for s in every() if s.key == top and isinstance(s.default, dict)]
        best = max(holds, key=lambda s: (_holds(s, inside_a_value), s.option in chosen(words).get(first, [])))
        return Setting(inside_a_value, None, "", best.option)
    name = OTHERS.get(last, last)
    settings = [s for s in every() if name in (s.key, s.name)]
    if first in PARTS and value in options(first) and not any(s.key == key for s in settings):
        return f"{first}={value}"
    if not settings and "." not in key and (group := nearest(key, PARTS, 0.8)):
        names = _options_in(value)
        return f"{group}={value}" if all(n in options(group) for n in names) else _of_group(group, value, words)
    if not settings:
        inside = [s for s in every() if s.group == first and "." in key] or every()
        near = nearest(last, [s.name for s in inside])
        settings = [s for s in inside if s.name == near]
    picked, usual = chosen(words), chosen([])
    sweep = bool({"-m", "--multirun"} & set(words))

    def fits(setting: Setting) -> tuple[bool, bool, bool, bool, bool, int]:
        mine = picked.get(setting.group, [])
        here = (setting.option in mine) if setting.option else setting.key != f"hydra.{'run' if sweep else 'sweep'}.dir"
        return (
            all(part in setting.key.split(".") for part in outer),
            here,
            setting.group != "operators",
            setting.option in usual.get(setting.group, ()),
            setting.option in PLAINEST,
            _often().get(setting.option, 0),
        )

    return max(settings, key=fits, default=None)


def _holds(setting: Setting, key: str) -> bool:
    """Whether a setting that is a mapping has a key in it."""
    value: Any = setting.default
    for part in key.removeprefix(f"{setting.key}.").split("."):
        value = value.get(part, setting) if isinstance(value, dict) else setting
    return value is not setting


def _of_group(group: str, value: str, words: Sequence[str]) -> Setting | str | None:
    """What is meant by a group whose value is none of its options: an option near it, or a setting that it fits."""
    try:
        given = yaml.safe_load(value)
    except yaml.YAMLError:
        return None
    if isinstance(given, str):  # as other tools write it: Euler a, DPM++ 2M, img2img
        other = re.sub(r"[\s-]+", "_", given.strip().lower())
        spelled = CHOICES.get(group, {}).get(other, OTHERS.get(other, other))
        if spelled in options(group):
            return f"{group}={spelled}"
    if isinstance(given, str | list):  # one option or several, each the one that is near
        near = {name: nearest(OTHERS.get(name.lower(), name), list(options(group)), 0.7) for name in _options_in(value)}
        if near and all(near.values()):
            mended_value = re.sub(r"[^][,]+", lambda found: near["".join(found[0].split())] or "", value)
            return f"{group}={mended_value}"
    picked = [option for option in chosen(words).get(group, []) if option in options(group)]
    picked = picked or chosen([]).get(group, [])
    usual = sorted(options(group), key=lambda option: (option not in PLAINEST, -_often().get(option, 0)))
    for setting in (s for option in (*picked, *usual) for s in of_option(group, option)):
        default = setting.default
        number = isinstance(given, int | float) and isinstance(default, int | float)
        if number and bool not in (type(given), type(default)):
            return setting
        if isinstance(given, list) and (default is None or isinstance(default, list)) and group != "operators":
            return setting
        if isinstance(given, str) and default == "???" and (group == "model" or re.search(r"[./]", given)):
            return setting
    return None


def mended(words: Sequence[str]) -> list[str] | None:
    """A command line with the settings that were meant in the place of those that are not there; None without such.

    >>> mended(["steps=5", "seed=3", "width=96", "height=64"])
    ['sampler.steps=5', 'seeds=[3]', 'size=[64,96]']
    >>> mended(["weight=0.5"]), mended(["prompt=a dog"])
    (['operators=[interpolate]', 'operators.interpolate.weight=0.5'], None)
    """
    there = {s.key for s in known(words)}
    fitting: list[str] = []
    values: dict[str, dict[str, str]] = {}  # of settings that were meant, by the names that they were given
    changed = False
    for word in words:
        key, sign, value = word.partition("=")
        bare = word.lstrip("-") if word.startswith("--") else word
        key = bare.partition("=")[0]
        if not sign or _is_fine(key, value, there, words):
            fitting.append(word)
            continue
        found = meant(key, value, words)
        if found is None or isinstance(found, str):
            fitting.append(found or word)
            changed = changed or found is not None
            continue
        changed = True
        fitting += [w for w in _before(found, words, fitting) if w not in fitting]
        given = values.setdefault(found.key, {})
        given[key] = value
        order = ELSEWHERE.get(found.key, ())
        several = sorted(given, key=lambda k: order.index(k) if k in order else -1)
        joined = f"[{','.join(given[k] for k in several)}]" if len(several) > 1 else value
        fitting = [w for w in fitting if w.partition("=")[0] != found.key] + [found.word(joined)]
    return fitting if changed else None


def _is_fine(key: str, value: str, there: set[str], words: Sequence[str]) -> bool:
    """Whether Hydra knows this key, or it is none of ours."""
    if key[:1] in "+~" or "@" in key or "/" in key or key == "resume" or key in there:
        return True
    if any(f"{key}.".startswith(f"{one}.") for one in ("hydra", "prompts", *there)):
        return key.startswith(tuple(f"{name}." for name in OPEN)) or _inside(key) is None
    if key in (*PARTS, *PRESETS):
        return all(name in options(key) for name in _options_in(value))
    parts = key.split(".")
    return parts[0] == "operators" and len(parts) > 2 and parts[1] not in options("operators")


def _before(setting: Setting, words: Sequence[str], fitting: list[str]) -> list[str]:
    """The choice that brings a setting that is not there yet, with all that this choice has to be told."""
    group, option = setting.group, setting.option
    mine = chosen([*words, *fitting])
    if not option or option in mine.get(group, []) or any(s.key == setting.key for s in known([*words, *fitting])):
        return []
    if group != "operators":
        asked = [s for s in of_option(group, option) if s.default == "???" and s.key != setting.key]
        given = {word.partition("=")[0] for word in words}
        return [f"{group}={option}", *(f"{s.key}=…" for s in asked if s.key not in given)]
    fitting[:] = [word for word in fitting if not word.startswith("operators=")]
    return [f"operators=[{','.join([*mine.get('operators', []), option])}]"]


def advice(words: Sequence[str]) -> str:
    """How to say what a command line meant, to be put behind a complaint; empty where nothing is near.

    >>> advice(["steps=5"])
    '; try: embedlab sampler.steps=5'
    """
    if (better := mended(words)) is None:
        return ""
    line = shlex.join(better)
    if len(line) > LONG:
        line = shlex.join(word for word in better if word not in words)
    return f"; try: embedlab {line}"


def of_group(group: str) -> str:
    """The names of the settings of a group, for a message."""
    return listed(sorted({s.name for option in options(group) for s in of_option(group, option)}))
