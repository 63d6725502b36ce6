"""A picture's settings as the text that AUTOMATIC1111's webui writes, so that other tools can read them.

It says less than our own settings: what changes over time is told by the value that it ends with, and an edit by its
label. A picture is made again from ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedlab.checks import is_whole

KEY = "parameters"  # the PNG text chunk that other tools look into
SAMPLERS = {
    "ddim": "DDIM",
    "ddpm": "DDPM",  # the webui has none
    "pndm": "PLMS",
    "lms": "LMS",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2s": "DPM++ 2S",  # the webui has its ancestral kind, 2S a
    "dpmpp_sde": "DPM++ SDE",
    "unipc": "UniPC",
    "deis": "DEIS",  # nor these but LCM
    "sa_solver": "SA-Solver",
    "lcm": "LCM",
    "tcd": "TCD",
}
LEVELS = {"normal": "Uniform", "karras": "Karras", "exponential": "Exponential", "beta": "Beta", "lu": "Lu"}
OPTIONS = {"s_churn": "Sigma churn", "s_tmin": "Sigma tmin", "s_tmax": "Sigma tmax", "s_noise": "Sigma noise"}


def infotext(settings: Mapping[str, Any], size: tuple[int, int]) -> str:
    """The prompt, the negative prompt and one line of settings, of a picture's own settings and its (width, height).

    Settings that do not say what was drawn give an empty text.

    >>> config = {"prompt": "a puppy", "sampler": {"scheduler": "ddim", "steps": 25}}
    >>> print(infotext({"config": config, "seed": 3, "versions": {"embedlab": "0.1.0"}}, (128, 96)))
    a puppy
    Steps: 25, Sampler: DDIM, Seed: 3, Size: 128x96, Version: embedlab 0.1.0
    """
    config, made_by = settings.get("config") or {}, settings.get("versions") or {}
    sampler = config.get("sampler")
    if config.get("prompt") is None or not isinstance(sampler, Mapping):
        return ""
    guidance, encoder, model = (config.get(name) or {} for name in ("guidance", "encoder", "model"))
    negative, skip = last(guidance.get("negative")), last(encoder.get("skip"))
    steps, scheduler = sampler.get("steps"), str(sampler.get("scheduler"))
    edited = settings.get("edited") and config.get("operators")
    facts = {
        "Steps": steps,
        "Sampler": SAMPLERS.get(scheduler, scheduler),
        "Schedule type": LEVELS.get(str(sampler.get("sigmas"))),
        "CFG scale": last(guidance.get("scale")),
        "Seed": settings.get("seed"),
        "Size": f"{size[0]}x{size[1]}",
        "Model": named(str(model["name"])) if model.get("name") else None,
        **variation(config.get("start") or {}),
        "Denoising strength": strength(config.get("start") or {}, steps),
        # the webui counts from the last layer as 1
        "Clip skip": skip + 1 if is_whole(skip) and skip > 0 else None,
        "Eta DDIM" if scheduler == "ddim" else "Eta": sampler.get("eta"),
        **{name: dict(sampler.get("options") or {}).get(option) for option, name in OPTIONS.items()},
        "embedlab operators": settings.get("label") if edited else None,
        "Version": f"embedlab {made_by.get('embedlab', '')}".strip(),
    }
    lines = [str(last(config["prompt"]))]
    if negative:
        lines.append(f"Negative prompt: {negative}")
    lines.append(", ".join(f"{key}: {quoted(value)}" for key, value in facts.items() if value is not None))
    return "\n".join(lines).strip()


def last(value: Any) -> Any:
    """What a setting that changes over time ends with; any other is itself.

    >>> last({"_target_": "embedlab.schedule.Switch", "values": ["cat", "dog"], "at": 0.5})
    'dog'
    """
    while isinstance(value, Mapping) and value.get("values"):
        value = value["values"][-1]
    return value


def quoted(value: Any) -> str:
    """A value as the webui writes it: in JSON's quotes where a comma, a colon or a line break would end it.

    >>> quoted("puppy → cat"), quoted("a, b")
    ('puppy → cat', '"a, b"')
    """
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(",:\n") & set(text) else text


def named(model: str) -> str:
    """A model as the webui names it: a file without its folder and ending, anything else as it is."""
    path = Path(model)
    return path.stem if path.suffix in (".safetensors", ".ckpt") else model


def variation(start: Mapping[str, Any]) -> dict[str, Any]:
    """The other seed and how far toward it, as the webui names them; nothing where there is none."""
    other = start.get("variation") or {}
    if other.get("seed") is None or not other.get("strength"):
        return {}
    return {"Variation seed": other["seed"], "Variation seed strength": other["strength"]}


def strength(start: Mapping[str, Any], steps: Any) -> float | None:
    """The share of steps that was run from a picture; None from noise."""
    if start.get("picture") is None:
        return None
    share: float | None = start.get("strength")
    if share is not None:
        return share
    if start.get("step") is None:  # a mask, and noise under it
        return 1.0
    left: int = steps - start["step"]
    return round(left / int(steps), 4)
