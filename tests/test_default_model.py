"""The model that ships with embedlab: an ordinary diffusers folder that means something."""

import json

import torch
from diffusers import StableDiffusionPipeline

from embedlab import Cell, Metrics, Replace, models, render, score
from embedlab.pretrain import scenes
from embedlab.pretrain.quality import ground_of, held_out, reconstruction

FOLDER = models.SHIPPED["emoji"]
SEEDS = tuple(range(8))


def test_it_is_at_most_30_mb_of_half_precision_safetensors():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 30_000_000
    weights = {path.parent.name for path in files if path.suffix == ".safetensors"}
    assert weights == {"unet", "vae", "text_encoder", "image_encoder"}
    assert not [path for path in files if path.suffix in (".bin", ".ckpt", ".pt")]


def test_it_is_the_library_s_own_pipeline_and_the_same_picture(emoji):
    pipe = StableDiffusionPipeline.from_pretrained(FOLDER, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    cell = Cell("A picture of a puppy")
    ours = render(emoji, [cell], [3])[0].latents
    options = {"num_inference_steps": 25, "guidance_scale": 4.0, "output_type": "latent"}
    own = pipe(cell.prompt, generator=torch.Generator().manual_seed(3), **options).images
    torch.testing.assert_close(ours, own, atol=1e-4, rtol=1e-4)


def test_replacing_puppy_by_cat_turns_puppies_into_cats(emoji):
    cell = Cell("A picture of a puppy", (Replace("puppy", by="cat"),))
    before, after = render(emoji, [cell.baseline(), cell], SEEDS)
    every, study = Metrics(words=emoji.concepts), Metrics(words=("puppy", "cat", "owl", "rocket"))
    closest = {
        name: [row["closest"] for row in score(emoji, before, picture, words)[0]]
        for name, picture, words in (
            ("before", before, every),
            ("after", after, study),  # as experiment=puppy_to_cat scores them
            ("after, among all words", after, every),
        )
    }
    assert closest["before"].count("puppy") >= 7
    assert closest["after"].count("cat") >= 7
    assert closest["after, among all words"].count("puppy") == 0


def test_grounds_are_told_apart(emoji):
    cells = [Cell(f"a picture of a star on {name}") for name in ("blue", "green", "pink", "yellow")]
    made = render(emoji, cells, SEEDS[:4])
    hits = [
        name == cell.prompt.split()[-1] for cell, r in zip(cells, made, strict=True) for name in ground_of(r.pictures)
    ]
    assert sum(hits) >= 14


def test_the_card_says_what_is_measured_here(emoji):
    card = (FOLDER / "README.md").read_text()
    pictures, rows = held_out(FOLDER)
    assert len(rows) == len(pictures) == 64
    assert f"{reconstruction(emoji, pictures):.1f} dB" in card
    assert json.loads((FOLDER / "concepts.json").read_text()) == list(scenes.WORDS)
    for source in ("Noto Emoji", "Fluent Emoji", "CLIP", "Apache", "MIT"):
        assert source in card
