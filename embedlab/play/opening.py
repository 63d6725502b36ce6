"""A job that was composed → the page that begins with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from socket import socket
from typing import Any

from embedlab.cell import picture_size
from embedlab.engines import Auto, Eager, Engine, Work, with_engine
from embedlab.play.exports import Studied
from embedlab.play.form import Form
from embedlab.play.server import Server
from embedlab.play.state import state_of
from embedlab.play.studio import PREVIEW, Studio
from embedlab.sweep.job import Job

LONG = 2000  # pictures that a page is taken to draw, by which `engine=auto` weighs what compiling costs


def served(
    job: Job,
    slots: Any,
    words: tuple[str, ...],
    forms: Mapping[str, Form],
    place: socket,
    preview: int = PREVIEW,
    say: Callable[[str], None] = print,
) -> Server:
    """The server of a page that begins with a job; its model is loaded here.

    `slots` are the operators as the config has them, `words` those of its command line.
    """
    begin = state_of(job.cell.prompt, slots or {}, job.seeds, forms)
    model = job.source.load()
    engine: Engine = job.engine if not isinstance(job.engine, Auto) else Eager()
    chosen = ""
    if isinstance(job.engine, Auto):
        many = len(job.seeds)
        work = Work(LONG, job.cell.sampler.steps, many, picture_size(job.cell, model))
        engine = job.engine.choose(model, work, say)
        chosen = f"engine={engine.name}"
    model = with_engine(model, engine, say)
    base = dataclasses.replace(job.cell, operators=())
    studied = Studied(words, job.source, base, engine, forms, chosen)
    return Server(Studio(model, base, forms, preview), studied, begin, place)
