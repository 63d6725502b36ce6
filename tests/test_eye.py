"""The eye: detections of planted logits, what a prompt asks for, and both as scores of jobs."""

import csv
import json
import math
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedlab import Cell, Job, Metrics, Replace, Sampler, Source, Store, detect, load, models, render, run_jobs, score
from embedlab.cli import main as app
from embedlab.detector.asked import Asked, Object, asked_of, with_words
from embedlab.detector.detections import OUTCOMES, Detection, Detections, look, outcome, stands
from embedlab.detector.loading import read_detector, vocabulary_of
from embedlab.detector.network import GRID, SIDE, Detector, Scale
from embedlab.errors import ConfigError, ModelError, PictureError
from embedlab.metrics.eye import exactly, eye_names, eye_scores, outcome_of
from embedlab.metrics.score import score_names
from embedlab.pretrain import captions, eye, world
from embedlab.sweep.score_table import table
from embedlab.sweep.tables import records, write_tables

CPU = torch.device("cpu")
SHORT = {"sampler": Sampler("ddim", 1), "size": 64}


class Planted:
    """A detector that answers with the logits of scenes: a picture is the number of its scene."""

    vocabulary = eye.VOCABULARY
    scale = Scale(least=0.5)

    def __init__(self, scenes, sure=9.0):
        self.scenes, self.sure = scenes, sure

    def __call__(self, pictures):
        n = len(pictures)
        words, colours = torch.full((n, len(eye.WORDS), GRID, GRID), -9.0), torch.zeros(n, 8, GRID, GRID)
        boxes, grounds = torch.zeros(n, 3, GRID, GRID), torch.zeros(n, len(eye.GROUNDS))
        for row, number in enumerate(pictures[:, 0, 0, 0].long().tolist()):
            scene = self.scenes[number]
            grounds[row, eye.GROUNDS.index(scene.ground)] = self.sure
            for thing in scene.things:
                x, y = thing.x * GRID / SIDE, thing.y * GRID / SIDE
                cell = int(y), int(x)
                words[row, eye.WORDS.index(thing.word), *cell] = self.sure
                boxes[row, :, *cell] = torch.tensor([x - cell[1] - 0.5, y - cell[0] - 0.5, thing.size / SIDE])
                if thing.colour:
                    colours[row, eye.COLOURS.index(thing.colour), *cell] = self.sure
        return words, colours, boxes, grounds


def seen(scenes, **how):
    pictures = torch.arange(float(len(scenes))).reshape(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    return look(Planted(scenes, **how), pictures)


def cat(x=64.0, y=64.0, word="cat", probability=0.98, **more):
    return Detection(word, x, y, 50.0, probability, **more)


# ── pictures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_planted_scenes_are_read_back():
    scenes = [world.scene_of(i) for i in range(200)]
    found = seen(scenes)
    marks = eye.marks(found, scenes)
    assert marks == {"found": 1.0, "true": 1.0, "places": 1.0, "colours": 1.0, "exact": 1.0, "grounds": 1.0}
    for one, scene in zip(found, scenes, strict=True):
        for thing in scene.things:
            (near,) = [s for s in one.of(thing.word) if math.hypot(s.x - thing.x, s.y - thing.y) < 1e-3]
            assert near.size == pytest.approx(thing.size, abs=1e-3)
            assert near.probability == pytest.approx(1, abs=1e-3)


def test_where_nothing_is_nothing_is_seen():
    (found,) = seen([replace(world.scene_of(0), things=())])
    assert found.things == ()
    assert max(found.words.values()) < 1e-3
    asked = asked_of("two red cars above a cat", eye.VOCABULARY)
    assert all(value < 1e-3 for value in eye_scores(found, asked).values())
    assert outcome_of(found, asked) == "neither"


def test_a_fainter_object_is_as_likely_as_its_logit_says_and_counts_from_the_least_on():
    scene = replace(world.scene_of(0, form="one"))
    word = scene.things[0].word
    for logit in (-1.0, 1.0):
        (found,) = seen([scene], sure=logit)
        assert found.presence(word) == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-4)
        assert len(found.things) == (logit > 0)


def test_calibration_scales_probabilities_and_changes_no_order():
    scene = world.scene_of(0, form="one")
    plain, calibrated = Planted([scene], sure=2.0), Planted([scene], sure=2.0)
    calibrated.scale = Scale(0.5, -0.5, 0.5, 0.5)
    picture = torch.zeros(1, 3, 1, 1)
    before, after = look(plain, picture)[0], look(calibrated, picture)[0]
    assert after.things[0].probability == pytest.approx(1 / (1 + math.exp(-0.5)), abs=1e-4)
    assert after.ground == before.ground == scene.ground
    assert after.ground_probability < before.ground_probability


def test_the_outcome_of_two_objects_is_one_word():
    cat_, dog = ("cat",), ("dog",)

    def of(*things):
        return outcome(Detections(things), cat_, dog)

    assert of(cat(y=34.0), cat(y=94.0, word="dog")) == "both"
    assert of(cat()) == of(cat(x=20.0), cat(x=100.0)) == "first only"
    assert of(cat(word="dog"), cat(word="fox", x=100.0)) == "second only"
    assert of(cat(other="dog", other_probability=0.6)) == of(cat(word="dog", other="cat", other_probability=0.6))
    assert of(cat(other="dog", other_probability=0.6)) == "mixture"
    assert of(cat(other="fox", other_probability=0.6)) == of(cat(other="dog", other_probability=0.1)) == "first only"
    assert of(cat(word="fox")) == of() == "neither"
    assert outcome(Detections((cat(),)), ("lion", "cat"), dog) == "first only", "one of a kind"


def test_how_likely_so_many_are_there():
    assert sum(exactly(n, [0.9, 0.5, 0.2]) for n in range(4)) == pytest.approx(1)
    assert exactly(2, [1.0, 1.0, 0.0]) == 1


# ── prompts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_captions_say_of_scenes_is_read_and_found_on_them():
    """Captions of every form, of which each object, number, colour, relation and ground is true of its scene."""
    rng, kinds = np.random.default_rng(0), 0
    for number in range(1500):
        scene = world.scene_of(number)
        caption = captions.caption(scene, rng)
        asked = asked_of(caption.text, eye.VOCABULARY)
        singular = {captions.plural(word): word for word in (*eye.WORDS, *eye.VOCABULARY.kinds)}
        nouns = [singular.get(noun, noun) for noun in caption.nouns]
        kinds += any(noun in eye.VOCABULARY.kinds for noun in nouns)
        if len(set(nouns)) < len(nouns):
            continue  # "an animal above an animal": which is which nobody can say
        assert sorted(one.word for one in asked.objects) == sorted(nouns), caption.text
        (found,) = seen([scene])
        scores = eye_scores(found, asked)
        wrong = {name: value for name, value in scores.items() if value < 0.98}
        if not set(nouns) & eye.VOCABULARY.kinds.keys():  # of several that are of a kind the likeliest is taken
            assert not wrong, (caption.text, scene, wrong)
        things = scene.things if scene.count == 1 else scene.things[:1]
        assert sorted(one.colour or "" for one in asked.objects) == sorted(thing.colour or "" for thing in things)
        assert asked.ground in (None, scene.ground)
    assert kinds > 50


def test_a_relation_that_is_turned_over_is_seen_to_be():
    above = asked_of("a cat above a dog", eye.VOCABULARY)
    both = cat(y=34.0), cat(y=94.0, word="dog")
    assert eye_scores(Detections(both), above)["eye/relation"] == pytest.approx(0.98**2)
    turned = Detections((replace(both[0], word="dog"), replace(both[1], word="cat")))
    assert eye_scores(turned, above)["eye/relation"] == 0
    assert eye_scores(turned, asked_of("a cat below a dog", eye.VOCABULARY))["eye/relation"] > 0.9
    assert all(stands(both[0], name, both[1]) == (name == "above") for name in ("above", "below", "beside"))


THREE = [("cat",), ("dog",), ("key",)]


@pytest.mark.parametrize(
    ("text", "objects", "relations", "ground"),
    [
        ("A PICTURE OF TWO PUPPIES ON PINK", [("puppy", 2, None)], [], "pink"),
        ("a cat on a red car", [("cat", None, None), ("car", None, "red")], [], None),
        ("on a blue background, a blue car", [("car", None, "blue")], [], "blue"),
        ("3 red stars, in 3d", [("star", 3, "red")], [], None),
        ("a cat beside a dog and the dog is under a key", THREE, [(0, "beside", 1), (1, "below", 2)], None),
        ("above a dog is a cat", [("dog",), ("cat",)], [(1, "above", 0)], None),
        ("a cat next to a dog and left of a key", THREE, [(0, "beside", 1), (0, "left of", 2)], None),
        ("an animal in front of a castle", [("animal",), ("castle",)], [(0, "in front of", 1)], None),
        ("a castle in the rain, 12 cats", [("castle",), ("cat", None, None)], [], None),
        ("a category of scattered catalogues above", [], [], None),
        ("", [], [], None),
    ],
)  # fmt: skip
def test_what_a_prompt_asks_for(text, objects, relations, ground):
    asked = asked_of(text, eye.VOCABULARY)
    assert len(asked.objects) == len(objects)
    for one, wanted in zip(asked.objects, objects, strict=True):
        assert (one.word, one.count, one.colour)[: len(wanted)] == wanted
    assert list(asked.relations) == relations
    assert asked.ground == ground


def test_a_colour_is_looked_for_on_its_own_object():
    asked = asked_of("a red car and a blue balloon", eye.VOCABULARY)
    car, balloon = cat(word="car", x=30.0, colours={"red": 0.9}), cat(word="balloon", x=90.0, colours={"blue": 0.8})
    scores = eye_scores(Detections((car, balloon)), asked)
    assert scores["eye/colour/car"] == pytest.approx(0.98 * 0.9)
    leaked = Detections((replace(car, colours={"blue": 0.9}), balloon))
    assert eye_scores(leaked, asked)["eye/colour/car"] == 0
    assert eye_scores(leaked, asked)["eye/colour/balloon"] == scores["eye/colour/balloon"]


def test_words_that_are_scored_beside_are_looked_for_where_they_are_known():
    asked = with_words(asked_of("a puppy", eye.VOCABULARY), ["cat", "puppy", "rainbow"], eye.VOCABULARY)
    assert eye_names(asked) == ["eye/puppy", "eye/cat"]
    assert Asked((Object("cat", ("cat",)), Object("animal", ("cat", "dog")))).pair is None, "one may be the other"


# ── a model with an eye ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """The shipped model with an untrained detector."""
    place = tmp_path_factory.mktemp("eye") / "model"
    shutil.copytree(models.SHIPPED["emoji"], place, copy_function=os.link, ignore=shutil.ignore_patterns("eye"))
    (place / "eye").mkdir()
    torch.manual_seed(0)
    detector = Detector(32, (8, 8, 8), eye.VOCABULARY)
    with torch.no_grad():
        detector.maps.bias[eye.WORDS.index("cat")] = 0.5
    save_file({key: value.half() for key, value in detector.state_dict().items()}, place / "eye" / "model.safetensors")
    words = {"words": eye.WORDS, "colours": eye.COLOURS, "grounds": eye.GROUNDS, "kinds": eye.VOCABULARY.kinds}
    (place / "eye" / "config.json").write_text(json.dumps({"side": 32, "widths": [8, 8, 8], **words}))
    return place


@pytest.fixture(scope="session")
def seeing(folder):
    return load(str(folder), device="cpu")


@pytest.fixture
def own(folder, tmp_path) -> Path:
    """A detector's folder that may be spoilt."""
    return Path(shutil.copytree(folder / "eye", tmp_path / "eye"))


def test_a_detector_comes_back_from_its_folder(folder):
    detector = read_detector(folder / "eye", CPU)
    assert detector.vocabulary == eye.VOCABULARY == vocabulary_of(folder / "eye")
    state = load_file(folder / "eye" / "model.safetensors")
    assert all(torch.equal(value, state[key].float()) for key, value in detector.state_dict().items())
    assert not detector.training


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"words": "cat"}, "says words 'cat'; it has to be a list of words"),
        ({"grounds": []}, r"says grounds \[\]; it has to be a list of words"),
        ({"kinds": [1]}, r"says kinds \[1\]; it has to be lists of words by name"),
        ({"side": 0}, "says side 0; it has to be a whole number from 16 to 1024"),
        ({"widths": [8]}, r"says widths \[8\]; it has to be three numbers or more"),
        ({"scale": {"slope": "x"}}, "it has to be numbers for slope, shift, colours, grounds, least"),
        ({"widths": [8, 9, 8]}, "cannot be read: "),
        ({"widths": [8, 16, 8]}, r"has fine.* of \(8,.*\) where its config asks for \(16,"),
        ({"words": ["cat"]}, "has maps.weight of"),
    ],
)
def test_a_detector_that_does_not_fit_is_one_line(own, change, says):
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=says) as caught:
        read_detector(own, CPU)
    assert "\n" not in str(caught.value)


def test_a_detector_that_lacks_weights_is_one_line(own):
    state = load_file(own / "model.safetensors")
    save_file({key: value for key, value in state.items() if key != "ground.bias"}, own / "model.safetensors")
    with pytest.raises(ModelError, match="lacks 1 weights: ground.bias"):
        read_detector(own, CPU)
    (own / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        read_detector(own, CPU)


def test_pictures_are_looked_at_each_by_itself(seeing):
    pictures = torch.rand(5, 3, 64, 96)
    found = detect(pictures, seeing)
    assert [detect(picture[None], seeing)[0] for picture in pictures] == found
    assert all(set(one.words) == set(eye.WORDS) for one in found)
    with pytest.raises(PictureError, match=r"pictures are \(3, 64, 64\); they have to be \(image, 3, height, width\)"):
        detect(torch.rand(3, 64, 64), seeing)


def test_scores_say_what_is_seen_of_what_is_asked_for(seeing, folder):
    cell = Cell("a puppy above a cat on pink", (Replace("puppy", "dog"),), **SHORT)
    before, after = render(seeing, [cell.baseline(), cell], [0, 1])
    settings = Metrics(eye=True)
    rows, whole = score(seeing, before, after, settings)
    prompt = asked_of(cell.text, eye.VOCABULARY)
    asked = with_words(prompt, ["puppy", "dog"], eye.VOCABULARY)
    found = detect(after.pictures, seeing)
    for row, one in zip(rows, found, strict=True):
        assert {name: row[name] for name in eye_names(asked)} == {
            name: round(value, 6) for name, value in eye_scores(one, asked).items()
        }
        assert row["eye/outcome"] == outcome_of(one, prompt)
    assert eye_names(asked) == ["eye/puppy", "eye/cat", "eye/dog", "eye/relation", "eye/ground"]
    assert whole["eye/cat"] == pytest.approx(sum(row["eye/cat"] for row in rows) / 2, abs=1e-6)
    assert sum(whole[f"eye/outcome/{name}"] for name in OUTCOMES) == 1
    assert score_names(cell, settings, Source(str(folder))) == list(whole)


def test_it_takes_the_place_of_closest_where_it_knows_the_words(seeing, folder):
    cell = Cell("a puppy", **SHORT)
    before = render(seeing, [cell], [0])[0]
    for words, kept in ((("cat", "dog"), False), (("cat", "rainbow"), True)):
        settings = Metrics(words=words, eye=True)
        rows, whole = score(seeing, before, before, settings)
        assert ("closest" in rows[0]) == ("closest/cat" in whole) == kept
        assert "eye/cat" in rows[0]
        assert score_names(cell, settings, Source(str(folder))) == list(whole)
    assert not any(name.startswith("eye/") for name in score(seeing, before, before, Metrics())[1])


def test_a_sweep_scores_with_it_and_its_tables_have_it(folder, tmp_path):
    prompts = ("a cat above a dog", "a dog above a cat")
    source = Source(str(folder), device="cpu")
    jobs = [
        Job(source, Cell(text, **SHORT), (0, 1), tmp_path / str(n), metrics=Metrics(eye=True), number=n)
        for n, text in enumerate(prompts)
    ]
    results = [run_jobs(jobs, Store(tmp_path / "store")).results[n] for n in (0, 1)]
    for result in results:
        assert {"eye/cat", "eye/dog", "eye/relation", "eye/outcome/both"} <= result.scores.keys()
        assert all(row.measured["eye/outcome"] in OUTCOMES for row in result.pictures)
    write_tables(tmp_path, records(results))
    lines = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(lines) == 4
    for line in lines:
        assert float(line[f"eye/outcome/{line['eye/outcome']}"]) == 1
        assert sum(float(line[f"eye/outcome/{name}"]) for name in OUTCOMES) == 1
    shown = table(results)
    assert "first only" in shown
    assert "%" in shown
    apart = replace(results[1], scores={**results[0].scores, "eye/count/star": 0.5})
    head = table([results[0], apart]).splitlines()[0].split()
    assert head[-2:] == ["eye", "outcome"], "what belongs together stands together, whatever each job has"
    again = run_jobs(jobs, Store(tmp_path / "store"))
    assert [again.results[n].scores for n in (0, 1)] == [result.scores for result in results]


def test_weights_of_a_detector_that_cannot_be_read_end_it_before_anything_is_drawn(folder, tmp_path):
    broken = Path(shutil.copytree(folder, tmp_path / "model", copy_function=os.link))
    (broken / "eye" / "model.safetensors").unlink()
    (broken / "eye" / "model.safetensors").write_bytes(b"none")
    job = Job(
        Source(str(broken), device="cpu"), Cell("a cat", **SHORT), (0,), tmp_path / "0", metrics=Metrics(eye=True)
    )
    with pytest.raises(ModelError, match="the detector in .* cannot be read"):
        run_jobs([job], Store(tmp_path / "store"))
    assert not list((tmp_path / "0").glob("*.png"))


def test_a_model_without_one_is_refused_in_one_line_before_weights_are_read(unreadable, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [
        f"model.name={unreadable}",
        "prompt=a cat",
        "metrics.eye=true",
        "tracker=silent",
        f"hydra.run.dir={tmp_path}/out",
    ]
    monkeypatch.setattr(sys, "argv", ["embedlab", *words])
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "has no detector, a folder 'eye' beside its parts; set metrics.eye=false, or name a model that has" in line
    assert not (tmp_path / "out").exists()


def test_a_model_without_one_is_refused_in_python(sd1):
    cell = Cell("a cat", sampler=Sampler("ddim", 1), size=32)
    before = render(sd1, [cell], [0])[0]
    with pytest.raises(ModelError, match="metrics.eye is true, and the model .* has no detector"):
        score(sd1, before, before, Metrics(eye=True))
    with pytest.raises(ConfigError, match="metrics.eye is 'yes'; it has to be true or false"):
        Metrics(eye="yes")
