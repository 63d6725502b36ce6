"""From the stages' weights to a model's folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file
from torch import Tensor, nn

from embedlab.detector.loading import CONFIG, WEIGHTS
from embedlab.detector.network import Detector
from embedlab.errors import ConfigError
from embedlab.pretrain import captions, drawings, eye, world
from embedlab.pretrain.autoencoder import make_vae, ready_vae
from embedlab.pretrain.eye import COLOURS, GROUNDS, WORDS
from embedlab.pretrain.image_encoder import make_vision
from embedlab.pretrain.stage import HELD_OUT, grid, painted, start_of, weights
from embedlab.pretrain.text_encoder import make_text, trained_text
from embedlab.pretrain.unet import NOISE, make_unet


def words_in(text: str) -> list[str]:
    """The words and numbers of a caption.

    >>> words_in("A puppy on cyan, in 3d")
    ['a', 'puppy', 'on', 'cyan', 'in', '3d']
    """
    return re.findall(r"[a-z0-9]+", text.lower())


def export(folder: Path, target: Path, held_out: int = 64, read: int = 20_000, calibrate: int = 1000) -> None:
    """Write the stages' weights as a diffusers folder in fp16, with the image tower, the eye and held-out scenes.

    The words that the model knows are those of the captions of `read` scenes. The eye's probabilities are fitted to
    `calibrate` held-out scenes more, of which half go through the autoencoder.
    """
    sprites = drawings.load(folder / "sprites")
    denoiser, image = make_unet(), make_vision()
    denoiser.load_state_dict(weights(folder, "unet", "unet"))
    image.load_state_dict(weights(folder, "vision", "image_encoder", "image."))
    parts = {"vae": ready_vae(folder), "unet": denoiser, "text_encoder": trained_text(folder), "image_encoder": image}
    rng = np.random.default_rng(0)
    words = set(words_in(" ".join(captions.NEUTRAL)))
    for number in range(read):
        words |= set(words_in(captions.caption(world.scene_of(number), rng).text))
    scenes = [world.scene_of(i, HELD_OUT, held_out=True) for i in range(held_out)]
    rows = [asdict(scene) | {"caption": captions.caption(scene, rng).text} for scene in scenes]
    pictures = painted(range(held_out), sprites, HELD_OUT, held_out=True)
    write_model(folder, target, parts, WORDS, words, pictures, rows)
    if (folder / "eye.pt").exists():
        export_eye(folder, target / "eye", sprites, calibrate)
    elif (folder / "start" / "eye").exists():
        shutil.copytree(folder / "start" / "eye", target / "eye", dirs_exist_ok=True)


def adopt(source: Path, folder: Path) -> None:
    """Let stages without a checkpoint begin at a model's weights: its folder becomes `start` in theirs."""
    makers: dict[str, Callable[[], nn.Module]] = {"vae": make_vae, "text_encoder": make_text, "unet": make_unet}
    makers |= {"image_encoder": make_vision, "eye": lambda: Detector(**eye.EYE, vocabulary=eye.VOCABULARY)}
    half = folder / ".start"  # a copy that is not whole, or does not fit, is not taken
    shutil.rmtree(half, ignore_errors=True)
    try:
        shutil.copytree(source, half / "start")
        for part, make in makers.items():
            state = start_of(half, part)
            if state is None and part != "eye":
                raise ConfigError(f"'{source}' has no weights of the {part}; name another model.")
            make().load_state_dict(state or make().state_dict())
        (half / "start").rename(folder / "start")
    except RuntimeError:
        raise ConfigError(
            f"the {part} of '{source}' has other shapes than this recipe's; name another model."
        ) from None
    finally:
        shutil.rmtree(half, ignore_errors=True)


def write_model(
    folder: Path,
    target: Path,
    parts: Mapping[str, Any],
    concepts: list[str],
    words: set[str],
    pictures: Tensor,
    rows: list[dict[str, Any]],
) -> None:
    """A diffusers folder in fp16 of trained parts, with what embedlab wants to know of them: concepts, the words that
    were seen, and held-out scenes, as pictures in [-1, 1] and rows.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        part.half().save_pretrained(target / name)
        config = json.loads((target / name / "config.json").read_text())
        if "dtype" in config:  # half on disk, but computed in full where nobody says otherwise
            (target / name / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=1))
    DDIMScheduler(**NOISE).save_pretrained(target / "scheduler")
    (target / "tokenizer").mkdir(exist_ok=True)
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(folder / "tokenizer" / file, target / "tokenizer" / file)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": "<|startoftext|>"}
    settings |= dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    (target / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    colours: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor",
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    colours |= {"size": {"shortest_edge": world.SIDE}, "crop_size": {"height": world.SIDE, "width": world.SIDE}}
    (target / "feature_extractor").mkdir(exist_ok=True)
    (target / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(colours, indent=1))
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__}
    index |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    index |= {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    index |= {
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
    }
    index |= {"image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}
    index |= {"feature_extractor": ["transformers", "CLIPImageProcessor"]}
    (target / "model_index.json").write_text(json.dumps(index, indent=1))
    (target / "concepts.json").write_text(json.dumps(concepts, indent=1))
    (target / "words.json").write_text(json.dumps(sorted(words), indent=1))
    grid(pictures, 8).save(target / "held_out.png", optimize=True)
    (target / "held_out.json").write_text(json.dumps(rows, indent=1))


def export_eye(folder: Path, target: Path, sprites: drawings.Sprites, calibrate: int = 1000) -> None:
    """Write the eye as a model's folder holds it, in fp16; its probabilities are those of what is written."""
    detector, autoencoder = eye.load(folder / "eye.pt", eye.EYE).half().float(), ready_vae(folder)
    numbers = range(10_000, 10_000 + calibrate)
    scenes = [world.scene_of(i, HELD_OUT, held_out=True) for i in numbers]
    pictures = painted(numbers, sprites, HELD_OUT, held_out=True)
    with torch.inference_mode():
        for start in range(0, calibrate, 32):  # every second sixteen of them
            some = pictures[start : start + 16]
            pictures[start : start + 16] = autoencoder.decode(autoencoder.encode(some).latent_dist.mode()).sample
    scale, errors = eye.calibrated(detector, pictures, scenes)
    target.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in detector.state_dict().items()}, target / WEIGHTS)
    config = {**eye.EYE, "words": WORDS, "colours": COLOURS, "grounds": GROUNDS, "kinds": drawings.KINDS}
    config |= {"scale": asdict(scale), "calibration_error": {name: after for name, (_, after) in errors.items()}}
    (target / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
