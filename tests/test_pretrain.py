"""The training loop, on a line fitted to points: killed and taken up, it ends where an uninterrupted run ends."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from embedlab import Cell, Sampler, load, models, render
from embedlab.errors import ConfigError
from embedlab.pretrain import scenes
from embedlab.pretrain.loop import Training, fit


class Stop(Exception):  # noqa: N818
    """As good as a kill."""


def line(tmp_path, training, stop_at=None):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss_of(step, generator):
        if step == stop_at:
            raise Stop
        x = torch.randn(8, 3, generator=generator)
        return (model(x) - x.sum(1, keepdim=True)).square().mean(), {}

    return fit(model, loss_of, training, tmp_path / "line.pt", lambda figures, step: None, say=lambda text: None)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_that_was_interrupted_ends_with_the_same_weights_to_the_bit(tmp_path, ema):
    training = Training(steps=60, lr=0.05, batch=8, warmup=5, save_every=10, ema=ema)
    whole = line(tmp_path / "a", training)
    with pytest.raises(Stop):
        line(tmp_path / "b", training, stop_at=37)
    taken_up = line(tmp_path / "b", training)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), taken_up.parameters(), strict=True))
    assert not list((tmp_path / "b").glob(".*")), "no half-written checkpoint is left"


def test_a_run_that_is_asked_to_stop_saves_its_last_step_first(tmp_path):
    model = nn.Linear(1, 1)
    seen = []

    def loss_of(step, generator):
        seen.append(step)
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return model.weight.square().sum(), {}

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="stopped after step 7"):
        fit(model, loss_of, Training(20, 1e-2, 1), tmp_path / "x.pt", lambda *_: None, say=lambda _: None)
    assert signal.getsignal(signal.SIGTERM) is before
    fit(model, loss_of, Training(20, 1e-2, 1), tmp_path / "x.pt", lambda *_: None, say=lambda _: None)
    assert seen == list(range(20))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": True}, "steps is True; it has to be a whole number, 0 or more"),
        ({"sheet_seeds": 0}, "sheet_seeds is 0; it has to be a whole number, 1 or more"),
        ({"lr": float("nan")}, "lr is nan; it has to be a number, 0 or more"),
        ({"ema": 1}, "ema is 1; it has to be a number from 0 to 0.999999"),
    ],
)
def test_a_training_that_cannot_be_is_refused_in_one_line(settings, said):
    with pytest.raises(ConfigError, match=said):
        Training(**{"steps": 1, "lr": 1.0, "batch": 1, **settings})


def test_it_learns(tmp_path):
    model = line(tmp_path, Training(steps=300, lr=0.05, batch=8, warmup=5))
    torch.testing.assert_close(model.weight, torch.ones(1, 3), atol=0.05, rtol=0)


def test_a_loss_that_is_no_number_stops_with_the_last_checkpoint_whole(tmp_path):
    model = nn.Linear(1, 1)

    def loss_of(step, generator):
        return model.weight.sum() * (float("nan") if step == 15 else 1.0), {}

    with pytest.raises(FloatingPointError, match="at step 15"):
        fit(
            model, loss_of, Training(20, 1e-2, 1, save_every=10), tmp_path / "x.pt", lambda *_: None, say=lambda _: None
        )
    assert torch.load(tmp_path / "x.pt", weights_only=True)["step"] == 10


def test_captions_say_what_is_drawn():
    rng = np.random.default_rng(0)
    words = models.tokenizer()
    assert all(len(words(word, add_special_tokens=False).input_ids) == 1 for word in scenes.WORDS)
    for _ in range(200):
        scene = scenes.sample(rng, two=0.5)
        text = scenes.caption(scene, rng)
        assert all(word in text for word in scene.words)
        if scene.relation and scene.relation in text:
            assert (
                text.index(scene.words[0])
                < text.index(scene.relation)
                < text.index(scene.words[1], text.index(scene.relation))
            )
    assert len(words(scenes.long_caption(scene, rng, 20)).input_ids) > 2 * 75


def test_a_first_word_stands_on_the_side_that_the_relation_says():
    red, blue = (Image.new("RGBA", (50, 50), colour) for colour in ("red", "blue"))
    sprites = {("noto", "cat"): red, ("noto", "dog"): blue}
    for relation, (axis, order) in scenes.RELATIONS.items():
        picture = scenes.draw(
            scenes.Scene(("cat", "dog"), "noto", "white", relation), sprites, np.random.default_rng(0)
        )
        pixels = np.asarray(picture).astype(int)
        where = {
            name: np.argwhere((pixels[..., channel] > 200) & (pixels.sum(-1) < 400)).mean(0)[1 - axis]
            for name, channel in (("cat", 0), ("dog", 2))
        }
        assert (where["cat"] < where["dog"]) == (order == 1), relation


PRETRAIN = f"""
import runpy
runpy.run_path({str(Path(__file__).parent.parent / "experiments" / "pretrain.py")!r}, run_name="__main__")
"""


def test_all_stages_end_in_a_model_that_loads(forks, tmp_path):
    """From end to end on drawings that are discs, with two steps a stage; then once more, where it does nothing."""
    folder = tmp_path / "run"
    for style in scenes.STYLES:
        (folder / "sprites" / style).mkdir(parents=True)
        for n, word in enumerate(scenes.WORDS):
            disc = Image.new("RGBA", (64, 64))
            ImageDraw.Draw(disc).ellipse((4, 4, 60, 60), (6 * n, 255 - 6 * n, 128, 255))
            disc.save(folder / "sprites" / style / f"{word}.png")
    shutil.copytree(models.SHIPPED["emoji"] / "tokenizer", folder / "tokenizer")
    trained = ("vae", "whole", "decoder", "clip", "vision", "unet")
    small = [f"{stage}.{key}" for stage in trained for key in ("steps=2", "batch=4")]
    small += ["whole.sheet_every=0", "decoder.sheet_every=0", "unet.sheet_seeds=1", "unet.sheet_steps=1"]
    words = [
        f"folder={folder}",
        *("data={count: 20, held_out: 16, long: 8}", f"stages=[data,{','.join(trained)},export]", *small),
    ]
    first = forks.python(PRETRAIN, *words, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "unet: step 2/2" in first.stdout
    assert (folder / "unet" / "log" / "pictures.jsonl").exists(), "sample sheets go through the tracker"
    again = forks.python(PRETRAIN, *words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "step" not in again.stdout, "what is done is not done again"

    # another machine, the shipped weights, one more step of the UNet alone
    for name in ("unet.pt", "clip.pt", "vision.pt", "vae.pt", "whole.pt", "decoder.pt", "train.latents.pt", "text.pt"):
        (folder / name).unlink()
    more = [*words[:2], "stages=[unet,export]", "unet.steps=0", "warm_start=true"]
    done = forks.python(PRETRAIN, *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shipped, ours = load("emoji", device="cpu"), load(str(folder / "export"), device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(shipped.unet.parameters(), ours.unet.parameters(), strict=True))

    made = load(str(folder / "export"), device="cpu")
    assert made.concepts == tuple(scenes.WORDS)
    assert json.loads((folder / "export" / "vae" / "config.json").read_text())["scaling_factor"] > 0
    pictures = render(made, [Cell("a puppy", sampler=Sampler("ddim", 2))], [0])[0].pictures
    assert pictures.shape == (1, 3, 128, 128)
    assert torch.isfinite(pictures).all()
