"""The text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from embedlab.pretrain import captions, world
from embedlab.pretrain.loop import Feed, Training, fit
from embedlab.pretrain.plan import ON_SIDES, WIDTH, Layout, layout_loss, relations_read
from embedlab.pretrain.rows import Batch, batch_of, hidden_of, keep_some, roles, some_roles
from embedlab.pretrain.stage import CPU, Log, Show, begin, fast, weights
from embedlab.pretrain.vocabulary import tokenizer


def make_text() -> CLIPTextModel:
    """CLIP's text encoder in small; what it pools is in the joint space as it is.

    Its position table begins five times as large as CLIP's: order is to be seen from the first step.
    """
    sizes = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4}
    ids = {"bos_token_id": captions.START, "eos_token_id": captions.END, "pad_token_id": captions.END}
    model = CLIPTextModel(
        CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, projection_dim=WIDTH, **sizes, **ids)
    )
    nn.init.normal_(model.embeddings.position_embedding.weight, std=0.1)
    return model


# what the text encoder learns first: up to a step, pairs of objects in these relations alone. From the whole mix it
# learns words and colours and never who is where: which noun a place belongs to is told by order and relation together,
# and until both are read neither helps. With one relation an axis the order alone tells it: learnt in 300 steps of 64,
# and then all four in 100 more (docs/training.md).
LESSONS = {400: ("above", "left of"), 800: tuple(ON_SIDES)}


def lesson(rng: np.random.Generator, relations: Sequence[str], ids: captions.Ids, count: int) -> Batch:
    """Pairs of objects in one of some relations, named in that order; nothing changes slots."""
    scenes: list[world.Scene] = []
    while len(scenes) < count:
        scene = world.sample(rng, form="two")
        found = [one for one in (scene, world.other_way(scene)) if one.relations[0] in relations]
        scenes += found[:1]
    tables = torch.stack([captions.windows(ids(captions.pair(scene, rng))) for scene in scenes])
    return Batch(tables, torch.arange(77).repeat(count, 1, 1), tuple(scenes))


def text(
    folder: Path, training: Training, log: Log, show: Show, device: torch.device = CPU, workers: int = 0
) -> nn.Module:
    """Train the text encoder by what a plan of the picture needs to know: `LESSONS` first, then every caption."""
    ids = captions.Ids(tokenizer(folder))
    model = nn.ModuleDict({"text": make_text(), "layout": Layout()}).to(device)
    begin(model["text"], folder, "text_encoder")

    def prepare(step: int) -> Batch:
        rng = np.random.default_rng((training.seed, step))
        relations = next((those for end, those in LESSONS.items() if step < end), None)
        if relations is not None:
            return lesson(rng, relations, ids, training.batch)
        total = 1 if step % 8 else 2 + step // 8 % 2
        first = 1_000_000 + training.batch * step
        return batch_of([world.scene_of(first + i) for i in range(training.batch // total)], rng, ids, total)

    feed = Feed(prepare, training.steps, workers)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        batch = feed(step)
        with fast(device):
            hidden, empty = hidden_of(model["text"], batch, device)
            if step >= max(LESSONS):
                keep = some_roles(len(batch.scenes), generator)
                hidden = keep_some(hidden, empty, roles(batch.ids).flatten(1).to(device), keep.to(device))
            predicted = model["layout"](hidden)
        return layout_loss(predicted, batch.scenes), {}

    def sheet(model: Any, step: int) -> None:
        log(relations_read(model, ids), step)

    return fit(model, loss_of, training, folder / "text.pt", log, sheet)


def trained_text(folder: Path) -> Any:
    """The text encoder as its stage left it."""
    model = make_text().eval().requires_grad_(False)
    model.load_state_dict(weights(folder, "text", "text_encoder", "text."))
    return model
