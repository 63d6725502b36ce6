"""What a user's code does with embedlab: every kind of public name, for an editor and for `mypy --strict`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import embedlab as lab


@dataclass(frozen=True)
class Louder:
    """An operator of their own, before the text encoder."""

    word: str
    by: float = 1.5

    def __call__(self, prompt: lab.Embeddings, lookup: lab.Lookup) -> lab.Embeddings:
        rows = prompt.tokens.rows(self.word)
        return prompt.put("token", rows, prompt.take("token", rows) * self.by)


@dataclass(frozen=True)
class Quieter:
    """An operator of their own, after the text encoder."""

    stage: str = "hidden"

    def __call__(self, conditioning: lab.Conditioning, texts: lab.Texts) -> lab.Conditioning:
        rows = conditioning.spans({"role": "pad"})
        nothing: lab.Conditioning = texts("")
        return conditioning.put("hidden", rows, nothing.take("hidden", nothing.spans({"role": "eos"})))


OPERATORS: tuple[lab.Operator, ...] = (
    *(lab.Add("puppy", "cat", 0.5), lab.Subtract("puppy", "cat", 0.5), lab.ProjectOut("puppy", "cat")),
    *(lab.Average("puppy"), lab.Drop("puppy"), lab.Freeze("puppy"), lab.Normalise("puppy"), lab.Scale("puppy", 2.0)),
    *(lab.Interpolate("puppy", "cat", 0.5), lab.Replace("puppy", "cat"), lab.Swap("picture", "puppy")),
    *(lab.Noise("puppy", 0.1), lab.Rotate("puppy", 30.0), lab.Shuffle(seed=0), lab.Permute(["picture", "of"], [1, 0])),
    *(lab.Reverse(), lab.Place("puppy", 20), lab.Shift({"role": "words"}, by=1), lab.Stretch(factor=2.0)),
    *(lab.Blend("A cat", 0.5), lab.Concatenate("A cat"), lab.Truncate(10), Louder("puppy"), Quieter()),
)
HALF = lab.Switch([0.0, 1.0], at=0.5)
VARYING: tuple[lab.Operator | lab.Switch[lab.Operator], ...] = (  # values of every kind, and settings that vary
    *(lab.Scale("puppy", lab.Ramp([0, 1])), lab.Scale("puppy", torch.tensor(2.0)), lab.Scale("puppy", np.float32(2))),
    lab.Scale(lab.Switch(["puppy", "picture"], at=0.5), 2),
    lab.Scale(["puppy", {"word": "of"}, 5, lab.Rows(word="A", nth=1)]),
    lab.Interpolate("puppy", ["cat", "skunk"], weight=[0.25, lab.Alternate([0.0, lab.Ramp([0, 0.5])])]),
    lab.Interpolate("puppy", lab.Switch(["cat", "dog"], at=3, clock="step"), path=lab.Alternate(["lerp", "slerp"])),
    *(lab.Replace("puppy", {"cat": 1, 5: HALF}), lab.Replace("puppy", torch.ones(96)), lab.Replace("of", 5)),
    *(lab.Replace("puppy", np.ones(96)), lab.Replace("puppy", {"prompt": "A cat", "rows": "cat"}, stage="hidden")),
    *(lab.Noise("puppy", 0.1, seed=lab.Alternate([0, 1])), lab.Place("puppy", at=lab.Switch([1, 2], at=0.5))),
    *(lab.Permute("A picture", lab.Switch([[0, 1], [1, 0]], at=0.5)), lab.Truncate(lab.Switch([8, 77], at=0.5))),
    *(lab.Blend(["A cat", "A dog"], [0.5, 0.25]), lab.Blend(lab.Switch(["A cat", "A dog"], at=0.5), own=HALF)),
    lab.Switch[lab.Operator]([lab.Scale("puppy", 2), lab.Shift("puppy", 1)], at=0.5),
)
READ = (
    *(lab.Encoder(skip={0: 0.5, 2: 0.5}), lab.Encoder(skip=[(0, 0.5), (2, 0.5)]), lab.Encoder(stretch=4)),
    *(lab.Encoder(skip={0: HALF, 2: lab.Ramp([1, 0])}), lab.Encoder(skip=lab.Switch([0, 2], at=0.5))),
    lab.Encoder(join=lab.Switch(["run", "windows"], at=0.5)),
)
GUIDED = (
    lab.Guidance(lab.Ramp([1, 4])),
    lab.Guidance(4, negative=lab.Switch([None, "a cat"], at=0.5)),
    lab.Guidance(4, loss=lab.Loss(lab.Mass("puppy", box=[0, 0, 0.5, 1]), scale=lab.Ramp([100, 0]), form="unet")),
    lab.Guidance(4, loss=lab.Loss(lab.Colour(blue=0.9), every=2)),
    lab.Guidance(4, loss=lab.Loss(lab.Likeness("a cat"))),
    lab.Guidance(4, loss=lab.Loss(lab.Distance("puppy.png"))),
)
STARTS = (
    *(lab.Start(), lab.Start(variation=lab.Variation(seed=7, strength=0.2)), lab.Start("puppy.png", strength=0.5)),
    lab.Inversion("puppy.png", prompt="a puppy", unconditional="prompt"),
)


def cells() -> list[lab.Cell]:
    """Settings that stay, and settings that change over time."""
    ramp = lab.Ramp([0.0, 1.0], at=[0.2, 0.6])
    still = lab.Cell(
        "A picture of a puppy",
        operators=(lab.Interpolate("puppy", toward="cat", weight=0.5), Louder("puppy", 1.2), Quieter()),
        encoder=lab.Encoder(join="run", skip=1),
        guidance=lab.Guidance(scale=3.0, negative="a cat"),
        sampler=lab.Sampler("euler", steps=2),
        start=lab.Start(),
        size=32,
    )
    moving = lab.Cell(
        lab.Switch(["A picture of a puppy", "A picture of a cat"], at=0.5),
        operators=(
            lab.Scale("picture", ramp),
            lab.During(lab.Noise(lab.Rows(role="words"), 0.1), begin=0.2, end=0.8),
        ),
        guidance=lab.Guidance(scale=lab.Alternate([2.0, 4.0], every=1)),
        sampler=lab.Sampler(steps=2),
    )
    return [still, still.baseline(), moving]


def pictures(model: lab.Model, seeds: Sequence[int]) -> list[float]:
    """Render, score, and read what comes out."""
    edited, baseline, moving = cells()
    before, after = lab.render(model, [baseline, edited], seeds=seeds)
    rows, whole = lab.score(model, before, after, lab.Metrics(words=("puppy", "cat"), eye=model.eye_folder is not None))
    assert len(cats(model, after.pictures)) in (0, len(seeds))
    (changing,) = lab.render(model, [moving], seeds=seeds)
    lab.to_pil(changing.pictures)[0].convert("L")
    scores: dict[str, Any] = {**rows[0], **whole}
    return [value for value in scores.values() if isinstance(value, float)]


def cats(model: lab.Model, pictures: torch.Tensor) -> list[float]:
    """How likely a cat is on pictures, where the model brings a detector."""
    if model.eye_folder is None:
        return []
    found: list[lab.Detections] = lab.detect(pictures, model)
    likeliest: list[lab.Detection] = [one.things[0] for one in found if one.things]
    assert all(thing.colour in thing.colours for thing in likeliest)
    return [one.presence("cat") for one in found]


def tables(towers: Sequence[lab.Tower], folder: Path) -> lab.Conditioning:
    """Text to conditioning, a step at a time, and files for other tools."""
    tokens: lab.Tokens = lab.tokenize("A picture of a puppy", towers[0].tokenizer)
    first: lab.Embeddings = lab.embed(tokens, towers[0])
    assert first.token.shape == first.position.shape
    cat: torch.Tensor = lab.lookup_of(towers[0])("cat")
    assert cat.shape[0] == 1
    puppy = lab.embed_all("A picture of a puppy", towers)
    mixed = lab.edit(puppy, [lab.Interpolate("puppy", toward="cat", weight=0.5)], towers)
    long, short = lab.equal_lengths(lab.encode([mixed, lab.embed_all("", towers)], towers))
    quiet = lab.edit_encoded(long, [Quieter()], lab.texts_of(towers))
    assert quiet.hidden.shape == short.hidden.shape
    cell = cells()[0]
    embeds: dict[str, torch.Tensor] = lab.prompt_embeds(cell, towers)
    lab.save_embeds(folder / "conditioning.safetensors", embeds, cell)
    read, recipe = lab.load_embeds(folder / "conditioning.safetensors")
    assert recipe is not None
    assert read.keys() == embeds.keys()
    assert lab.edited_rows(cell, towers)
    assert lab.explain(cell, towers).tokens
    return quiet


def a_word_of_ones_own(model: lab.Model, folder: Path) -> tuple[lab.Concept, ...]:
    """A word learned from a text, in a file and back."""
    learned: lab.Learned = lab.learn(
        model, "<mine>", text="a picture of a cat", steps=2, on_step=lambda step, loss: None
    )
    assert len(learned.curve) == 2
    path = lab.save_concept(folder / "mine.safetensors", list(learned.rows), "diffusers", "<mine>")
    return lab.load_concepts(path)


def looked_at(model: lab.Model, prompt: str, seed: int) -> torch.Tensor:
    """Where a word is looked at, in a picture whose attention is partly that of another prompt."""
    copied = (lab.During(lab.CopyCross("cat", how="replace"), end=0.8), lab.CopySelf(lab.Ramp([1, 0])))
    attention = lab.Attention(maps=True, words=["cat"], by=["layer"], edits=copied, source="A picture of a puppy")
    heavier = lab.Attention(edits=[lab.Reweight("cat", 2), lab.Confine("cat", (0, 0, 0.5, 1), layers=["mid"])])
    few = lab.Sampler(steps=2)
    cells = [lab.Cell(prompt, sampler=few, attention=one) for one in (attention, heavier)]
    one, _ = lab.render(model, cells, [seed])
    assert isinstance(one.maps, lab.Maps)
    with torch.no_grad(), lab.probabilities_of(model.unet, ["mid"]) as seen:
        lab.guided(model.unet, [one.conditioning[0].cond], [one.conditioning[0].uncond], [1.0])(
            one.latents, torch.tensor(500)
        )
    return torch.stack([lab.word_mass(layer, [5]) for layer in seen.values()]) + one.maps.of("cat").sum()


def by_hand(model: lab.Model, conditional: lab.Conditioning, unconditional: lab.Conditioning) -> torch.Tensor:
    """The sampling loop in its parts."""
    scheduler = lab.Sampler("ddim", steps=2).make(model.scheduler)
    seeds = lab.generators([0, 1])
    denoise = lab.guided(model.unet, [conditional] * 2, [unconditional] * 2, scales=[4.0, 4.0])
    with torch.inference_mode():
        latents = lab.sample(denoise, lab.noise((4, 8, 8), seeds), scheduler, seeds).latents
        images: torch.Tensor = lab.decode(latents, model.vae)
    again = lab.picture_latents(model.vae, 2 * lab.to_tensor(lab.to_pil(images)[0]) - 1, seeds)
    moment: lab.Moment = lab.moments(scheduler)[0]
    assert lab.resolve(lab.Ramp([0.0, 1.0], at=[0.0, 1.0]), moment) == 0.0
    return again


def stepped_through(model: lab.Model, seed: int) -> torch.Tensor:
    """The loop from outside: what a step saw, and latents that are changed on the way."""
    cell = lab.Cell("a cat", sampler=lab.Sampler("ddim", steps=2), start=STARTS[1], size=32)
    loop = lab.denoise(model, cell, seed)
    for step in loop:
        if step.cond is not None and step.uncond is not None and step.index == 0:
            step.latents = step.latents + 0.1 * (step.cond - step.uncond)
    first: torch.Tensor = lab.start_latents(model, cell, [seed])
    assert first.shape == loop.latents.shape == lab.encode_picture("puppy.png", model, size=32).shape
    shown: lab.Grid = lab.show({"by hand": loop.pictures(), "by render": lab.render(model, [cell], [seed])[0]})
    assert shown.image.width > 2 * 32
    return loop.pictures()


def counted(source: lab.Source) -> int:
    """What a model is made of, without its weights."""
    inside: lab.Anatomy = lab.anatomy(source)
    beside: lab.Comparison = lab.Comparison(("one", "the same"), (inside, inside))
    return int(beside.anatomies[0].flops)


def read_back(source: lab.Source, cell: lab.Cell, folder: Path) -> tuple[str, ...]:
    """A sweep from Python, read as a table."""
    made: lab.Sweep = lab.grid(cell, model=source, weight=[0, 1], seed=range(2), folder=folder)
    assert len(lab.Sweep(str(folder)).results) == len(made.results) == 4
    return tuple(one.name for one in made.jobs)


def a_study(name: str, folder: Path) -> lab.Sweep:
    """One that ships, in fewer steps."""
    return lab.run(name, sweep={"seeds": [[0], [1]]}, folder=folder, sampler__steps=1, tracker="silent")


def cost(source: lab.Source, folder: Path) -> float:
    """Where the time of a job goes."""
    job = lab.Job(source, cells()[0], seeds=(0,), folder=folder)
    found: lab.Profile = lab.profile(job, trace=folder / "trace.json")
    found.save(folder / "parts.csv")
    reached: float | None = found.reached("UNet")
    assert reached is not None
    return found.times.share("UNet")


ENGINES: tuple[lab.Engine, ...] = (
    *(lab.Eager(), lab.OpenVINO("f32"), lab.ONNXRuntime(), lab.Compile(), lab.CUDAGraph(), lab.TensorRT(fp16=True)),
)


def faster(model: lab.Model) -> lab.Model:
    """A model that another engine runs."""
    said: list[str] = []
    return lab.with_engine(model, ENGINES[0], say=said.append)


def sweep(source: lab.Source, folder: Path) -> int:
    """A sweep without the command line."""
    edited, baseline, _ = cells()
    jobs = [
        lab.Job(source, edited, seeds=(0,), folder=folder / "0", engine=lab.Auto()),
        lab.Job(source, baseline, seeds=(0,), folder=folder / "1", number=1, engine=ENGINES[0]),
    ]
    try:
        lab.run_jobs(jobs, lab.Store(folder / ".cells"))
    except lab.EmbedlabError as error:
        raise SystemExit(str(error)) from None
    return len(list(folder.glob("*/result.json")))
