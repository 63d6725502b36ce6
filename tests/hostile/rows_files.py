"""Files from elsewhere: pictures with settings, start pictures, embeds, model folders, stores."""

import io
import json
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin
from rows_commands import DEEP, replaced, written
from trials import Trial

PICTURE = "sweep/0/seed-0.png"


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", *more: bytes) -> bytes:
    """A PNG that says to be so large, with any data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def with_settings(change: Callable[[dict[str, Any]], Any] | str, to: str = "picture.png") -> Callable[[Path], None]:
    """The first picture of the sweep with other settings inside."""

    def write(folder: Path) -> None:
        with Image.open(folder / PICTURE) as picture:
            settings = json.loads(picture.text["embedlab"])  # type: ignore[attr-defined]
            inside = PngImagePlugin.PngInfo()
            if not isinstance(change, str):
                changed = change(settings)
                settings = settings if changed is None else changed
            inside.add_itxt("embedlab", change if isinstance(change, str) else json.dumps(settings))
            picture.save(folder / to, pnginfo=inside)

    return write


def put(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    """A value somewhere in the settings."""

    def change(settings: dict[str, Any]) -> None:
        place = settings
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = to

    return change


def cut(name: str, share: float, to: str = "picture.png") -> Callable[[Path], None]:
    """The first part of a file."""

    def write(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / to).write_bytes(data[: int(len(data) * share)])

    return write


def in_format(
    kind: str, mode: str = "RGB", to: str = "start.png", size: tuple[int, int] = (16, 16)
) -> Callable[[Path], None]:
    """A picture of another kind."""

    def write(folder: Path) -> None:
        Image.new(mode, size).save(folder / to, format=kind)

    return write


ZIP = zlib.compress(b"\0" * 50_000_000, 9)
BOMB = png(60_000, 60_000, zlib.compress(b"\0" * 1_000_000))
TEXT_BOMB = png(16, 16, zlib.compress(b"\0" * 16 * 49), chunk(b"zTXt", b"embedlab\0\0" + ZIP))
NAN = float("nan")
PICTURES: list[tuple[str, str, Callable[[Path], None]]] = [
    ("empty", "picture", written("picture.png", "")),
    ("text", "no PNG", written("picture.png", "hello")),
    ("bomb", "picture", written("picture.png", BOMB)),
    ("bomb in text", "picture", written("picture.png", TEXT_BOMB)),
    ("head only", "picture", written("picture.png", BOMB[:33])),
    ("cut", "picture", cut(PICTURE, 0.5)),
    ("cut in the head", "picture", cut(PICTURE, 0.02)),
    ("JPEG", "no PNG", in_format("JPEG", to="picture.png")),
    ("no settings", "no embedlab settings", in_format("PNG", to="picture.png")),
    ("fifo", "picture", replaced("picture.png", "fifo")),
    ("/dev/zero", "picture", replaced("picture.png", "/dev/zero")),
    ("folder", "picture", replaced("picture.png", "folder")),
    ("deep", "picture", with_settings(DEEP)),
    ("list", "picture", with_settings("[]")),
    ("half", "picture", with_settings('{"format": 1')),
    ("digits", "picture", with_settings('{"format": ' + "9" * 5000 + "}")),
    ("format new", "newer", with_settings(put("format", to=99))),
    ("format true", "picture", with_settings(put("format", to="1"))),
    ("seed list", "seed", with_settings(put("seed", to=[1]))),
    ("seed digits", "digits", with_settings(put("seed", to=int("9" * 400)))),
    ("seed nan", "seed", with_settings(put("seed", to=NAN))),
    ("batch digits", "digits", with_settings(put("batch", to=[0, int("9" * 400)]))),
    ("batch text", "batch", with_settings(put("batch", to="ab"))),
    ("no config", "config", with_settings(put("config", to=None))),
    ("config list", "config", with_settings(put("config", to=[1]))),
    ("config prompt list", "prompt", with_settings(put("config", "prompt", to=[1]))),
    ("config prompt half a pair", "half", with_settings(put("config", "prompt", to="\ud800"))),
    ("steps", "steps", with_settings(put("config", "sampler", "steps", to=10**9))),
    ("steps digits", "digits", with_settings(put("config", "sampler", "steps", to=int("9" * 400)))),
    ("scale nan", "scale", with_settings(put("config", "guidance", "scale", to=NAN))),
    ("scale digits", "digits", with_settings(put("config", "guidance", "scale", to=int("9" * 400)))),
    ("size large", "size", with_settings(put("config", "size", to=10**7))),
    ("size digits", "digits", with_settings(put("config", "size", to=int("9" * 400)))),
    ("code", "none of embedlab", with_settings(put("config", "operators", "x", to={"_target_": "os.system"}))),
    ("code deeper", "none of embedlab", with_settings(put("config", "guidance", "x", to={"_target_": "os.system"}))),
    ("interpolation", "interpolation", with_settings(put("config", "prompt", to="${oc.env:HOSTILE_TOKEN}"))),
    ("pickle", "pickle", with_settings(put("config", "model", "allow_pickle", to=True))),
    ("model a device", "model", with_settings(put("config", "model", "name", to="/dev/zero"))),
    ("model NUL", "model", with_settings(put("config", "model", "name", to="a\0b"))),
    ("model a user", "model", with_settings(put("config", "model", "name", to="~nosuchuser/x"))),
    (
        "start NUL",
        "picture",
        with_settings(
            put("config", "start", to={"_target_": "embedlab.sampler.Start", "picture": "a\0b", "strength": 0.5})
        ),
    ),
    (
        "start device",
        "picture",
        with_settings(
            put("config", "start", to={"_target_": "embedlab.sampler.Start", "picture": "/dev/zero", "strength": 0.5})
        ),
    ),
    ("operators list", "operators", with_settings(put("config", "operators", to=[1]))),
    ("operators text", "operators", with_settings(put("config", "operators", to="a"))),
    ("operators odd", "operator", with_settings(put("config", "operators", "x", to=1))),
]
STARTS: list[tuple[str, Callable[[Path], None]]] = [
    ("empty", written("start.png", "")),
    ("text", written("start.png", "hello")),
    ("bomb", written("start.png", BOMB)),
    ("head only", written("start.png", BOMB[:33])),
    ("cut", cut(PICTURE, 0.5, "start.png")),
    ("fifo", replaced("start.png", "fifo")),
    ("/dev/zero", replaced("start.png", "/dev/zero")),
    ("folder", replaced("start.png", "folder")),
    ("PDF", written("start.png", "%PDF-1.4")),
    ("SVG", written("start.png", "<svg xmlns='http://www.w3.org/2000/svg'/>")),
]
GOOD = [
    ("grey", in_format("PNG", "L")),
    ("palette", in_format("PNG", "P")),
    ("transparent", in_format("PNG", "RGBA")),
    ("one bit", in_format("PNG", "1")),
    ("JPEG", in_format("JPEG")),
    ("CMYK", in_format("JPEG", "CMYK")),
    ("BMP", in_format("BMP")),
    ("GIF", in_format("GIF", "P")),
    ("WebP", in_format("WEBP")),
    ("one pixel", in_format("PNG", size=(1, 1))),
    ("a line", in_format("PNG", size=(1, 500))),
]
START = ("start=picture", "start.picture=start.png", "start.strength=0.5")


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    """A file of tensors with any header."""
    return struct.pack("<Q", len(header)) + header + data


def embeds(name: str) -> Callable[[Any], None]:
    """Read a file of embeds from Python."""

    def read(lab: Any) -> None:
        lab.load_embeds(name)

    return read


ONE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
EMBEDS: list[tuple[str, str | None, Callable[[Path], None]]] = [
    ("none", "embeds", lambda folder: None),
    ("empty", "embeds", written("embeds", "")),
    ("text", "embeds", written("embeds", "hello" * 10)),
    ("header of 2**60 bytes", "embeds", written("embeds", struct.pack("<Q", 2**60) + b"{}")),
    ("header cut", "embeds", written("embeds", safetensors(ONE[:20]))),
    ("data missing", "embeds", written("embeds", safetensors(ONE + b"}"))),
    (
        "offsets",
        "embeds",
        written("embeds", safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', b"abcd")),
    ),
    (
        "shape",
        "embeds",
        written("embeds", safetensors(b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}', b"abcd")),
    ),
    ("recipe half", "embeds", written("embeds", safetensors(ONE + b',"__metadata__":{"embedlab":"{"}}', b"abcd"))),
    (
        "recipe deep",
        "embeds",
        written("embeds", safetensors(ONE + b',"__metadata__":{"embedlab":"' + b"[" * 100_000 + b'"}}', b"abcd")),
    ),
    (
        "recipe digits",
        "embeds",
        written("embeds", safetensors(ONE + b',"__metadata__":{"embedlab":"' + b"9" * 5000 + b'"}}', b"abcd")),
    ),
    ("fifo", "embeds", replaced("embeds", "fifo")),
    ("/dev/zero", "embeds", replaced("embeds", "/dev/zero")),
    ("folder", "embeds", replaced("embeds", "folder")),
    ("no recipe", None, written("embeds", safetensors(ONE + b"}", b"abcd"))),
    ("of another tool", None, written("embeds", safetensors(ONE + b',"__metadata__":{"format":"pt"}}', b"abcd"))),
]


def model_with(name: str, text: str | bytes | None = None, by: str = "") -> Callable[[Path], None]:
    """A copy of the small model, with another file in one place."""

    def write(folder: Path) -> None:
        shutil.copytree(Path(sys.argv[1]), folder / "given/model")
        (replaced(f"given/model/{name}", by) if text is None else written(f"given/model/{name}", text))(folder)

    return write


MODELS: list[tuple[str, Callable[[Path], None]]] = [
    *(
        (f"index {what}", model_with("model_index.json", text))
        for what, text in (
            ("empty", ""),
            ("list", "[]"),
            ("deep", DEEP),
            ("number", "9" * 5000),
            ("not UTF-8", b"\xff\xff"),
        )
    ),
    ("index fifo", model_with("model_index.json", by="fifo")),
    ("index /dev/zero", model_with("model_index.json", by="/dev/zero")),
    *(
        (f"unet config {what}", model_with("unet/config.json", text))
        for what, text in (
            ("empty", ""),
            ("list", "[]"),
            ("deep", DEEP),
            ("null", "null"),
            ("odd", '{"block_out_channels": "x"}'),
        )
    ),
    ("unet config fifo", model_with("unet/config.json", by="fifo")),
    ("scheduler list", model_with("scheduler/scheduler_config.json", "[]")),
    (
        "scheduler odd",
        model_with("scheduler/scheduler_config.json", '{"num_train_timesteps": "x", "beta_schedule": 5}'),
    ),
    ("text config odd", model_with("text_encoder/config.json", '{"hidden_size": -1}')),
    ("tokenizer empty", model_with("tokenizer/tokenizer.json", "")),
    ("weights empty", model_with("unet/diffusion_pytorch_model.safetensors", "")),
    ("weights text", model_with("unet/diffusion_pytorch_model.safetensors", "hello" * 10)),
    ("weights header", model_with("unet/diffusion_pytorch_model.safetensors", struct.pack("<Q", 2**60) + b"{}")),
    ("weights fifo", model_with("unet/diffusion_pytorch_model.safetensors", by="fifo")),
    ("weights /dev/zero", model_with("vae/diffusion_pytorch_model.safetensors", by="/dev/zero")),
    ("weights folder", model_with("text_encoder/model.safetensors", by="folder")),
]
SINGLE: list[tuple[str, Callable[[Path], None]]] = [
    ("empty", written("given.safetensors", "")),
    ("text", written("given.safetensors", "hello" * 10)),
    ("header of 2**60 bytes", written("given.safetensors", struct.pack("<Q", 2**60) + b"{}")),
    ("one tensor", written("given.safetensors", safetensors(ONE + b"}", b"abcd"))),
    ("deep", written("given.safetensors", safetensors(b'{"a":' + b"[" * 100_000))),
    ("fifo", replaced("given.safetensors", "fifo")),
    ("/dev/zero", replaced("given.safetensors", "/dev/zero")),
]


CONCEPTS: list[tuple[str, Callable[[Path], None]]] = [
    ("none", lambda folder: None),
    ("empty", written("given.safetensors", "")),
    ("text", written("given.safetensors", "hello" * 10)),
    ("header of 2**60 bytes", written("given.safetensors", struct.pack("<Q", 2**60) + b"{}")),
    ("data missing", written("given.safetensors", safetensors(ONE + b"}"))),
    ("of another width", written("given.safetensors", safetensors(ONE + b"}", b"abcd"))),
    (
        "shape",
        written("given.safetensors", safetensors(ONE.replace(b"[1]", b"[99999999999]") + b"}", b"abcd")),
    ),
    ("nameless", written("given.safetensors", safetensors(ONE.replace(b'"a"', b'""') + b"}", b"abcd"))),
    ("of a LoRA", written("given.safetensors", safetensors(ONE.replace(b'"a"', b'"lora_unet_x"') + b"}", b"abcd"))),
    ("deep", written("given.safetensors", safetensors(b'{"a":' + b"[" * 100_000))),
    ("fifo", replaced("given.safetensors", "fifo")),
    ("/dev/zero", replaced("given.safetensors", "/dev/zero")),
    ("folder", replaced("given.safetensors", "folder")),
]
LEARN = ("learn", "word=<x>", "steps=1", "batch=1")


def picture_of(kind: str) -> bytes:
    """A small picture's bytes."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, format=kind)
    return file.getvalue()


FILES = [
    *(Trial(f"replay, {name}", ("replay", "picture.png"), says, before=before) for name, says, before in PICTURES),
    *(Trial(f"start, {name}", START, "start.png", before=before) for name, before in STARTS),
    *(Trial(f"start, {name}", START, before=before) for name, before in GOOD),
    *(Trial(f"embeds, {name}", ("embeds",), says, before=before, call=embeds("embeds")) for name, says, before in EMBEDS),
    *(Trial(f"model, {name}", ("model.name=given/model",), "given/model", before=before) for name, before in MODELS),
    *(Trial(f"concept, {name}", ("model.concepts=[given.safetensors]",), "given", before=before) for name, before in CONCEPTS),
    *(Trial(f"learn, {name}", (*LEARN, "like=[start.png]"), "start.png", before=before) for name, before in STARTS),
    *(Trial(f"learn, {name}", (*LEARN, "like=[start.png]"), before=before) for name, before in GOOD[:4]),
    *(Trial(f"single file, {name}", ("model.name=given.safetensors",), "given", before=before) for name, before in SINGLE),
]  # fmt: skip
