"""What would drive a terminal, a newline that would forge a line, encodings other than UTF-8, closed pipes."""

import shutil
from collections.abc import Callable
from pathlib import Path

from rows_commands import changed, row
from rows_files import put, with_settings
from trials import Given, Trial, words_of

SIGNS = {
    "escape": "\x1b[31mred\x1b]0;title\x07",
    "C1": "\x9b31mred\x85",
    "backspace": "a\x08\x08b\x7f",
    "return": "good\rbad",
    "bidi": "a\u202eb\u2066c\u200f\u061c",
    "lines": "a\u2028b\u2029c\x0b\x0c",
    "tags": "a\U000e0041\ufeff\u00adb",
}
OPERATE = ("operators=[interpolate]", "operators.interpolate.toward=cat")


def job_named(text: str) -> Callable[[Path], None]:
    """The first job's folder with another name."""

    def rename(folder: Path) -> None:
        (folder / "sweep/0").rename(folder / "sweep" / text)

    return rename


def sweep_named(text: str) -> Callable[[Path], None]:
    """The sweep with another name."""

    def rename(folder: Path) -> None:
        shutil.copytree(folder / "sweep", folder / text)

    return rename


def each(sign: str, text: str) -> list[tuple[str, Given, str | None, Callable[[Path], None] | None]]:
    """Where such a text may come from, and what is done with it."""
    told = {"label": text, "error": text, "status": "failed", "prompt": text, "name": text}
    return [
        ("setting", f"sampler.scheduler={text!r}", "scheduler", None),
        ("key", f"{text}=1", "embedlab", None),
        ("word", text, "embedlab", None),
        ("prompt explained", ("explain", f'prompt="{text} puppy"'), None, None),
        ("prompt drawn", (f'prompt="{text} puppy"',), None, None),
        ("prompt swept", ("-m", f'prompt="{text} puppy",b'), None, None),
        ("word scored", ("metrics.words=[x]", f'metrics.words=["{text}"]'), None, None),
        ("rows", (*OPERATE, f'operators.interpolate.rows="{text}"'), "embedlab", None),
        ("folder", ("sheet", f"nowhere{text}"), "nowhere", None),
        ("picture", ("replay", f"nowhere{text}.png"), "nowhere", None),
        ("axis", ("sheet", "sweep", "--rows", text), "axis", None),
        ("group", f'group="{text}"', None, None),
        ("store", f'store="x{text}"', None, None),
        ("results on a sheet", ("sheet", "sweep"), None, changed("0/result.json", **told)),
        ("results in a gallery", ("gallery", "sweep"), None, changed("0/result.json", **told)),
        ("results in a film", ("film", "sweep", "--along", "x"), "embedlab", changed("0/result.json", overrides={text: 1})),
        ("file in a film", ("film", "sweep"), "cannot be read", row(file=f"x{text}.png")),
        ("folder of a job", ("gallery", "sweep"), None, job_named(f"x{text}")),
        ("folder of a sweep", ("sheet", f"s{text}"), None, sweep_named(f"s{text}")),
        ("versions", ("replay", "picture.png"), "differs", with_settings(lambda s: s | {"seed": 5, "versions": {"torch": text, "diffusers": text}})),
        ("target", ("replay", "picture.png"), "none of embedlab", with_settings(put("config", "model", "_target_", to=f"x{text}"))),
    ]  # fmt: skip


FORGED = {"torch": "1\nthe same, bit for bit", "diffusers": "1\rthe same, bit for bit"}
LOCALES: list[tuple[str, Given, str | None]] = [
    ("explain", ("explain", "prompt='日本語 puppy é'"), None),
    ("draw", ("prompt='日本語 puppy é'", "tracker=disk"), None),
    ("sweep", ("-m", "prompt='日本語','é'", "tracker=disk"), None),
    ("refuse", ("sampler=日本語",), "embedlab"),
    ("sheet", ("sheet", "sweep"), None),
    ("gallery", ("gallery", "sweep"), None),
    ("film", ("film", "sweep"), None),
    ("replay", ("replay", "sweep/0/seed-0.png"), None),
    ("resume", ("resume=sweep",), None),
    ("help", ("--help",), None),
    ("config", ("--cfg", "job"), None),
    ("command's help", ("film", "--help"), None),
]

PIPED: list[Given] = [
    ("explain", "prompt='a puppy'"),
    ("--help",),
    ("--cfg", "job"),
    ("sheet", "sweep"),
    ("replay", "sweep/0/seed-0.png"),
    ("seeds=[0]", "tracker=disk"),
    ("-m", "seeds=[0],[1]", "tracker=disk"),
]

TERMINAL = [
    *(
        Trial(f"{sign}, {where}", words_of(given), says, before=before, code=1 if says == "differs" else 0)
        for sign, text in {"all": "".join(SIGNS.values()), **SIGNS}.items()
        for where, given, says, before in each(sign, text)
        if sign == "all" or where in ("word", "prompt explained", "results on a sheet")
    ),
    Trial(
        "forged verdict",
        ("replay", "picture.png"),
        "differs",
        code=1,
        hides=("\nthe same, bit for bit",),
        before=with_settings(lambda s: s | {"seed": 5, "versions": FORGED}),
    ),
    *(Trial("closed pipe", words_of(given), closed=True) for given in PIPED),
    *(Trial(f"ASCII, {name}", words_of(given), says, locale="C") for name, given, says in LOCALES),
]
