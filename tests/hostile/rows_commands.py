"""Commands over a finished sweep: sheet, film, gallery, replay, sync, resume; their words, and sweeps that are damaged."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trials import Trial, refused, works

PICTURE = "sweep/0/seed-0.png"


def changed(name: str, /, **values: Any) -> Callable[[Path], None]:
    """Fields of a JSON file of the sweep, set to something else."""

    def change(folder: Path) -> None:
        file = folder / "sweep" / name
        file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **values}), "utf-8")

    return change


def written(name: str, text: str | bytes) -> Callable[[Path], None]:
    """A file of the sweep with other content."""

    def write(folder: Path) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))

    return write


def commanded(*words: str) -> Callable[[Path], None]:
    """More words in the command that the sweep says it was started with."""

    def change(folder: Path) -> None:
        file = folder / PLAN
        plan = json.loads(file.read_text("utf-8"))
        file.write_text(json.dumps({**plan, "command": [*plan["command"], *words]}), "utf-8")

    return change


def row(**values: Any) -> Callable[[Path], None]:
    """Fields of the first picture of the first job, set to something else."""

    def change(folder: Path) -> None:
        file = folder / "sweep/0/result.json"
        result = json.loads(file.read_text("utf-8"))
        result["pictures"][0] |= values
        file.write_text(json.dumps(result), "utf-8")

    return change


def replaced(name: str, by: str) -> Callable[[Path], None]:
    """A pipe, a device, a link, or a folder in the place of a file."""

    def replace(folder: Path) -> None:
        file = folder / name
        file.unlink(missing_ok=True)
        if by == "fifo":
            os.mkfifo(file)
        elif by == "folder":
            file.mkdir()
        else:
            file.symlink_to(by)

    return replace


def gone(*names: str) -> Callable[[Path], None]:
    """Without some files."""

    def remove(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def both(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    """Several of these."""

    def all_of(folder: Path) -> None:
        for step in steps:
            step(folder)

    return all_of


DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
RESULT, PLAN = "sweep/0/result.json", "sweep/sweep.json"
ODD: list[tuple[str, Callable[[Path], None]]] = [
    ("deep", written(RESULT, DEEP)),
    ("empty", written(RESULT, "")),
    ("half", written(RESULT, '{"format": 1, "pict')),
    ("list", written(RESULT, "[]")),
    ("number", written(RESULT, "1" * 5000)),
    ("not UTF-8", written(RESULT, b"\xff\xfe{}")),
    ("zero bytes", written(RESULT, b"\0" * 1000)),
    ("fifo", replaced(RESULT, "fifo")),
    ("/dev/zero", replaced(RESULT, "/dev/zero")),
    ("folder", replaced(RESULT, "folder")),
    ("link out", replaced(RESULT, "/etc/hostname")),
    ("long", written(RESULT, '{"a": "' + "x" * 3_000_000 + '"}')),
    ("format 99", changed("0/result.json", format=99)),
    ("status broken", changed("0/result.json", status="broken")),
    ("status null", changed("0/result.json", status=None)),
    ("digits", row(**{"clip_score/x": int("9" * 400)})),
    ("seed of 400 digits", row(seed=int("9" * 400))),
    ("seed text", row(seed="x")),
    ("seed true", row(seed=True)),
    ("file out", row(file="../../../etc/hostname")),
    ("file absolute", row(file="/etc/hostname")),
    ("file NUL", row(file="a\0b")),
    ("file number", row(file=1)),
    ("file list", row(file=["a"])),
    ("file device", row(file="/dev/zero")),
    ("baseline out", row(baseline="../../x.png")),
    ("baseline number", row(baseline=3)),
    ("error list", row(error=["a"])),
    ("scores list", changed("0/result.json", scores=[])),
    ("scores text", changed("0/result.json", scores={"clip_score/x": "a", "y": None, "z": [1]})),
    ("scores digits", changed("0/result.json", scores={"clip_score/x": int("9" * 400)})),
    ("overrides list", changed("0/result.json", overrides=[1])),
    ("overrides deep", changed("0/result.json", overrides={"a": json.loads("[" * 200 + "]" * 200)})),
    ("overrides other", changed("0/result.json", overrides={"operators.interpolate.weight": "x"})),
    ("overrides digits", changed("0/result.json", overrides={"operators.interpolate.weight": int("9" * 400)})),
    ("prompt list", changed("0/result.json", prompt=["a"])),
    ("label null", changed("0/result.json", label=None)),
    ("label number", changed("0/result.json", label=1)),
    ("name number", changed("0/result.json", name=1)),
    ("name list", changed("0/result.json", name=["a"])),
    ("status odd", changed("0/result.json", status=["a"])),
    ("job text", changed("0/result.json", job="a")),
    ("job list", changed("0/result.json", job=[1])),
    ("config list", changed("0/result.json", config=[1])),
    ("config text", changed("0/result.json", config="a")),
    ("notes text", changed("0/result.json", notes=1)),
    ("explain list", changed("0/result.json", explain=[1])),
    ("explain odd", changed("0/result.json", explain={"tokens": 1, "layers": {"a": 1}, "shifts": [1]})),
    ("schedule odd", changed("0/result.json", schedule=1)),
    ("versions list", changed("0/result.json", versions=[1])),
    ("pictures dict", changed("0/result.json", pictures={"a": 1})),
    ("pictures empty", changed("0/result.json", pictures=[])),
    ("pictures odd", changed("0/result.json", pictures=[1, None, {}])),
    ("format new", changed("0/result.json", format=99)),
    ("format text", changed("0/result.json", format="x")),
    ("picture gone", gone("sweep/0/seed-0.png")),
    ("picture empty", written("sweep/0/seed-0.png", "")),
    ("picture text", written("sweep/0/seed-0.png", "no picture")),
    ("picture fifo", replaced("sweep/0/seed-0.png", "fifo")),
    ("picture /dev/zero", replaced("sweep/0/seed-0.png", "/dev/zero")),
    ("picture folder", replaced("sweep/0/seed-0.png", "folder")),
    ("baseline fifo", replaced("sweep/0/baseline-seed-0.png", "fifo")),
]
PLANS: list[tuple[str, Callable[[Path], None]]] = [
    ("plan deep", written(PLAN, DEEP)),
    ("plan empty", written(PLAN, "")),
    ("plan list", written(PLAN, "[]")),
    ("plan fifo", replaced(PLAN, "fifo")),
    ("plan /dev/zero", replaced(PLAN, "/dev/zero")),
    ("plan folder", replaced(PLAN, "folder")),
    ("plan jobs", changed("sweep.json", jobs=1)),
    ("plan jobs odd", changed("sweep.json", jobs=[1, {"folder": "../x"}, {"folder": None}])),
    ("plan command", changed("sweep.json", command=[1, {"a": 1}])),
    ("plan jobs digits", changed("sweep.json", jobs=[{"folder": "0", "job": int("9" * 400), "overrides": 1}])),
]


def after(
    group: str, command: tuple[str, ...], cases: list[tuple[str, Callable[[Path], None]]], **more: Any
) -> list[Trial]:
    """A command over each damaged sweep: the rest is shown, what is wrong is named."""
    return [Trial(f"{group}, {name}", command, before=before, **more) for name, before in cases]


FILM = ("film", "sweep", "--seed", "1", "--to", "films")
BAD = ("deep", "fifo", "/dev/zero", "digits", "seed text", "seed true", "pictures dict", "pictures odd")

COMMANDED: list[tuple[str, ...]] = [
    ("+hydra.callbacks.x._target_=os.system",),
    ("+hydra.callbacks.x={_target_:os.system}",),
    ("hydra.callbacks.collect._target_=evil.Callback",),
    ("hydra={callbacks:{x:{_target_:os.system}}}",),
    ("+operators@hydra.callbacks.x=replace",),
    ("hydra.searchpath=[file:///tmp]",),
    ("hydra/launcher=joblib",),
    ("hydra.launcher._target_=os.system",),
    ("+hydra.launcher.options={wrap:id}",),
    ("hydra.sweeper._target_=os.system",),
    ("+hydra.sweeper.custom_search_space=os.system",),
    ("hydra/job_logging=default",),
    ("hydra.job_logging.handlers.x={class:os.system}",),
    ("+hydra.job.env_set.PATH=/tmp",),
    ("hydra.job.chdir=true",),
    ("hydra.output_subdir=../../x",),
    ("--config-dir=/tmp",),
    ("--config-dir", "/tmp"),
    ("-cd", "/tmp"),
    ("--config-path=/tmp",),
    ("--config-name=pretrain",),
    ("--experimental-rerun=x.pickle",),
    ("--hydra-help",),
    ("+operators.x._target_=os.system",),
    ("+operators.x={_target_:subprocess.Popen,args:[id]}",),
    ("+operators.x={_target_:embedlab.models.os.system}",),
    ("+operators.x={a:[{_target_:os.system}]}",),
    ("+operators.x._target_=os.system,os.popen",),
    ("++operators.x._partial_=true",),
    ("objective={_target_:os.system}",),
    ("tracker._target_=evil.Tracker",),
    ("model._target_=os.system",),
    ("model.allow_pickle=true",),
    ("model={name:x,allow_pickle:true}",),
    ("prompt=${oc.env:HOSTILE_TOKEN}",),
    ("prompt='${oc.env:HOSTILE_TOKEN}'",),
    ("+operators.x._target_=${prompt}",),
    ("experiment=../../x",),
    ("sampler=/tmp/x",),
    ("operators=[../x]",),
    ("prompt='open",),
    ("store=../elsewhere",),
    ("+store='/nowhere/elsewhere'",),
    ("store=${prompt}",),
    ("hydra.sweep.subdir=/nowhere/${hydra.job.num}",),
    ("hydra.sweep.subdir=../${hydra.job.num}",),
]

ANATOMY = [
    *(("size=",), ("size=nan",), ("size=1e999",), ("size=[]",), ("size=-64",), ("size={a:1}",), ("size=1" + 30 * "0",)),
    *(
        ("size=60",),
        ("size=8",),
        ("size=64", "size=128"),
        ("size=choice()",),
        ("size=[1",),
        ("size=${size}",),
        ("~size",),
    ),
    *(("tokens=-77",), ("tokens=78",), ("tokens=null",), ("tokens=range(1,3)",), ("pictures=nan",), ("pictures=1e9",)),
    *(("steps=1e9",), ("steps=${steps}",), ("depth=-1",), ("depth=1e400",), ("guided=null",), ("dtype=1",), ("=3",)),
    *(("model=../x",), ("model=[sd1]",), ("model={a:1}",), ("model=null",), ("model=emoji,",), ("model=custom",)),
    *(("model.name=~nosuchuser/x",), ("model.name=a\udc80",), ("model.name=/dev/zero",), ("model.device=tpu",)),
    *(("model.name=sweep",), ("model.name=sweep/sheet.png",), ("model=sd1", "model.vae=nowhere"), ("model.nope=1",)),
    *(("out=",), ("out=.",), ("out=sweep",), ("out=/dev/null",), ("out=sweep/sheet.png/x.csv",), ("out=a\udc80.csv",)),
    *(("out=~nosuchuser/x.csv",), ("out=a.svg", "tokens=77,154"), ("onnx=",), ("onnx=sweep/sweep.json",), ("-m",)),
    *(("onnx=/dev/null",), ("onnx=a", "tokens=77,154"), ("model=sd1", "onnx=a"), ("nowhere",), ("--nope",)),
]

COMMANDS = [
    *(Trial(f"resume a command with {' '.join(words)}", ("resume=sweep",), "command of", before=commanded(*words), hides=("uid=",)) for words in COMMANDED),
    *works("sheet", ("sheet", "sweep"), ("sheet", "sweep", "--rows", "weight", "--columns", "seed"), ("sheet", "sweep", "--to", "x.png"), ("sheet", "--help")),
    *refused("sheet", "embedlab", ("sheet",), ("sheet", "nowhere"), ("sheet", "sweep/sweep.json"), ("sheet", "sweep/0"), ("sheet", "sweep", "--rows", "nope"), ("sheet", "sweep", "--rows", "weight", "--columns", "weight"), ("sheet", "sweep", "--nope"), ("sheet", "sweep", "more"), ("sheet", ""), ("sheet", "a\0b".replace("\0", "\udc80")), ("sheet", "~nosuchuser/x"), ("sheet", "sweep", "--to", ""), ("sheet", "sweep", "--to", "sweep"), ("sheet", "sweep", "--to", "/dev/null/x"), ("sheet", "sweep", "--rows", "")),
    *works("film", ("film", "sweep", "--seed", "all"), ("film", "sweep"), ("film", "sweep", "--frames", "3"), ("film", "sweep", "--seconds", "1", "--to", "films"), ("film", "--help")),
    *refused("film", "embedlab", ("film",), ("film", "nowhere"), ("film", "sweep", "--frames", "1"), ("film", "sweep", "--frames", "abc"), ("film", "sweep", "--frames", "1e9"), ("film", "sweep", "--frames", "9" * 400), ("film", "sweep", "--seconds", "0"), ("film", "sweep", "--seconds", "nan"), ("film", "sweep", "--seconds", "inf"), ("film", "sweep", "--seconds", "-1"), ("film", "sweep", "--seconds", "1e400"), ("film", "sweep", "--seed", "99"), ("film", "sweep", "--seed", "x"), ("film", "sweep", "--seed", "9" * 400), ("film", "sweep", "--along", "nope"), ("film", "sweep", "--along", "seed"), ("film", "sweep", "--pace", "nope"), ("film", "sweep", "--to", ""), ("film", "sweep", "--to", "sweep/sweep.json"), ("film", ""), ("film", "sweep", "--seed", "²")),
    *works("film", ("film", "sweep", "--seconds", "600", "--seed", "1")),
    *works("gallery", ("gallery", "sweep"), ("gallery", "sweep", "--to", "page"), ("gallery", "--help")),
    *refused("gallery", "embedlab", ("gallery",), ("gallery", "nowhere"), ("gallery", "sweep/0"), ("gallery", "sweep", "--to", ""), ("gallery", "sweep", "--to", "sweep"), ("gallery", "sweep", "--to", "/dev/null"), ("gallery", "sweep", "--every", "0"), ("gallery", "sweep", "--every", "nan"), ("gallery", "sweep", "--every", "x"), ("gallery", ""), ("gallery", "sweep", "--to", "a\udc80")),
    *works("replay", ("replay", PICTURE), ("replay", "sweep/0/baseline-seed-1.png"), ("replay", PICTURE, "--to", "again.png"), ("replay", "--help"), shows=()),
    *refused("replay", "embedlab", ("replay",), ("replay", "nowhere.png"), ("replay", "sweep"), ("replay", "sweep/sheet.png"), ("replay", "sweep/sweep.json"), ("replay", PICTURE, "--to", ""), ("replay", PICTURE, "--to", "sweep"), ("replay", PICTURE, "--to", "/dev/null/x.png"), ("replay", PICTURE, "--trust"), ("replay", ""), ("replay", "/dev/zero"), ("replay", "/dev/null"), ("replay", "a\udc80.png"), ("replay", PICTURE, "more")),
    *works("anatomy", ("anatomy", "depth=1"), ("anatomy", "out=new/a.json", "size=[64,96]"), ("anatomy", "--help")),
    *refused("anatomy", "embedlab", *(("anatomy", *words) for words in ANATOMY)),
    *refused("sync", "embedlab", ("sync",), ("sync", "nowhere"), ("sync", "sweep"), ("sync", ""), ("sync", "sweep/sweep.json")),
    Trial("resume a command with another folder", ("resume=sweep",), before=commanded("++hydra.sweep.dir=/nowhere/else")),
    *works("resume", ("resume=sweep",), ("-m", "resume=sweep"), ("resume=sweep", "at_once=1"), ("resume=sweep", "tracker=disk")),
    *refused("resume", "resume", ("resume=sweep", "guidance.scale=9"), ("resume=sweep", "hydra.sweep.dir=other")),
    *refused("resume", "embedlab", "resume=", "resume=nowhere", "resume=sweep/0", "resume=sweep/sweep.json", "resume=~nosuchuser/x", "resume=a\udc80", "resume=/dev/null", "resume=[a]"),
    *after("sheet", ("sheet", "sweep"), ODD),
    *after("gallery", ("gallery", "sweep"), [*ODD, *PLANS]),
    *after("film", FILM, [case for case in ODD if case[0] in BAD], says="no setting"),
    *after("film", FILM, [case for case in ODD if case[0].startswith(("file", "picture ", "baseline"))]),
]  # fmt: skip
