"""`embedlab play`: a page to feel an edit before it is swept."""

from __future__ import annotations

import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embedlab.cli import settings
from embedlab.cli.messages import typed_command
from embedlab.cli.parser import Parser
from embedlab.cli.progress import CHECKING, aside
from embedlab.cli.values import check_values
from embedlab.errors import ConfigError
from embedlab.sweep.config import complete, conf_dir
from embedlab.sweep.roles import PARTS, SETTINGS

PORT = 7860
FEW = 6
OWN = ("prompt", "operators", "seeds", "tracker", "store", "at_once", "explain")  # that the page says, or has none of
OF_ONE_JOB = ("resume", "trust", "prompts", "objective", "export", "explain", "store", "group", "at_once")


def main(argv: list[str]) -> None:
    """Compose the words as a run does, load the model, and serve the page until Ctrl-C."""
    parser = Parser(
        prog="embedlab play",
        usage="embedlab play [SETTINGS] [--port N] [--preview STEPS] [--no-browser]",
        description="A page on this machine to feel an edit: type a prompt, click a token, drag a weight, and pictures "
        "follow. Settings are those of a run, such as model=sd1 engine=auto sampler.steps=30; they stay as they are, "
        "but for prompt, operators and seeds, with which the page begins.",
    )
    parser.add_argument("--port", type=int, help=f"where it listens; left out, {PORT} or the next that is free")
    parser.add_argument("--preview", type=int, default=FEW, metavar="STEPS", help=f"steps that are taken first ({FEW})")
    parser.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    chosen, words = parser.parse_known_args(argv)
    if chosen.port is not None and not 0 <= chosen.port < 65536:
        raise ConfigError(f"--port is {chosen.port}; it has to be a number from 0 to 65535, and 0 is any that is free.")
    if not 1 <= chosen.preview <= 100:
        raise ConfigError(f"--preview is {chosen.preview}; it has to be a number of steps from 1 to 100.")
    config = composed(words)
    server = opened(config, without_study(words, config), chosen)

    def ready() -> None:
        print(f"embedlab play is at {server.address} (Ctrl-C ends it)", flush=True)
        if not chosen.no_browser:
            webbrowser.open(server.address)

    server.run(ready)


def composed(words: list[str]) -> DictConfig:
    """The config of a command line, checked before anything heavy is imported."""
    from hydra import compose, initialize_config_dir

    from embedlab.cli.compose import whole_mappings
    from embedlab.cli.main import opened as with_plus
    from embedlab.cli.usage import check

    if {"-m", "--multirun"} & set(words):
        raise ConfigError("play takes one cell; leave out -m and the lists of values.")
    for word in words:
        if word.partition("=")[0].split(".")[0] in OF_ONE_JOB:
            raise ConfigError(f"play draws on a page, and '{word}' is of a run; leave it out.")
    if flags := [word for word in words if word.startswith("-")]:
        raise ConfigError(f"play has no flag {flags[0]}; it has --port N, --preview STEPS and --no-browser.")
    check(words)
    with initialize_config_dir(config_dir=conf_dir(), version_base="1.3"), whole_mappings():
        config = compose("config", overrides=with_plus(words), return_hydra_config=True)
        axes = OmegaConf.select(config, "hydra.sweeper.params") or {}
        config = compose("config", overrides=[*with_plus(words), *with_plus(begun(axes, words))])
    if gone := [key for key in SETTINGS if key not in config]:
        raise ConfigError(f"'{gone[0]}' cannot be left out.")
    config = complete(config, typed_command)
    check_values(config)
    return config


def begun(axes: Any, words: list[str]) -> list[str]:
    """Where a study sweeps, the first value of each axis, as overrides; what the words say, they say.

    >>> begun({"operators.scale.by": "1,2", "seeds": "[0],[1]", "start.strength": "interval(0, 1)"}, ["seeds=[5]"])
    ['operators.scale.by=1']
    """
    from embedlab.sweep.labels import split

    said = {word.partition("=")[0].lstrip("+~") for word in words}
    values = {str(key): split(str(value)) for key, value in axes.items() if str(key) not in said}
    return [f"{key}={found[0]}" for key, found in values.items() if len(found) > 1]


def without_study(words: list[str], config: DictConfig) -> list[str]:
    """A command line that says by itself what its experiment said: states are exported without that."""
    from hydra import compose, initialize_config_dir

    from embedlab.play.exports import spelled

    if not any(word.lstrip("+").startswith("experiment=") for word in words):
        return words
    groups = {group: names[0] for group, names in settings.chosen(words).items() if group in PARTS and names}
    groups = {group: name for group, name in groups.items() if group not in OWN}
    chosen = [f"{group}={name}" for group, name in groups.items() if [name] != settings.chosen([])[group]]
    with initialize_config_dir(config_dir=conf_dir(), version_base="1.3"):
        plain = compose("config", overrides=chosen)
    found = list(chosen)
    old: Any = OmegaConf.to_container(plain, resolve=True)
    new: Any = OmegaConf.to_container(config, resolve=True)
    for key in (key for key in SETTINGS if key not in OWN):
        before = dict(leaves({key: old[key]}))
        after = [(at, value) for at, value in leaves({key: new[key]}) if at not in before or before[at] != value]
        found += [f"{'' if at in before else '++'}{at}={spelled(value)}" for at, value in after]
    return found


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """The settings inside of mappings, by their keys with dots.

    >>> list(leaves({"sampler": {"steps": 6, "options": {}}}))
    [('sampler.steps', 6), ('sampler.options', {})]
    """
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from leaves(one, f"{at}.{key}" if at else str(key))
    else:
        yield at, value


def opened(config: DictConfig, words: list[str], chosen: Any) -> Any:
    """The server of a config, with its model loaded."""
    from embedlab.cli.progress import importing
    from embedlab.play.server import bound, check_installed

    check_installed()
    socket = bound(PORT if chosen.port is None else chosen.port, exactly=chosen.port is not None)
    aside(CHECKING)
    with importing():
        from embedlab.cli.compose import job_of
        from embedlab.models.silence import silence_libraries
        from embedlab.play.form import forms
        from embedlab.play.opening import served
        from embedlab.sweep.job import check_engine, validate_job
    with silence_libraries():
        job = job_of(config, folder=Path("."), name="", number=0)
        validate_job(job)
        check_engine(job)
        aside("loading the model")
        slots = OmegaConf.to_container(config.operators, resolve=True) if config.operators else {}
        return served(job, slots, tuple(words), forms(known()), socket, chosen.preview, aside)


def known() -> dict[str, dict[str, tuple[Any, str]]]:
    """The defaults and comments of the YAML files of operators: name → setting → both."""
    return {
        name: {s.name: (s.default, s.comment) for s in settings.of_option("operators", name)}
        for name in settings.options("operators")
    }
