"""States → pictures, on one thread: few steps first, then all; a newer state of a page ends the work on its older."""

from __future__ import annotations

import base64
import io
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from embedlab import images
from embedlab.cell import Cell, cells_per_call, denoiser_calls
from embedlab.clean import redact
from embedlab.condition import CallConditioning, condition_calls, prompts_of
from embedlab.engines import Eager, with_engine
from embedlab.errors import EmbedlabError, SamplerError
from embedlab.metrics.score import FeatureCache
from embedlab.models import Model
from embedlab.play.chips import readings
from embedlab.play.form import Form
from embedlab.play.seen import seen
from embedlab.play.state import FieldError, State, blamed, cell_of, key_of, read
from embedlab.rendering import sample_batch
from embedlab.samples import Rendered, Request, not_finite, stack_samples
from embedlab.schedule import curves

Message = dict[str, Any]
Tell = Callable[[Message | None], object]  # None: nothing more will come
PREVIEW = 6  # steps that are taken first
KEPT = 128 * 2**20  # bytes of a page's pictures that are held, so that undo answers at once
QUIET = 600.0  # seconds after which a page that says nothing is forgotten
MOST_PAGES = 16


class Superseded(Exception):  # noqa: N818  nothing went wrong
    """A newer state came, or whoever asked is gone."""


@dataclass(eq=False)
class Page:
    """What is held of an open page: its newest task, and the pictures that it was shown."""

    task: Task | None = None
    shown: OrderedDict[str, Rendered] = field(default_factory=OrderedDict)
    heard: float = field(default_factory=time.monotonic)

    def keep(self, key: str, rendered: Rendered) -> None:
        """Hold pictures; of too many the oldest go."""
        self.shown[key] = rendered
        self.shown.move_to_end(key)
        while len(self.shown) > 2 and sum(one.pictures.nbytes for one in self.shown.values()) > KEPT:
            self.shown.popitem(last=False)


@dataclass(eq=False)
class Task:
    """A state that a page wants to see, and whom to tell."""

    page: Page
    said: Any
    tell: Tell
    number: int
    dropped: bool = False
    began: float = field(default_factory=time.perf_counter)
    previewed: bool = False
    work: Iterator[None] | None = None

    def check(self) -> None:
        """Raise where nobody waits for it any more."""
        if self.dropped:
            raise Superseded


class Studio:
    """Renders what pages ask for, on a thread of its own, with one model.

    A page's newest state is the only one that is worked on. Previews come before whole pictures, whoever asked, and of
    equals the one that waited longest. `close` ends the thread.
    """

    def __init__(self, model: Model, base: Cell, forms: Mapping[str, Form], preview: int = PREVIEW):
        self.model, self.base, self.forms, self.preview = model, base, forms, preview
        self.eager = with_engine(model, Eager())
        self.features = FeatureCache(model, remember=64)
        self.pages: OrderedDict[str, Page] = OrderedDict()
        self.waiting: list[Task] = []
        self.changed = threading.Condition()
        self.closed = False
        self.numbers = 0
        self.calls = 0  # of the UNet, for whoever wants to know that nothing is done
        self.thread = threading.Thread(target=self._run, name="embedlab-play", daemon=True)
        self.thread.start()

    # ── from other threads ──

    def ask(self, page: str, said: Any, tell: Tell) -> Task:
        """Work on a state of a page, by the key of that; whatever it wanted before is dropped."""
        with self.changed:
            self._forget_quiet()
            mine = self.pages.setdefault(page, Page())
            self.pages.move_to_end(page)
            while len(self.pages) > MOST_PAGES:
                _, oldest = self.pages.popitem(last=False)
                self._drop(oldest.task)
            mine.heard = time.monotonic()
            self._drop(mine.task)
            self.numbers += 1
            mine.task = Task(mine, said, tell, self.numbers)
            self.waiting.append(mine.task)
            self.changed.notify_all()
            return mine.task

    def drop(self, task: Task) -> None:
        """Nobody waits for a task any more; between two steps it ends."""
        with self.changed:
            self._drop(task)

    def forget(self, page: str) -> None:
        """A page was closed: its work and its pictures go."""
        with self.changed:
            if (gone := self.pages.pop(page, None)) is not None:
                self._drop(gone.task)

    def close(self) -> None:
        """End all work and the thread."""
        with self.changed:
            self.closed = True
            for page in self.pages.values():
                self._drop(page.task)
            self.pages.clear()
            self.changed.notify_all()
        self.thread.join(timeout=30)

    def _drop(self, task: Task | None) -> None:
        if task is not None:
            task.dropped = True
            if task in self.waiting:
                self.waiting.remove(task)
                task.tell(None)

    def _forget_quiet(self) -> None:
        now = time.monotonic()
        for key in [key for key, page in self.pages.items() if now - page.heard > QUIET]:
            self._drop(self.pages.pop(key).task)

    # ── on the thread ──

    def _run(self) -> None:
        while True:
            with self.changed:
                while not self.waiting and not self.closed:
                    self.changed.wait(timeout=QUIET)
                    self._forget_quiet()
                if self.closed:
                    return
                task = min(self.waiting, key=lambda task: (task.previewed, task.number))
                self.waiting.remove(task)
            self._go_on(task)

    def _go_on(self, task: Task) -> None:
        """One part of a task: it waits again for the next one, or has come to its end."""
        try:
            task.check()
            task.work = task.work or self._work(task)
            next(task.work)
        except (StopIteration, Superseded):
            task.tell(None)
            return
        except EmbedlabError as error:
            task.tell({"kind": "fault", "field": getattr(error, "field", ""), "text": str(error)})
            task.tell(None)
            return
        except Exception as error:  # the page says it, the terminal has the whole of it, and the next state may do
            traceback.print_exc()
            task.tell({"kind": "fault", "field": "", "text": f"{type(error).__name__}: {error}"})
            task.tell(None)
            return
        with self.changed:
            if task.dropped or self.closed:
                task.tell(None)
            else:
                self.numbers += 1
                task.number = self.numbers  # behind those that waited meanwhile
                self.waiting.append(task)

    def _work(self, task: Task) -> Iterator[None]:
        """All parts of a task; between two of them others may have their turn."""
        state = read(task.said, self.forms)
        self._tell_tokens(task, state)
        cell = cell_of(state, self.base, self.forms)
        model = self.eager if cell.watched else self.model
        unedited = cell.baseline() if cell.edits else cell
        few, few_unedited = fewer(cell, model, self.preview), fewer(unedited, model, self.preview)
        held = task.page.shown
        cells = [cell, few] if few is not None else [cell]
        todo = [] if key_of(cell, state.seeds) in held else self._conditioned(task, state, cells, model)
        known = dict(zip([key_of(one, state.seeds) for one in cells], todo, strict=False))

        def shown(which: str, one: Cell, stage: str) -> Rendered:
            key = key_of(one, state.seeds)
            if key not in held:
                calls = known.get(key) or condition_calls(model, [one])[0]
                task.page.keep(key, self._rendered(task, model, one, calls, state.seeds, which, stage))
            held.move_to_end(key)
            self._tell_pictures(task, held[key], which, stage)
            return held[key]

        whole = key_of(cell, state.seeds) in held
        if few is not None and not whole:
            shown("edited" if cell.edits else "unedited", few, "few")
            yield
        if cell.edits and few_unedited is not None and key_of(unedited, state.seeds) not in held:
            shown("unedited", few_unedited, "few")
            yield
        task.previewed = True
        before = after = shown("unedited", unedited, "all") if not cell.edits else shown("edited", cell, "all")
        if cell.edits:
            yield
            before = shown("unedited", unedited, "all")
        yield
        task.check()
        task.tell({"kind": "seen", "text": seen(before, after, self.features)})

    def _tell_tokens(self, task: Task, state: State) -> None:
        """The tokens of the prompt as they stand in each text encoder, before anything is edited."""
        try:
            plain = replace(self.base, prompt=state.prompt, operators=())
            first = cells_per_call(plain, denoiser_calls(plain, self.model.scheduler))[0]
            text, text_2 = prompts_of(first)
            read = [one.tokens for one in first.encoder.embed(text, self.model.towers, text_2) if one.tokens]
        except EmbedlabError as error:
            raise FieldError("prompt", str(error)) from None
        if read:
            notes = list(dict.fromkeys(note for tokens in read for note in tokens.notes()))
            task.tell({"kind": "tokens", "readings": readings(read), "notes": notes})

    def _conditioned(
        self, task: Task, state: State, cells: Sequence[Cell], model: Model
    ) -> list[tuple[CallConditioning, ...]]:
        """What the UNet is told of some cells, encoded together; FieldError at the field that is to blame."""
        try:
            found = condition_calls(model, list(cells))
        except EmbedlabError as error:
            fault = blamed(state, cells[0], self.forms, lambda one: condition_calls(model, [one]))
            raise fault or FieldError("", str(error)) from None
        task.check()
        return found

    def _rendered(
        self,
        task: Task,
        model: Model,
        cell: Cell,
        calls: tuple[CallConditioning, ...],
        seeds: Sequence[int],
        which: str,
        stage: str,
    ) -> Rendered:
        """Pictures of a cell, as `render` makes them of one; Superseded where nobody waits any more."""
        requests = [Request(calls, seed) for seed in seeds]
        many = len(calls)
        made = 0

        def on_step(_: int) -> None:
            nonlocal made
            made += 1
            self.calls += 1
            task.check()
            if made < many:
                task.tell({"kind": "step", "which": which, "stage": stage, "step": made, "of": many})

        samples = sample_batch(model, requests, on_step)
        if bad := [not_finite(one, request) for one, request in zip(samples, requests, strict=True) if not one.finite]:
            raise SamplerError(bad[0])
        return stack_samples(cell, seeds, samples, calls)

    def _tell_pictures(self, task: Task, rendered: Rendered, which: str, stage: str) -> None:
        seconds = round(time.perf_counter() - task.began, 3)
        pictures = [png(picture) for picture in images.to_pil(rendered.pictures)]
        told = {"which": which, "stage": stage, "seeds": list(rendered.seeds), "pictures": pictures, "seconds": seconds}
        cell = rendered.cell
        task.tell({"kind": "pictures", "label": redact(cell.label), "prompt": redact(str(cell.text)), **told})


@torch.inference_mode()
def fewer(cell: Cell, model: Model, steps: int) -> Cell | None:
    """The same cell with few steps; None where that makes no schedule, or where all steps are not many more.

    >>> from embedlab import Sampler, load
    >>> model = load("emoji")
    >>> fewer(Cell("a cat"), model, 6).sampler.steps, fewer(Cell("a cat", sampler=Sampler(steps=7)), model, 6)
    (6, None)
    """
    if cell.sampler.steps < 2 * steps or cell.start.step is not None:
        return None
    if any(curve.clock in ("step", "a1111") for curve in curves(cell)):  # its times are those of all steps
        return None
    try:
        few = replace(cell, sampler=replace(cell.sampler, steps=steps, keep=(), watch=()))
        denoiser_calls(few, model.scheduler)
    except EmbedlabError:
        return None
    return few


def png(picture: Any) -> str:
    """A picture as a page shows it, to the bit: a PNG in an address of its own.

    >>> from PIL import Image
    >>> png(Image.new("RGB", (1, 1)))[:22]
    'data:image/png;base64,'
    """
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
