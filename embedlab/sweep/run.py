"""Many jobs as one plan: each picture and text once, UNet calls shared, a job finished as soon as its pictures are."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from embedlab.cell import changes, fingerprint, picture_size
from embedlab.condition import CallConditioning, condition_calls, told_by_call
from embedlab.detector.loading import read_detector
from embedlab.engines import Auto, Eager, Engine, Work, with_engine
from embedlab.errors import EmbedlabError, check_kind, check_list
from embedlab.files import cache
from embedlab.guidance import Carried, Predictions
from embedlab.metrics.score import FeatureCache, eye_of
from embedlab.models import Model, Source
from embedlab.rendering import batch_key, in_company, sample_batch
from embedlab.samples import Request, Sample, not_finite, stack_samples
from embedlab.sweep.artifacts import fail, failure, finish
from embedlab.sweep.background import Background
from embedlab.sweep.batch_size import SIZES, BatchSizeSearch, out_of_memory
from embedlab.sweep.job import Job, check_engine, prepare_folder, reason_of
from embedlab.sweep.observer import Observer
from embedlab.sweep.plan import Outcome, Picture, plan
from embedlab.sweep.store import Store
from embedlab.sweep.tracking import TrackerQueue

MOSTLY = 0.9
TEXTS_AT_ONCE = 64  # texts in one call of the encoder, and pictures looked ahead


def run_jobs(
    jobs: Sequence[Job],
    store: Store,
    observer: Observer | None = None,
    log: TrackerQueue | None = None,
    later: Collection[str] = (),
) -> Outcome:
    """Make what is missing of all jobs' pictures, and finish each job as soon as it has all of its own.

    A picture, a job or a tracker that fails is marked with its reason, and the rest goes on. The pictures `later` come
    last: somebody else may make them meanwhile. The outcome's `times` say where time went. Raises what keeps every job
    from being made, such as weights that cannot be read.
    """
    check_list(jobs, Job, "jobs", "a Job names its source, cell, seeds and folder")
    check_kind(store, Store, "store", "Store(FOLDER)")
    observer = observer or Observer()
    outcome = Outcome() if log is None else log.outcome
    with outcome.timer:
        with outcome.timer.part("plan"):
            wanted = plan(jobs)
            missing = {key: picture for key, picture in wanted.items() if key not in store}
        observer.on_plan(len(jobs), len(wanted), len(missing))
        own = log is None
        log = log or TrackerQueue(observer, outcome)
        try:
            by_source: dict[tuple[Source, Engine | Auto, bool], list[int]] = {}
            for n, job in enumerate(jobs):
                by_source.setdefault((job.source, job.engine, watched(job)), []).append(n)
            for (source, asked, _), numbers in by_source.items():
                mine = set(numbers)
                try:
                    check_engine(jobs[numbers[0]])
                    left = [key for key, picture in missing.items() if mine & set(picture.jobs)]
                    with outcome.timer.part("load"):
                        model = source.load()
                        engine = _engine(asked, model, jobs[numbers[0]], len(left), observer)
                        model = with_engine(model, engine, observer.on_notice)
                        if any(jobs[n].metrics.eye for n in numbers):
                            read_detector(eye_of(model), model.device)
                except EmbedlabError as error:
                    if len(by_source) == 1:
                        raise
                    for n in numbers:
                        _failed(jobs[n], str(error), outcome, observer)
                    continue
                pipeline = Pipeline(model, jobs, numbers, store, observer, outcome, log)
                pictures = [picture for picture in wanted.values() if mine & set(picture.jobs)]
                pipeline(sorted(pictures, key=lambda picture: picture.key in later), set(missing))
        finally:
            if own:
                with outcome.timer.part("waiting"):
                    log.close()
    return outcome


def watched(job: Job) -> bool:
    """Whether `engine=auto` means eager for a job, because attention is looked at."""
    return isinstance(job.engine, Auto) and job.cell.watched


def _failed(job: Job, reason: str, outcome: Outcome, observer: Observer) -> None:
    outcome.failures.append((job, reason))
    try:
        outcome.results[job.number] = fail(job, reason)
    except OSError as error:  # a full disk cannot be told so either
        outcome.results[job.number] = failure(job, reason)
        reason = f"{reason} (and its result.json cannot be written: {error.strerror})"
    observer.on_failure(job, reason)


def _engine(engine: Engine | Auto, model: Model, job: Job, pictures: int, observer: Observer) -> Engine:
    """The engine for so many pictures like those of a job: what was asked for, or what `auto` finds to be fastest."""
    if not isinstance(engine, Auto):
        return engine
    if job.cell.watched:
        return Eager()
    at_once = job.at_once or max(1, min(pictures, SIZES.get(model.device.type, (8,))[0]))
    work = Work(pictures, job.cell.sampler.steps, at_once, picture_size(job.cell, model))
    return engine.choose(model, work, observer.on_notice)


class Pipeline:
    """The pictures of one model on their way: conditioned, sampled, kept, handed to their jobs."""

    def __init__(
        self,
        model: Model,
        jobs: Sequence[Job],
        numbers: Sequence[int],
        store: Store,
        observer: Observer,
        outcome: Outcome,
        log: TrackerQueue,
    ):
        self.model, self.jobs, self.store, self.observer, self.outcome, self.log = (
            model,
            jobs,
            store,
            observer,
            outcome,
            log,
        )
        self.features = FeatureCache(model)
        self.eye = any(jobs[n].metrics.eye for n in numbers)
        self.background = Background("embedlab-files", most=32)
        self.encoding = Lock()  # text encoders are written to while they encode, tokenizers are not made for threads
        fixed = [job.at_once for n, job in enumerate(jobs) if n in set(numbers) and job.at_once is not None]
        unet = model.unet
        engine = "" if model.engine == "eager" else f"{model.engine} "
        name = (
            f"{model.name} {unet.dtype} {unet.device} {engine}{torch.get_num_threads()} threads {os.uname().nodename}"
        )
        self.batch_sizes: dict[Any, BatchSizeSearch] = {}  # by size of the pictures
        self._search_for = partial(BatchSizeSearch, min(fixed, default=None), unet.device.type)
        self._machine = name
        self.waits = {n: {key for keys in jobs[n].pictures.values() for key in keys} for n in numbers}
        self.left = {n: set(keys) for n, keys in self.waits.items()}
        self.faults: dict[str, str] = {}  # by key of the picture
        self.conditioning: dict[str, tuple[CallConditioning, ...]] = {}
        # of each job the fingerprints of its unedited and its edited cell, and how many jobs ask for one
        self.names = {n: tuple(fingerprint(c) for c in (jobs[n].cell.baseline(), jobs[n].cell)) for n in numbers}
        self.uses = Counter(name for names in self.names.values() for name in set(names))
        self.told: dict[str, tuple[str, ...]] = {}  # by fingerprint of a cell: hashes of what each call is told
        self.content: dict[str, str] = {}  # and of all that its pictures are made of
        self.asked: dict[str, int] = {}  # by key of a picture: the rows of the UNet that it takes by itself
        self.first: dict[Any, Picture] = {}  # by what the UNet is told, and the seed
        self.duplicates: dict[str, list[Picture]] = {}  # pictures that come to the same, by key of the first
        self.predictions = Predictions()
        self.coming: Counter[int] = Counter()  # by seed: pictures that may begin as others do and are to be made yet
        self.timer = outcome.timer

    def _batch_size(self, size: Any) -> BatchSizeSearch:
        if size not in self.batch_sizes:
            self.batch_sizes[size] = self._search_for(f"{self._machine} {size}", cache() / "batches.json")
        return self.batch_sizes[size]

    def __call__(self, pictures: Sequence[Picture], missing: set[str]) -> None:
        """Everything: pictures on this thread, scores and files on one beside it; returns when both are done."""
        try:
            self._run(pictures, missing)
        except BaseException:
            self.background.close(drop=True)
            raise
        with self.timer.part("waiting"):
            self.background.close()

    def _run(self, pictures: Sequence[Picture], missing: set[str]) -> None:
        """Everything, in the order asked for; what can share a call waits for company, and no longer."""
        pools: dict[Any, list[tuple[Picture, Request]]] = {}
        new = [picture for picture in pictures if picture.key in missing]
        if any(changes(picture.cell) for picture in new):
            self.coming = Counter(picture.seed for picture in new)
        for part in (pictures[k : k + TEXTS_AT_ONCE] for k in range(0, len(pictures), TEXTS_AT_ONCE)):
            self._condition(part)
            for picture in part:
                name = fingerprint(picture.cell)
                if picture.key not in missing:
                    self._deliver(picture)
                elif name in self.conditioning and not self._is_duplicate(picture):
                    request = Request(self.conditioning[name], picture.seed)
                    key = batch_key(request.cell, self.model, request.conditioning)
                    pools.setdefault(key, []).append((picture, request))
            for (size, *_), pool in pools.items():
                names = [fingerprint(picture.cell) for picture, _ in pool]
                told = [self.told.get(name, ()) for name in names]  # nothing: nobody waits for it any more
                order = in_company([picture.seed for picture, _ in pool], told)
                pool[:] = [pool[n] for n in order]
                while len(pool) >= self._batch_size(size).size:
                    self._sample([pool.pop(0) for _ in range(self._batch_size(size).size)])
        for (size, *_), pool in pools.items():
            while pool:
                self._sample([pool.pop(0) for _ in range(min(len(pool), self._batch_size(size).size))])

    def _is_duplicate(self, picture: Picture) -> bool:
        """Whether the UNet is told the very same of another picture: an edit at its neutral setting is no edit."""
        name = fingerprint(picture.cell)
        first = self.first.setdefault((self.content[name], picture.seed), picture)
        if first is picture:
            return False
        if (sample := self.store.get(first.key)) is not None:
            self._copy(picture, sample, first.key)
            self._deliver(picture)
        elif first.key in self.faults:
            self.faults[picture.key] = self.faults[first.key]
            self._deliver(picture)
        else:
            self.duplicates.setdefault(first.key, []).append(picture)
        return True

    def _condition(self, pictures: Sequence[Picture]) -> None:
        """Encode what is told of some pictures; a cell of which that cannot be done spoils its own jobs alone."""
        cells = {fingerprint(picture.cell): picture.cell for picture in pictures}
        new = {name: cell for name, cell in cells.items() if name not in self.conditioning and self.uses[name]}
        if not new:
            return
        try:
            with self._encoding():
                self.conditioning |= zip(new, condition_calls(self.model, list(new.values()), self.timer), strict=True)
        except Exception:  # one of them: which?
            for name, cell in new.items():
                try:
                    with self._encoding():
                        self.conditioning[name] = condition_calls(self.model, [cell], self.timer)[0]
                except Exception as error:
                    for n in [n for n in self.left if name in self.names[n]]:
                        self._fail_job(n, reason_of(error))
        for name in new.keys() & self.conditioning.keys():
            self.told[name] = told_by_call(self.conditioning[name])
            self.content[name] = conditioning_hash(self.conditioning[name], self.told[name], self.model)

    def _fail_job(self, number: int, reason: str) -> None:
        """Nothing of a job can be made."""
        del self.left[number]
        _failed(self.jobs[number], reason, self.outcome, self.observer)
        self._forget(number)

    def _sample(self, part: list[tuple[Picture, Request]]) -> None:
        """One batch; halved while it does not fit, and one by one when it fails otherwise."""
        part = [(picture, request) for picture, request in part if any(n in self.left for n in picture.jobs)]
        for picture, _ in (there := [pair for pair in part if pair[0].key in self.store]):
            self._deliver(picture)  # somebody else made it meanwhile
        part = [pair for pair in part if pair not in there]
        if not part:
            return
        search, before = self._batch_size(picture_size(part[0][0].cell, self.model)), self.timer.spent("UNet")
        failed: tuple[str, bool] | None = None
        self.coming.subtract(picture.seed for picture, _ in part)
        try:
            calls, step = len(part[0][1].conditioning), count(1)
            samples = sample_batch(
                self.model,
                [request for _, request in part],
                lambda _: self.observer.on_step(len(part), next(step), calls),
                self.timer,
                carried=self._carried(part),
            )
        except Exception as error:
            failed = reason_of(error), out_of_memory(error)
        if failed:  # past the handler, where the error no longer holds the tensors of what failed
            self.coming.update(picture.seed for picture, _ in part)
            self.predictions.clear()
            self._split(part, *failed)
            return
        after = self.timer.spent("UNet")
        rows, took = after.rows - before.rows, after.seconds - before.seconds
        asked = after.asked - before.asked
        if rows > MOSTLY * asked:  # else most calls were smaller than those of other batches of the size
            search.took(len(part), rows, took)
        self.observer.on_batch(len(part), rows, took)
        for (picture, request), one in zip(part, samples, strict=True):
            self.asked[picture.key] = asked // len(part)
            self.timer.ask("UNet", self.asked[picture.key] * (len(picture.jobs) - 1))
            if not one.finite:
                self.faults[picture.key] = not_finite(one, request)
                continue
            self._keep(picture, one)
        self._embed_pictures([picture.key for picture, _ in part if picture.key not in self.faults])
        for picture, _ in part:
            self._deliver(picture)

    def _carried(self, part: Sequence[tuple[Picture, Request]]) -> Carried | None:
        """What is remembered of batches that had pictures of the same seeds, and what this one leaves; None where no
        prompt or edit of the sweep changes over time.
        """
        if not self.coming:
            return None
        seeds = [picture.seed for picture, _ in part]
        told = [self.told.get(fingerprint(picture.cell), ("",))[0] for picture, _ in part]
        request = part[0][1]
        key = batch_key(request.cell, self.model, request.conditioning)
        return self.predictions.for_batch(key, seeds, told, lambda seed, _: self.coming[seed] > 0)

    @contextmanager
    def _encoding(self) -> Iterator[None]:
        """Have the text encoders and tokenizers to ourselves, once the other thread is done with them."""
        with self.timer.part("waiting"):
            self.encoding.acquire()
        try:
            yield
        finally:
            self.encoding.release()

    def _split(self, part: list[tuple[Picture, Request]], reason: str, full: bool) -> None:
        """A batch failed: in smaller ones where memory was full, else one by one; one that is alone is given up."""
        if len(part) == 1:
            self.faults[part[0][0].key] = reason
            self._deliver(part[0][0])
            return
        search = self._batch_size(picture_size(part[0][0].cell, self.model))
        if full:
            search.too_many(len(part))
            self.observer.on_notice(f"{len(part)} pictures at once do not fit; going on with {search.size}")
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        while part:
            size = search.size if full else 1
            self._sample(part[:size])
            part = part[size:]

    def _embed_pictures(self, keys: Sequence[str]) -> None:
        """Let the scorer see a batch at once; the jobs' scores then find what it saw."""
        kept = [sample.picture for key in keys if (sample := self.store.get(key)) is not None]
        if kept and (self.model.scorer is not None or self.eye):
            with self.timer.part("waiting"):
                self.background.put(partial(self._embed, torch.stack(kept)))

    def _embed(self, pictures: Tensor) -> None:
        with self.encoding, self.timer.part("scores", rows=len(pictures)):
            if self.model.scorer is not None:
                self.features.pictures(pictures)
            if self.eye:
                self.features.detections(pictures)

    def _keep(self, picture: Picture, sample: Sample) -> None:
        kept = self.store.hold(picture.key, sample)
        with self.timer.part("waiting"):
            self.background.put(partial(self._put, picture.key, kept), always=True)

    def _put(self, key: str, sample: Sample) -> None:
        """Write a picture before its jobs are: a disk takes its time, and the UNet need not wait for it."""
        try:
            with self.timer.part("files", rows=1):
                self.store.put(key, sample)
        except OSError as error:
            self.faults[key] = f"the picture cannot be kept in '{self.store.folder}': {error.strerror}"
            self.store.release(key)

    def _copy(self, picture: Picture, sample: Sample, other: str) -> None:
        """Keep a picture that came out as another did."""
        self.timer.ask("UNet", self.asked.get(other, 0) * len(picture.jobs))
        self._keep(picture, sample)
        self.observer.on_batch(1, 0, 0.0)

    def _deliver(self, picture: Picture) -> None:
        """Tell the jobs that waited for a picture; those that have all of theirs are finished."""
        for duplicate in self.duplicates.pop(picture.key, ()):
            if picture.key in self.faults:
                self.faults[duplicate.key] = self.faults[picture.key]
            elif (sample := self.store.get(picture.key)) is not None:
                self._copy(duplicate, sample, picture.key)
            self._deliver(duplicate)
        for n in picture.jobs:
            if n in self.left:
                self.left[n].discard(picture.key)
                if not self.left[n]:
                    del self.left[n]
                    self._finish(n)

    def _finish(self, number: int) -> None:
        """Hand a job that has all of its pictures to the thread that scores them and writes its files."""
        job = self.jobs[number]
        faults: dict[int, str] = {}
        kept: dict[int, tuple[Sample, Sample]] = {}
        for seed, keys in job.pictures.items():
            pair = tuple(self.store.get(key) for key in keys)
            if bad := [self.faults[key] for key in keys if key in self.faults]:
                faults[seed] = bad[-1]
            elif pair[0] is None or pair[1] is None:
                faults[seed] = f"its file in '{self.store.folder}' cannot be read back"
            else:
                kept[seed] = (pair[0], pair[1])
        calls = [self.conditioning[name] for name in self.names[number] if kept]
        with self.timer.part("waiting"):
            self.background.put(partial(self._write, job, kept, faults, calls))
        self._forget(number)

    def _write(
        self,
        job: Job,
        kept: Mapping[int, tuple[Sample, Sample]],
        faults: Mapping[int, str],
        calls: Sequence[tuple[CallConditioning, ...]],
    ) -> None:
        late = {
            seed: self.faults[key] for seed in kept for key in job.pictures[seed] if key in self.faults
        }  # what could not be written
        faults = {**faults, **late}
        kept = {seed: pair for seed, pair in kept.items() if seed not in late}
        try:
            prepare_folder(job)
            before = after = None
            if kept:
                seeds, pairs = list(kept), list(zip(*kept.values(), strict=True))
                before, after = (
                    stack_samples(cell, seeds, samples, mine)
                    for cell, samples, mine in zip((job.cell.baseline(), job.cell), pairs, calls, strict=True)
                )
            with self.encoding, self.timer.part("files", rows=2 * len(kept)):
                say = self.observer.on_notice
                result = finish(job, self.model, self.features, before, after, faults, say, self.timer)
        except Exception as error:
            _failed(job, reason_of(error), self.outcome, self.observer)
            return
        self.outcome.results[job.number] = result
        if faults:
            assert result.error is not None
            self.outcome.failures.append((job, result.error))
            self.observer.on_failure(job, result.error)
        self.observer.on_job(job, result)
        if kept:
            self.log.put(job, result)

    def _forget(self, number: int) -> None:
        """What nobody is going to ask for any more need not be held."""
        for name in set(self.names[number]):
            self.uses[name] -= 1
            if not self.uses[name]:
                self.conditioning.pop(name, None)
                self.told.pop(name, None)


def conditioning_hash(calls: Sequence[CallConditioning], told: Sequence[str], model: Model) -> str:
    """A hash of all that a picture is made of but its noise: what each call is told, and how it is sampled."""
    cell = calls[0].cell
    shown = calls[0].shown
    inverted = [] if shown is None else [shown.cond.content, shown.uncond.content]
    what = [list(told), cell.sampler, cell.start, picture_size(cell, model), *inverted]
    asked = any(one.cell.attention.active for one in calls)
    return fingerprint([*what, [one.cell.attention for one in calls]] if asked else what)
