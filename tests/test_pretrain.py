"""The default model's recipe: scenes and captions that are true, rows told apart, stages that fit and go on where they
were.
"""

import json
import math
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import nn

from embedlab import Cell, Sampler, load, models, render
from embedlab.detector import loading
from embedlab.detector.detections import Detection, Detections, look, stands
from embedlab.detector.network import Detector
from embedlab.encoder import embed_all, encode, texts_of
from embedlab.errors import ConfigError
from embedlab.pretrain import (
    autoencoder,
    bars,
    captions,
    drawings,
    export,
    eye,
    plan,
    quality,
    rows,
    run,
    stage,
    text_encoder,
    world,
)
from embedlab.pretrain.loop import Training, fit
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
    for relations in text_encoder.LESSONS.values():
        batch = text_encoder.lesson(np.random.default_rng(0), relations, ids, 24)
        assert {scene.relations[0] for scene in batch.scenes} == set(relations)
        assert (batch.places == torch.arange(77)).all(), "nothing changes slots"
        for row, scene in zip(batch.ids[:, 0], batch.scenes, strict=True):
            first, second = scene.things
            text = models.tokenizer().decode(row[1:][row[1:] < captions.START])
            assert text.index(first.word) < text.index(str(scene.relations[0])) < text.rindex(second.word)
            assert not world.held_out_pair(first.word, second.word)
            axis, order = plan.ON_SIDES[str(scene.relations[0])]
            ahead = second.y - first.y if axis else second.x - first.x
            assert order * ahead > 0


def test_slots_change_but_every_word_keeps_its_position(ids):
    scenes = [world.scene_of(i) for i in range(300)]
    batch = rows.batch_of(scenes, np.random.default_rng(0), ids)
    assert (batch.places != torch.arange(77)).any(-1).float().mean() > 0.1, "some are in other slots"
    back = batch.ids.gather(2, batch.places.argsort(-1))
    for row, scene in zip(back[:, 0], scenes, strict=True):
        text = models.tokenizer().decode(row[row < captions.START])
        assert scene.ground in text or "background" not in text, "put back by positions, it reads as a caption"


def test_hidden_states_are_those_of_the_library_and_rows_go_by_their_role(emoji, ids):
    texts = ["a cat above a dog", "a puppy"]
    tables = torch.stack([captions.windows(ids(text)) for text in texts])
    batch = rows.Batch(tables, torch.arange(77).expand_as(tables), ())
    with torch.no_grad():
        hidden, empty = rows.hidden_of(emoji.towers[0].core, batch)
    own = encode([embed_all(text, emoji.towers) for text in [*texts, ""]], emoji.towers)
    torch.testing.assert_close(torch.cat([hidden, empty[None]]), torch.stack([one.hidden for one in own]))

    kinds = rows.roles(tables).flatten(1)
    keep = torch.tensor([[True, True, False, False], [True, False, True, False]])
    made = rows.keep_some(hidden, empty, kinds, keep)
    assert torch.equal(made[0], torch.cat([hidden[0, :6], empty[6:]]))
    assert torch.equal(made[1], torch.cat([hidden[1, :1], empty[1:3], hidden[1, 3:4], empty[4:]]))
    only = bars.Only("words")(own[0], texts_of(emoji.towers))
    torch.testing.assert_close(only.hidden, made[0])


def test_a_plan_says_what_stands_where():
    scene = world.Scene((thing("cat", 34, 34), thing("car", 96, 96, colour="red")), (None,), "noto", "blue")
    words, colours = plan.layout_of(scene)
    assert plan.WORDS[words[2 * 8 + 2]] == "cat"
    assert plan.WORDS[words[6 * 8 + 6]] == "car"
    assert words[7] == len(plan.WORDS)
    assert plan.COLOURS[colours[6 * 8 + 6]] == "red"
    assert colours[2 * 8 + 2] == len(plan.COLOURS)


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


@pytest.mark.turns
def test_a_detector_that_is_shown_a_scene_again_and_again_finds_it(tmp_path):
    """Loss and reading agree on what a cell means."""
    discs(tmp_path)
    sprites = drawings.load(tmp_path / "sprites")
    scenes = [world.scene_of(i, form="two") for i in (0, 1, 2, 3)]
    pictures = stage.pixels(np.stack([np.asarray(world.paint(s, sprites, np.random.default_rng(0))) for s in scenes]))
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


def test_trials_share_out_pictures_and_all_seeds_serve():
    trials = bars.trials(list(drawings.WORDS)[:16], 8)
    plan = quality.in_turn(trials, pictures=40, seeds=16)
    many = {}
    for trial, seeds in plan:
        assert len(set(seeds)) == len(seeds)
        many.setdefault(trial.measure, []).append(seeds)
    assert {len(seeds) for seeds in many["single"]} == {8}, "at least"
    assert {len(seeds) for seeds in many["plain"]} == {3}
    assert all(len(set().union(*seeds)) == 16 for seeds in many.values())
    assert all(sum(map(len, seeds)) >= 40 for seeds in many.values())
    assert len({(trial.measure, trial.prompt) for trial, _ in plan}) == len(plan)
    full = quality.in_turn(trials, pictures=40, seeds=16, every_seed=True)
    assert {len(seeds) for trial, seeds in full if trial.measure == "single"} == {16}


def test_marks_of_another_model_or_detector_are_not_taken(tmp_path):
    path = tmp_path / "marks.json"
    kept = quality.Kept(path, "ours", "a", {"eye": "1", "judge": "1"})
    kept.pictures["kind/a picture of a bird/0"] = {"eye": {"marks": {"kind": True}}, "judge": {"marks": {"kind": True}}}
    kept.save()
    assert quality.Kept(path, "ours", "a", {"eye": "1"}).pictures == kept.pictures
    (left,) = quality.Kept(path, "ours", "a", {"eye": "1", "judge": "2"}).pictures.values()
    assert left.keys() == {"eye"}
    assert quality.Kept(path, "theirs", "b", {"eye": "1"}).pictures == {}
    path.write_text("[1]")
    with pytest.raises(ConfigError, match="holds no marks of pictures; name another file, or remove it"):
        quality.Kept(path, "ours", "a", {})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pictures", "0"], "--pictures is 0; it has to be 1 or more."),
        (["--work", "nowhere"], "'nowhere/sprites/fluent-emoji/puppy.png' is missing; run the stage drawings first."),
    ],
)
def test_a_table_that_cannot_be_is_refused_in_one_line(words, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        quality.main(words)
    assert capsys.readouterr().err.strip().endswith(said)


# ── the loop, on a line fitted to points ──────────────────────────────────────────────────────────────────────────


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


ASKED_TO_STOP = """
import os, signal
from pathlib import Path
from torch import nn
from embedlab.pretrain.loop import Training, fit

model = nn.Linear(1, 1)
seen = []


def loss_of(step, generator):
    seen.append(step)
    if step == 6:
        os.kill(os.getpid(), signal.SIGTERM)
    return model.weight.square().sum(), {}


def run():
    fit(model, loss_of, Training(20, 1e-2, 1), Path("x.pt"), lambda *_: None, say=lambda _: None)


before = signal.getsignal(signal.SIGTERM)
try:
    run()
except SystemExit as error:
    print(error)
assert signal.getsignal(signal.SIGTERM) is before
run()
print(*seen)
"""


def test_a_run_that_is_asked_to_stop_saves_its_last_step_first(forks, tmp_path):
    done = forks.python(ASKED_TO_STOP, cwd=tmp_path)  # pytest's worker would go with it
    assert done.returncode == 0, done.stderr
    said, seen = done.stdout.splitlines()
    assert "stopped after step 7" in said
    assert seen.split() == list(map(str, range(20)))


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


# ── all stages ────────────────────────────────────────────────────────────────────────────────────────────────────


def discs(folder):
    for style in drawings.STYLES:
        (folder / "sprites" / style).mkdir(parents=True)
        for n, word in enumerate(drawings.WORDS):
            disc = Image.new("RGBA", (64, 64))
            ImageDraw.Draw(disc).ellipse((4, 4, 60, 60), (4 * n, 255 - 4 * n, 128 * (n % 2), 255))
            disc.save(folder / "sprites" / style / f"{word}.png")


TRACKER = {"_target_": "embedlab.tracker.Silent"}
PRETRAIN = f"""
import runpy
runpy.run_path({str(Path(__file__).parent.parent / "experiments" / "pretrain.py")!r}, run_name="__main__")
"""


SMALL = [f"{stage}.{key}" for stage in run.TRAINED for key in ("steps=2", "batch=4", "sheet_every=0")]
SMALL += ["vae.sheet_every=2", "unet.sheet_every=2", "unet.sheet_seeds=1", "unet.sheet_steps=1", "scenes=48"]


@pytest.fixture(scope="module")
def made(forks, tmp_path_factory):
    """All stages from end to end on drawings that are discs, with two steps each: their folder, and what they said."""
    folder = tmp_path_factory.mktemp("recipe") / "run"
    discs(folder)
    shutil.copytree(models.SHIPPED["emoji"] / "tokenizer", folder / "tokenizer")
    stages = f"stages=[{','.join(stage for stage in run.STAGES if stage != 'quality')}]"
    words = [f"folder={folder}", stages, "workers=1", *SMALL]
    done = forks.python(PRETRAIN, *words, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return folder, words, done.stdout


@pytest.mark.turns("all stages")
def test_all_stages_end_in_a_model_that_loads(made):
    folder, _, said = made
    assert all(f"{stage}: step 2/2" in said for stage in run.TRAINED)
    assert "step 2: bars/single 0." in said, "what the judge says of samples"
    assert (folder / "unet" / "log" / "pictures.jsonl").exists()
    model = load(str(folder / "export"), device="cpu")
    assert model.concepts == tuple(drawings.WORDS)
    pictures = render(model, [Cell("a puppy", sampler=Sampler("ddim", 2))], [0])[0].pictures
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


@pytest.mark.turns("all stages")
def test_what_is_done_is_not_done_again_and_latents_go_on_where_they_were(made, forks):
    folder, words, _ = made
    again = forks.python(PRETRAIN, *words, cwd=folder.parent)
    assert again.returncode == 0, again.stderr
    assert "step" not in again.stdout
    table = np.load(folder / "latents.npy", mmap_mode="r+")
    before = table.copy()
    table[0], table[40] = 7, 7
    (folder / "latents.json").write_text(json.dumps({"done": 32}))
    autoencoder.latents(folder, 48, say=lambda line: None)
    assert (table[0] == 7).all(), "those before the stop are kept"
    torch.testing.assert_close(torch.from_numpy(table[32:]), torch.from_numpy(before[32:]), atol=0.05, rtol=0.05)
    table[:] = before


@pytest.mark.turns("all stages")
def test_stages_begin_at_a_model_where_they_have_no_checkpoint(made, forks, tmp_path):
    """A folder with nothing but latents, at a rate of 0: the model that is exported is the one that was begun at."""
    folder, _, _ = made
    for name in ("sprites", "tokenizer"):
        shutil.copytree(folder / name, tmp_path / name)
    shutil.copy(folder / "latents.npy", tmp_path)
    stages = ("text", "decoder", "unet", "vision")
    still = [f"{stage}.{key}" for stage in stages for key in ("steps=1", "batch=4", "sheet_every=0", "lr=0.0")]
    words = [
        f"folder={tmp_path}",
        "scenes=48",
        f"stages=[{','.join(stages)},export]",
        f"warm_start={folder / 'export'}",
    ]
    done = forks.python(PRETRAIN, *words, *still, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"{stage}.pt").exists() for stage in stages)
    files = [path.relative_to(folder) for path in (folder / "export").rglob("*.safetensors")]
    assert len(files) == 5
    assert [file for file in files if load_file(tmp_path / file).keys() != load_file(folder / file).keys()] == []
    for file in files:
        ours, theirs = load_file(tmp_path / file), load_file(folder / file)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), file


@pytest.mark.turns("all stages")
def test_the_table_goes_on_where_it_was_stopped(made, tmp_path):
    folder, _, _ = made
    asked = {"pictures": 2, "seeds": 2, "prompts": 1, "words": ("cat",), "sampler": Sampler("ddim", 1), "held": 4}
    kept, lines = tmp_path / "quality.json", []
    column = quality.column(str(folder / "export"), folder, out=kept, say=lines.append, **asked)
    table = quality.table([column])
    assert "single object, all words" in table
    assert "export, eye | " in table
    assert "export, judge |" in table
    assert column.seen["judge"]["count"].of == 2
    assert column.agreement["eye and judge: the same ground, measure single"].of == 2
    assert "eye and image tower" in quality.agreement_table([column])

    file = json.loads(kept.read_text())
    (mine,) = file.values()
    del mine["pictures"]["count/a picture of one cat/1"]
    mine["pictures"]["count/a picture of one cat/0"]["judge"]["ground"] = "as it was"
    kept.write_text(json.dumps(file))
    drawn = len(lines)
    quality.column(str(folder / "export"), folder, out=kept, say=lines.append, **asked)
    assert len(lines) == drawn + 1, "one picture was drawn"
    (after,) = json.loads(kept.read_text()).values()
    assert after["pictures"]["count/a picture of one cat/0"]["judge"]["ground"] == "as it was"
    assert after["pictures"].keys() == {*mine["pictures"], "count/a picture of one cat/1"}
    alone = quality.column(str(folder / "export"), out=kept, say=lines.append, **asked)
    assert list(alone.seen) == ["eye"]
    assert len(lines) == drawn + 1, "without the judge nothing has to be drawn"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stages": ["nope"]}, "there is no stage nope; choose from drawings, vae, .*, quality"),
        ({"stages": "vae"}, "stages is 'vae'; it has to be a list, such as"),
        ({"workers": -1}, "workers is -1; it has to be a whole number, 0 or more"),
        ({"warm_start": True}, "warm_start is True; it has to be a model's folder or name, such as emoji"),
        ({"stages": ["vae"]}, "puppy.png' is missing; run the stage drawings first"),
        ({"stages": ["unet"], "tokenizer": True}, "text.pt' is missing; run the stage text first, or set warm_start"),
        ({"stages": ["eye"], "drawings": True}, "latents.npy' is missing; run the stage latents first"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_line(settings, said, tmp_path):
    if settings.pop("drawings", False):
        discs(tmp_path)
    if settings.pop("tokenizer", False):
        shutil.copytree(models.SHIPPED["emoji"] / "tokenizer", tmp_path / "tokenizer")
    config = OmegaConf.load(Path(__file__).parent.parent / "conf" / "pretrain.yaml")
    del config["hydra"], config["defaults"]
    config = OmegaConf.merge(config, {"folder": str(tmp_path), "tracker": TRACKER, "device": "cpu"}, settings)
    with pytest.raises(ConfigError, match=said) as error:
        run.work(config)
    assert "\n" not in str(error.value)


def test_the_shipped_model_is_of_the_recipe_s_shapes(tmp_path):
    export.adopt(run.begun_at("emoji"), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["start"]
    assert (
        stage.start_of(tmp_path / "run", "eye").keys()
        == Detector(**eye.EYE, vocabulary=eye.VOCABULARY).state_dict().keys()
    )


@pytest.mark.parametrize(("part", "said"), [("unet", "no weights of the unet"), ("vae", "the vae of .* other shapes")])
def test_a_model_that_nothing_can_begin_at_is_refused(part, said, tmp_path):
    model = tmp_path / "model"
    for name, make in (("vae", autoencoder.make_vae), ("text_encoder", text_encoder.make_text)):
        make().save_pretrained(model / name)
    if part == "vae":
        save_file({"odd": torch.zeros(1)}, model / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ConfigError, match=said):
        export.adopt(model, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*"))
