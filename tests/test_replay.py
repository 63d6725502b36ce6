"""A picture is made again from itself; what it says is never believed."""

import copy
import importlib
import json
import pkgutil
import re
import sys
import textwrap
from dataclasses import make_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from PIL import Image, PngImagePlugin
from test_conf import first_of

import embedlab
from embedlab import Interpolate, Job, Store, images, run_jobs
from embedlab.cell import fingerprint
from embedlab.cli import main as app
from embedlab.cli.commands.replay import main
from embedlab.errors import ConfigError, EmbedlabError, PictureError, SamplerError
from embedlab.limits import SHIPPED
from embedlab.sweep.cells import cell_of
from embedlab.sweep.config import complete, conf_dir, part_of
from embedlab.sweep.recorded_config import check_config, instantiate_checked
from embedlab.sweep.trust import is_own_value, resolve_name, true_name
from embedlab.view.replay import replay

FAST = ["sampler.steps=2", "tracker=silent", "model.device=cpu"]


def config_of(*words: str):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return complete(compose("config", [*FAST, *words]))


def draw(folder: Path, *words: str) -> Path:
    """Run a job of the command line into a folder."""
    config = config_of(*words)
    told = OmegaConf.to_container(config, resolve=True)
    job = Job(part_of(config, "model"), cell_of(config), tuple(config.seeds), folder, told, at_once=config.at_once)
    assert not run_jobs([job], Store(folder / ".cells")).failures
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    return draw(tmp_path_factory.mktemp("drawn"), "operators=[replace]", "seeds=[3,5]")


@pytest.fixture(scope="module")
def drawn_late(tmp_path_factory) -> Path:
    words = ["experiment=when_decided", "operators.cat.begin=1", "sampler.steps=2", "seeds=[3,5]", "metrics.eye=null"]
    return draw(tmp_path_factory.mktemp("late"), *words)


def altered(path: Path, to: Path, **changed: object) -> Path:
    """The same picture with other settings inside."""
    settings = {**copy.deepcopy(images.settings_of(path)), **changed}
    with Image.open(path) as picture:
        return images.save(picture.convert("RGB"), to, settings)


def with_config(path: Path, to: Path, where: str, value: object) -> Path:
    """The same picture whose config says something else in one place."""
    config = copy.deepcopy(images.settings_of(path)["config"])
    *outer, last = where.split(".")
    place = config
    for key in outer:
        place = place[key]
    place[last] = value
    return altered(path, to, config=config)


# ── the same picture ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["seed-3.png", "seed-5.png", "baseline-seed-5.png"])
def test_a_picture_of_a_job_is_made_again_bit_for_bit(drawn, name):
    done = replay(drawn / name)
    assert done.identical, str(done)
    assert str(done).startswith("the same, bit for bit")
    with Image.open(drawn / name) as first:
        assert np.array_equal(np.asarray(first), np.asarray(done.picture))


@pytest.mark.parametrize(
    "words",
    [
        ["encoder.skip={0:0.5,2:0.5}", "operators=[replace]"],
        ["start=picture", "start.picture=puppy.png", "start.strength=0.5", "guidance.negative=green"],
        ["prompt={_target_: embedlab.schedule.Switch, values: [a cat, a dog], at: 0.5}", "size=64"],
        ["operators=[noise]", "operators.noise.rows={role: words}"],
    ],
    ids=["layers", "image to image", "over time", "chance"],
)
def test_whatever_a_config_may_hold_comes_back(tmp_path, words):
    done = replay(draw(tmp_path, "seeds=[1]", *words) / "seed-1.png")
    assert done.identical, str(done)


@pytest.mark.parametrize("name", ["seed-3.png", "baseline-seed-5.png"])
def test_a_picture_that_shared_rows_is_made_again_bit_for_bit_and_false_places_are_refused(drawn_late, tmp_path, name):
    rows = images.settings_of(drawn_late / name)["rows"]
    # until the second step both halves of two seeds; then each seed's unconditional row and two others
    assert [(calls, many) for calls, many, _ in rows] == [(1, 4), (1, 6)]
    done = replay(drawn_late / name)
    assert done.identical, str(done)
    false = {
        "are no places in calls": [[1, 4, [1, 1]]],
        "has 0 rows in a call, and it has 2": [[1, 4, [0, 2]]],
        "has 3 rows in a call, and it has 2": [[2, 4, [0, 1, 2]]],
    }
    for message, changed in false.items():
        with pytest.raises(PictureError, match=message):
            replay(altered(drawn_late / name, tmp_path / "false.png", rows=changed))


def test_a_picture_that_begins_in_calls_of_another_batch_is_made_again_bit_for_bit(tmp_path):
    words = ["experiment=when_decided", "operators.cat.begin=1", "sampler.steps=2", "seeds=[3]", "metrics.eye=null"]
    made = draw(tmp_path, *words, "at_once=1")
    about = images.settings_of(made / "seed-3.png")
    assert (about["batch"], about["rows"][0]) == ([0, 1], [2, 2, [0, 1]])
    done = replay(made / "seed-3.png")
    assert done.identical, str(done)


def test_a_picture_whose_source_of_attention_others_have_is_made_again_bit_for_bit(tmp_path):
    jobs = []
    for to in ("cat", "owl", "fox"):
        config = config_of("operators=[replace]", f"operators.replace.by={to}", "attention=p2p", "seeds=[3,5]")
        told = OmegaConf.to_container(config, resolve=True)
        jobs.append(Job(part_of(config, "model"), cell_of(config), (3, 5), tmp_path / to, told, at_once=6))
    assert not run_jobs(jobs, Store(tmp_path / ".cells")).failures
    about = images.settings_of(tmp_path / "owl" / "seed-5.png")
    assert about["batch"] == [3, 6, 1, 2]
    # in the first step half of the rows is one for all of a seed; behind those of a picture stand those of its source
    calls, many, places = about["rows"][0]
    assert (calls, many, len(places)) == (1, 10, 3)
    done = replay(tmp_path / "owl" / "seed-5.png")
    assert done.identical, str(done)
    for batch in ([3, 6, 2, 2], [3, 6, 1], [1, 2, 1, 3]):
        with pytest.raises(PictureError, match="is no place in a batch"):
            replay(altered(tmp_path / "owl" / "seed-5.png", tmp_path / "x.png", batch=batch))


def test_a_picture_of_a_large_batch_is_made_again_bit_for_bit(tmp_path):
    config = config_of("operators=[interpolate]")
    told = OmegaConf.to_container(config, resolve=True)
    cells = [replace(cell_of(config), operators=(Interpolate("puppy", "skunk", w),)) for w in (0.3, 0.6, 0.9)]
    jobs = [
        Job(part_of(config, "model"), cell, (0, 1), tmp_path / str(n), with_weight(told, cell), number=n)
        for n, cell in enumerate(cells)
    ]
    assert not run_jobs(jobs, Store(tmp_path / ".cells")).failures
    for path in (tmp_path / "1" / "seed-1.png", tmp_path / "2" / "seed-0.png", tmp_path / "0" / "baseline-seed-1.png"):
        assert images.settings_of(path)["batch"][1] == 8, "six edited and two as written share a batch"
        assert replay(path).identical, str(replay(path))


def with_weight(told, cell):
    """A config that says the weight of a cell."""
    told = copy.deepcopy(told)
    told["operators"]["interpolate"]["weight"] = cell.operators[0].weight
    return told


def test_a_start_picture_is_found_from_elsewhere_and_known_again(tmp_path, monkeypatch):
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    with Image.open(SHIPPED / "puppy.png") as puppy:
        puppy.save("in.png")
        grey = puppy.convert("L")
    made = draw(tmp_path / "out" / "job", "seeds=[1]", "start=picture", "start.picture=in.png", "start.strength=0.5")
    monkeypatch.chdir(tmp_path)
    assert replay(made / "seed-1.png").identical, "found beside the picture's own folder"
    grey.save(tmp_path / "in.png")
    assert replay(made / "seed-1.png").identical, "the one that happens to be here is another"
    grey.save(there / "in.png")
    with pytest.raises(PictureError, match=r"the start picture of '.*seed-1.png' is another one: '.*/in.png' is not"):
        replay(made / "seed-1.png")
    (there / "in.png").unlink()
    (tmp_path / "in.png").unlink()
    with pytest.raises(PictureError, match=r"is not there any more: 'in.png' and '.*there/in.png'"):
        replay(made / "seed-1.png")


def test_a_picture_says_what_its_bits_depend_on(drawn):
    """Threads and the processor's instructions move pixels by 1 of 255; both are kept, also by the store."""
    settings = images.settings_of(drawn / "seed-3.png")
    assert settings["runtime"] == images.settings_of(drawn / "baseline-seed-5.png")["runtime"]
    assert settings["runtime"]["threads"] == torch.get_num_threads()
    assert settings["runtime"]["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert {"device": "cpu", "dtype": "float32"}.items() <= settings["runtime"].items()
    assert all(settings["runtime"][name] for name in ("processor", "torch_build"))
    key = json.loads((drawn / "result.json").read_text())["pictures"][0]["key"]
    assert Store(drawn / ".cells").get(key).runtime == settings["runtime"]


def test_a_picture_that_was_touched_is_told_in_figures(drawn, tmp_path):
    with Image.open(drawn / "seed-3.png") as picture:
        touched = picture.convert("RGB")
    red, green, blue = touched.getpixel((7, 7))
    touched.putpixel((7, 7), ((red + 40) % 256, green, blue))
    path = images.save(touched, tmp_path / "touched.png", images.settings_of(drawn / "seed-3.png"))
    done = replay(path)
    assert (done.different_pixels, done.largest_difference) == (1, max(40, 216 if red + 40 > 255 else 0))
    assert (
        str(done)
        == f"differs: 1 of {128 * 128} pixels, at most {done.largest_difference} of 255; made with the same versions"
    )


def test_a_model_of_other_files_is_said(drawn, tmp_path):
    mine = drawn / "seed-3.png"
    assert images.settings_of(mine)["model_files"]
    assert not replay(mine).other_model
    with Image.open(mine) as picture:
        changed = picture.convert("RGB")
    changed.putpixel((0, 0), (1, 2, 3))
    images.save(changed, tmp_path / "a.png", {**images.settings_of(mine), "model_files": "0123456789abcdef"})
    done = replay(tmp_path / "a.png")
    assert done.other_model
    assert str(done).endswith("the model's files are others than those that made it")
    assert replay(altered(mine, tmp_path / "b.png", model_files=None)).other_model is False


def test_rounding_is_told_from_a_difference(drawn, tmp_path, capsys):
    """The same settings on another number of threads: by 1 of 255 at the most is the same; by more, or here, is not."""
    settings = images.settings_of(drawn / "seed-3.png")
    with Image.open(drawn / "seed-3.png") as picture:
        nudged, spoilt = picture.convert("RGB"), picture.convert("RGB")
    for picture, by in ((nudged, 1), (spoilt, 2)):
        red, green, blue = picture.getpixel((7, 7))
        picture.putpixel((7, 7), (red + by if red < 200 else red - by, green, blue))
    threads = settings["runtime"]["threads"]
    elsewhere = {**settings, "runtime": {**settings["runtime"], "threads": 64}}
    with pytest.raises(SystemExit) as left:
        main([str(images.save(nudged, tmp_path / "a.png", elsewhere))])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(
        f"the same but for rounding (at most 1 of 255), made with 64 threads, this is {threads}; 1 of "
    )
    for picture, inside, why in (
        (spoilt, elsewhere, "made with the same versions but 64 threads (now "),
        (nudged, settings, "made with the same versions\n"),
        (nudged, {k: v for k, v in settings.items() if k != "runtime"}, "another device or number of threads rounds"),
    ):
        with pytest.raises(SystemExit) as left:
            main([str(images.save(picture, tmp_path / "b.png", inside))])
        said = capsys.readouterr().out
        assert (left.value.code, said[:9], why in said) == (1, "differs: ", True), said
    forged = {"torch": "1\nthe same, bit for bit", "\x1b[31m": "2"}
    path = images.save(spoilt, tmp_path / "c.png", {**settings, "versions": forged, "runtime": forged})
    assert str(replay(path)).isprintable(), "what a picture says cannot forge a verdict"


def test_another_seed_differs_and_versions_are_compared(drawn, tmp_path):
    versions = {**images.settings_of(drawn / "seed-3.png")["versions"], "torch": "1.0"}
    done = replay(altered(drawn / "seed-3.png", tmp_path / "x.png", seed=4, seeds=[4], versions=versions))
    assert done.different_pixels > 1000
    assert "; made with torch 1.0, this is torch 2" in str(done)


def test_the_command_says_it_in_its_exit_code_and_writes_only_what_it_is_asked_for(drawn, tmp_path, capsys):
    before = sorted(drawn.iterdir())
    with pytest.raises(SystemExit) as left:
        main([str(drawn / "seed-3.png")])
    assert left.value.code == 0
    assert "the same, bit for bit" in capsys.readouterr().out
    assert sorted(drawn.iterdir()) == before
    other = altered(drawn / "seed-3.png", tmp_path / "other.png", seed=4)
    with pytest.raises(SystemExit) as left:
        main([str(other), "--to", str(tmp_path / "new.png")])
    assert left.value.code == 1
    with Image.open(tmp_path / "new.png") as picture:
        assert picture.size == (128, 128)


@pytest.mark.parametrize("command", ["replay", "sheet", "film"])
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["embedlab", command, str(tmp_path / "gone")])
    with pytest.raises(SystemExit) as left:
        app.main()
    assert left.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("embedlab: ")
    assert "gone" in said[0]


# ── what cannot be made again ─────────────────────────────────────────────────────────────────────────────────────


def test_files_that_are_no_picture_of_ours_are_one_line(drawn, tmp_path):
    whole = (drawn / "seed-3.png").read_bytes()
    files = {
        "is no PNG": b"GIF89a nothing",
        "cannot be read to its end": whole[: len(whole) // 2],
    }
    for said, content in files.items():
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(PictureError, match=said):
            replay(tmp_path / "x.png")
    with pytest.raises(PictureError, match="there is no picture"):
        replay(tmp_path / "gone.png")
    with pytest.raises(PictureError, match="there is no picture"):
        replay(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    with pytest.raises(PictureError, match="holds no embedlab settings"):
        replay(tmp_path / "plain.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg")
    with pytest.raises(PictureError, match="is no PNG"):
        replay(tmp_path / "photo.jpg")
    with pytest.raises(PictureError, match="sheet of several pictures"):
        replay(drawn / "sheet.png")


@pytest.mark.parametrize("text", ["{", "[1]", "null", "[" * 100_000, "9" * 5000, '"text"'])
def test_damaged_settings_are_one_line(tmp_path, text):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(images.KEY, text)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=chunks)
    with pytest.raises(PictureError, match="damaged"):
        replay(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ({"format": 2}, PictureError, "written by a newer embedlab .format 2"),
        ({"format": "x"}, PictureError, "newer embedlab"),
        ({"seed": "zero"}, SamplerError, "seed 'zero'"),
        ({"config": None}, ConfigError, "no mapping"),
        ({"config": {}}, ConfigError, "has no prompt"),
    ],
)
def test_settings_that_cannot_be_are_one_line(drawn, tmp_path, changed, kind, said):
    with pytest.raises(kind, match=said):
        replay(altered(drawn / "seed-3.png", tmp_path / "x.png", **changed))


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        ("prompt", "a *** puppy", r"prompt of its config is blanked"),
        ("model.name", "/no/where", "there is no model"),
        ("model.name", "???", "which is no value"),
        ("model.allow_pickle", True, "allow_pickle"),
        ("model.allow_pickle", "yes", "allow_pickle"),
        ("start", {"_target_": "embedlab.sampler.Start", "picture": "gone.png", "step": 1}, "no picture 'gone.png'"),
        ("sampler.steps", 10**9, "from 1 to 1000"),
        ("sampler.stepz", 3, "stepz"),
        ("operators.replace.rows", "kitten", "'kitten' is not in the prompt"),
        ("operators", [1], "operators of its config is no mapping"),
        ("operators", {"a": 1}, "is no operator"),
        ("size", 12345678, "size"),
        ("prompt", {"a": 1}, "a prompt is a text"),
        ("encoder", None, "encoder of its config"),
    ],
)
def test_configs_that_cannot_be_made_are_one_line(drawn, tmp_path, where, value, said):
    with pytest.raises(EmbedlabError, match=said):
        replay(with_config(drawn / "seed-3.png", tmp_path / "x.png", where, value))


def test_a_picture_that_was_resized_is_refused(drawn, tmp_path):
    with Image.open(drawn / "seed-3.png") as picture:
        small = picture.resize((64, 64))
    path = images.save(small, tmp_path / "small.png", images.settings_of(drawn / "seed-3.png"))
    with pytest.raises(PictureError, match="64x64 pixels, and what it says gives 128x128"):
        replay(path)


# ── hostile settings ──────────────────────────────────────────────────────────────────────────────────────────────

TARGETS = [
    "os.system",
    "builtins.eval",
    "builtins.open",
    "subprocess.run",
    "torch.load",
    "embedlab.models.os.system",
    "embedlab.cli.main.os.system",
    "embedlab.models.source.torch.load",
    "embedlab.images.png.os.replace",
    "embedlab.cell.json.dumps",
    "embedlab.models.load",
    "embedlab.models.Source.load",
    "embedlab.sweep.config.hydra.utils.get_method",
    "embedlab.sweep.trust.importlib.import_module",
    "embedlab.operators.Interpolate.__new__",
    "embedlab.models.find.__globals__",
    "embedlab.__main__.main",
    "embedlab.cli.main.main",
    "embedlab.pretrain.run.main",
    "embedlab.sweep.results.Collect",
    "embedlab.operators.base.edit",
    "embedlab.cell.partial",
    "embedlab.models.source.Path.touch",
    "embedlab",
    "embedlab.",
    "embedlab..models.find",
    "embedlab_evil.Boom",
    "embedlabx",
    ".embedlab.models.find",
    "",
    7,
    None,
    ["os.system"],
    {"_target_": "os.system"},
]


def hide(target: object, marker: Path) -> dict:
    return {"_target_": target, "command": f"touch {marker}", "_convert_": "all"}


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_no_name_but_those_of_our_values_is_accepted(target):
    with pytest.raises(ConfigError, match="none of embedlab's"):
        true_name(target)


PLACES = {
    "an operator": lambda evil: {"operators": {"a": evil}},
    "within an operator": lambda evil: {
        "operators": {"a": {"_target_": "embedlab.operators.Replace", "rows": "puppy", "by": evil}}
    },
    "in a list": lambda evil: {
        "operators": {"a": {"_target_": "embedlab.operators.Replace", "rows": [["x", {"deep": [evil]}]], "by": "cat"}}
    },
    "the prompt": lambda evil: {"prompt": {"_target_": "embedlab.schedule.Switch", "values": ["a", evil], "at": 0.5}},
    "the model": lambda evil: {"model": evil},
    "the tracker": lambda evil: {"tracker": evil},
    "a setting that is none": lambda evil: {"hydra": {"callbacks": {"x": evil}}},
    "an argument of positions": lambda evil: {"guidance": {"_target_": "embedlab.guidance.Guidance", "_args_": [evil]}},
}


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("target", ["os.system", "embedlab.models.os.system"])
def test_nothing_that_is_hidden_in_a_picture_is_run(drawn, tmp_path, place, target):
    marker = tmp_path / "marker"
    for evil in (
        {"_target_": target, "command": f"touch {marker}"},
        {"_target_": target, "_args_": [f"touch {marker}"]},
        {"_args_": [f"touch {marker}"], "_target_": target, "_partial_": False},
    ):
        config = {**images.settings_of(drawn / "seed-3.png")["config"], **PLACES[place](evil)}
        path = altered(drawn / "seed-3.png", tmp_path / "x.png", config=config)
        with pytest.raises(ConfigError, match=r"cannot be made again: .*(none of embedlab's|no key begins with '_')"):
            replay(path)
    assert not marker.exists()


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_convert_", "_recursive_", "__class__"])
def test_beside_its_target_a_part_has_settings_only(drawn, tmp_path, key):
    path = with_config(drawn / "seed-3.png", tmp_path / "x.png", f"sampler.{key}", True)
    with pytest.raises(ConfigError, match="no key begins with '_'"):
        replay(path)


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a ${prompt} b", "${hydra:runtime.cwd}", "\\${x}"])
def test_interpolations_are_refused_wherever_they_stand(drawn, tmp_path, text):
    for where in ("prompt", "model.name", "operators.replace.by", "group"):
        with pytest.raises(ConfigError, match="interpolation"):
            replay(with_config(drawn / "seed-3.png", tmp_path / "x.png", where, text))
    with pytest.raises(ConfigError, match="interpolation"):
        check_config({**images.settings_of(drawn / "seed-3.png")["config"], "metrics": {text: 1}})


def test_nesting_without_end_is_refused(drawn):
    deep: object = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ConfigError, match="nested too deeply"):
        check_config({**images.settings_of(drawn / "seed-3.png")["config"], "operators": {"a": deep}})


def classes() -> list[type]:
    """Every class that embedlab ships, but for its training."""
    names = [module.name for module in pkgutil.walk_packages(embedlab.__path__, "embedlab.")]
    modules = [importlib.import_module(n) for n in names if "pretrain" not in n and "__main__" not in n]
    found = {v for module in modules for v in vars(module).values() if isinstance(v, type)}
    return sorted((kind for kind in found if kind.__module__.startswith("embedlab.")), key=str)


def test_values_are_ours_and_what_does_something_when_made_is_not():
    mine = {kind.__name__ for kind in classes() if is_own_value(kind)}
    assert {"ScoreGap", "Cell", "Replace", "Several", "Ramp", "Wandb", "Start", "Metrics"} <= mine
    assert not {"Ray", "Slurm", "Crew", "Collect", "Parser", "Store", "Display", "TrackerQueue"} & mine
    for name in mine & set(embedlab.__all__):
        kind = getattr(embedlab, name)
        assert true_name(f"{kind.__module__}.{name}") == f"embedlab.{name}", "by any name it has"
    assert not is_own_value(make_dataclass("Stranger", [], frozen=True)), "one of another package"


CONFIGS = [
    path for path in sorted(Path(conf_dir()).rglob("*.yaml")) if not {"pretrain", "hydra", "learn"} & set(path.parts)
]


def test_every_target_of_the_shipped_configs_passes():
    named = [name for path in CONFIGS for name in re.findall(r"_target_: *([\w.]+)", path.read_text(encoding="utf-8"))]
    assert "embedlab.sweep.results.ScoreGap" in named
    for name in set(named) - {"embedlab.sweep.results.Collect"}:  # Hydra's callback, which no picture names
        assert is_own_value(resolve_name(name)), name


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS if path.parent.name == "experiment"))
def test_a_picture_of_every_shipped_experiment_can_be_made_again(name):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        whole = compose("config", [f"experiment={name}"], return_hydra_config=True)
        swept = [f"{key}={value}" for key, value in (whole.hydra.sweeper.params or {}).items()]
        axes = OverridesParser.create().parse_overrides(swept)
        words = [f"experiment={name}", *(f"{axis.key_or_group}={first_of(axis)}" for axis in axes)]
        config = complete(compose("config", words))
    told = json.loads(json.dumps(OmegaConf.to_container(config, resolve=True)))
    _, cell = instantiate_checked(told)
    assert fingerprint(cell) == fingerprint(cell_of(config))


def test_a_picture_of_the_shipped_search_is_made_again_bit_for_bit(tmp_path):
    done = replay(draw(tmp_path, "experiment=search", "operators.interpolate.weight=0.55", "seeds=[1]") / "seed-1.png")
    assert done.identical, str(done)


# ── packages that the user trusts ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A package with an operator, which leaves a marker when it is imported, and one whose name begins alike."""
    code = """
        import os
        from dataclasses import dataclass
        from pathlib import Path

        Path(__file__).with_name("marker").touch()


        @dataclass(frozen=True)
        class Louder:
            word: str
            by: float

            def __call__(self, prompt, lookup):
                rows = prompt.spans(self.word)
                return prompt.put("token", rows, prompt.take("token", rows) * self.by)
    """
    for name in ("their_package", "their_package_two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("their_package", "their_package_two"):
        sys.modules.pop(name, None)


def test_an_own_operator_needs_to_be_trusted_by_name(drawn, theirs, tmp_path):
    operators = {"louder": {"_target_": "their_package.Louder", "word": "puppy", "by": 1.5}}
    path = with_config(drawn / "seed-3.png", tmp_path / "x.png", "operators", operators)
    with pytest.raises(ConfigError, match="'os.system', which is none of embedlab's.$"):
        true_name("os.system")
    for trust in ((), ("gone_package",)):  # nobody is asked to trust what is not there
        with pytest.raises(ConfigError, match="none of embedlab's, and there is no package 'gone_package' here.$"):
            true_name("gone_package.Louder", trust)
    for trust in ((), ("their",), ("their_package_two",), ("their_package.Louder.x",)):
        with pytest.raises(ConfigError, match="if you trust 'their_package', say so: --trust their_package"):
            replay(path, trust)
    assert not (theirs / "their_package" / "marker").exists(), "what is not trusted is not even imported"
    _, cell = instantiate_checked(images.settings_of(path)["config"], ["their_package"])
    assert cell.operators[0].by == 1.5
    assert (theirs / "their_package" / "marker").exists()


def test_trust_ends_at_the_package(theirs):
    for name in (
        "their_package.os.system",
        "their_package.Path",
        "their_package.Louder.__init__",
        "their_package.gone",
    ):
        with pytest.raises(ConfigError, match="none of embedlab's"):
            true_name(name, ["their_package"])
    assert true_name("their_package.Louder", ["their_package"]) == "their_package.Louder"


def test_settings_survive_json(drawn):
    config = images.settings_of(drawn / "seed-3.png")["config"]
    assert check_config(json.loads(json.dumps(config))) == check_config(config)
