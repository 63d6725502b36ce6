"""What other tools read out of a picture is what ours says."""

import pytest
from PIL import Image
from sd_parsers import ParserManager

from embedlab import Cell, Job, Store, images, run_jobs
from embedlab.images.infotext import SAMPLERS, infotext
from embedlab.models import find
from embedlab.operators import Replace
from embedlab.sampler import Sampler
from embedlab.scheduler_options import SCHEDULERS

CONFIG = {
    "model": {"name": "emoji"},
    "prompt": "A picture of a puppy",
    "operators": {"replace": {"by": "cat"}},
    "guidance": {"scale": 4.0, "negative": None},
    "sampler": {"scheduler": "ddim", "steps": 25, "keep": []},
    "encoder": {"skip": 0},
    "start": {"picture": None},
}
SETTINGS = {"config": CONFIG, "seed": 7, "edited": True, "label": "puppy → cat", "versions": {"embedlab": "0.1.0"}}


def facts(text: str) -> list[str]:
    return text.splitlines()[-1].split(", ")


def told(**changed: object) -> dict:
    return {**SETTINGS, "config": {**CONFIG, **changed}}


def test_the_layout_is_the_webuis():
    assert infotext(SETTINGS, (128, 96)) == (
        "A picture of a puppy\n"
        "Steps: 25, Sampler: DDIM, CFG scale: 4.0, Seed: 7, Size: 128x96, Model: emoji, "
        "embedlab operators: puppy → cat, Version: embedlab 0.1.0"
    )
    with_negative = infotext(told(guidance={"scale": 4, "negative": "green, blue"}), (8, 8)).splitlines()
    assert with_negative[:2] == ["A picture of a puppy", "Negative prompt: green, blue"]


def test_a_baseline_names_no_operators_and_nothing_is_said_of_nothing():
    assert "operators" not in infotext({**SETTINGS, "edited": False}, (8, 8))
    assert "operators" not in infotext(told(operators={}), (8, 8))
    assert infotext({"config": {}}, (8, 8)) == ""
    assert infotext({}, (8, 8)) == ""


def test_values_with_the_signs_of_the_layout_are_quoted_as_json():
    text = infotext({**SETTINGS, "label": 'a, "b": c'}, (8, 8))
    assert r'embedlab operators: "a, \"b\": c", Version' in text


def test_what_changes_over_time_is_told_by_what_it_ends_with():
    switch = {"_target_": "embedlab.schedule.Switch", "values": ["a cat", "a dog"], "at": 0.5}
    nested = {"_target_": "embedlab.schedule.Alternate", "values": ["a fox", switch], "every": 2}
    ramp = {"_target_": "embedlab.schedule.Ramp", "values": [8, 1], "at": [0, 1]}
    text = infotext(told(prompt=nested, guidance={"scale": ramp, "negative": switch}), (8, 8))
    assert text.splitlines()[:2] == ["a dog", "Negative prompt: a dog"]
    assert "CFG scale: 1" in facts(text)


@pytest.mark.parametrize(("start", "said"), [({"strength": 0.6}, "0.6"), ({"step": 5}, "0.8")])
def test_a_start_from_a_picture_is_a_denoising_strength(start, said):
    text = infotext(told(start={"picture": "puppy.png", "step": None, "strength": None, **start}), (8, 8))
    assert f"Denoising strength: {said}" in facts(text)


def test_clip_skip_counts_from_one_and_a_model_is_named_without_its_folder():
    text = infotext(told(encoder={"skip": 1}, model={"name": "/models/sd15.safetensors"}), (8, 8))
    assert "Clip skip: 2" in facts(text)
    assert "Model: sd15" in facts(text)
    assert "Clip skip" not in infotext(told(encoder={"skip": {0: 0.5, 2: 0.5}}), (8, 8))
    assert "Model: owner/name" in facts(infotext(told(model={"name": "owner/name"}), (8, 8)))


def test_every_sampler_has_a_name_there():
    assert SAMPLERS.keys() == SCHEDULERS.keys()


def test_settings_of_a_sampler_are_told_by_the_webuis_names():
    sampler = {"scheduler": "euler", "steps": 9, "sigmas": "karras", "options": {"s_churn": 20, "s_noise": 1.01}}
    text = infotext(told(sampler=sampler), (8, 8))
    assert "Sampler: Euler, Schedule type: Karras" in text
    assert {"Sigma churn: 20", "Sigma noise: 1.01"} <= set(facts(text))
    assert "Eta DDIM: 0.5" in facts(infotext(told(sampler={"scheduler": "ddim", "steps": 9, "eta": 0.5}), (8, 8)))
    assert "Eta: 0.5" in facts(infotext(told(sampler={"scheduler": "tcd", "steps": 9, "eta": 0.5}), (8, 8)))


@pytest.mark.parametrize("label", ["puppy → cat", "puppy → 0.5 cat, 0.5 dog"])
def test_sd_parsers_reads_a_picture_back(tmp_path, label):
    settings = {**told(guidance={"scale": 4, "negative": "a ünïcode → text"}), "label": label}
    path = tmp_path / "x.png"
    images.save(Image.new("RGB", (16, 8)), path, settings, infotext(settings, (16, 8)))
    read = ParserManager().parse(path)
    (sampler,) = read.samplers
    assert sampler.name == "DDIM"
    assert [prompt.value for prompt in sampler.prompts] == ["A picture of a puppy"]
    assert [prompt.value for prompt in sampler.negative_prompts] == ["a ünïcode → text"]
    assert sampler.model.name == "emoji"
    assert {"steps": "25", "cfg_scale": "4", "seed": "7"}.items() <= sampler.parameters.items()
    assert read.metadata["Size"] == "16x8"
    assert images.settings_of(path) == settings, "ours stands beside it"


def test_pictures_of_a_job_carry_it(tmp_path, emoji):
    cell = Cell("A picture of a puppy", [Replace("puppy", "cat")], sampler=Sampler("ddim", steps=1))
    assert not run_jobs([Job(find("emoji"), cell, (3,), tmp_path, CONFIG)], Store(tmp_path / ".cells")).failures
    for name, edited in (("seed-3.png", True), ("baseline-seed-3.png", False)):
        with Image.open(tmp_path / name) as picture:
            assert picture.text["parameters"] == infotext(images.settings_of(tmp_path / name), picture.size)
            assert ("puppy → cat" in picture.text["parameters"]) is edited
