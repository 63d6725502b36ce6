"""Python's front door: what functions are handed that they cannot take is one of our errors."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from trials import Trial


def model(lab: Any) -> Any:
    """The small model, which is in memory already."""
    return lab.load(str(sys.modules["__main__"].MODEL), device="cpu")


class Nameless:
    """An operator whose text cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __call__(self, prompt: Any, lookup: Any) -> Any:
        return prompt


class Round:
    """An operator that holds itself."""

    def __init__(self) -> None:
        self.me = self

    def __call__(self, prompt: Any, lookup: Any) -> Any:
        return prompt


PROMPT = "a picture of a puppy"


def cell(lab: Any, *operators: Any, **more: Any) -> Any:
    """A small cell."""
    return lab.Cell(PROMPT, operators, sampler=lab.Sampler("ddim", steps=1), **more)


CALLS: list[tuple[str, str | None, Callable[[Any], Any]]] = [
    ("render nothing", None, lambda lab: lab.render(model(lab), [], [0])),
    ("render a text", "Cell", lambda lab: lab.render(model(lab), ["a cat"], [0])),
    ("render a number", "Cell", lambda lab: lab.render(model(lab), 3, [0])),
    ("render no seeds", "seed", lambda lab: lab.render(model(lab), [cell(lab)], [])),
    ("render seed text", "seed", lambda lab: lab.render(model(lab), [cell(lab)], ["a"])),
    ("render seed number", "seed", lambda lab: lab.render(model(lab), [cell(lab)], 3.5)),
    ("render a name", "odel", lambda lab: lab.render("emoji", [cell(lab)], [0])),
    ("load nothing", "model", lambda lab: lab.load("")),
    ("load a number", "model", lambda lab: lab.load(3)),
    ("load a device", "nope", lambda lab: lab.load("emoji", device="nope")),
    ("load a folder without", "sweep", lambda lab: lab.load("sweep")),
    ("load a user", "nosuchuser", lambda lab: lab.load("~nosuchuser/x")),
    ("load NUL", "model", lambda lab: lab.load("a\0b")),
    ("find NUL", "model", lambda lab: lab.Source("a\0b").identity),
    ("save number", "embeds", lambda lab: lab.save_embeds("a.safetensors", 3)),
    ("save text", "embeds", lambda lab: lab.save_embeds("a.safetensors", {"a": "b"})),
    ("save to a folder", "sweep", lambda lab: lab.save_embeds("sweep", {"a": torch.zeros(1)})),
    ("save NUL", "path", lambda lab: lab.save_embeds("a\0b", {"a": torch.zeros(1)})),
    ("save", None, lambda lab: lab.save_embeds("a.safetensors", {"a": torch.zeros(1)})),
    ("save a recipe in a circle", None, lambda lab: lab.save_embeds("a.safetensors", {"a": torch.zeros(1)}, cell(lab, Round()))),
    ("embed number", "prompt", lambda lab: lab.embed_all(3, model(lab).towers)),
    ("embed half a pair", "no text", lambda lab: lab.embed_all("a\ud800", model(lab).towers)),
    ("embed nothing", None, lambda lab: lab.embed_all("", model(lab).towers)),
    ("edit number", "operator", lambda lab: lab.edit(lab.embed_all(PROMPT, model(lab).towers), [3], model(lab).towers)),
    ("edit one", None, lambda lab: lab.edit(lab.embed_all(PROMPT, model(lab).towers), [lab.Scale("puppy", 2)], model(lab).towers)),
    ("score nothing", "Rendered", lambda lab: lab.score(model(lab), None, None, lab.Metrics())),
    ("towers of a number", "3 has no text encoders", lambda lab: lab.text_encoders_of(3)),
    ("towers of a text", "text encoders", lambda lab: lab.text_encoders_of("emoji")),
    ("prompt_embeds of text", "Cell", lambda lab: lab.prompt_embeds("a cat", model(lab).towers)),
    ("operator nameless", "Nameless", lambda lab: lab.render(model(lab), [cell(lab, Nameless())], [0])),
    ("operator round", None, lambda lab: lab.render(model(lab), [cell(lab, Round())], [0])),
    ("steps", "steps", lambda lab: lab.Sampler("ddim", steps=10**30)),
    ("scheduler", "scheduler", lambda lab: lab.Sampler("nope")),
    ("scheduler number", "scheduler", lambda lab: lab.Sampler(3)),
    ("scale", "scale", lambda lab: lab.Guidance(scale=10**400)),
    ("words", "words", lambda lab: lab.Metrics(words=3)),
    ("weight", "weight", lambda lab: lab.Interpolate("puppy", "cat", 10**400)),
    ("noise", "amount", lambda lab: lab.render(model(lab), [cell(lab, lab.Noise("puppy", float("nan")))], [0])),
    ("rows", "selector", lambda lab: lab.edit(lab.embed_all(PROMPT, model(lab).towers), [lab.Scale({"nope": 1}, 2)], model(lab).towers)),
    ("schedule", "out of order", lambda lab: lab.Ramp([0, 1], at=[1, 0])),
    ("replay none", "nowhere", lambda lab: import_module("embedlab.view.replay").replay(Path("nowhere.png"))),
]  # fmt: skip


def own(body: str) -> Callable[[Path], None]:
    """A package `loud` with an operator of somebody's own."""

    def write(folder: Path) -> None:
        (folder / "given").mkdir()
        (folder / "given/loud.py").write_text(f"class Loud:\n    {body}\n", "utf-8")

    return write


CALLED = "def __call__(self, prompt, lookup): "
OWN = [
    ("exits", f"{CALLED}raise SystemExit(7)", "SystemExit", 1),
    ("interrupts itself", f"{CALLED}raise GeneratorExit", "GeneratorExit", 1),
    ("raises a number", f"{CALLED}raise KeyError(3)", "KeyError", 1),
    ("raises text with signs", f"{CALLED}raise ValueError('a\\x1b[31m\\nb')", "ValueError", 1),
    ("nests for ever", f"{CALLED}return self(prompt, lookup)", "RecursionError", 1),
    ("gives nothing", f"{CALLED}return None", "Loud", 0),
    ("gives a text", f"{CALLED}return 'a'", "Loud", 0),
    ("has no label", f"{CALLED}return prompt\n    def __str__(self): raise RuntimeError('none')", "label", 0),
    ("has a number for a label", f"{CALLED}return prompt\n    def __str__(self): return 3", "label", 0),
    ("is no call", "pass", "no operator", 0),
    ("cannot be made", "def __init__(self): raise OSError('no')", "Loud", 0),
]
PYTHON = [
    *(Trial("python", (name,), says, call=call) for name, says, call in CALLS),
    *(
        Trial(f"own operator {name}", ("+operators.x._target_=loud.Loud",), says, code, before=own(body))
        for name, body, says, code in OWN
    ),
]
