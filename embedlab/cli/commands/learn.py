"""`embedlab learn`: a word learned from images or a text, saved as a concept, and drawn as any job draws."""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict, read_write

from embedlab.clean import drawn_on, one_line, redact
from embedlab.cli import settings
from embedlab.errors import ConfigError, counted, listed, nearest
from embedlab.limits import check_settings

if TYPE_CHECKING:
    from embedlab.learning.learn import Learned, Step
    from embedlab.sweep.job import Job

TEXTS = ("word", "text", "begin")
FILE = "concept.safetensors"


@dataclass(frozen=True)
class Asked:
    """What is learned: settings of `embedlab.learn` beside the prompt, which is that of the job."""

    settings: Mapping[str, Any]
    words: tuple[str, ...] = ()  # of the command line

    @property
    def word(self) -> str:
        """The concept's name."""
        return str(self.settings["word"])


def known() -> dict[str, Any]:
    """The settings of learning, as they are when left out."""
    return {setting.name: setting.default for setting in settings.of_option("learn", "default")}


def taken(words: Sequence[str]) -> tuple[list[str], Asked]:
    """The words of `embedlab learn …` without its own, which are checked here, before torch is imported."""
    rest: list[str] = []
    defaults, given = known(), dict[str, Any]()
    for word in words:
        key, sign, value = word.partition("=")
        if key not in defaults or not sign:
            near = nearest(key, list(defaults), 0.8)
            if sign and "." not in key and near and key not in {s.key for s in settings.every()}:
                raise ConfigError(f"learn: there is no setting '{key}'; try: {near}={value}")
            rest.append(word)
        elif key in given:
            raise ConfigError(f"learn: {key} is given twice; leave one out.")
        else:
            given[key] = value_of(key, value)
    rest.remove("learn")
    if {"-m", "--multirun"} & set(rest):
        raise ConfigError("learn takes one job; leave out -m and the lists of values.")
    if drawn := [word for word in rest if word.split("=")[0] in ("explain", "profile", "resume", "operators")]:
        raise ConfigError(f"learn draws its word as it is learned; leave out {drawn[0]}.")
    if "word" not in given:
        raise ConfigError("word has to be given, the name of the concept: 'word=<my-cat>'")
    asked = Asked({**defaults, **given}, tuple(words))
    if not any(word.partition("=")[0] in ("prompt", "experiment") for word in rest):
        quoted = str(asked.word).replace("\\", "\\\\").replace('"', '\\"')
        rest.append(f'prompt="A picture of a {quoted}"')
    check_settings("embedlab.learn", asked.settings)
    return rest, asked


def value_of(key: str, value: str) -> Any:
    """The value of a setting as it was typed; ConfigError for what cannot be read."""
    if key in TEXTS or (key == "like" and value[:1] not in ("", "[")):
        text = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
        return [text] if key == "like" else None if value == "null" else text
    try:
        override = OverridesParser.create().parse_override(f"{key}={value}")
        if not override.is_sweep_override():
            return override.value()
    except HydraException:
        pass
    hint = "; a list of images is like=[cat.png,cat-2.png], names with other signs in quotes" if key == "like" else ""
    raise ConfigError(f"learn: '{key}={value}' cannot be read{hint}.")


def checked(asked: Asked, job: Job) -> Job:
    """The job with a concept of the word's name, to be validated before weights are read; what does not fit is refused.

    What is learned is not known yet: the concept holds zeros.
    """
    import torch

    from embedlab.learning.learn import check_asked
    from embedlab.models import save_concept

    if (job.folder / "result.json").exists():
        raise ConfigError(f"the folder '{job.folder}' holds a result already; name another: hydra.run.dir=FOLDER.")
    if asked.settings["table"] == "position" and len(job.source.encoders) > 1:
        raise ConfigError("table=position is for models of one text encoder here; in Python, lab.learn takes any.")
    if not isinstance(job.cell.prompt, str):
        raise ConfigError("a word is learned in a prompt that does not change over time.")
    if job.cell.prompt_2 is not None:
        raise ConfigError("a word is learned in one prompt, which all text encoders read; leave out prompt_2.")
    check_asked(job.source, job.cell.encoder, **asked.settings, prompt=job.cell.prompt)
    if asked.settings["table"] == "position":
        return job
    with tempfile.TemporaryDirectory() as folder:
        zeros = [torch.zeros(asked.settings["vectors"], width) for width in job.source.widths]
        file = save_concept(Path(folder) / FILE, zeros, name=asked.word)
        source = replace(job.source, concepts=(*job.source.concepts, f"{asked.word}={file}"))
        source.loaded_concepts  # noqa: B018  (read while the file is there)
    return replace(job, source=source)


def run(asked: Asked, job: Job, whole: DictConfig) -> DictConfig:
    """Learn the word, write what was learned into the job's folder, and give the config of a job that draws it."""
    from embedlab.files import write, write_json
    from embedlab.learning.learn import learn
    from embedlab.sweep.identity import versions
    from embedlab.sweep.tracking import about_run
    from embedlab.sweep.tracking_tables import run_config
    from embedlab.tracker.opening import opened

    folder = job.folder / "learning"
    told = {**asked.settings, "prompt": str(job.cell.prompt)}
    name = f"learn {asked.word}"
    kind = about_run("learn", job.study, job.source.name, None)
    config = run_config({"learn": told, "model": job.config.get("model")}, {}, versions(), None)
    with opened(job.tracker, name, folder, config, job.group, kind) as log:
        with watched(asked) as step:

            def on_step(number: int, loss: float) -> None:
                log.scores({"learn/loss": loss}, number)
                step(number, loss)

            learned = learn(job.source, **told, encoder=job.cell.encoder, on_step=on_step)
        lines = ["step,loss", *(f"{n},{loss!r}" for n, loss in enumerate(learned.curve))]
        write(folder / "curve.csv", "\n".join([*lines, ""]).encode())
        about = {"before": learned.before, "after": learned.after, "nearest": learned.text}
        write_json(folder / "learned.json", {**about, "settings": told, "versions": versions()})
        log.scores({"learn/before": learned.before, "learn/after": learned.after})
        if learned.concept is not None:
            log.file(FILE, learned.save(job.folder / FILE))
    print(one_line(redact(said(learned, asked.settings["hard"]))))
    return drawing(whole, learned, job.folder)


def said(learned: Learned, hard: bool) -> str:
    """What came of it, in a line."""
    fell = f"{learned.word}: loss {learned.before:.4g} → {learned.after:.4g}"
    if hard and learned.table == "token":
        return f"{fell}; as words: {learned.text}"
    near = [f"'{one.text}' ({one.cosine:.2f})" for one in learned.nearest]
    place = "nearest words" if learned.table == "token" else "nearest positions"
    return f"{fell}; {place} {listed(near, 8)}"


def drawing(config: DictConfig, learned: Learned, folder: Path) -> DictConfig:
    """The config of a job that draws what was learned: with the concept, or with the position rows put in place."""
    whole = copy.deepcopy(config)
    with read_write(whole), open_dict(whole):
        if learned.concept is not None:
            whole.model.concepts = [*(whole.model.get("concepts") or []), f"{learned.word}={folder / FILE}"]
        else:
            rows = learned.rows[0].tolist()
            replaced = {"rows": learned.word, "by": rows, "stage": "position"}
            whole.operators = {"learned": {"_target_": "embedlab.operators.Replace", **replaced}}
    return whole


@contextmanager
def watched(asked: Asked) -> Iterator[Step]:
    """What is seen of learning: a bar on a terminal, ten lines elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    many, images = int(asked.settings["steps"]), asked.settings["like"]
    toward = counted(len(images), "image") if images else f"'{asked.settings['text']}'"
    console = Console(file=drawn_on(sys.stdout), soft_wrap=True, highlight=False, emoji=False)
    console.print(one_line(redact(f"learning {asked.word} from {toward} …")), markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("loss", total=many)

        def step(number: int, loss: float) -> None:
            bar.update(task, completed=number + 1, description=f"loss {loss:.4f}")
            if not console.is_terminal and (number + 1) % max(1, many // 10) == 0:
                console.print(f"step {number + 1} of {many}: loss {loss:.4f}", markup=False)

        yield step
