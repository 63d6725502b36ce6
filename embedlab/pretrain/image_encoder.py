"""The image tower."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from embedlab.pretrain import captions, drawings, eye, world
from embedlab.pretrain.autoencoder import again
from embedlab.pretrain.loop import Feed, Training, fit
from embedlab.pretrain.plan import WIDTH
from embedlab.pretrain.rows import Batch, batch_of
from embedlab.pretrain.stage import CPU, HELD_OUT, Log, Show, begin, fast, pixels
from embedlab.pretrain.text_encoder import trained_text
from embedlab.pretrain.vocabulary import tokenizer


def make_vision() -> CLIPVisionModelWithProjection:
    """CLIP's image tower in small; its projection leads to what the text encoder pools."""
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    sizes |= {"image_size": world.SIDE, "patch_size": 16, "projection_dim": WIDTH}
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes))


def with_near_ones(first: int, count: int, held_out: bool = False) -> list[tuple[world.Scene, int]]:
    """`count` scenes by twos, which differ in order, colour or count alone; and the numbers to paint them by."""
    chosen: list[tuple[world.Scene, int]] = []
    number = first
    while len(chosen) < count:
        scene = world.scene_of(number, HELD_OUT if held_out else 0, held_out)
        near = world.nearly(scene, np.random.default_rng((number, 3)))
        if near is not None:
            chosen += [(scene, number), (near, number)]
        number += 1
    return chosen[:count]


def pooled(text: Any, tables: Tensor, places: Tensor) -> Tensor:
    """What the text encoder pools of windows (n, 77), of length 1."""
    return functional.normalize(text(input_ids=tables, position_ids=places).pooler_output.float(), dim=-1)


def vision(
    folder: Path, training: Training, log: Log, show: Show, device: torch.device = CPU, workers: int = 0
) -> nn.Module:
    """Train the image tower against the text encoder as it is, by InfoNCE.

    In every second batch each picture has one beside it that differs in order, colour or count alone; the others are of
    pictures that went through the autoencoder.
    """
    ids, text_model = captions.Ids(tokenizer(folder)), trained_text(folder).to(device)
    sprites, passed = drawings.load(folder / "sprites"), again(folder)
    model: Any = nn.ModuleDict({"image": make_vision(), "scale": nn.ParameterList([torch.tensor(2.7)])})
    begin(model["image"], folder, "image_encoder")
    model.to(device)

    def paint(pairs: Sequence[tuple[world.Scene, int]]) -> Tensor:
        rows = [world.paint(scene, sprites, np.random.default_rng((number, 1))) for scene, number in pairs]
        return pixels(np.stack([np.asarray(row) for row in rows]))

    def features(batch: Batch, pictures: Tensor, model: Any) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            texts = pooled(text_model, batch.ids[:, 0].to(device), batch.places[:, 0].to(device))
        seen = model["image"](pixel_values=pictures.to(device)).image_embeds
        return texts, functional.normalize(seen.float(), dim=-1)

    def prepare(step: int) -> tuple[Batch, Tensor]:
        rng = np.random.default_rng((training.seed, step, 4))
        if step % 2:
            numbers = np.sort(rng.choice(len(passed), training.batch, replace=False))
            scenes, pictures = [world.scene_of(int(i)) for i in numbers], pixels(passed[numbers])
        else:
            pairs = with_near_ones(4_000_000 + training.batch * step, training.batch)
            generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
            scenes, pictures = [scene for scene, _ in pairs], eye.worn(paint(pairs), generator)
        return batch_of(scenes, rng, ids), pictures

    feed = Feed(prepare, training.steps, workers)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        batch, pictures = feed(step)
        with fast(device):
            texts, seen = features(batch, pictures, model)
        logits = model["scale"][0].exp().clamp(max=100) * texts @ seen.T
        target = torch.arange(len(texts), device=device)
        return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2, {}

    def sheet(model: Any, step: int) -> None:
        hits = []
        for part in range(4):
            pairs = with_near_ones(1000 * part, 64, held_out=True)
            batch = batch_of([scene for scene, _ in pairs], np.random.default_rng(part), ids)
            texts, seen = features(batch, paint(pairs), model)
            hits.append((seen @ texts.T).argmax(1).cpu() == torch.arange(64))
        log({"found among 64": float(torch.cat(hits).float().mean())}, step)

    return fit(model, loss_of, training, folder / "vision.pt", log, sheet)
