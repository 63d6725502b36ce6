"""Every config composes, and every part of it can be made."""

import dataclasses
from pathlib import Path

import hydra.errors
import hydra.utils
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from embedlab import Attention, Cell, Guidance, Metrics, ONNXRuntime, Replace, Sampler, Source, Start, operators
from embedlab.cli import settings
from embedlab.encoder import Encoder
from embedlab.errors import ConfigError
from embedlab.scheduler_options import installed
from embedlab.sweep.cells import cell_of
from embedlab.sweep.config import complete, conf_dir, lacking, part_of
from embedlab.sweep.job import Job
from embedlab.sweep.roles import PARTS, PRESETS, ROLES, UNNAMED
from embedlab.tracker import Disk
from embedlab.validate import validate

CONF = Path(conf_dir())


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(*overrides: str):
    with initialize_config_dir(config_dir=conf_dir(), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


GROUPS = ["attention", "encoder", "guidance", "metrics", "sampler", "tracker"]


@pytest.mark.turns
@pytest.mark.parametrize("choice", [f"{group}={option}" for group in GROUPS for option in options(group)])
def test_every_choice_can_be_made(choice):
    config = composed(choice)
    group = choice.split("=")[0]
    if choice == "sampler=dpmpp_sde" and "dpmpp_sde" not in installed():
        with pytest.raises(
            hydra.errors.InstantiationException, match="dpmpp_sde needs torchsde, which is not installed"
        ):
            hydra.utils.instantiate(config[group], _convert_="all")
        return
    assert hydra.utils.instantiate(config[group], _convert_="all") is not None


@pytest.mark.parametrize("operator", options("operators"))
def test_every_operator_is_a_named_slot_with_all_its_settings(operator):
    config = complete(composed(f"operators=[{operator}]"))
    made = hydra.utils.instantiate(config.operators, _convert_="all")
    assert list(made) == [operator]
    named = set(OmegaConf.to_container(config.operators[operator])) - {"_target_"}
    assert named == {field.name for field in dataclasses.fields(made[operator])}
    validate(Cell(config.prompt, tuple(made.values())), Source("emoji"))  # its defaults fit the default prompt


def test_every_operator_has_a_file_of_its_own_and_a_checked_example():
    kinds = {kind for name in operators.__all__ if dataclasses.is_dataclass(kind := getattr(operators, name))}
    named = {
        OmegaConf.load(CONF / "operators" / f"{name}.yaml")[name]["_target_"].rsplit(".", 1)[1]
        for name in options("operators")
    }
    assert named == {kind.__name__ for kind in kinds}
    assert all(">>>" in kind.__doc__ and ">>> from" in kind.__doc__ for kind in kinds)


@pytest.mark.parametrize("model", options("model"))
def test_every_model_is_found_by_one_callable(model):
    extra = ["model.name=owner/name"] if model == "custom" else []
    config = composed(f"model={model}", *extra)
    assert config.model._target_ == "embedlab.models.find"
    source = hydra.utils.instantiate(config.model, _convert_="all")
    assert source.name


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_study_begins_with_its_question_its_command_and_what_was_seen(experiment):
    lines = (CONF / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].endswith("?") or lines[2].endswith("?") or "?" in lines[1]
    assert any(line.startswith(f"#   embedlab experiment={experiment}") for line in lines[:6])
    assert any(line.startswith("# Seen: ") and len(line) > 40 for line in lines[:6])


def first_of(axis):
    """The first value of an axis; of what is searched over, the lower end."""
    if not axis.is_sweep_override():
        return axis.value()
    return axis.value().start if axis.is_interval_sweep() else next(axis.sweep_string_iterator())


@pytest.mark.turns
@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_study_is_a_cell_that_fits_the_default_model(experiment):
    config = composed(f"experiment={experiment}")
    params = config.hydra.sweeper.params or {}
    parser = OverridesParser.create()
    swept = [parser.parse_override(f"{key}={value}") for key, value in params.items()]
    first = [f"{axis.key_or_group}={first_of(axis)}" for axis in swept]
    config = composed(f"experiment={experiment}", *first)
    assert validate(cell_of(config), part_of(config, "model"))


MEANT = {
    "guidance=5": "guidance.scale=5",
    "cfg_scale=7 steps=5": "guidance.scale=7 sampler.steps=5",
    "guidance.guidance_scale=7": "guidance.scale=7",
    "scale=3": "guidance.scale=3",
    "steps=5": "sampler.steps=5",
    "sampler=5": "sampler.steps=5",
    "sampler.stepz=5": "sampler.steps=5",
    "num_inference_steps=5": "sampler.steps=5",
    "sampler.name=euler": "sampler=euler",
    "sampler=euler_a": "sampler=euler_ancestral",
    "scheduler=euler": "sampler.scheduler=euler",
    "seed=3": "seeds=[3]",
    "operators=[noise] seed=3": "operators=[noise] seeds=[3]",
    "weight=0.5": "operators=[interpolate] operators.interpolate.weight=0.5",
    "operators=[add] weight=0.5": "operators=[add] operators.add.weight=0.5",
    "operators=[scale] weight=0.5": "operators=[scale,interpolate] operators.interpolate.weight=0.5",
    "experiment=puppy_and_skunk weight=0.5": "experiment=puppy_and_skunk operators.interpolate.weight=0.5",
    "operators.replace.by=cat": "operators=[replace] operators.replace.by=cat",
    "operators=[noise] operators.noise.amout=1": "operators=[noise] operators.noise.amount=1",
    "operators=[interpolate] interpolate.weight=1": "operators=[interpolate] operators.interpolate.weight=1",
    "operator=[replace]": "operators=[replace]",
    "operators=[replac,scale]": "operators=[replace,scale]",
    "-m sampler=lms,dimm": "-m sampler=lms,ddim",
    "negative_prompt=green": "guidance.negative=green",
    "negative=green": "guidance.negative=green",
    "width=96": "size=96",
    "width=96 height=64": "size=[64,96]",
    "model.path=/x": "model.name=/x",
    "model=/x/y.ckpt": "model.name=/x/y.ckpt",
    "modle=sd1": "model=sd1",
    "device=cuda": "model.device=cuda",
    "start=dog.png": "start=picture start.picture=dog.png",
    "strength=0.5": "start=picture start.picture=… start.strength=0.5",
    "batch_size=4": "at_once=4",
    "clip_skip=2": "encoder.skip=2",
    "metrics=[cat]": "metrics.words=[cat]",
    "mode=online": "tracker.mode=online",
    "out=here": "hydra.run.dir=here",
    "-m out=here": "-m hydra.sweep.dir=here",
    "promt=cat": "prompt=cat",
    "sampler=plms": "sampler=pndm",
    "sampler=dpm++2m": "sampler=dpmpp_2m",
    "sampler=dpm++_2m_sde": "sampler=dpmpp_2m_sde",
    "ddim_eta=0.5": "sampler.eta=0.5",
    "tracker=none": "tracker=silent",
    "experiment=puppy": "experiment=puppy_and_skunk",
}


@pytest.mark.turns
@pytest.mark.parametrize("words", MEANT)
def test_a_setting_that_is_not_there_stands_for_the_one_that_is_near(words):
    better = settings.mended(words.split())
    assert better == MEANT[words].split()
    assert settings.mended(better) is None, "what is advised is there"
    if "…" not in MEANT[words] and "-m" not in better:
        composed(*better)


def test_what_is_there_or_near_nothing_is_left_alone():
    for line in ("foo=1", "n=4", "lr=3", "prompt=steps", "+operators.louder.by=2", "hydra.run.dir=x", "resume=x"):
        assert settings.mended([line]) is None, line
    for setting in settings.every():
        group = setting.key.split(".")[0]
        chosen = [f"{group}={[setting.option] if group == 'operators' else setting.option}"] if setting.option else []
        assert settings.mended([*(word.replace("'", "") for word in chosen), f"{setting.key}=1"]) is None, setting


@pytest.mark.turns
def test_the_tree_of_settings_is_what_hydra_composes():
    for group in PARTS:
        for option in settings.options(group):
            choice = f"{group}=[{option}]" if group == "operators" else f"{group}={option}"
            part = composed(choice)[group]
            part = part[option] if group == "operators" else part
            named = {name for name in part if not str(name).startswith("_")}
            assert {s.name for s in settings.of_option(group, option)} == named, choice


def test_every_setting_says_what_it_is():
    bare = [s.key for s in settings.every() if not s.comment and not s.key.startswith("hydra.")]
    assert bare == []


def test_every_folder_of_choices_is_one_of_the_house():
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert folders == {*PARTS, *PRESETS, "hydra", "prompts", "learn"}


def test_every_field_of_a_cell_has_its_role():
    fields = {f.name for f in dataclasses.fields(Cell)}
    assert {name for name, role in ROLES.items() if role.draws} == {*fields, "model", *OF_THE_ENCODER}
    assert set(OF_THE_ENCODER) <= {f.name for f in dataclasses.fields(Encoder)}
    assert set(ROLES) == set(composed()) - {"hydra", *PRESETS}


def test_the_name_of_a_job_leaves_out_what_the_table_says():
    job = OmegaConf.to_container(composed().hydra.job)
    assert sorted(job["config"]["override_dirname"]["exclude_keys"]) == sorted(UNNAMED)


OF_THE_ENCODER = ("language", "weighting", "windows", "pooled")  # said alone, too
CHANGED = {
    "attention": Attention(maps=True),
    **{
        "prompt": "the puppy",
        "prompt_2": "an owl",
        "operators": [Replace("puppy", "owl")],
        "encoder": Encoder(skip=1),
        "size": 64,
    },
    **{"guidance": Guidance(2), "sampler": Sampler("lms"), "start": Start("puppy.png", strength=0.5)},
    **{"seeds": (0,), "metrics": Metrics(words=["owl"]), "export": True},
    **{"at_once": 1, "tracker": Disk(), "group": "g", "engine": ONNXRuntime()},
}


@pytest.mark.parametrize("name", ["model", *CHANGED])
def test_the_table_of_roles_is_what_the_keys_of_a_job_depend_on(name, folders):
    source, cell = Source(str(folders["sd1"])), Cell("a puppy", [Replace("puppy", "cat")])
    job = Job(source, cell, (0, 1), Path())
    if name == "model":
        other = dataclasses.replace(job, source=dataclasses.replace(source, dtype="bfloat16"))
    elif name in {field.name for field in dataclasses.fields(Cell)}:
        other = dataclasses.replace(job, cell=dataclasses.replace(cell, **{name: CHANGED[name]}))
    else:
        other = dataclasses.replace(job, **{name: CHANGED[name]})
    unedited, edited = (one != two for one, two in zip(job.pictures[0], other.pictures[0], strict=True))
    assert (unedited, edited) == (ROLES[name].draws == "all", ROLES[name].draws != "")
    assert (job.key != other.key) == ROLES[name].identifies


def test_what_is_no_setting_of_a_job_identifies_nothing():
    others = {name for name in ROLES if name not in {"model", *CHANGED, *OF_THE_ENCODER}}
    assert others == {"store", "objective", "explain"}
    assert not any(ROLES[name].identifies or ROLES[name].draws for name in ("store", "objective", "explain"))


EDITED = {
    **{name: {"rows": "puppy"} for name in options("operators")},
    "permute": {"rows": "a picture"},
    "swap": {"rows": "picture", "by": "puppy"},
    **{name: {"rows": None} for name in ("average", "freeze", "reverse", "shuffle", "stretch")},
    **{name: {} for name in ("blend", "concatenate", "truncate")},
}


@pytest.mark.parametrize("operator", options("operators"))
def test_what_an_operator_edits_of_the_default_prompt_is_edited_of_no_other(operator):
    config = complete(composed(f"operators=[{operator}]"))
    settings = config.operators[operator]
    assert {name: settings[name] for name in EDITED[operator]} == EDITED[operator]
    own = composed(f"operators=[{operator}]", "prompt=A puppy and its picture")
    keys = {f"operators.{operator}.{name}" for name, word in EDITED[operator].items() if word is not None}
    assert set(lacking(own)) == keys
    if not keys:
        assert complete(own) == own
        return
    with pytest.raises(ConfigError, match=" set; ") as caught:
        complete(own)
    assert "\n" not in str(caught.value)
    assert all(key in str(caught.value) for key in keys)


PROMPTS = {
    "A red fox above a blue dog, trending": "dog",
    "im Schnee die Füchse": '"Füchse"',
    "It's 5 o'clock": '"o\'clock"',
    "null": '"null"',
    "x, y": "x",
    "a cat!": "cat",
    "?? 7": "{role: all}",
    "1 2 3": "{role: all}",
    "狐狸": '"狐狸"',
    "": "{role: all}",
}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_what_is_proposed_as_rows_can_be_typed_and_fits(prompt):
    words = [f'prompt="{prompt}"', "operators=[scale,swap,permute]"]
    proposed: list[str] = []
    with pytest.raises(ConfigError):
        complete(composed(*words), lambda more: proposed.extend(more) or "")
    assert f"operators.scale.rows={PROMPTS[prompt]}" in proposed
    config = composed(*words, *proposed)
    assert lacking(config) == []
    cell = cell_of(config)
    for operator in cell.operators if "fox" in prompt else cell.operators[:1]:
        assert validate(dataclasses.replace(cell, operators=(operator,)), Source("emoji"))


def test_a_setting_of_somebodys_own_that_is_not_set_is_no_word():
    config = composed("+operators.mine={_target_: theirs.Own, strength: ???}")
    assert complete(config).operators.mine == {"_target_": "theirs.Own", "strength": "???"}
