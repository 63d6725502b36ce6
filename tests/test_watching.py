"""What goes on in the steps: kept, measured, filmed; and it changes no picture."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_tracker import records

from embedlab import Cell, Guidance, Interpolate, Job, Replace, Sampler, Source, Store, render, run_jobs
from embedlab.cli.commands import film
from embedlab.condition import condition_calls
from embedlab.errors import ConfigError, SamplerError
from embedlab.guidance import Guidance as Settings
from embedlab.rendering import sample_batch
from embedlab.sampler import generators, noise, predicted_x0
from embedlab.samples import Request
from embedlab.sweep.store import packed, unpacked
from embedlab.sweep.watched import read_curves
from embedlab.tracker import Disk, Wandb

EVERYTHING = ("latents", "predictions", "curves")
PROMPT = "A picture of a puppy"


def cell_of(keep=(), watch=(), guidance=None, scheduler="ddim", steps=4, prompt=PROMPT, **more) -> Cell:
    return Cell(
        prompt, sampler=Sampler(scheduler, steps, keep=keep, watch=watch), guidance=guidance or Guidance(4), **more
    )


def one(model, cell, seed=0):
    (calls,) = condition_calls(model, [cell])
    return sample_batch(model, [Request(calls, seed)])[0]


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("keep", "steps"),
    [
        ([], ()),
        ([3, 0, 3], (0, 3)),
        ("all", tuple(range(10))),
        ("every 4", (0, 4, 8, 9)),
        (["start", "every 5"], (-1, 0, 5, 9)),
        ("start", (-1,)),
        ([-1, 2], (-1, 2)),
    ],
)
def test_steps_to_keep_are_named_by_number_or_by_rule(keep, steps):
    assert Sampler(steps=10, keep=keep).kept == steps
    assert Sampler(steps=10, keep=keep) == Sampler(steps=10, keep=list(steps))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": "every"}, "sampler.keep is 'every'; it takes steps, such as"),
        ({"keep": "every 0"}, "sampler.keep is 'every 0'"),
        ({"keep": ["end"]}, "sampler.keep is 'end'"),
        ({"keep": [4]}, "keep names step 4; there are steps 0 to 3, and start"),
        ({"keep": 3}, "sampler.keep is 3; it has to be a list of steps"),
        ({"keep": [0], "watch": ["norms"]}, "sampler.watch.*norms"),
        ({"keep": [0], "watch": "latents"}, "sampler.watch is 'latents'; it has to be a list of"),
        (
            {"watch": ["curves", "latents"]},
            "watch=latents is of steps that are kept, and none is: sampler.keep='every 5'",
        ),
    ],
)
def test_what_cannot_be_kept_or_watched_is_one_line(settings, message):
    with pytest.raises(SamplerError, match=message):
        Sampler(steps=4, **settings)


# ── what is written down ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheduler", ["ddim", "heun", "euler_ancestral"])
def test_watching_changes_no_picture_and_what_is_not_asked_for_is_not_there(sd1, scheduler):
    plain, watched = (
        one(sd1, cell_of(keep, watch, scheduler=scheduler)) for keep, watch in (((), ()), ("all", EVERYTHING))
    )
    assert torch.equal(plain.latents, watched.latents)
    assert not plain.steps
    assert not plain.curves
    assert not plain.tensors
    assert torch.equal(watched.tensors["step-3 latents"], watched.latents)
    assert {len(line) for line in watched.curves.values()} == {4}


@pytest.mark.parity(
    "CompVis", "intermediate latents and predicted x0 of every n-th step", "sampler.keep=every n", "formula"
)
def test_the_tensors_of_a_step_are_those_of_the_loop_written_out(sd1):
    cell, x = cell_of(["start", 0, 1], EVERYTHING), noise((4, 8, 8), generators([0]))
    (told, *_) = condition_calls(sd1, [cell])[0]
    scheduler, seen = cell.sampler.make(sd1.scheduler), one(sd1, cell)
    assert torch.equal(seen.tensors["start latents"], x[0])
    with torch.inference_mode():
        for step, t in enumerate(scheduler.timesteps[:2]):
            rows = [told.uncond.hidden, told.cond.hidden]
            uncond, cond = sd1.unet(torch.cat([x, x]), t, encoder_hidden_states=torch.stack(rows))[0]
            guided = uncond + 4 * (cond - uncond)
            alpha = float(scheduler.alphas_cumprod[int(t)])
            x0 = predicted_x0("epsilon", guided, x[0], ((1 - alpha) / alpha) ** 0.5)
            x = scheduler.step(guided[None], t, x).prev_sample
            for name, wanted in {
                "conditional": cond,
                "unconditional": uncond,
                "prediction": guided,
                "latents": x[0],
                "x0": x0,
            }.items():
                torch.testing.assert_close(seen.tensors[f"step-{step} {name}"], wanted, atol=1e-5, rtol=1e-5)
            angle = math.degrees(math.acos(float((cond * uncond).sum() / cond.norm() / uncond.norm())))
            assert seen.curves["angle/halves"][step] == pytest.approx(angle, abs=1e-2)
            assert seen.curves["norm/difference"][step] == pytest.approx(float((cond - uncond).norm()), rel=1e-4)
            assert seen.curves["norm/x0"][step] == pytest.approx(float(x0.norm()), rel=1e-4)


@pytest.mark.parametrize(
    "guidance",
    [Guidance(1), Guidance(4, interval=[0.5, 1]), Guidance(4, guider="cfg_zero_star")],
    ids=["none", "late", "guider"],
)
def test_where_there_is_no_unconditional_half_its_curve_has_a_gap(sd1, guidance):
    seen = one(sd1, cell_of("all", EVERYTHING, guidance))
    there = [name for name in seen.tensors if name.endswith(" unconditional")]
    first = {1: 4, 4: 2 if guidance.interval else 0}[guidance.scale]
    assert there == [f"step-{n} unconditional" for n in range(first, 4)]
    for name in ("norm/unconditional", "norm/difference", "angle/halves"):
        assert [math.isnan(y) for y in seen.curves[name]] == [n < first for n in range(4)]
    assert not any(math.isnan(y) for y in seen.curves["norm/conditional"])


def test_both_halves_of_a_sum_of_prompts(sd1):
    both = cell_of([0], EVERYTHING, prompt="a cat AND a dog :0.5")
    both = replace(both, encoder=replace(both.encoder, language="a1111"))
    seen = one(sd1, both)
    first = {name.removeprefix("step-0 "): one for name, one in seen.tensors.items()}
    without, prompted = first["unconditional"], first["conditional"]
    torch.testing.assert_close(first["prediction"], without + 4 * (prompted - without), atol=1e-5, rtol=1e-5)


def test_pictures_of_one_batch_have_their_own(sd1):
    cells = [cell_of([1], EVERYTHING), cell_of([1], EVERYTHING, Guidance(8))]
    requests = [Request(calls, seed) for calls in condition_calls(sd1, cells) for seed in (0, 1)]
    together = sample_batch(sd1, requests)
    for request, found in zip(requests, together, strict=True):
        (alone,) = sample_batch(sd1, [request])
        for name, tensor in alone.tensors.items():
            torch.testing.assert_close(found.tensors[name], tensor, atol=1e-4, rtol=1e-4)
        assert found.curves["norm/prediction"] == pytest.approx(alone.curves["norm/prediction"], rel=1e-3)


def test_the_store_gives_back_what_was_written_down(sd1):
    seen = one(sd1, cell_of(["start", 1], EVERYTHING, Guidance(4, interval=[0.5, 1])))
    back = unpacked(packed(seen, "key"), "key")
    assert repr(dict(back.curves)) == repr(dict(seen.curves)), "gaps too"
    assert [(number, x0 is None) for number, _, x0 in back.steps] == [(-1, True), (1, False)]
    assert back.tensors.keys() == seen.tensors.keys()
    assert all(torch.equal(back.tensors[name], one) for name, one in seen.tensors.items())


def test_a_callback_of_three_arguments_gets_latents_and_x0(sd1):
    seen, steps = [], []
    cell = cell_of("all")
    (made,) = render(sd1, [cell], [0], on_step=lambda step, latents, x0: seen.append((step, latents, x0)))
    render(sd1, [cell], [0], on_step=steps.append)
    assert [step for step, _, _ in seen] == steps == [0, 1, 2, 3]
    assert torch.equal(seen[-1][1], made.latents)
    torch.testing.assert_close(seen[-1][2], made.latents, atol=0.1, rtol=0.1)


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def swept(folders, tmp_path_factory) -> Path:
    """Two jobs of two seeds with everything watched, one logged to plain files and one to wandb."""
    folder = tmp_path_factory.mktemp("watched")
    for n, (by, tracker) in enumerate({"cat": Disk(), "fox": Wandb()}.items()):
        cell = cell_of(["start", "every 2"], EVERYTHING, operators=[Replace("puppy", by)])
        job = Job(Source(str(folders["sd1"]), device="cpu"), cell, (0, 3), folder / str(n), number=n, tracker=tracker)
        assert not run_jobs([job], Store(folder / ".cells")).failures
    return folder


def test_a_job_leaves_tensors_curves_and_strips(swept):
    job = swept / "0"
    tensors = load_file(job / "steps.safetensors")
    assert tensors["edited seed-3 step-2 prediction"].shape == (4, 8, 8)
    assert torch.equal(tensors["edited seed-0 start latents"], tensors["unedited seed-0 start latents"])
    with (job / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 4, "edited or not, seeds, steps"
    wanted = tensors["unedited seed-3 step-2 latents"].norm()
    (row,) = [row for row in rows if (row["picture"], row["seed"], row["step"]) == ("unedited", "3", "2")]
    assert float(row["norm/latents"]) == pytest.approx(float(wanted), abs=1e-4)
    names = {path.name for path in (job / "steps").iterdir()}
    assert {"seed-0.png", "seed-3.png", "start-seed-0-latents.png", "step-2-seed-3-x0.png"} <= names
    assert "start-seed-0-x0.png" not in names
    result = json.loads((job / "result.json").read_text())
    assert [row["strip"] for row in result["pictures"]] == ["steps/seed-0.png", "steps/seed-3.png"]


def test_curves_are_told_to_plain_files_and_to_wandb(swept):
    told = json.loads((swept / "0/log/curves-norm-latents.json").read_text())
    assert told["columns"] == ["step", "seed 0", "seed 3"]
    assert [row[0] for row in told["rows"]] == [0, 1, 2, 3]
    assert told["rows"][2][1] == read_curves(swept / "0")["norm/latents"][1]["seed 0"][2]
    run = json.dumps(records(swept / "1"))
    for wanted in ("curves/angle/halves", "curves/norm/conditional", "steps/x0"):
        assert wanted in run, wanted


def test_curves_that_cannot_be_read_are_none(tmp_path):
    for text in ("", "picture,seed\nedited,0\n", "picture,seed,step,a\nedited,0,x,1\n", "\0"):
        (tmp_path / "curves.csv").write_text(text)
        assert read_curves(tmp_path) == {}


def test_kept_steps_become_a_film(swept, tmp_path, capsys):
    film.main([str(swept), "--steps", "latents", "--seed", "all", "--to", str(tmp_path / "all.gif")])
    film.main([str(swept / "0"), "--steps", "x0", "--seconds", "1", "--to", str(tmp_path / "one.gif")])
    assert capsys.readouterr().out.split() == [str(tmp_path / "all.gif"), str(tmp_path / "one.gif")]
    with Image.open(tmp_path / "all.gif") as every, Image.open(tmp_path / "one.gif") as alone:
        assert (every.n_frames, alone.n_frames) == (4, 3), "the start, 0, 2 and 3; nothing is seen before the first"
        assert every.width > alone.width
    for words, message in {
        ("--steps", "x0", "--frames", "3"): "leave --frames out",
        ("--steps", "x0", "--seed", "9"): "no seed 9; it has 0, 3",
        ("--steps", "x0", "--seconds", "0.01"): "more than the 50 a second",
    }.items():
        with pytest.raises(ConfigError, match=message):
            film.main([str(swept), *words])


def test_where_no_steps_were_kept_there_is_no_film(tmp_path, folders):
    cell = Cell(PROMPT, (Interpolate("puppy", "cat", 1.0),), sampler=Sampler("ddim", 1), guidance=Settings(1))
    job = Job(Source(str(folders["sd1"]), device="cpu"), cell, (0,), tmp_path / "0")
    assert not run_jobs([job], Store(tmp_path / ".cells")).failures
    with pytest.raises(ConfigError, match="fewer than two steps of x0 were kept in .*sampler.keep='every 1'"):
        film.main([str(tmp_path), "--steps", "x0"])
    assert not (tmp_path / "0/curves.csv").exists()
    assert not (tmp_path / "0/steps").exists()
