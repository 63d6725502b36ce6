"""A word's rows, learned: textual inversion (Gal et al. 2022) and hard prompts (PEZ, Wen et al. 2023)."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer

from embedlab import images
from embedlab.clip import Tower
from embedlab.display import Shown, block, curves, short, table
from embedlab.display.progress import bar
from embedlab.embeddings import Neighbour, lookup_of
from embedlab.encoder import Encoder, Prompt
from embedlab.errors import ConfigError, ModelError, PictureError, brief, check_kind
from embedlab.learning.hard import nearest_entries, straight_through, typed_ids
from embedlab.learning.losses import Loss, denoising, text_to_images, text_to_text
from embedlab.limits import By, Table, check_settings, found
from embedlab.models import Concept, Model, Scorer, Source, save_concept
from embedlab.models.concept_files import Layout
from embedlab.models.concepts import check_new, with_words
from embedlab.token_ids import ids_of

DRAWS = 4  # calls of the loss, with the same images and noise for any rows, that rows are compared by
Step = Callable[[int, float], None]  # takes the number of a step and its loss


@dataclass(frozen=True)
class Learned(Shown):
    """What was learned: rows (vector, width) for each text encoder, float32, and how the loss fell.

    table: `token` or `position`. curve: the loss of each step, of that step's images and noise. before, after: the loss
    of the rows that learning began at and of those it ended at, of the same images and noise. nearest: the entry of the
    table next to each vector; of a hard prompt it is that entry. concept: the rows as a concept, None of positions.
    """

    word: str
    table: Table
    rows: tuple[Float[Tensor, "vector dim"], ...] = field(repr=False)
    curve: tuple[float, ...] = field(repr=False)
    before: float
    after: float
    nearest: tuple[Neighbour, ...]
    concept: Concept | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        loss = f"{self.before:.4g} → {self.after:.4g}"
        return f"Learned({short(self.word)}, {self.table} rows, loss {loss}, near {short(self.text)})"

    def _repr_html_(self) -> str:
        heads = ("vector", "nearest entry", "cosine", "distance")
        rows = [(n, one.text, f"{one.cosine:.3f}", f"{one.distance:.3f}") for n, one in enumerate(self.nearest)]
        line = curves({"loss": [(float(n), y) for n, y in enumerate(self.curve)]}, "step", "loss")
        note = f"{self.table} rows; the loss of the same images and noise: {self.before:.4g} → {self.after:.4g}"
        return block(self.word, line, table(heads, rows, ("vector", *heads[2:])), note=note)

    @property
    def text(self) -> str:
        """The nearest entries as a text: of a hard prompt, what can be typed in its place."""
        return " ".join(one.text for one in self.nearest)

    def save(self, path: Path | str, layout: Layout = "diffusers") -> Path:
        """Write the concept to a file of textual inversion (`save_concept`); ConfigError for position rows."""
        if self.concept is None:
            raise ConfigError(f"'{self.word}' learned position rows, and a concept has token rows: Replace takes them.")
        return save_concept(path, list(self.rows), layout, self.word)


def learn(
    model: Model | Source | str,
    word: str,
    like: Sequence[Any] = (),
    text: str | None = None,
    prompt: str | Sequence[str] | None = None,
    by: By | None = None,
    begin: str | None = None,
    vectors: int = 1,
    table: Table = "token",
    hard: bool = False,
    steps: int = 100,
    rate: float = 0.2,
    batch: int = 4,
    seed: int = 0,
    encoder: Encoder | None = None,
    on_step: Step | None = None,
) -> Learned:
    """Learn the rows of a word toward images or a text; the model stays as it is.

    word: what the concept shall be called; for `table="position"` a word of the prompt.
    like: images of what it shall mean: paths, PIL images or tensors (3, height, width) in [0, 1]. Or text: a text.
    prompt: the text that the word stands in, or several, which take turns; left out, "A picture of a WORD".
    by: `denoising`, the loss that the UNet was trained with, given the images; or `clip`, the cosine of the prompt with
        the images, or with the text. Left out, `denoising` toward images, `clip` toward a text and for a hard prompt.
    begin: a word whose rows are the first ones, left out the mean of all words (hard: words drawn by `seed`); of
        positions those of the prompt, or of another word of it.
    vectors: how many rows the concept has. hard: only words of the vocabulary, so that what is learned can be typed.
    rate: how far Adam goes in a step, in units of the root mean square of the table's numbers; it falls to 0.
    batch: images and noises of a step of `denoising`.
    on_step: is called with the number of each step and its loss.

    Raises, before weights are read, PictureError, PromptError, ModelError or ConfigError for what does not fit.

    >>> from embedlab import load
    >>> emoji = load("emoji")
    >>> learned = learn(emoji, "<my-rocket>", text="a picture of a rocket", begin="puppy", steps=5)
    >>> learned.after < learned.before, learned.concept.names, learned.rows[0].shape
    (True, ('<my-rocket>',), torch.Size([1, 96]))
    """
    source = Source(model) if isinstance(model, str) else model
    word = unicodedata.normalize("NFC", word) if isinstance(word, str) else word
    settings: dict[str, Any] = {"word": word, "like": like, "text": text, "prompt": prompt, "by": by, "begin": begin}
    settings |= {"vectors": vectors, "table": table, "hard": hard, "steps": steps, "rate": rate, "batch": batch}
    how = encoder or Encoder()
    pictures = check_asked(source, how, **settings, seed=seed)
    by, prompts = by or usual(text, hard), prompts_of(prompt, word)
    loaded = source.load() if isinstance(source, Source) else source
    with torch.inference_mode(False), torch.enable_grad():
        entries = entries_of(loaded, table)
        first = first_tokens(loaded, entries, begin, vectors, hard, seed) if table == "token" else None
        knows = loaded if first is None else with_concept(loaded, word, first)
        embedded = tuple(how.embed(prompt, knows.towers) for prompt in prompts)
        free = Free(word, table, embedded, tuple(first or first_positions(embedded[0], word, begin)))
        loss = loss_of(knows, pictures, text, by, batch, how)
        with bar(steps, f"{steps} steps for {word}") as reach:

            def heard(step: int, now: float) -> None:
                reach(step + 1)
                if on_step is not None:
                    on_step(step, now)

            rows, curve, before, after = descended(free, loss, entries, hard, steps, rate, seed, heard)
    kept = tuple(row.float().cpu() for row in rows)
    concept = None
    if table == "token":
        concept = Concept(word, kept, ("clip_l", "clip_g") if len(kept) > 1 else ("",))
    return Learned(word, table, kept, curve, before, after, near(loaded, rows[0], entries[0], table), concept)


# ── what is asked for ─────────────────────────────────────────────────────────────────────────────────────────────


def check_asked(model: Any, how: Encoder, **settings: Any) -> Float[Tensor, "image 3 height width"]:
    """Refuse settings of `learn` that do not fit a model, before its weights are read; gives the images."""
    check_settings("embedlab.learn", settings)
    check_kind(model, (Model, Source), "model", "a name, lab.Source(NAME) or lab.load(NAME)")
    word, text, table = settings["word"], settings["text"], settings["table"]
    prompts = prompts_of(settings["prompt"], word)
    check_words(model, word, prompts, settings["begin"], table, settings["vectors"], how)
    if text is not None:
        how.parse(text)
    check_by(model, settings["by"] or usual(text, settings["hard"]), toward_images=text is None)
    return opened(settings["like"], model.size)


def usual(text: str | None, hard: bool) -> By:
    """The loss where none is named."""
    return "clip" if hard or text is not None else "denoising"


def prompts_of(prompt: str | Sequence[str] | None, word: str) -> tuple[str, ...]:
    """The prompts that a word is learned in."""
    given = f"A picture of a {word}" if prompt is None else prompt
    return (given,) if isinstance(given, str) else tuple(given)


def tokenizers_of(model: Model | Source) -> tuple[CLIPTokenizer, ...]:
    """One tokenizer a text encoder."""
    return model.tokenizers if isinstance(model, Source) else tuple(tower.tokenizer for tower in model.towers)


def check_words(
    model: Model | Source,
    word: str,
    prompts: Sequence[str],
    begin: str | None,
    table: Table,
    vectors: int,
    how: Encoder,
) -> None:
    """Refuse a name that is a word already, a prompt without the word, and a beginning that is no word."""
    tokenizers = tokenizers_of(model)
    known = tokenizers[0]
    if table == "token":
        new = Concept(word, (torch.zeros(vectors, 1),))
        check_new(new, tokenizers)
        known = with_words(known, [new])
    for prompt in prompts:
        tokens = how.tokenize(prompt, known)
        tokens.rows(word)
        if begin is not None and table == "position":
            tokens.rows(begin)
    if begin is not None and not ids_of(begin, known):
        raise ConfigError(f"begin is {brief(begin)}; it has to be a word or a phrase.")


def check_by(model: Model | Source, by: By, toward_images: bool) -> None:
    """Refuse a loss that a model has no parts for, or whose parts have no gradients."""
    if isinstance(model, Model) and model.engine != "eager":
        raise ConfigError(f"the engine '{model.engine}' has no gradients; learn with a model of engine eager.")
    if by == "clip" and toward_images:
        if not (model.has_scorer if isinstance(model, Source) else model.scorer):
            raise ModelError(f"'{model.name}' has no image encoder for by=clip; name one: model.scorer=PATH.")
        if (many := len(tokenizers_of(model))) > 1:
            raise ModelError(
                f"by=clip looks at images with one text encoder, and '{model.name}' has {many}; take by=denoising."
            )


def opened(like: Sequence[Any], side: int) -> Float[Tensor, "image 3 height width"]:
    """Images as a model of this size takes them, cut to a square about their middle; PictureError for what is none."""
    made = []
    for given in [like] if isinstance(like, str | Path | Image.Image) else like:
        if isinstance(given, str | Path):
            picture = images.open_picture(found(str(given)))
        elif isinstance(given, Image.Image | Tensor):
            picture = images.pixels_of(given).picture
        else:
            raise PictureError(f"like holds {brief(given)}; it has to be a path, a PIL image or a tensor.")
        made.append(images.to_tensor(picture, (side, side)))
    return torch.stack(made) if made else torch.empty(0, 3, side, side)


def loss_of(
    model: Model, pictures: Float[Tensor, "image 3 height width"], text: str | None, by: By, batch: int, how: Encoder
) -> Loss:
    """The loss that was asked for."""
    if text is not None:
        return text_to_text(text, model.towers, how)
    if by == "denoising":
        return denoising(model, pictures, batch, how)
    scorer = model.scorer
    assert isinstance(scorer, Scorer)
    own, theirs = (core.embeddings.token_embedding.weight for core in (model.towers[0].core, scorer.text.core))
    if own is not theirs and (own.shape != theirs.shape or not torch.equal(own, theirs.to(own))):
        raise ModelError(
            f"the token rows of the scorer of '{model.name}' are not the model's, so that nothing learned by one means "
            "anything to the other; take by=denoising, or the CLIP model whose text encoder this is: model.scorer=PATH."
        )
    return text_to_images(scorer, pictures)


# ── how it is learned ─────────────────────────────────────────────────────────────────────────────────────────────

Parts = Sequence[Float[Tensor, "row dim"]]  # rows for each text encoder


@dataclass(frozen=True)
class Free:
    """Prompts whose rows of one word, in one table, are free; and the rows that learning begins at."""

    word: str
    table: Table
    prompts: tuple[Prompt, ...]
    first: tuple[Float[Tensor, "vector dim"], ...]

    def loss(self, rows: Parts, loss: Loss, seed: int, turn: int) -> Tensor:
        """The loss of one of the prompts, with these rows in the place of the word's."""
        prompt = tuple(
            part.put(self.table, part.tokens.rows(self.word), mine)
            for part, mine in zip(self.prompts[turn % len(self.prompts)], rows, strict=True)
        )
        return loss(prompt, torch.Generator().manual_seed((seed * 1_000_003 + turn) % 2**63))

    @torch.no_grad()
    def compared(self, rows: Parts, loss: Loss, seed: int) -> float:
        """The loss of rows, with the same images and noise whatever they are."""
        return sum(self.loss(rows, loss, seed, 2**40 + turn).item() for turn in range(DRAWS)) / DRAWS


def entries_of(model: Model, table: Table) -> list[Float[Tensor, "entry dim"]]:
    """For each text encoder the rows that a hard prompt may have: of words that can be typed, or all positions."""
    if table == "position":
        return [tower.position_table.detach().float() for tower in model.towers]
    ids = typed_ids(model.towers[0].tokenizer, model.words)
    return [tower.token_table.detach()[ids.to(tower.token_table.device)].float() for tower in model.towers]


def first_tokens(
    model: Model, entries: Parts, begin: str | None, vectors: int, hard: bool, seed: int
) -> list[Float[Tensor, "vector dim"]]:
    """The token rows that learning begins at, for each text encoder."""
    if begin is not None:
        found_rows = [lookup_of(tower)(begin).float() for tower in model.towers]
        return [rows[torch.arange(vectors) % len(rows)] for rows in found_rows]
    if not hard:
        return [rows.mean(0, keepdim=True).repeat(vectors, 1) for rows in entries]
    ids = torch.randint(len(entries[0]), (vectors,), generator=torch.Generator().manual_seed(seed))
    return [rows[ids.to(rows.device)] for rows in entries]


def with_concept(model: Model, word: str, first: Parts) -> Model:
    """The model with a concept of these rows; its own encoders and tokenizers stay as they are."""
    concept = Concept(word, tuple(row.cpu() for row in first))
    towers = tuple(
        replace(tower, tokenizer=with_words(tower.tokenizer, [concept]), added=with_rows(tower, rows))
        for tower, rows in zip(model.towers, first, strict=True)
    )
    return replace(model, towers=towers)


def with_rows(tower: Tower, rows: Tensor) -> Tensor:
    """The rows that a text encoder's concepts have, and more."""
    return rows if tower.added is None else torch.cat([tower.added.to(rows), rows])


def first_positions(prompt: Prompt, word: str, begin: str | None) -> list[Float[Tensor, "vector dim"]]:
    """The position rows that learning begins at: a word's own, or those of another word of the prompt."""
    first = []
    for part in prompt:
        (own, *_), (there, *_) = part.tokens.rows(word), part.tokens.rows(begin or word)
        rows = part.take("position", [there])[0].float()
        first.append(rows[torch.arange(len(own)) % len(rows)])
    return first


def descended(
    free: Free,
    loss: Loss,
    entries: Parts,
    hard: bool,
    steps: int,
    rate: float,
    seed: int,
    on_step: Step | None,
) -> tuple[Parts, tuple[float, ...], float, float]:
    """The rows that Adam comes to, with a rate that falls to 0 as a cosine does; the curve, and the loss at both ends.

    Of a hard prompt they are the best entries that were met on the way. Weights have no gradients asked of them.
    """
    rows = [row.clone().requires_grad_() for row in free.first]
    scales = [float(there.square().mean().sqrt()) for there in entries]
    groups = [{"params": [row], "lr": rate * scale} for row, scale in zip(rows, scales, strict=True)]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
    falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    met: dict[tuple[int, ...], float] = {}
    curve: list[float] = []

    def projected() -> Parts:
        ids = nearest_entries(rows, entries)
        here = [there[ids] for there in entries]
        if (key := tuple(ids.tolist())) not in met:
            met[key] = free.compared(here, loss, seed)
        return here

    before = free.compared(projected() if hard else rows, loss, seed)
    for step in range(steps):
        used = [straight_through(*pair) for pair in zip(rows, projected(), strict=True)] if hard else rows
        now = free.loss(used, loss, seed, step)
        curve.append(now.item())
        if not math.isfinite(curve[-1]):
            raise ConfigError(f"the loss is {curve[-1]} at step {step}; take a lower rate, or model.dtype=float32.")
        for row, gradient in zip(rows, torch.autograd.grad(now, rows), strict=True):
            row.grad = gradient
        adam.step()
        falling.step()
        if on_step is not None:
            on_step(step, curve[-1])
    final = [row.detach() for row in rows]
    if hard:
        projected()
        best = torch.tensor(min(met, key=lambda ids: met[ids]))
        final = [there[best.to(there.device)] for there in entries]
    return final, tuple(curve), before, free.compared(final, loss, seed)


def near(model: Model, rows: Tensor, entries: Tensor, table: Table) -> tuple[Neighbour, ...]:
    """The entry of the table next to each row; a position is called by its number."""
    if table == "token":
        return tuple(one for (one,) in lookup_of(model.towers[0]).nearest(rows, most=1))
    cosines = torch.nn.functional.cosine_similarity(rows[:, None], entries[None], dim=-1)
    return tuple(
        Neighbour(n, str(n), float(cosines[k, n]), float((entries[n] - rows[k]).norm()))
        for k, n in enumerate(cosines.argmax(-1).tolist())
    )
