"""The stages that make the second edition of the default model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from embedlab.detector.detections import look
from embedlab.detector.loading import CONFIG, WEIGHTS
from embedlab.detector.network import Detector
from embedlab.errors import ConfigError
from embedlab.files import write, written
from embedlab.pretrain import bars, captions, drawings, eye, world
from embedlab.pretrain.loop import Feed, Training, asked_to_stop, fit
from embedlab.pretrain.stages import grid, picture_loss, pixels, psnr, tokenizer, words_in, write_model

CPU = torch.device("cpu")
HELD_OUT = 1  # the seed of scenes that no stage is trained on
CHANNELS = 8
WIDTH = 96
WORDS, COLOURS = list(drawings.WORDS), list(drawings.COLOURS)
GROUNDS, STYLES = list(world.GROUNDS), list(drawings.STYLES)
Log = Callable[[dict[str, float], int], None]
Show = Callable[[str, Image.Image, int], None]


@contextmanager
def fast(device: torch.device) -> Iterator[None]:
    """What makes a training step fast: bfloat16, and on a CPU plain attention (docs/training.md)."""
    with torch.autocast(device.type, torch.bfloat16):
        if device.type == "cpu":
            with sdpa_kernel(SDPBackend.MATH):
                yield
        else:
            yield


def painted(numbers: Any, sprites: drawings.Sprites, seed: int = 0, held_out: bool = False) -> Tensor:
    """The pictures of scenes (n, 3, 128, 128), in [-1, 1]."""
    return pixels(np.stack([np.asarray(world.picture_of(int(i), sprites, seed, held_out)) for i in numbers]))


def make_vae() -> AutoencoderKL:
    """A KL autoencoder of factor 8 with 8 latent channels, without attention."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=2,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=world.SIDE,
        mid_block_add_attention=False,
    )


def vae(
    folder: Path,
    training: Training,
    log: Log,
    show: Show,
    device: torch.device = CPU,
    workers: int = 0,
    kl: float = 1e-5,
) -> nn.Module:
    """Train the autoencoder on whole pictures."""
    sprites = drawings.load(folder / "sprites")
    held = painted(range(64), sprites, HELD_OUT, held_out=True)
    model = make_vae().to(device, memory_format=torch.channels_last)
    start = folder / "start" / "vae.pt"
    if start.exists():
        model.load_state_dict(torch.load(start, weights_only=True))

    feed = Feed(lambda step: painted(_numbers(step, training), sprites), training.steps, workers)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        wanted = feed(step).to(device, memory_format=torch.channels_last)
        with fast(device):
            posterior = model.encode(wanted).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            rebuilt = model.decode(posterior.mean + posterior.std * noise).sample
        loss = picture_loss(rebuilt.float(), wanted, in_decibels=True)
        return loss + kl * posterior.kl().float().mean() / noise[0].numel(), {}

    sheet = partial(_rebuilt, held, log, partial(show, "vae"), device)
    return fit(model, loss_of, training, folder / "vae.pt", log, sheet)


def _numbers(step: int, training: Training, first: int = 0) -> range:
    """The scenes that a step paints: new ones each time."""
    return range(first + training.batch * step, first + training.batch * (step + 1))


def _rebuilt(
    held: Tensor, log: Log, show: Callable[[Image.Image, int], None], device: torch.device, model: Any, step: int
) -> None:
    """How well an autoencoder gives held-out pictures back, and a sheet of some beside what they became."""
    rebuilt = torch.cat([model.decode(model.encode(w.to(device)).latent_dist.mean).sample for w in held.split(16)])
    rebuilt = rebuilt.float().cpu()
    log({"psnr": psnr(rebuilt, held)}, step)
    show(grid(torch.cat([torch.stack([a, b]) for a, b in zip(held[:16], rebuilt[:16], strict=True)]), 8), step)


# ── text ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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


START, WORD, LAST, PADDING = range(4)  # what a row of a window is
KEEP = {  # which rows a picture is to be drawn from, the others being those of the empty prompt; how often
    (WORD, LAST, PADDING): 0.5,
    (WORD,): 0.16,
    (LAST,): 0.1,
    (PADDING,): 0.1,
    (WORD, LAST): 0.05,
    (WORD, PADDING): 0.05,
    (LAST, PADDING): 0.04,
}


def roles(ids: Tensor) -> Tensor:
    """What each row of (…, 77) ids is: start, word, end of text or padding."""
    ends = (ids == captions.END).cumsum(-1)
    return torch.where(ends == 0, WORD, torch.where(ends == 1, LAST, PADDING)).masked_fill(ids == captions.START, START)


def keep_some(hidden: Tensor, empty: Tensor, kinds: Tensor, keep: Tensor) -> Tensor:
    """Hidden states (n, row, dim) with the rows whose role is not kept from the empty prompt's (77, dim).

    `kinds` holds the rows' roles (n, row), `keep` whether a role is kept (n, 4).
    """
    kept = keep.gather(1, kinds)[..., None]
    return torch.where(kept, hidden, empty.repeat(hidden.shape[1] // 77, 1).to(hidden))


def some_roles(n: int, generator: torch.Generator) -> Tensor:
    """Which roles are kept in each of n prompts (n, 4); the start always is: it is the same in all prompts."""
    table = torch.zeros(len(KEEP), 4, dtype=torch.bool)
    for row, kept in enumerate(KEEP):
        table[row, [START, *kept]] = True
    return table[torch.multinomial(torch.tensor(list(KEEP.values())), n, replacement=True, generator=generator)]


def swap(ids: Tensor, places: Tensor, one: int, other: int) -> None:
    """Let two rows of a window (77,) change slots, each with its position: by positions, nothing has changed."""
    for table in (ids, places):
        table[[one, other]] = table[[other, one]]


@dataclass(frozen=True)
class Batch:
    """Prompts as the text encoder reads them: ids and positions (n, window, 77), and the scenes they are of."""

    ids: Tensor
    places: Tensor
    scenes: tuple[world.Scene, ...]


def batch_of(scenes: Sequence[world.Scene], rng: np.random.Generator, ids: captions.Ids, total: int = 1) -> Batch:
    """Captions of scenes, in `total` windows, new ones each time.

    Two nouns of a caption change slots at times, and at times all its words do, each with its position: where a word
    stands is told by its position embedding, and by it alone.
    """
    tables, places = [], []
    for scene in scenes:
        while True:
            if total == 1:
                text = captions.caption(scene, rng)
            else:
                text = captions.long_caption(scene, rng, ids, total, int(rng.integers(total)))
            table = captions.windows(ids(text.text))
            if len(table) == total:
                break
        where = torch.arange(77).repeat(total, 1)
        luck = rng.random()
        found = {noun: (table == ids(noun)[0]).nonzero()[0].tolist() for noun in text.nouns}
        if luck < 0.2 and len(found) > 1:
            (w, one), (v, other) = (list(found.values())[i] for i in rng.choice(len(found), 2, replace=False))
            if w == v:
                swap(table[w], where[w], one, other)
        elif luck < 0.26:
            for row, place in zip(table, where, strict=True):
                n = int((row[1:] != captions.END).sum())
                order = torch.from_numpy(rng.permutation(n)) + 1
                row[1 : n + 1], place[1 : n + 1] = row[order], place[order]
        tables.append(table)
        places.append(where)
    return Batch(torch.stack(tables), torch.stack(places), tuple(scenes))


def hidden_of(text: nn.Module, batch: Batch, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    """Hidden states (n, window · 77, dim) and those of the empty prompt (77, dim), in one call."""
    empty = captions.windows([])
    ids, places = (
        torch.cat([x.flatten(0, 1), e.to(x.device)])
        for x, e in ((batch.ids, empty), (batch.places, torch.arange(77)[None]))
    )
    states = text(input_ids=ids.to(device), position_ids=places.to(device)).last_hidden_state
    return states[:-1].unflatten(0, batch.ids.shape[:2]).flatten(1, 2), states[-1]


CELLS = 8


def layout_of(scene: world.Scene) -> tuple[Tensor, Tensor]:
    """The word and the colour at each of 8 × 8 cells (64,): past the words none, past the colours its own."""
    words = np.full((CELLS, CELLS), len(WORDS))
    colours = np.full((CELLS, CELLS), -100)
    y, x = (np.mgrid[:CELLS, :CELLS] + 0.5) * world.SIDE / CELLS
    for thing in world.in_order(scene):
        inside = (x - thing.x) ** 2 + (y - thing.y) ** 2 < (0.46 * thing.size) ** 2
        words[inside] = WORDS.index(thing.word)
        colours[inside] = len(COLOURS) if thing.colour is None else COLOURS.index(thing.colour)
    return torch.from_numpy(words).flatten(), torch.from_numpy(colours).flatten()


class Layout(nn.Module):
    """From hidden states to a plan of the picture: what a UNet reads from them, without the noise and for a tenth of
    the work. Only training has a use for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Parameter(torch.randn(CELLS**2 + 1, WIDTH) * 0.1)
        layer = nn.TransformerDecoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.read = nn.TransformerDecoder(layer, 2, nn.LayerNorm(WIDTH))
        self.word = nn.Linear(WIDTH, len(WORDS) + 1)
        self.colour = nn.Linear(WIDTH, len(COLOURS) + 1)
        self.rest = nn.Linear(WIDTH, len(GROUNDS) + len(STYLES))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the word and of the colour at each cell, and of ground and style."""
        cells = self.read(self.cells.expand(len(hidden), -1, -1), hidden)
        return self.word(cells[:, 1:]), self.colour(cells[:, 1:]), self.rest(cells[:, 0])


def layout_loss(predicted: tuple[Tensor, Tensor, Tensor], scenes: Sequence[world.Scene]) -> Tensor:
    """Cross-entropy of the plans of scenes."""
    word, colour, rest = (part.float() for part in predicted)
    words, colours = (torch.stack(part).to(word.device) for part in zip(*map(layout_of, scenes), strict=True))
    ground = torch.tensor([GROUNDS.index(scene.ground) for scene in scenes], device=word.device)
    style = torch.tensor([STYLES.index(scene.style) for scene in scenes], device=word.device)
    return (
        functional.cross_entropy(word.flatten(0, 1), words.flatten())
        + 0.3 * functional.cross_entropy(colour.flatten(0, 1), colours.flatten())
        + 0.1 * functional.cross_entropy(rest[:, : len(GROUNDS)], ground)
        + 0.1 * functional.cross_entropy(rest[:, len(GROUNDS) :], style)
    )


ON_SIDES = {"above": (1, 1), "below": (1, -1), "left of": (0, 1), "right of": (0, -1)}  # axis, order


@torch.no_grad()
def relations_read(model: Any, ids: captions.Ids, count: int = 200) -> dict[str, float]:
    """How often the plan of a held-out pair has both words, on the sides that the prompt says: from all rows, from the
    words', the end's and the padding's alone; and with two position rows exchanged, on the other sides.
    """
    rng = np.random.default_rng(HELD_OUT)
    pairs: list[tuple[str, str, str]] = []
    while len(pairs) < count:
        one, other = (str(w) for w in rng.choice(WORDS, 2, replace=False))
        if world.held_out_pair(one, other):
            pairs.append((one, other, str(rng.choice(list(ON_SIDES)))))
    texts = [f"{captions.article(a)} {relation} {captions.article(b)}" for a, b, relation in pairs]
    tables = torch.stack([captions.windows(ids(text)) for text in texts])
    in_order = torch.arange(77).repeat(count, 1, 1)
    turned = in_order.clone()
    for row, (a, b, _) in enumerate(pairs):
        i, j = (int((tables[row, 0] == ids(w)[0]).nonzero()) for w in (a, b))
        turned[row, 0, i], turned[row, 0, j] = j, i
    y, x = (torch.arange(CELLS**2) // CELLS).float(), (torch.arange(CELLS**2) % CELLS).float()
    figures = {}
    cases = {"all": (in_order, (1, 1, 1, 1)), "words": (in_order, (1, 1, 0, 0)), "end": (in_order, (1, 0, 1, 0))}
    cases |= {"padding": (in_order, (1, 0, 0, 1)), "turned": (turned, (1, 1, 1, 1))}
    for name, (places, keep) in cases.items():
        hidden, empty = hidden_of(model["text"], Batch(tables, places, ()), next(model.parameters()).device)
        kept = torch.tensor([keep], dtype=torch.bool).expand(count, -1)
        kinds = roles(tables).flatten(1)
        chance = model["layout"](keep_some(hidden, empty, kinds.to(hidden.device), kept.to(hidden.device)))[0]
        chance = chance.float().softmax(-1).cpu()
        right = []
        for row, (a, b, relation) in enumerate(pairs):
            one, other = chance[row, :, WORDS.index(a)], chance[row, :, WORDS.index(b)]
            axis, order = ON_SIDES[relation]
            way = (y if axis else x) * (order if name != "turned" else -order)
            ahead = (other * way).sum() / other.sum() - (one * way).sum() / one.sum()
            right.append(bool(ahead > 1 and min(one.max(), other.max()) > 0.3))
        figures[f"relation/{name}"] = float(np.mean(right))
    return figures


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


# ── unet ──────────────────────────────────────────────────────────────────────────────────────────────────────────

NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOISE |= {
    "steps_offset": 1,  # has no part in trailing timesteps; pipelines warn of 0
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": False,
}


def make_unet() -> UNet2DConditionModel:
    """Stable Diffusion's UNet in small: cross-attention at 8² and 4² latents, none at 16²."""
    return UNet2DConditionModel(
        sample_size=world.SIDE // 8,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 112, 144),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=(1, 4, 4),  # the library means heads, not their width
        norm_num_groups=16,
    )


def averaged(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint."""
    if not path.exists():
        raise ConfigError(f"{path} is missing; run the stage {path.stem} first.")
    state = torch.load(path, weights_only=True, map_location="cpu")["average"]
    return {key.removeprefix("module."): value for key, value in state.items() if key.startswith("module.")}


def trained_vae(folder: Path, count: int = 512) -> AutoencoderKL:
    """The autoencoder as it was trained, every latent channel brought to mean 0 and spread 1 over `count` scenes.

    The 1 × 1 convolutions round the latents take the change up, so that pictures stay what they were, and
    `scaling_factor` is 1.
    """
    model = make_vae().eval()
    model.load_state_dict(averaged(folder / "vae.pt"))
    sprites = drawings.load(folder / "sprites")
    with torch.no_grad():
        latents = torch.cat(
            [model.encode(painted(range(i, i + 16), sprites)).latent_dist.mean for i in range(0, count, 16)]
        )
        mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        into, out = model.quant_conv, model.post_quant_conv
        assert into is not None
        assert out is not None
        assert into.bias is not None
        assert out.bias is not None
        out.bias += out.weight[..., 0, 0] @ mean
        out.weight *= spread.view(1, -1, 1, 1)
        into.weight[:CHANNELS] /= spread.view(-1, 1, 1, 1)
        into.bias[:CHANNELS] = (into.bias[:CHANNELS] - mean) / spread
        into.bias[CHANNELS:] -= 2 * spread.log()
    model.register_to_config(scaling_factor=1.0)
    return model


def latents(
    folder: Path, count: int, device: torch.device = CPU, workers: int = 0, say: Callable[[str], None] = print
) -> None:
    """The scenes 0 to `count` as latents (`latents.npy`, fp16), a few hundred at a time; and `vae.ready.pt`, which made
    them and decodes them.
    """
    ready, target, progress = folder / "vae.ready.pt", folder / "latents.npy", folder / "latents.json"
    if not ready.exists():
        written(ready, partial(torch.save, trained_vae(folder, min(count, 512)).state_dict()))
    done = json.loads(progress.read_text(encoding="utf-8"))["done"] if progress.exists() else 0
    if done >= count:
        return
    shape = (count, CHANNELS, world.SIDE // 8, world.SIDE // 8)
    table = np.lib.format.open_memmap(target, mode="r+" if done else "w+", dtype=np.float16, shape=shape)
    model, sprites = ready_vae(folder).to(device), drawings.load(folder / "sprites")
    feed = Feed(lambda n: painted(range(16 * n, min(16 * n + 16, count)), sprites), -(-count // 16), workers)
    with asked_to_stop() as asked, torch.inference_mode(), fast(device):
        for first in range(done, count, 16):  # a stop is noticed after whole batches only
            last = min(first + 16, count)
            table[first:last] = model.encode(feed(first // 16).to(device)).latent_dist.mean.half().cpu().numpy()
            if last % 800 == 0 or last == count or asked.is_set():
                table.flush()
                write(progress, json.dumps({"done": last}).encode())
                say(f"latents: {last}/{count}")
            if asked.is_set():
                raise SystemExit(f"latents: stopped after {last}, which are saved.")


def ready_vae(folder: Path) -> AutoencoderKL:
    """The autoencoder whose latents the UNet is trained on, with the decoder that was trained last."""
    model = make_vae().eval().to(memory_format=torch.channels_last)
    later = folder / "decoder.pt"
    model.load_state_dict(averaged(later) if later.exists() else torch.load(folder / "vae.ready.pt", weights_only=True))
    model.register_to_config(scaling_factor=1.0)
    return model


def decoder(
    folder: Path, training: Training, log: Log, show: Show, device: torch.device = CPU, workers: int = 0
) -> nn.Module:
    """Train the decoder on by itself: pictures get sharper, and whatever reads latents stays as good as it was."""
    sprites = drawings.load(folder / "sprites")
    held = painted(range(64), sprites, HELD_OUT, held_out=True)
    model = make_vae().to(device, memory_format=torch.channels_last)
    model.load_state_dict(torch.load(folder / "vae.ready.pt", weights_only=True))
    for part in (model.encoder, model.quant_conv):
        assert part is not None
        part.requires_grad_(False)
    feed = Feed(lambda step: painted(_numbers(step, training), sprites), training.steps, workers)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        wanted = feed(step).to(device, memory_format=torch.channels_last)
        with fast(device):
            with torch.no_grad():
                latents = model.encode(wanted).latent_dist.mean
            rebuilt = model.decode(latents).sample
        return picture_loss(rebuilt.float(), wanted, in_decibels=True), {}

    sheet = partial(_rebuilt, held, log, partial(show, "decoder"), device)
    return fit(model, loss_of, training, folder / "decoder.pt", log, sheet)


def trained_text(folder: Path) -> Any:
    """The text encoder as its stage left it."""
    model = make_text().eval().requires_grad_(False)
    weights = averaged(folder / "text.pt")
    model.load_state_dict({key.removeprefix("text."): v for key, v in weights.items() if key.startswith("text.")})
    return model


PROBES = (
    *("a picture of a puppy", "a rocket on yellow, 3d", "two apples", "an animal on pink"),
    *("a cat above a dog", "a dog above a cat", "a red car and a blue balloon", "a fish in front of a castle"),
)


@torch.no_grad()
def sample(
    unet: Any, hidden: Tensor, empty: Tensor, seed: int = 0, scale: float = 4.0, at_once: int = 32, steps: int = 25
) -> Tensor:
    """A short DDIM loop for what is looked at while training; latents (n, 8, 16, 16)."""
    scheduler = DDIMScheduler(**NOISE)
    scheduler.set_timesteps(steps)
    n, side = len(hidden), world.SIDE // 8
    noise = torch.randn(n, CHANNELS, side, side, generator=torch.Generator().manual_seed(seed)).to(hidden.device)
    samples = []
    for start, text in zip(noise.split(at_once), hidden.split(at_once), strict=True):
        x, both = start, torch.cat([empty.expand(len(start), -1, -1), text])
        for t in scheduler.timesteps:
            uncond, cond = unet(torch.cat([x, x]), t, both).sample.chunk(2)
            x = scheduler.step(uncond + scale * (cond - uncond), t, x).prev_sample
        samples.append(x)
    return torch.cat(samples)


def compiled(model: nn.Module, *inputs: Tensor) -> Any:
    """A UNet by torch's compiler where its gradients are those of the UNet itself, else the UNet itself.

    A compiled autoencoder once got no gradient in half its layers, without a word (docs/training.md).
    """

    def gradients(function: Any) -> list[Tensor]:
        with fast(inputs[0].device):
            function(*inputs).sample.float().square().mean().backward()
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        model.zero_grad(set_to_none=True)
        return found

    function = torch.compile(model)
    pairs = zip(gradients(function), gradients(model), strict=True)
    alike = min(float(functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) for a, b in pairs)
    print(f"unet: gradients of the compiled UNet: cosine {alike:.3f} or more with those of the UNet as it is")
    return function if alike > 0.9 else model


def read(text: Any, ids: captions.Ids, prompts: Sequence[str], device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    """Hidden states of prompts of one window (n, 77, dim), and of the empty one (77, dim)."""
    tables = torch.stack([captions.windows(ids(prompt), 1) for prompt in prompts])
    return hidden_of(text, Batch(tables, torch.arange(77).expand_as(tables), ()), device)


def unet(
    folder: Path,
    training: Training,
    log: Log,
    show: Show,
    device: torch.device = CPU,
    workers: int = 0,
    empty_share: float = 0.1,
    long_every: int = 10,
) -> nn.Module:
    """Train the UNet to predict v from latents that are at hand and captions that are new each time.

    Every `long_every`-th step sees prompts of two or three windows. The weights are the square root of min-SNR's: with
    those themselves the noise in which places are decided has almost no say.
    """
    ids, text_model = captions.Ids(tokenizer(folder)), trained_text(folder).to(device)
    table = np.load(folder / "latents.npy", mmap_mode="r")
    alphas = DDIMScheduler(**NOISE).alphas_cumprod.to(device)
    model = make_unet().to(device, memory_format=torch.channels_last)
    of_one_window: Any = model  # long prompts are few: a graph of their own takes longer to compile than it saves
    if device.type == "cuda":
        side = table.shape[-1]
        noise, rows = torch.randn(training.batch, CHANNELS, side, side), torch.randn(training.batch, 77, WIDTH)
        times = torch.arange(training.batch, device=device) % 1000
        of_one_window = compiled(
            model, noise.to(device, memory_format=torch.channels_last), times, rows.to(device, torch.bfloat16)
        )
    judge = eye.load(folder / "judge.pt", eye.JUDGE) if (folder / "judge.pt").exists() else None

    def prepare(step: int) -> tuple[Tensor, ...]:
        """Ids and positions (n, window, 77), which roles are kept (n, 4), latents and times (n,)."""
        rng, generator = (
            np.random.default_rng((training.seed, step, 2)),
            torch.Generator().manual_seed(training.seed * 1_000_003 + step),
        )
        total = 1 if step % long_every else 2 + step // long_every % 2
        numbers = np.sort(rng.integers(len(table), size=training.batch // total))
        batch = batch_of([world.scene_of(int(i)) for i in numbers], rng, ids, total)
        keep = some_roles(len(numbers), generator)
        keep[torch.rand(len(numbers), generator=generator) < empty_share, WORD:] = False
        # one time in each of equal slices: the spread of the loss over times does not come from luck
        slices = torch.randperm(len(numbers), generator=generator) + torch.rand(len(numbers), generator=generator)
        t = (slices * 1000 / len(numbers)).long().clamp(max=999)
        return batch.ids, batch.places, keep, torch.from_numpy(table[numbers]), t

    feed, on_device = Feed(prepare, training.steps, workers), torch.Generator(device)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        ids, places, keep, x0, t = (part.to(device, non_blocking=True) for part in feed(step))
        x0 = x0.float()
        noise = torch.randn(x0.shape, generator=on_device.manual_seed(training.seed * 1_000_003 + step), device=device)
        a = alphas[t].view(-1, 1, 1, 1)
        x = (a.sqrt() * x0 + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        v = a.sqrt() * noise - (1 - a).sqrt() * x0
        snr = alphas[t] / (1 - alphas[t])
        with fast(device):
            with torch.no_grad():
                hidden, empty = hidden_of(text_model, Batch(ids, places, ()), device)
                hidden = keep_some(hidden, empty, roles(ids).flatten(1), keep)
            seen = (of_one_window if ids.shape[1] == 1 else model)(x, t, hidden).sample
        error = (seen.float() - v).square().flatten(1).mean(1)
        return (error * (snr.clamp(max=5) / (snr + 1)).sqrt()).mean(), {"error": error.detach().mean()}

    def sheet(model: Any, step: int) -> None:
        autoencoder = ready_vae(folder)

        def drawn(prompts: Sequence[str], seed: int) -> Tensor:
            hidden, empty = read(text_model, ids, prompts, device)
            latents = sample(model, hidden, empty, seed, steps=training.sheet_steps).cpu()
            return torch.cat([autoencoder.decode(part).sample for part in latents.split(8)])

        show("unet", grid(torch.cat([drawn(PROBES, n) for n in range(training.sheet_seeds)]), len(PROBES)), step)
        if judge is not None:
            log(bars.now(judge, drawn, WORDS, 3 * training.sheet_seeds), step)

    return fit(model, loss_of, training, folder / "unet.pt", log, sheet)


# ── eye and judge ─────────────────────────────────────────────────────────────────────────────────────────────────


def again(folder: Path, count: int = 4000) -> np.ndarray:
    """The first scenes as the autoencoder gives them back (uint8, memory-mapped), made once."""
    target = folder / "again.npy"
    if not target.exists():
        table = np.load(folder / "latents.npy", mmap_mode="r")[:count]
        model = ready_vae(folder)
        with torch.inference_mode(), fast(CPU):
            parts = [model.decode(torch.from_numpy(table[i : i + 16]).float()).sample for i in range(0, len(table), 16)]
        levels = torch.cat(parts).float().add(1).mul(127.5).clamp(0, 255).byte()
        bytes_ = levels.permute(0, 2, 3, 1).contiguous().numpy()
        written(target, partial(np.save, arr=bytes_))
    pictures: np.ndarray = np.load(target, mmap_mode="r")
    return pictures


def detector(
    folder: Path,
    training: Training,
    log: Log,
    show: Show,
    device: torch.device = CPU,
    workers: int = 0,
    stage: Literal["eye", "judge"] = "eye",
) -> nn.Module:
    """Train the eye on painted scenes and what the autoencoder makes of them, or the judge on painted ones alone.

    Every fourth painted scene is of the combinations that the other stages never see: who is to tell whether the model
    draws a green hat has to know one. A judge that did not missed 6 of 21 painted ones.
    """
    sprites = drawings.load(folder / "sprites")
    model = Detector(**(eye.EYE if stage == "eye" else eye.JUDGE), vocabulary=eye.VOCABULARY).to(device)
    passed = again(folder) if stage == "eye" else None
    held = [world.scene_of(i, HELD_OUT, held_out=True) for i in range(200)]
    pictures = painted(range(200), sprites, HELD_OUT, held_out=True)
    first = {"eye": 2_000_000, "judge": 3_000_000}[stage]

    def prepare(step: int) -> tuple[tuple[world.Scene, ...], Tensor]:
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
        if passed is not None and step % 2:
            numbers = torch.randint(len(passed), (training.batch,), generator=generator).sort().values.tolist()
            scenes, wanted = [world.scene_of(i) for i in numbers], pixels(passed[numbers])
        else:
            numbers = list(_numbers(step, training, first))
            usual, rare = numbers[::4] + numbers[1::4] + numbers[2::4], numbers[3::4]
            scenes = [world.scene_of(i) for i in usual] + [world.scene_of(i, held_out=True) for i in rare]
            parts = [painted(usual, sprites), *([painted(rare, sprites, held_out=True)] if rare else [])]
            wanted = torch.cat(parts)
        return tuple(scenes), eye.worn(wanted, generator)

    feed = Feed(prepare, training.steps, workers)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        scenes, wanted = feed(step)
        with fast(device):
            predicted = model(wanted.to(device, memory_format=torch.channels_last))
        return eye.loss(predicted, scenes), {}

    def sheet(model: Any, step: int) -> None:
        log(eye.marks(look(model, pictures.to(device)), held), step)

    return fit(model, loss_of, training, folder / f"{stage}.pt", log, sheet)


# ── vision ────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    model: Any = nn.ModuleDict({"image": make_vision(), "scale": nn.ParameterList([torch.tensor(2.7)])}).to(device)

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


# ── export ────────────────────────────────────────────────────────────────────────────────────────────────────────


def export(folder: Path, target: Path, held_out: int = 64, read: int = 20_000, calibrate: int = 1000) -> None:
    """Write the stages' weights as a diffusers folder in fp16, with the image tower, the eye and held-out scenes.

    The words that the model knows are those of the captions of `read` scenes. The eye's probabilities are fitted to
    `calibrate` held-out scenes more, of which half go through the autoencoder.
    """
    sprites = drawings.load(folder / "sprites")
    denoiser, image = make_unet(), make_vision()
    denoiser.load_state_dict(averaged(folder / "unet.pt"))
    state = averaged(folder / "vision.pt")
    image.load_state_dict({k.removeprefix("image."): v for k, v in state.items() if k.startswith("image.")})
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


TRAINED: Mapping[str, Callable[..., nn.Module]] = {
    "vae": vae,
    "decoder": decoder,
    "text": text,
    "judge": partial(detector, stage="judge"),
    "unet": unet,
    "eye": partial(detector, stage="eye"),
    "vision": vision,
}
