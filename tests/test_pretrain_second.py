"""The second edition's recipe: scenes and captions that are true, rows told apart, stages that fit together."""

import math
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from embedlab import Cell, Sampler, load, models, render
from embedlab.detector import loading
from embedlab.detector.detections import Detection, Detections, look, stands
from embedlab.detector.network import Detector
from embedlab.encoder import embed_all, encode, texts_of
from embedlab.pretrain import bars, captions, drawings, eye, quality, recipe, world
from embedlab.prompt import tokenize


@pytest.fixture(scope="module")
def ids():
    return captions.Ids(models.tokenizer())


def sight(thing):
    return Detection(thing.word, thing.x, thing.y, thing.size, 1.0, {thing.colour or "red": 1.0})


def seen(*things, ground="white"):
    return Detections(tuple(sight(thing) for thing in things), {ground: 1.0})


def thing(word, x=64.0, y=64.0, size=50.0, colour=None):
    return world.Thing(word, colour, x, y, size)


def test_every_word_colour_and_kind_is_one_token(ids):
    words = [*drawings.WORDS, *drawings.COLOURS, *world.GROUNDS, *drawings.KINDS, *captions.NUMBERS]
    assert len(drawings.WORDS) == 64
    assert [word for word in words if len(ids(word)) > 1] == ["cyan"]
    assert {word for members in drawings.KINDS.values() for word in members} <= set(drawings.WORDS)


def test_a_scene_is_a_function_of_its_number():
    assert [world.scene_of(i) for i in range(20)] == [world.scene_of(i) for i in range(20)]
    assert len({world.scene_of(i) for i in range(50)}) == 50


def test_what_is_said_of_a_scene_is_true_of_its_places():
    told = {}
    for number in range(400):
        scene = world.scene_of(number, form="two")
        if scene.relations[0] is None:
            continue
        one, other = map(sight, scene.things)
        relation = scene.relations[0]
        told.setdefault(relation, []).append(stands(one, relation, other))
        turned = world.other_way(scene)
        assert stands(sight(turned.things[0]), turned.relations[0], sight(turned.things[1]))
    assert set(told) == set(world.RELATIONS)
    assert all(all(marks) for marks in told.values())
    for number in range(200):
        scene = world.scene_of(number, form="three")
        for one, relation, other in zip(scene.things, scene.relations, scene.things[1:], strict=False):
            assert relation is None or stands(sight(one), relation, sight(other))


def test_training_never_shows_a_combination_that_is_held_out():
    for number in range(1500):
        scene = world.scene_of(number)
        words = {thing.word for thing in scene.things}
        assert not any(world.held_out_pair(a, b) for a, b in combinations(sorted(words), 2))
        assert not any(thing.colour and world.held_out_colour(thing.word, thing.colour) for thing in scene.things)
    two = [world.scene_of(i, held_out=True, form="two") for i in range(50)]
    assert all(world.held_out_pair(*(thing.word for thing in scene.things)) for scene in two)


def test_a_caption_names_every_object_and_colour_and_its_order_says_nothing_of_places():
    upper_first = []
    for number in range(1200):
        scene = world.scene_of(number)
        made = captions.caption(scene, np.random.default_rng(number))
        text = made.text.lower().replace(",", "").split()
        assert all(noun in text for noun in made.nouns)
        assert all(thing.colour in text for thing in scene.things if thing.colour)
        if len(scene.things) == 2 and scene.relations[0] in ("above", "below") and scene.count == 1:
            upper = min(scene.things, key=lambda thing: thing.y).word
            if upper in text and scene.things[0].word in made.nouns and scene.things[1].word in made.nouns:
                upper_first.append(made.nouns[0] == upper)
    assert len(upper_first) > 60
    assert abs(np.mean(upper_first) - 0.5) < 2.6 * 0.5 / math.sqrt(len(upper_first))


def test_windows_are_those_of_the_library(ids):
    rng = np.random.default_rng(0)
    tokenizer = models.tokenizer()
    for number in range(30):
        total = number % 3 + 1
        where = int(rng.integers(total))
        scene = world.scene_of(number)
        made = captions.caption(scene, rng) if total == 1 else captions.long_caption(scene, rng, ids, total, where)
        windows = captions.windows(ids(made.text))
        assert torch.equal(windows, tokenize(made.text, tokenizer).ids)
        if total > 1:
            assert len(windows) == total
            assert (windows == ids(made.nouns[0])[0]).any(1).nonzero().flatten().tolist() == [where]


def test_the_first_lessons_are_pairs_in_a_few_relations_named_in_order(ids):
    for relations in recipe.LESSONS.values():
        batch = recipe.lesson(np.random.default_rng(0), relations, ids, 24)
        assert {scene.relations[0] for scene in batch.scenes} == set(relations)
        assert (batch.places == torch.arange(77)).all(), "nothing changes slots"
        for row, scene in zip(batch.ids[:, 0], batch.scenes, strict=True):
            first, second = scene.things
            text = models.tokenizer().decode(row[1:][row[1:] < captions.START])
            assert text.index(first.word) < text.index(str(scene.relations[0])) < text.rindex(second.word)
            assert not world.held_out_pair(first.word, second.word)
            axis, order = recipe.ON_SIDES[str(scene.relations[0])]
            ahead = second.y - first.y if axis else second.x - first.x
            assert order * ahead > 0


def test_slots_change_but_every_word_keeps_its_position(ids):
    scenes = [world.scene_of(i) for i in range(300)]
    batch = recipe.batch_of(scenes, np.random.default_rng(0), ids)
    assert (batch.places != torch.arange(77)).any(-1).float().mean() > 0.1, "some are in other slots"
    back = batch.ids.gather(2, batch.places.argsort(-1))
    for row, scene in zip(back[:, 0], scenes, strict=True):
        text = models.tokenizer().decode(row[row < captions.START])
        assert scene.ground in text or "background" not in text, "put back by positions, it reads as a caption"


def test_hidden_states_are_those_of_the_library_and_rows_go_by_their_role(emoji, ids):
    texts = ["a cat above a dog", "a puppy"]
    tables = torch.stack([captions.windows(ids(text)) for text in texts])
    batch = recipe.Batch(tables, torch.arange(77).expand_as(tables), ())
    with torch.no_grad():
        hidden, empty = recipe.hidden_of(emoji.towers[0].core, batch)
    own = encode([embed_all(text, emoji.towers) for text in [*texts, ""]], emoji.towers)
    torch.testing.assert_close(torch.cat([hidden, empty[None]]), torch.stack([one.hidden for one in own]))

    kinds = recipe.roles(tables).flatten(1)
    keep = torch.tensor([[True, True, False, False], [True, False, True, False]])
    made = recipe.keep_some(hidden, empty, kinds, keep)
    assert torch.equal(made[0], torch.cat([hidden[0, :6], empty[6:]]))
    assert torch.equal(made[1], torch.cat([hidden[1, :1], empty[1:3], hidden[1, 3:4], empty[4:]]))
    only = bars.Only("words")(own[0], texts_of(emoji.towers))
    torch.testing.assert_close(only.hidden, made[0])


def test_a_plan_says_what_stands_where():
    scene = world.Scene((thing("cat", 34, 34), thing("car", 96, 96, colour="red")), (None,), "noto", "blue")
    words, colours = recipe.layout_of(scene)
    assert recipe.WORDS[words[2 * 8 + 2]] == "cat"
    assert recipe.WORDS[words[6 * 8 + 6]] == "car"
    assert words[7] == len(recipe.WORDS)
    assert recipe.COLOURS[colours[6 * 8 + 6]] == "red"
    assert colours[2 * 8 + 2] == len(recipe.COLOURS)


def test_pictures_of_a_prompt_are_marked_by_what_is_on_them():
    cat, dog = thing("cat", 64, 34), thing("dog", 64, 94)
    by_prompt = {trial.prompt: trial for trial in bars.trials(["cat", "dog", "car", "star"], 4) if not trial.operators}
    assert by_prompt["a picture of a cat on white"].ask(seen(cat)) == {"single": True, "word/cat": True, "ground": True}
    assert bars._two("cat", "above", "dog")(seen(cat, dog))["relation"]
    assert not bars._two("dog", "above", "cat")(seen(cat, dog))["relation"]
    assert bars._two("cat", "above", "dog")(seen(cat)) == {"both": False}
    assert bars._count("cat", 2)(seen(cat, cat))["count"]
    assert not bars._count("cat", 2)(seen(cat, cat, dog))["count"]
    low, high = bars.Rate(8, 10).interval
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)


def test_a_detector_that_is_shown_a_scene_again_and_again_finds_it(tmp_path):
    """Loss and reading agree on what a cell means."""
    discs(tmp_path)
    sprites = drawings.load(tmp_path / "sprites")
    scenes = [world.scene_of(i, form="two") for i in (0, 1, 2, 3)]
    pictures = recipe.pixels(np.stack([np.asarray(world.paint(s, sprites, np.random.default_rng(0))) for s in scenes]))
    torch.manual_seed(0)
    model = Detector(64, (16, 32, 32), eye.VOCABULARY)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        eye.loss(model(pictures), scenes).backward()
        optimizer.step()
    marks = eye.marks(look(model.eval(), pictures), scenes)
    assert marks["exact"] == marks["places"] == marks["grounds"] == 1.0, marks


def test_probabilities_are_as_often_right_as_they_say():
    """A detector that is too sure of itself, and blind in a part of the scenes, is brought to what it is worth."""
    scenes = [world.scene_of(i, form="one") for i in range(400)]

    def logits(pictures):
        words = torch.full((len(pictures), 64, 16, 16), -8.0)
        grounds = torch.zeros(len(pictures), 10)
        for row, number in enumerate(pictures[:, 0, 0, 0].long().tolist()):
            scene = scenes[number]
            word = scene.things[0].word if number // 2 % 10 < 7 else eye.WORDS[number % 64]
            words[row, eye.WORDS.index(word), 8, 8] = 8.0
            grounds[row, eye.GROUNDS.index(scene.ground)] = 0.5
        return words, torch.zeros(len(pictures), 8, 16, 16), torch.zeros(len(pictures), 3, 16, 16), grounds

    pictures = torch.arange(400.0).reshape(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    scale, errors = eye.calibrated(logits, pictures, scenes)
    before, after = errors["objects"]
    assert before > 0.2
    assert after < 0.06
    assert scale.slope * 8 + scale.shift == pytest.approx(math.log(0.7 / 0.3), abs=0.4)
    assert errors["grounds"][0] > 0.5, "it was right each time and gave a sixth"
    assert errors["grounds"][1] < 0.1


def discs(folder):
    for style in drawings.STYLES:
        (folder / "sprites" / style).mkdir(parents=True)
        for n, word in enumerate(drawings.WORDS):
            disc = Image.new("RGBA", (64, 64))
            ImageDraw.Draw(disc).ellipse((4, 4, 60, 60), (4 * n, 255 - 4 * n, 128 * (n % 2), 255))
            disc.save(folder / "sprites" / style / f"{word}.png")


PRETRAIN = f"""
import runpy
runpy.run_path({str(Path(__file__).parent.parent / "experiments" / "pretrain.py")!r}, run_name="__main__")
"""


def test_all_stages_end_in_a_model_that_loads(forks, tmp_path):
    """From end to end on drawings that are discs, with two steps a stage; then once more, where it does nothing."""
    folder = tmp_path / "run"
    discs(folder)
    shutil.copytree(models.SHIPPED["emoji"] / "tokenizer", folder / "tokenizer")
    trained = tuple(recipe.TRAINED)
    words = [
        *("--config-name", "pretrain_second", f"folder={folder}", "scenes=48"),
        "stages=[drawings,vae,text,judge,latents,decoder,unet,eye,vision,export]",
        *[f"{stage}.{key}" for stage in trained for key in ("steps=2", "batch=4", "sheet_every=0")],
        *("vae.sheet_every=2", "unet.sheet_every=2", "unet.sheet_seeds=1", "unet.sheet_steps=1"),
        "workers=1",
    ]
    first = forks.python(PRETRAIN, *words, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert all(f"{stage}: step 2/2" in first.stdout for stage in trained)
    assert "step 2: bars/single 0." in first.stdout, "what the judge says of samples"
    assert (folder / "unet" / "log" / "pictures.jsonl").exists()
    again = forks.python(PRETRAIN, *words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "step" not in again.stdout, "what is done is not done again"

    made = load(str(folder / "export"), device="cpu")
    assert made.concepts == tuple(drawings.WORDS)
    pictures = render(made, [Cell("a puppy", sampler=Sampler("ddim", 2))], [0])[0].pictures
    assert pictures.shape == (1, 3, 128, 128)
    assert torch.isfinite(pictures).all()
    size = sum(path.stat().st_size for path in (folder / "export").rglob("*") if path.is_file())
    assert size <= 40_000_000
    assert (folder / "export" / "eye" / "model.safetensors").stat().st_size <= 4_000_000
    shipped = loading.read_detector(folder / "export" / "eye", torch.device("cpu"))
    assert shipped.vocabulary == eye.VOCABULARY
    assert shipped.scale.least == 0.25, "what it gives is a probability"
    trained = eye.load(folder / "eye.pt", eye.EYE).half().float()
    assert all(torch.equal(a, b) for a, b in zip(shipped.parameters(), trained.parameters(), strict=True))

    small = {"size": 1, "words": ("cat",), "sampler": Sampler("ddim", 1), "held": 4}
    table = quality.table([quality.column(str(folder / "export"), folder, (0,), **small)])
    assert "single object, all words" in table
