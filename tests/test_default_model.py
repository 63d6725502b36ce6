"""The model that ships with embedlab: an ordinary diffusers folder that means something."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline

from embedlab import Cell, Replace, Swap, detect, models, render
from embedlab.detector.detections import stands
from embedlab.pretrain import drawings
from embedlab.pretrain.bars import Rate
from embedlab.pretrain.quality import held_out, reconstruction

FOLDER = models.SHIPPED["emoji"]
SEEDS = tuple(range(12))


def least(hits) -> float:
    """The lower end of the 95 % interval of a rate."""
    hits = list(hits)
    return Rate(sum(hits), len(hits)).interval[0]


def seen(model, cells, seeds=SEEDS):
    """What the eye finds on the pictures of each cell, over many seeds."""
    return [detect(rendered.pictures, model) for rendered in render(model, cells, seeds)]


def test_it_is_at_most_40_mb_of_half_precision_safetensors():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40_000_000
    weights = {path.parent.name for path in files if path.suffix == ".safetensors"}
    assert weights == {"unet", "vae", "text_encoder", "image_encoder", "eye"}
    assert (FOLDER / "eye" / "model.safetensors").stat().st_size <= 4_000_000
    assert not [path for path in files if path.suffix in (".bin", ".ckpt", ".pt")]


def test_it_is_the_library_s_own_pipeline_and_the_same_picture(emoji):
    pipe = StableDiffusionPipeline.from_pretrained(FOLDER, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    cell = Cell("A picture of a puppy")
    ours = render(emoji, [cell], [3])[0].latents
    options = {"num_inference_steps": 25, "guidance_scale": 4.0, "output_type": "latent"}
    own = pipe(cell.prompt, generator=torch.Generator().manual_seed(3), **options).images
    torch.testing.assert_close(ours, own, atol=1e-4, rtol=1e-4)


@pytest.mark.turns
def test_replacing_puppy_by_cat_turns_puppies_into_cats(emoji):
    cell = Cell("A picture of a puppy", (Replace("puppy", by="cat"),))
    before, after = seen(emoji, [cell.baseline(), cell])
    assert least(bool(picture.of("puppy")) for picture in before) > 0.6
    assert least(bool(picture.of("cat")) for picture in after) > 0.6
    assert not any(picture.of("puppy") for picture in after)


@pytest.mark.turns
def test_swapping_two_position_rows_turns_a_picture_over(emoji):
    prompt = "a cat above a dog"
    before, after = seen(emoji, [Cell(prompt), Cell(prompt, (Swap("cat", "dog", stage="position"),))])
    both = [[p for p in pictures if p.of("cat") and p.of("dog")] for pictures in (before, after)]
    assert all(least(p in kept for p in pictures) > 0.5 for kept, pictures in zip(both, (before, after), strict=True))
    assert least(stands(p.of("cat")[0], "above", p.of("dog")[0]) for p in both[0]) > 0.6
    assert least(stands(p.of("dog")[0], "above", p.of("cat")[0]) for p in both[1]) > 0.6


@pytest.mark.turns
def test_grounds_colours_and_counts_are_what_the_prompt_says(emoji):
    (stars,) = seen(emoji, [Cell("a picture of a red star on blue")], SEEDS[:8])
    assert least(picture.ground == "blue" for picture in stars) > 0.5
    assert least(any(star.colour == "red" for star in picture.of("star")) for picture in stars) > 0.5
    counts = {"two cats": 2, "three stars": 3, "four mushrooms": 4}
    counted = seen(emoji, [Cell(prompt) for prompt in counts], SEEDS[:5])
    assert (
        least(len(p.things) == n for n, pictures in zip(counts.values(), counted, strict=True) for p in pictures) > 0.5
    )


def test_the_card_says_what_is_measured_here(emoji):
    card = (FOLDER / "README.md").read_text()
    pictures, rows = held_out(FOLDER)
    assert len(rows) == len(pictures) == 64
    assert f"{reconstruction(emoji, pictures):.1f} dB" in card
    assert json.loads((FOLDER / "concepts.json").read_text()) == list(drawings.WORDS)
    assert all(word in card for word in drawings.WORDS)
    for source in ("Noto Emoji", "Fluent Emoji", "CLIP", "Apache", "MIT"):
        assert source in card
