"""The stages that make the default model: data → vae → whole → decoder → clip → vision → unet.

Each reads what the stages before it left in `folder` and leaves its own there. The recipe is that of Stable
Diffusion in small: a KL autoencoder of factor 8 (Rombach et al. 2022), CLIP by InfoNCE (Radford et al. 2021), and
a text-conditioned UNet trained to predict v (Salimans & Ho 2022) with min-SNR weights (Hang et al. 2023).
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from embedlab.clip import Tower
from embedlab.encoder import embed_all, encode
from embedlab.errors import ConfigError
from embedlab.files import write, written
from embedlab.pretrain import scenes
from embedlab.pretrain.loop import Training, fit

CPU = torch.device("cpu")
Log = Callable[[dict[str, float], int], None]
Show = Callable[[str, Image.Image, int], None]

WIDTH = 96


@contextmanager
def fast(device: torch.device) -> Iterator[None]:
    """What makes a training step fast: plain attention on a CPU (the backward of flash attention took 40 % of the step
    there), bfloat16 on CUDA.
    """
    if device.type == "cpu":
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        with torch.autocast(device.type, torch.bfloat16):
            yield


def pixels(pictures: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) → float (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def grid(pictures: Tensor, columns: int) -> Image.Image:
    """Pictures (n, 3, h, w) in [-1, 1] as one sheet."""
    n, _, h, w = pictures.shape
    rows = -(-n // columns)
    sheet = Image.new("RGB", (columns * w, rows * h))
    for i, picture in enumerate(pictures.add(1).mul(127.5).clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()):
        sheet.paste(Image.fromarray(picture), (i % columns * w, i // columns * h))
    return sheet


# ── data ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def data(folder: Path, count: int = 24_000, held_out: int = 512, long: int = 3_000, seed: int = 0) -> None:
    """Fetch the art and paint all scenes: `train.npy`, `held_out.npy` and their captions."""
    scenes.fetch_sprites(folder / "sprites")
    sprites = scenes.load_sprites(folder / "sprites")
    for name, n, start in (("train", count, seed), ("held_out", held_out, seed + 1_000_003)):
        if (folder / f"{name}.json").exists():
            continue
        pictures = np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=(n, scenes.SIDE, scenes.SIDE, 3)
        )
        rows = []
        for i, (scene, caption, picture) in enumerate(scenes.scenes(n, start, sprites)):
            pictures[i] = np.asarray(picture)
            rows.append({**asdict(scene), "caption": caption})
        rng = np.random.default_rng(start + 1)
        for row in rows[:long]:
            scene = scenes.Scene(tuple(row["words"]), row["style"], row["ground"], row["relation"])
            row["long"] = scenes.long_caption(scene, rng, int(rng.integers(8, 20)))
        for row in rows:  # a few clauses round one caption in six, so that the text tower meets full windows
            if rng.random() < 1 / 6:
                scene = scenes.Scene(tuple(row["words"]), row["style"], row["ground"], row["relation"])
                row["caption"] = scenes.long_caption(scene, rng, int(rng.integers(1, 5)))
        pictures.flush()
        write(folder / f"{name}.json", json.dumps(rows).encode())


def has_data(folder: Path) -> bool:
    """Whether the stage `data` was finished here."""
    return all((folder / f"{name}.json").exists() for name in ("train", "held_out"))


def rows_of(folder: Path, name: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The pictures (memory-mapped) and the captions of `train` or `held_out`."""
    return np.load(folder / f"{name}.npy", mmap_mode="r"), json.loads((folder / f"{name}.json").read_text())


def tokenizer(folder: Path) -> CLIPTokenizer:
    """OpenAI's CLIP vocabulary: 256 bytes, the same at a word's end, 48,894 merges, start and end of text.

    The list of merges is read from the `clip-anytorch` wheel in `folder` (MIT), downloaded with pip when it is missing.
    """
    target = folder / "tokenizer"
    if not (target / "merges.txt").exists():
        if not list(folder.glob("clip_anytorch*.whl")):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "clip-anytorch==2.6.0"]
            subprocess.run([*pip, "-d", str(folder)], check=True)
        with zipfile.ZipFile(next(folder.glob("clip_anytorch*.whl"))) as wheel:
            lines = gzip.decompress(wheel.read("clip/bpe_simple_vocab_16e6.txt.gz")).decode().split("\n")
        merges = lines[1 : 49152 - 256 - 2 + 1]
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [b for b in range(256) if b not in printable]
        letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
        pieces = letters + [x + "</w>" for x in letters] + ["".join(m.split()) for m in merges]
        vocab = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
        target.mkdir(parents=True, exist_ok=True)
        (target / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
        write(target / "merges.txt", ("#version: 0.2\n" + "\n".join(merges) + "\n").encode())
    return CLIPTokenizer.from_pretrained(target, model_max_length=77)


def weights(folder: Path, *stages: str) -> dict[str, Tensor]:
    """The averaged weights of the last of some stages that was run here, or those that `adopt` put in their place."""
    for path in [folder / f"{stage}.pt" for stage in reversed(stages)] + [folder / "start" / f"{stages[0]}.pt"]:
        if path.exists():
            state = torch.load(path, weights_only=True, map_location="cpu")["average"]
            return {key.removeprefix("module."): value for key, value in state.items() if key.startswith("module.")}
    raise ConfigError(f"{folder / stages[0]}.pt is missing; run the stage {stages[0]} first, or set warm_start=true.")


def begin(model: nn.Module, folder: Path, stage: str) -> None:
    """Let a stage begin at adopted weights, where there are any."""
    if (folder / "start" / f"{stage}.pt").exists():
        model.load_state_dict(weights(folder / "start", stage))


def adopt(source: Path, folder: Path) -> None:
    """Put the weights of a model folder where the stages look for those of a stage that was not run."""
    towers = make_clip()
    image = CLIPVisionModelWithProjection.from_pretrained(source / "image_encoder", dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(source / "text_encoder", dtype=torch.float32)
    towers.text_model.load_state_dict(text.state_dict())
    towers.vision_model.load_state_dict(image.vision_model.state_dict())
    towers.visual_projection.load_state_dict(image.visual_projection.state_dict())
    autoencoder = AutoencoderKL.from_pretrained(source / "vae", torch_dtype=torch.float32)
    denoiser = UNet2DConditionModel.from_pretrained(source / "unet", torch_dtype=torch.float32)
    for stage, model in {"vae": autoencoder, "clip": towers, "unet": denoiser}.items():
        state = {f"module.{key}": value for key, value in model.state_dict().items()}
        written(folder / "start" / f"{stage}.pt", partial(torch.save, {"average": state}))


# ── vae ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_vae(widths: tuple[int, ...] = (16, 32, 64, 64)) -> AutoencoderKL:
    """A KL autoencoder of factor 8 with 4 latent channels, as Stable Diffusion's, without attention."""
    blocks = len(widths)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=scenes.SIDE,
        mid_block_add_attention=False,
    )


def edges(x: Tensor) -> Tensor:
    """All horizontal and vertical differences of (n, c, h, w), flattened."""
    return torch.cat([x.diff(dim=-1).flatten(1), x.diff(dim=-2).flatten(1)], dim=1)


def picture_loss(rebuilt: Tensor, wanted: Tensor, in_decibels: bool = False) -> Tensor:
    """L1 and squared error of the pixels, plus L1 of the edges at three scales: true colours first, then sharp borders.

    With the pixels' L1 weighted like one scale of edges the first 1,800 steps learned shapes and lost the colours.
    `in_decibels` takes the logarithm of each picture's squared error, which is its PSNR: pictures that are nearly right
    then count as much as those that are not. For a model that is past its beginnings.
    """
    square = (rebuilt - wanted).square().flatten(1).mean(1)
    if in_decibels:
        loss = 3 * functional.l1_loss(rebuilt, wanted) + 0.25 * square.clamp_min(1e-4).log().mean()
    else:
        loss = 4 * functional.l1_loss(rebuilt, wanted) + 16 * square.mean()
    for _ in range(3):
        loss = loss + functional.l1_loss(edges(rebuilt), edges(wanted))
        rebuilt, wanted = functional.avg_pool2d(rebuilt, 2), functional.avg_pool2d(wanted, 2)
    return loss


def psnr(rebuilt: Tensor, wanted: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, mean over pictures in [-1, 1]."""
    error = rebuilt.clamp(-1, 1).sub(wanted).div(2).square().flatten(1).mean(1)
    return float((-10 * error.clamp_min(1e-10).log10()).mean())


VAE_STAGES = ("vae", "whole", "decoder")


def vae_weights(folder: Path, upto: str = "decoder") -> dict[str, Tensor]:
    """The best autoencoder so far, of the stages up to one."""
    return weights(folder, *VAE_STAGES[: VAE_STAGES.index(upto) + 1])


def vae(
    folder: Path,
    training: Training,
    log: Log,
    show: Show,
    device: torch.device = CPU,
    stage: Literal["vae", "whole", "decoder"] = "vae",
    crop: int = 64,
    kl: float = 1e-3,
) -> nn.Module:
    """Train the autoencoder: on crops, on whole pictures, or its decoder alone with the encoder as it is."""
    train, _ = rows_of(folder, "train")
    held, _ = rows_of(folder, "held_out")
    model = make_vae().to(device, memory_format=torch.channels_last)
    if stage == "vae":
        begin(model, folder, "vae")
    else:
        model.load_state_dict(vae_weights(folder, {"whole": "vae", "decoder": "whole"}[stage]))
    if stage == "decoder":
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(train), (training.batch,), generator=generator)
        wanted = pixels(train[np.sort(rows.numpy())])
        if stage == "vae":
            room = scenes.SIDE - crop + 1
            # corners from the middle outwards: the objects are there
            corners = (
                (torch.randn(training.batch, 2, generator=generator) * room / 4 + room / 2).long().clamp(0, room - 1)
            )
            wanted = torch.stack(
                [w[:, y : y + crop, x : x + crop] for w, (y, x) in zip(wanted, corners.tolist(), strict=True)]
            )
        wanted = wanted.to(device, memory_format=torch.channels_last)
        with fast(device):
            with torch.set_grad_enabled(stage != "decoder"):
                posterior = model.encode(wanted).latent_dist
                noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            rebuilt = model.decode(posterior.mean + posterior.std * noise).sample
        loss = picture_loss(rebuilt.float(), wanted, in_decibels=stage == "whole")
        if stage != "decoder":
            loss = loss + kl * posterior.kl().mean() / noise[0].numel()
        return loss, {}

    def sheet(model: Any, step: int) -> None:
        wanted = pixels(held[:64])
        parts = wanted.to(device).split(16)
        rebuilt = torch.cat([model.decode(model.encode(w).latent_dist.mean).sample for w in parts]).float().cpu()
        figure = psnr(rebuilt, wanted)
        log({"psnr": figure}, step)
        show(
            "vae",
            grid(torch.cat([torch.stack([a, b]) for a, b in zip(wanted[:16], rebuilt[:16], strict=True)]), 8),
            step,
        )

    return fit(model, loss_of, training, folder / f"{stage}.pt", log, sheet)


# ── clip ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_clip() -> CLIPModel:
    """Both CLIP towers in small. The text projection is the identity and stays so: pooled output is joint space."""
    text = {"vocab_size": 49408, "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 4}
    text |= {"num_attention_heads": 4, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}
    text |= {"pad_token_id": 49407, "projection_dim": WIDTH}
    vision = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    vision |= {"image_size": scenes.SIDE, "patch_size": 16, "projection_dim": WIDTH}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))
    with torch.no_grad():
        model.text_projection.weight.copy_(torch.eye(WIDTH))
    model.text_projection.requires_grad_(False)
    return model


@torch.no_grad()
def drawn_again(folder: Path, count: int = 6_000) -> np.ndarray:
    """The first `count` training pictures as the autoencoder gives them back (uint8, memory-mapped), made once."""
    target = folder / "train.again.npy"
    if not target.exists():
        latents = latents_of(folder, "train")[0][:count]
        model = make_vae().eval().to(memory_format=torch.channels_last)
        model.load_state_dict(vae_weights(folder))
        rebuilt = torch.cat([model.decode(part.float()).sample for part in latents.split(8)])
        again = rebuilt.add(1).mul(127.5).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
        written(target, partial(np.save, arr=again))
    pictures: np.ndarray = np.load(target, mmap_mode="r")
    return pictures


def clip(
    folder: Path,
    training: Training,
    log: Log,
    show: Show,
    device: torch.device = CPU,
    stage: Literal["clip", "vision"] = "clip",
) -> nn.Module:
    """Train both towers by InfoNCE, equal captions in a batch sharing their target; or the image tower alone.

    `vision` leaves every hidden state of a text as it is, and shows half its pictures as the autoencoder gives them
    back: a tower that saw drawings alone took the decoder's castles for robots, although an eye does not.
    """
    train, rows = rows_of(folder, "train")
    held, held_rows = rows_of(folder, "held_out")
    encode = tokenizer(folder)

    def ids_of(captions: list[str]) -> Tensor:
        ids: Tensor = encode(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return ids

    ids = ids_of([row["caption"] for row in rows])
    held_ids = ids_of([row["caption"] for row in held_rows[:256]])
    model = make_clip().to(device)
    if stage == "clip":
        begin(model, folder, "clip")
    else:
        model.load_state_dict(weights(folder, "clip"))
        model.text_model.requires_grad_(False)
        again = drawn_again(folder)

    def features(ids: Tensor, pictures: Tensor, model: Any = model) -> tuple[Tensor, Tensor]:
        text = model.text_model(input_ids=ids.to(device)).pooler_output
        image = model.visual_projection(model.vision_model(pixel_values=pictures.to(device)).pooler_output)
        return functional.normalize(text, dim=-1), functional.normalize(image, dim=-1)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if stage == "vision" and step % 2:
            pick = torch.randint(len(again), (training.batch,), generator=generator).sort().values
            wanted = pixels(again[pick.numpy()])
        else:
            pick = torch.randint(len(train), (training.batch,), generator=generator).sort().values
            wanted = pixels(train[pick.numpy()])
        # blur a third: generated pictures are softer than drawn ones, and have to be recognised too
        if torch.rand((), generator=generator) < 1 / 3:
            wanted = functional.interpolate(functional.avg_pool2d(wanted, 4), scale_factor=4, mode="bilinear")
        with fast(device):
            text, image = features(ids[pick], wanted)
        logits = model.logit_scale.exp().clamp(max=100) * text.float() @ image.float().T
        same = (ids[pick][:, None] == ids[pick][None]).all(-1).float().to(device)
        target = same / same.sum(1, keepdim=True)
        return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2, {}

    def sheet(model: nn.Module, step: int) -> None:
        text, image = features(held_ids, pixels(held[:256]), model)
        hit = (text @ image.T).argmax(1).cpu() == torch.arange(len(held_ids))
        words = ids_of([f"a picture of {scenes.article(w)}" for w in scenes.WORDS])
        names = list(scenes.WORDS)
        singles = [i for i, row in enumerate(held_rows) if row["relation"] is None]
        text, image = features(words, pixels(held[singles]), model)
        right = [names[j] == held_rows[i]["words"][0] for i, j in zip(singles, (image @ text.T).argmax(1), strict=True)]
        figures = {"retrieval": float(hit.float().mean()), "word": float(np.mean(right))}
        log(figures, step)

    return fit(model, loss_of, training, folder / f"{stage}.pt", log, sheet)


# ── unet ──────────────────────────────────────────────────────────────────────────────────────────────────────────

NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOISE |= {
    "steps_offset": 1,  # has no part in trailing timesteps; pipelines warn of 0
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": False,
}


def make_unet(widths: tuple[int, ...] = (64, 128, 128)) -> UNet2DConditionModel:
    """Stable Diffusion's UNet in small: cross-attention at 8² and 4² latents, none at 16²."""
    return UNet2DConditionModel(
        sample_size=scenes.SIDE // 8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=(1, 2, 2),  # the library means heads, not their width
        norm_num_groups=16,
    )


@torch.no_grad()
def latents_of(folder: Path, name: str) -> tuple[Tensor, float]:
    """All pictures of a set as latents (fp16, not scaled), and the factor that gives them unit spread."""
    target = folder / f"{name}.latents.pt"
    if not target.exists():
        pictures, _ = rows_of(folder, name)
        model = make_vae().eval()
        model.load_state_dict(vae_weights(folder, "whole"))
        model.to(memory_format=torch.channels_last)
        latents = torch.cat(
            [
                model.encode(pixels(pictures[i : i + 8])).latent_dist.mean.half().contiguous()
                for i in range(0, len(pictures), 8)
            ]
        )
        written(target, partial(torch.save, latents))
    latents = torch.load(target, weights_only=True)
    return latents, float(1 / latents[:4096].float().std())


@torch.no_grad()
def text_states(folder: Path, captions: list[str], truncate: bool = True) -> list[Tensor]:
    """The hidden states that the library makes of captions (fp16), windows one after the other."""
    model = make_clip().eval()
    model.load_state_dict(weights(folder, "clip"))
    tower = Tower(tokenizer(folder), model.text_model)
    return [
        conditioning.hidden.half().clone()
        for i in range(0, len(captions), 128)
        for conditioning in encode(
            [embed_all(c, [tower], truncate) for c in captions[i : i + 128]], [tower], at_once=128
        )
    ]


PROBES = [
    *("a picture of a puppy", "a picture of a cat", "a picture of a skunk", "a picture of a fox on blue"),
    *(
        "a photo of a rocket on yellow, 3d",
        "a castle on pink, cartoon",
        "a cat above a dog",
        "a guitar left of a robot",
    ),
]


@torch.no_grad()
def sample(
    unet: nn.Module, hidden: Tensor, empty: Tensor, seed: int = 0, scale: float = 4.0, steps: int = 25
) -> Tensor:
    """A short DDIM loop for sample sheets while training; scaled latents (n, 4, 16, 16)."""
    scheduler = DDIMScheduler(**NOISE)
    scheduler.set_timesteps(steps)
    n, side = len(hidden), scenes.SIDE // 8
    x = torch.randn(n, 4, side, side, generator=torch.Generator().manual_seed(seed)).to(hidden.device)
    both = torch.cat([empty.expand(n, -1, -1), hidden])
    for t in scheduler.timesteps:
        uncond, cond = unet(torch.cat([x, x]), t, both).sample.chunk(2)
        x = scheduler.step(uncond + scale * (cond - uncond), t, x).prev_sample
    return x


def unet(
    folder: Path,
    training: Training,
    log: Log,
    show: Show,
    device: torch.device = CPU,
    empty_share: float = 0.1,
    long_every: int = 16,
    two_share: float = 0.45,
) -> nn.Module:
    """Train the UNet to predict v from latents and text states, both computed once; every `long_every`-th step sees
    captions of two or three windows, and `two_share` of the others hold two objects: a relation is harder than a thing.
    """
    _, rows = rows_of(folder, "train")
    two = torch.tensor([row["relation"] is not None for row in rows])
    shares = torch.where(two, two_share / two.sum(), (1 - two_share) / (~two).sum())
    latents, factor = latents_of(folder, "train")
    target = folder / "text.pt"
    if not target.exists():
        short = torch.stack(text_states(folder, [row["caption"] for row in rows]))
        long = text_states(folder, [row["long"] for row in rows if "long" in row], truncate=False)
        state = {"short": short, "long": long, "empty": text_states(folder, [""])[0]}
        written(target, partial(torch.save, state))
    text = torch.load(target, weights_only=True)
    short, long, empty = text["short"], text["long"], text["empty"].float()
    windows = torch.tensor([len(states) // 77 for states in long])
    alphas = DDIMScheduler(**NOISE).alphas_cumprod
    probes = torch.stack(text_states(folder, PROBES)).float()
    model = make_unet().to(device, memory_format=torch.channels_last)
    begin(model, folder, "unet")

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if step % long_every == long_every - 1:
            size = 2 + step // long_every % 2
            fit_in = (windows == size).nonzero().flatten()
            pick = fit_in[torch.randint(len(fit_in), (training.batch,), generator=generator)]
            hidden = torch.stack([long[i] for i in pick.tolist()]).float()
        else:
            pick = torch.multinomial(shares, training.batch, replacement=True, generator=generator)
            hidden = short[pick].float()
            hidden[torch.rand(len(pick), generator=generator) < empty_share] = empty
        x0 = latents[pick].float() * factor
        noise = torch.randn(x0.shape, generator=generator)
        # one time in each of `batch` equal slices: the spread of the loss over times does not come from luck
        t = ((torch.arange(len(pick)) + torch.rand(len(pick), generator=generator)) * 1000 / len(pick)).long()
        a = alphas[t].view(-1, 1, 1, 1)
        x = (a.sqrt() * x0 + (1 - a).sqrt() * noise).to(device, memory_format=torch.channels_last)
        v = a.sqrt() * noise - (1 - a).sqrt() * x0
        snr = alphas[t] / (1 - alphas[t])
        with fast(device):
            seen = model(x, t.to(device), hidden.to(device)).sample
        error = (seen.float() - v.to(device)).square().flatten(1).mean(1)
        return (error * (snr.clamp(max=5) / (snr + 1)).to(device)).mean(), {"error": error.mean().item()}

    def sheet(model: nn.Module, step: int) -> None:
        decoder = make_vae().eval()
        decoder.load_state_dict(vae_weights(folder))
        n = len(probes)
        given = probes.to(device), empty.to(device)
        samples = [
            sample(model, *given, seed, steps=training.sheet_steps).cpu() for seed in range(training.sheet_seeds)
        ]
        pictures = [decoder.decode(latents / factor).sample for latents in samples]
        show("unet", grid(torch.cat(pictures), n), step)

    return fit(model, loss_of, training, folder / "unet.pt", log, sheet)


# ── export ────────────────────────────────────────────────────────────────────────────────────────────────────────


def words_in(text: str) -> list[str]:
    """The words and numbers of a caption.

    >>> words_in("A puppy on cyan, in 3d")
    ['a', 'puppy', 'on', 'cyan', 'in', '3d']
    """
    return re.findall(r"[a-z0-9]+", text.lower())


def export(folder: Path, target: Path, held_out: int = 64) -> None:
    """Write the stages' weights as a diffusers folder in fp16, with the image tower and some held-out scenes."""
    vae_model = make_vae()
    vae_model.load_state_dict(vae_weights(folder))
    _, factor = latents_of(folder, "train")
    vae_model.register_to_config(scaling_factor=round(factor, 4))
    unet_model = make_unet()
    unet_model.load_state_dict(weights(folder, "unet"))
    towers = make_clip()
    towers.load_state_dict(weights(folder, "clip", "vision"))
    text = CLIPTextModel._from_config(towers.config.text_config)
    text.load_state_dict(towers.text_model.state_dict())
    image = CLIPVisionModelWithProjection._from_config(towers.config.vision_config)
    image.vision_model.load_state_dict(towers.vision_model.state_dict())
    image.visual_projection.load_state_dict(towers.visual_projection.state_dict())
    parts = {"vae": vae_model, "unet": unet_model, "text_encoder": text, "image_encoder": image}
    seen = {
        word
        for row in rows_of(folder, "train")[1]
        for key in ("caption", "long")
        for word in words_in(row.get(key) or "")
    }
    pictures, rows = rows_of(folder, "held_out")
    write_model(folder, target, parts, list(scenes.WORDS), seen, pixels(pictures[:held_out]), rows[:held_out])


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
    colours |= {"size": {"shortest_edge": scenes.SIDE}, "crop_size": {"height": scenes.SIDE, "width": scenes.SIDE}}
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
