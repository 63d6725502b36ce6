"""Secrets of the environment, wherever they are typed and in whatever form: nothing that is written holds them."""

from pathlib import Path
from typing import Any

from trials import OTHER, SECRET, Given, Trial, words_of


def quoted(text: str) -> str:
    """A text as Hydra wants it."""
    return "'" + text.replace("\\ ", "\\ ").replace("'", "\\'") + "'"


Q, O = quoted(SECRET), OTHER  # noqa: E741
OPERATE = ("operators=[interpolate]", "operators.interpolate.toward=cat")


class Careless:
    """An operator whose error tells the secret."""

    def __init__(self, by: str):
        self.by = by

    def __str__(self) -> str:
        return f"careless {self.by}"

    def __call__(self, prompt: Any, lookup: Any) -> Any:
        raise ValueError(f"no connection with {self.by!r} to {{'key': {self.by!r}}}")


def own(folder: Path) -> None:
    """A package whose operator raises with what it was given."""
    (folder / "given").mkdir()
    (folder / "given/careless.py").write_text(
        "class Careless:\n"
        "    def __init__(self, by):\n        self.by = by\n"
        "    def __str__(self):\n        return f'careless {self.by}'\n"
        "    def __call__(self, prompt, lookup):\n        raise ValueError(f'no way with {self.by!r}')\n"
    )


CASES: list[tuple[str, Given, str | None]] = [
    *((f"prompt, {tracker}", (f"prompt={value}", f"tracker={tracker}"), None) for tracker in ("disk", "wandb", "silent") for value in (Q, O, '"${oc.env:HOSTILE_TOKEN}"')),
    *((f"prompt, {tracker}", (f"prompt={Q}", f"tracker={tracker}"), None) for tracker in ("tensorboard", "mlflow")),
    *((f"prompt swept, {tracker}", ("-m", f"prompt={Q},{O},x", f"tracker={tracker}"), None) for tracker in ("disk", "wandb")),
    ("negative", (f"guidance.negative={Q}", "tracker=disk"), None),
    ("negative swept", ("-m", f"guidance.negative={Q},{O}", "tracker=disk"), None),
    ("toward", (*OPERATE, f"operators.interpolate.toward={Q}", "operators.interpolate.lengths=resample", "tracker=disk"), None),
    ("toward swept", ("-m", OPERATE[0], f"operators.interpolate.toward={Q},{O}", "operators.interpolate.lengths=resample", "tracker=wandb"), None),
    ("exported", (*OPERATE, f"operators.interpolate.toward={Q}", "operators.interpolate.lengths=resample", "export=true", "tracker=disk"), None),
    ("words", (f"metrics.words=[{O},cat]", "tracker=disk"), None),
    ("words of letters", (f"metrics.words=[{Q}]", "tracker=disk"), None),
    ("words wandb", (f"metrics.words=[{O},cat]", "tracker=wandb"), None),
    ("group", (f"group={O}", "tracker=disk"), None),
    ("group wandb", (f"group={O}", "tracker=wandb"), None),
    ("tags", ("tracker=wandb", f"tracker.tags=[{O}]"), None),
    ("project", ("tracker=wandb", f"tracker.project={O}"), None),
    ("explained", ("explain", f"prompt={Q}"), None),
    ("explained plainly", ("explain", f"prompt={O}"), None),
    ("config printed", (f"prompt={Q}", "--cfg", "job"), None),
    ("schedule", (f"prompt={{_target_:embedlab.schedule.Switch,values:[{O},{Q}],at:0.5}}", "tracker=disk"), None),
    ("rows refused", (*OPERATE, f"operators.interpolate.rows={Q}"), "embedlab"),
    ("scheduler refused", f"sampler.scheduler={Q}", "scheduler"),
    ("option refused", f"sampler={O}", "embedlab"),
    ("key refused", f"{O}=1", "embedlab"),
    ("mapping key", (f"+operators.x={{{O}:1}}",), "embedlab"),
    ("setting refused", f"guidance.scale={Q}", "scale"),
    ("setting refused plainly", f"guidance.scale={O}", "scale"),
    ("list refused", f"seeds=[{Q}]", "seed"),
    ("model refused", f"model.name=/nowhere/{O}", "embedlab"),
    ("command refused", O, "embedlab"),
    ("target refused", f"+operators.x._target_={O}", "embedlab"),
    ("syntax refused", f"prompt=[{O}", "embedlab"),
    ("sheet refused", ("sheet", O), "embedlab"),
    ("axis refused", ("sheet", "sweep", "--rows", SECRET), "embedlab"),
    ("film refused", ("film", "sweep", "--along", SECRET), "embedlab"),
    ("picture refused", ("replay", SECRET), "embedlab"),
    ("flag refused", ("sheet", "sweep", f"--{O}"), "embedlab"),
    ("folder of a run", (f"hydra.run.dir={O}",), "secret"),
    ("folder of a sweep", ("-m", "seeds=[0],[1]", f"hydra.sweep.dir={O}"), "secret"),
    ("folder of a job", ("-m", "prompt=a,b", f"hydra.sweep.subdir={O}-${{hydra.job.num}}"), "secret"),
]  # fmt: skip

PIECES = ("plain", "cr3t", ", s, 3,")  # of the second secret, as the tokenizer cuts it

SECRETS = [
    Trial("secret, pieces explained", ("explain", f"prompt=a puppy {O}", "model.device=cpu"), None, hides=PIECES),
    Trial(
        "secret, pieces listed",
        (f"prompt=a cat {O}", "operators=[replace]", "operators.replace.rows=x", "operators.replace.by=dog"),
        "is not in the prompt",
        hides=PIECES,
    ),
    *(Trial(f"secret, {name}", words_of(given), says) for name, given, says in CASES),
    *(
        Trial(
            f"secret, operator's error, {name}",
            (*how, "+operators.x._target_=careless.Careless", f"+operators.x.by={value}", "tracker=disk"),
            "no way with",
            code=1,
            before=own,
        )
        for name, how, value in (("job", (), Q), ("plain job", (), O), ("sweep", ("-m", "seeds=[0],[1]"), Q))
    ),
]
