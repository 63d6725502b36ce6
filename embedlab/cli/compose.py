"""From Hydra's overrides to jobs; those of a sweep that differ in values alone share the reading of files."""

from __future__ import annotations

import copy
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from embedlab.clean import one_line, redact
from embedlab.cli.messages import typed_command, unknown_key
from embedlab.cli.prompt_list import OWN_NAME
from embedlab.errors import ConfigError
from embedlab.sweep.config import Maker, complete, conf_dir, lacking
from embedlab.sweep.overrides import unescaped
from embedlab.sweep.roles import OF_NO_RESULT, SETTINGS
from embedlab.sweep.study import Study, group_of, read_study

if TYPE_CHECKING:
    from embedlab.cli.session import Session
    from embedlab.sweep.job import Job


class Composer:
    """Composes jobs as Hydra does; those that differ in values alone share the reading and merging of files."""

    def __init__(self, loader: Any):
        self.loader = loader
        self.whole = loader.load_sweep_config
        self.make = Maker()
        self.bases: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}
        self.parser = OverridesParser.create(config_loader=loader)
        self.parsed = lru_cache(maxsize=10_000)(self.parser.parse_override)
        self.words: dict[str, None] = {}  # that the jobs of all batches are scored with
        self.varied: dict[str, None] = {}  # keys that differ between their jobs
        self.multirun: bytes | None = None  # Hydra's file of a sweep that is in the folder already

    def __call__(self, master: DictConfig, overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        """A job's config, and one that has Hydra's own node, which the next call changes."""
        every = [self.parsed(line) for line in overrides]
        structural = tuple(o.input_line for o in every if self._is_structural(o))
        if structural not in self.bases:
            whole = self.whole(master, list(structural))
            task = copy.deepcopy(whole)
            with read_write(task), open_dict(task):
                del task["hydra"]
            OmegaConf.set_readonly(whole.hydra, False)
            self.bases[structural] = task, whole
        task, whole = self.bases[structural]
        config = copy.deepcopy(task)
        ConfigLoaderImpl._apply_overrides_to_config([o for o in every if not self._is_structural(o)], config)
        return config, whole

    def _is_structural(self, override: Override) -> bool:
        key = override.key_or_group
        own = override.type.name == "ADD" and "." not in key  # a key of the user's, or a group
        is_value = (own or override.type.name == "CHANGE") and override.package is None
        return not is_value or key.startswith("hydra") or self.loader.repository.group_exists(key)


@contextmanager
def whole_mappings() -> Iterator[None]:
    """Let a mapping with a `_target_` be all of a value, and `{}` nothing: Hydra merges it with what was there.

    `guidance.loss.score={_target_: embedlab.guidance.Likeness, text: blue}` has no `blue` of the colour before it.
    """
    own = ConfigLoaderImpl._apply_overrides_to_config

    def apply(overrides: list[Override], cfg: DictConfig) -> None:
        for override in overrides:
            value, key = override.value(), override.key_or_group
            whole = isinstance(value, dict) and ("_target_" in value or not value) and not override.is_delete()
            if whole and OmegaConf.is_dict(OmegaConf.select(cfg, key, throw_on_missing=False)):
                OmegaConf.update(cfg, key, None, merge=False)
            own([override], cfg)

    ConfigLoaderImpl._apply_overrides_to_config = staticmethod(apply)
    try:
        yield
    finally:
        ConfigLoaderImpl._apply_overrides_to_config = staticmethod(own)


@contextmanager
def composed_once(loader: Any) -> Iterator[None]:
    """Keep Hydra's sweepers from composing every job to see whether it can be: `launch` reports all that cannot."""
    own = loader.load_sweep_config
    loader.load_sweep_config = lambda master_config, sweep_overrides: master_config
    try:
        yield
    finally:
        loader.load_sweep_config = own


def set_hydra_node(whole: DictConfig, composer: Composer, overrides: Sequence[str], number: int) -> None:
    """Tell Hydra's node of a job what it says where it runs: number, name, folder."""
    mine = [composer.parsed(line) for line in overrides]
    task = [o for o in mine if not o.is_hydra_override()]
    hydra = whole.hydra
    dirname = hydra.job.config.override_dirname
    with read_write(hydra), open_dict(hydra):
        hydra.job.num = number
        hydra.job.id = str(number)
        hydra.overrides.task = [o.input_line for o in task]
        hydra.job.override_dirname = get_overrides_dirname(
            overrides=task, kv_sep=dirname.kv_sep, item_sep=dirname.item_sep, exclude_keys=dirname.exclude_keys
        )
        hydra.runtime.output_dir = str(Path(hydra.sweep.dir).absolute() / str(hydra.sweep.subdir))


def job_in_sweep(
    composer: Composer, config: DictConfig, whole: DictConfig, overrides: Sequence[str], number: int
) -> Job:
    """The job that a config describes, at its place in a sweep."""
    parsed = [composer.parsed(line) for line in overrides]
    study = study_of(whole.hydra)
    return job_of(
        config,
        composer.make,
        folder=Path(whole.hydra.runtime.output_dir),
        name=OmegaConf.to_container(whole.hydra.job)["override_dirname"],  # type: ignore[index,call-overload]
        group=group_of(Path(whole.hydra.sweep.dir).absolute(), study),
        study=study,
        home=Path(whole.hydra.sweep.dir).absolute(),
        number=number,
        overrides={o.key_or_group: meant(o.value()) for o in parsed if not o.key_or_group.startswith(OF_NO_RESULT)},
        command=command_of(overrides),
    )


def study_of(hydra: Any) -> Study:
    """The study that Hydra's node of a job names, if it does."""
    name = hydra.runtime.choices.get("experiment")
    return read_study(name, Path(conf_dir(), "experiment")) if isinstance(name, str) and name != "null" else Study()


def words_of(hydra: Any) -> list[str]:
    """The overrides that a job was composed of, as they were typed: with `${…}` in them."""
    return [str(line) for line in OmegaConf.to_container(hydra.overrides.task)]  # type: ignore[union-attr]


def meant(value: Any) -> Any:
    """A value of an override as it is read in tables and on pages."""
    return unescaped(value) if isinstance(value, str) else value


def command_of(overrides: Sequence[str]) -> str:
    """A command line that makes a job again, by itself."""
    words = [line for line in overrides if not line.startswith("hydra.sweep")]
    alone = ["hydra.mode=RUN"] if any(line.startswith("experiment=") for line in words) else []
    return shlex.join(["embedlab", *words, *alone])


def job_of(config: DictConfig, make: Any = None, **place: Any) -> Job:
    """Instantiate a config: every part is a callable's keyword list. `place` is what a config does not say of a job."""
    from embedlab.sweep.cells import cell_of
    from embedlab.sweep.job import Job

    if unknown := unused(config):
        raise ConfigError(unknown_key(unknown[0]))
    if gone := [key for key in SETTINGS if key not in config]:
        raise ConfigError(f"'{gone[0]}' cannot be left out.")
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    make = make or Maker()
    seeds = OmegaConf.to_container(config.seeds) if OmegaConf.is_list(config.seeds) else config.seeds
    return Job(
        source=make(config, "model"),
        cell=cell_of(config, make),
        seeds=seeds,  # type: ignore[arg-type]
        config=redact(resolved),
        metrics=make(config, "metrics"),
        tracker=make(config, "tracker"),
        engine=make(config, "engine"),
        at_once=config.at_once,
        export=config.export,
        **redact({**place, "group": config.group if config.group is not None else place.get("group")}),
    )


def unused(config: DictConfig) -> list[str]:
    """The keys of a config that are no settings, and that none takes its value from; `name` is what a job is called.

    >>> unused(OmegaConf.create({"prompt": "a ${animal}", "animal": "${kind}", "kind": "cat", "other": 1}))
    ['other']
    """
    own = [str(key) for key in config if key not in (*SETTINGS, OWN_NAME)]
    if not own:
        return []
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    used, new = set[str](), {str(key) for key in plain} - set(own)
    while new:
        used |= new
        found = re.findall(r"\$\{\s*([^{}:.\[\s]+)", " ".join(texts_of([plain[key] for key in new])))
        new = {key for key in found if key in plain} - used
    return [key for key in own if key not in used]


def texts_of(value: Any) -> Iterator[str]:
    """All texts in a value."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts_of(inner)


def check_shared(config: DictConfig) -> None:
    """Refuse a sweep whose every job lacks the rows to be edited, before anything heavy is imported.

    Where that differs by job they are checked one by one, and all that is wrong is told together.
    """
    parser = OverridesParser.create()
    said = [parser.parse_override(line) for line in words_of(config.hydra)]
    axes = {o.key_or_group for o in said if o.is_sweep_override()} | set(config.hydra.sweeper.get("params") or ())
    shared = [key for key in lacking(config) if not any(f"{key}.".startswith(f"{axis}.") for axis in axes)]
    if shared and not any(axis.split(".")[0] in ("prompt", "prompts_row", "experiment") for axis in axes):
        complete(config, typed_command, shared)


def name_of_model(config: DictConfig) -> str:
    """What is loaded, for a line that says so."""
    with suppress(OmegaConfBaseException):
        return str(OmegaConf.select(config, "model.name") or "the model")
    return "the model"


def prepare(context: Any, config: DictConfig, session: Session) -> Composer:
    """Before a sweeper hands over jobs: lock the sweep's folder, and let nobody compose a config twice."""
    most = config.hydra.sweeper.get("max_batch_size")
    if most is not None and most < 1:
        raise ConfigError(f"hydra.sweeper.max_batch_size is {most}; it has to be 1 or more, or null for all at once.")
    folder = Path(config.hydra.sweep.dir).absolute()
    session.lock(folder)
    session.sweep, session.study = (folder, config), study_of(config.hydra)
    composer = Composer(context.config_loader)
    composer.multirun = next((file.read_bytes() for file in folder.glob("multirun.yaml")), None)
    session.enter_context(composed_once(context.config_loader))
    return composer


def job_names(job_overrides: Sequence[Sequence[str]], first: int) -> dict[int, str]:
    """What the jobs of a batch are called where something is wrong with them: number, and what tells them apart."""
    common = set.intersection(*(set(lines) for lines in job_overrides)) if len(job_overrides) > 1 else set()
    names = {}
    for number, overrides in enumerate(job_overrides, first):
        name = ",".join(line for line in overrides if line not in common and not line.startswith(OF_NO_RESULT))
        names[number] = f"job {number}" + (f" ({name})" if name else "")
    return names


def refuse(wrong: Mapping[str, Sequence[str]], jobs: int) -> None:
    """Say all that is wrong, a line each, and end; what is wrong with every job is one line."""
    if len(wrong) == 1 and len(*wrong.values()) == jobs > 1:
        print(f"embedlab: {' '.join(next(iter(wrong)).split())}", file=sys.stderr)
        sys.exit(2)
    for line, which in wrong.items():
        said = which[0] if len(which) == 1 else f"{len(which)} jobs, first {which[0]}"
        print(f"embedlab: {one_line(f'{said}: {line}')}", file=sys.stderr)
    if jobs > 1:
        count = sum(len(which) for which in wrong.values())
        print(
            f"embedlab: nothing was generated; {count} of {jobs} jobs {'is' if count == 1 else 'are'} wrong.",
            file=sys.stderr,
        )
    sys.exit(2)
