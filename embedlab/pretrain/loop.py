"""A training loop that can be killed at any moment and goes on where it was.

Every batch is a function of its step, so the only state is weights, optimiser and step number.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from embedlab.checks import number_within, whole_number
from embedlab.errors import ConfigError
from embedlab.files import written


@dataclass(frozen=True)
class Training:
    """How long and how fast: linear warm-up, then a cosine from `lr` to `lr * floor` at `steps`; no sheets at 0.

    A sheet of samples has `sheet_seeds` of each prompt, in `sheet_steps` steps of DDIM.
    """

    steps: int
    lr: float
    batch: int
    warmup: int = 50
    floor: float = 0.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    ema: float = 0.0
    save_every: int = 200
    sheet_every: int = 500
    sheet_seeds: int = 4
    sheet_steps: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        whole = {"steps": 0, "batch": 1, "warmup": 0, "save_every": 1, "sheet_every": 0, "sheet_seeds": 1}
        for name, least in {**whole, "sheet_steps": 1}.items():
            whole_number(getattr(self, name), name, ConfigError, least=least)
        for name, most in (("lr", None), ("floor", 1), ("weight_decay", None), ("clip", None), ("ema", 1 - 1e-6)):
            number_within(getattr(self, name), name, ConfigError, most=most)

    def rate(self, step: int) -> float:
        """The learning rate of a step.

        >>> Training(steps=100, lr=1.0, batch=1, warmup=10).rate(100)
        0.0
        """
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.lr * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done)))


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, so that a step is finished and saved first; the old handler comes back after."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


class Feed(Dataset[Any]):
    """What each step sees, as a function of its number alone; other processes prepare it ahead where `workers` says so.

    `prepare` answers with tensors, or tuples of them, on the CPU.

    >>> feed = Feed(lambda step: torch.tensor(step * step), steps=5)
    >>> [int(feed(step)) for step in (2, 3)]
    [4, 9]
    """

    def __init__(self, prepare: Callable[[int], Any], steps: int, workers: int = 0) -> None:
        self.prepare, self.steps, self.workers = prepare, steps, workers
        self._ahead: Iterator[Any] = iter(())
        self._next = -1

    def __getitem__(self, step: int) -> Any:
        torch.set_num_threads(1)  # in a worker: there is one for each core
        return self.prepare(step)

    def __call__(self, step: int) -> Any:
        if not self.workers:
            return self.prepare(step)
        if step != self._next:
            ahead = DataLoader(
                self,
                batch_size=None,
                sampler=range(step, self.steps),
                num_workers=self.workers,
                prefetch_factor=4,
                pin_memory=torch.cuda.is_available(),
                multiprocessing_context="fork",
            )
            self._ahead = iter(ahead)
        self._next = step + 1
        return next(self._ahead)


def fit(
    model: nn.Module,
    loss_of: Callable[[int, torch.Generator], tuple[Tensor, Mapping[str, float | Tensor]]],
    training: Training,
    checkpoint: Path,
    log: Callable[[dict[str, float], int], None],
    sheet: Callable[[nn.Module, int], None] | None = None,
    say: Callable[[str], None] = print,
) -> nn.Module:
    """Train `model` until `training.steps`; answers with the averaged weights (`ema` 0: the last ones).

    `loss_of(step, generator)` gives the loss and figures worth logging. The generator is seeded by the step,
    so a run that was interrupted sees the batches it would have seen. SIGTERM ends it after the step, saved.
    A GPU is waited for every 20 steps only; a loss that is not finite stops the run there, before it is saved.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=training.lr, betas=training.betas, fused=True)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(training.ema)
    )
    start = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=next(model.parameters()).device)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]

    def save(step: int) -> None:
        state = {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
        }
        written(checkpoint, partial(torch.save, state))

    began, mean = time.perf_counter(), torch.zeros(())
    here = params[0].device.type == "cpu"
    model.train()
    with asked_to_stop() as asked:
        for step in range(start, training.steps):
            for group in optimizer.param_groups:
                group["lr"] = training.rate(step)
            generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
            loss, figures = loss_of(step, generator)
            loss.backward()
            nn.utils.clip_grad_norm_(params, training.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step < 1 / (1 - training.ema):  # an average of almost nothing would only lag behind
                average.module.load_state_dict(model.state_dict())
            else:
                average.update_parameters(model)
            mean = loss.detach() if step == start else 0.98 * mean + 0.02 * loss.detach()
            done = step + 1
            saving = done % training.save_every == 0 or done == training.steps or asked.is_set()
            if (here or saving or done % 20 == 0) and not torch.isfinite(mean):
                raise FloatingPointError(f"the loss is {loss.item()} at step {step}; the last checkpoint is whole.")
            if done % 20 == 0 or done == training.steps:
                rate = (done - start) / (time.perf_counter() - began)
                left = (training.steps - done) / rate
                say(
                    f"{checkpoint.stem}: step {done}/{training.steps}  loss {mean.item():.4f}  "
                    f"{rate * training.batch:.1f} samples/s  {left / 60:.0f} min to go"
                )
                known = {name: float(figure) for name, figure in figures.items()}
                log({"loss": mean.item(), "samples_per_second": rate * training.batch, **known}, done)
            if saving:
                save(done)
            if sheet and training.sheet_every and (done % training.sheet_every == 0 or done == training.steps):
                with torch.no_grad():
                    sheet(average.module.eval(), done)
            if asked.is_set():
                raise SystemExit(f"{checkpoint.stem}: stopped after step {done}, which is saved.")
    return average.module.eval()
