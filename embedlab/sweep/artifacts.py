"""What a job leaves in its folder: pictures with their settings inside, tables, `result.json` last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from embedlab import images
from embedlab.attention.overlay import file_names, overlaid, save_maps
from embedlab.cell import denoiser_calls
from embedlab.clean import redact
from embedlab.condition import schedule_of
from embedlab.errors import listed
from embedlab.explanation import UNCHANGED, Explanation
from embedlab.export import edited_rows, prompt_embeds, save_edited_words, save_embeds
from embedlab.images.infotext import infotext
from embedlab.metrics.score import FeatureCache, score, scored_words
from embedlab.models import Model
from embedlab.samples import Rendered
from embedlab.sweep.identity import files_of, parameters_of, versions
from embedlab.sweep.job import Job
from embedlab.sweep.result import PictureResult, Result, write_result
from embedlab.sweep.versioned import FORMAT
from embedlab.sweep.watched import strip_of, write_strips, write_watched
from embedlab.timing import Timer
from embedlab.token_ids import concepts_of


def finish(
    job: Job,
    model: Model,
    features: FeatureCache,
    before: Rendered | None,
    after: Rendered | None,
    faults: Mapping[int, str],
    say: Callable[[str], None] = print,
    timer: Timer | None = None,
) -> Result:
    """Score a job's pictures and write its files; `result.json` comes last, and a folder that has one is finished.

    `before` and `after` hold the seeds that were made, `faults` says why the others were not. `timer` measures the part
    `scores`.
    """
    timer = timer or Timer()
    notes = list(job.notes)
    settings = {"format": FORMAT, "config": job.config, "versions": versions(), "label": redact(job.cell.label)}
    settings |= {"concluded": redact(job.source.concluded), "model_files": files_of(job.source)}
    if job.source.concepts:
        settings["concepts"] = redact(job.source.about_concepts(job.folder))
    if (start := job.cell.start.about(job.folder)) is not None:
        settings["start"] = redact(start)
    rows: list[dict[str, Any]] = []
    whole: dict[str, float] = {}
    explanation: Explanation | None = None
    schedule: list[dict[str, Any]] = []
    if job.export:
        embeds = prompt_embeds(job.cell, model.towers, model.zero_negative)
        made_by = {"model": model.name, "cell": job.cell}
        save_embeds(job.folder / "conditioning.safetensors", embeds, made_by)
        save_embeds(job.folder / "rows.safetensors", edited_rows(job.cell, model.towers), made_by)
        save_edited_words(job.folder, job.cell, model.towers, made_by)
    if before is not None and after is not None:
        schedule = schedule_of(job.cell, after.conditioning, denoiser_calls(job.cell, model.scheduler))
        with timer.part("scores", rows=len(after.pictures)):
            rows, whole = score(model, before, after, job.scoring, features)
            if all(after.figures):
                rows = [row | dict(figures) for row, figures in zip(rows, after.figures, strict=True)]
                whole |= after.figures[0]  # one start for all seeds
            explanation = features.explain(before.conditioning[-1], after.conditioning[-1])
        notes = list(dict.fromkeys([*notes, *explanation.notes]))
        known = {*model.concepts, *concepts_of(tower.tokenizer for tower in model.towers)}
        strange = [word for word in scored_words(after.cell, job.scoring) if word not in known]
        if model.concepts and strange:
            notes.append(
                f"{listed(strange)}: none of the {len(model.concepts)} things that this model draws, so that its "
                "pictures and scores of that mean nothing"
            )
        _write_pictures(job, before, after, rows, settings)
    for note in notes:
        which = f"job {job.number} ({job.run_name or job.title}): " if note == UNCHANGED and job.overrides else ""
        say(f"notice: {which}{note}.")
    keys = {seed: mine for seed, (_, mine) in job.pictures.items()}
    by_seed = {row["seed"]: row for row in rows}
    places = zip(after.seeds, after.batches, after.runtimes, strict=True) if after is not None else ()
    origins = {seed: {"batch": list(batch), "runtime": dict(runtime)} for seed, batch, runtime in places}
    result = Result(
        status="failed" if faults else "done",
        error=listed(dict.fromkeys(faults.values()), 3) if faults else None,
        **job.about(),
        notes=tuple(notes),
        explain=redact(explanation.as_dict()) if explanation else None,
        schedule=tuple(redact(schedule)),
        scores=whole,
        pictures=tuple(
            PictureResult.from_dict({**by_seed[seed], "key": keys[seed], **origins[seed]})
            if seed in by_seed
            else PictureResult(seed, key=keys[seed], error=faults[seed])
            for seed in job.seeds
        ),
        logged=False,
        config=job.config,
        versions=versions(),
        parameters=parameters_of(model),
        concluded=settings["concluded"],
        start=settings.get("start"),
        folder=job.folder,
    )
    write_result(job.folder, result)
    return result


def _write_pictures(
    job: Job, before: Rendered, after: Rendered, rows: Sequence[dict[str, Any]], settings: dict[str, Any]
) -> None:
    old, new = images.to_pil(before.pictures), images.to_pil(after.pictures)
    for n, row in enumerate(rows):
        row["file"] = f"seed-{row['seed']}.png"
        origin = {"edited": True, **origin_of(after, n)}
        edited = {**settings, "seed": row["seed"], **origin, "scores": dict(row)}
        images.save(new[n], job.folder / row["file"], edited, infotext(edited, new[n].size))
        if job.cell.edits:
            row["baseline"] = f"baseline-seed-{row['seed']}.png"
            origin = {"edited": False, **origin_of(before, n)}
            original = {**settings, "seed": row["seed"], **origin}
            images.save(old[n], job.folder / row["baseline"], original, infotext(original, old[n].size))
    names = [f"seed {row['seed']}" for row in rows]
    columns = ["as written", job.cell.label] if job.cell.edits else ["as written"]
    grid = [[old[n], new[n]][-len(columns) :] for n in range(len(rows))]
    heads, heats = _write_maps(job, before, after, rows, old, new)
    columns, grid = [*columns, *heads], [[*row, *more] for row, more in zip(grid, heats, strict=True)]
    images.save(images.sheet(grid, columns, names, str(job.cell.prompt)), job.folder / "sheet.png", settings)
    if after.steps:
        for row, strip in zip(rows, write_strips(job.folder, after), strict=True):
            row["strip"] = strip
        images.save(strip_of(after, 0), job.folder / "steps.png", settings)
    write_watched(job.folder, {"edited": after} | ({"unedited": before} if job.cell.operators else {}))


def _write_maps(
    job: Job,
    before: Rendered,
    after: Rendered,
    rows: Sequence[dict[str, Any]],
    old: Sequence[Image.Image],
    new: Sequence[Image.Image],
) -> tuple[list[str], list[list[Image.Image]]]:
    """Maps as arrays and as heat over the pictures; answers with the columns that a sheet has of them."""
    if after.maps is None:
        return [], [[] for _ in rows]
    shown = {"edited": (after.maps, new, "")}
    if job.cell.edits and before.maps is not None:
        shown = {"unedited": (before.maps, old, "baseline-"), **shown}
    heads: list[str] = []
    heats: list[list[Image.Image]] = [[] for _ in rows]
    for row in rows:
        row["maps"] = []
    for word in after.maps.words:
        for which, (maps, pictures, prefix) in shown.items():
            if word not in maps.words:
                continue
            name = file_names(maps.words)[maps.words.index(word)]
            heads.append(word if len(shown) == 1 else f"{word}, {which}")
            for n, row in enumerate(rows):
                heat = overlaid(pictures[n], maps.of(word)[n])
                heats[n].append(heat)
                file = f"maps/{prefix}seed-{row['seed']}-{name}.png"
                images.save(heat, job.folder / file)
                row["maps"].append(file)
    save_maps(
        job.folder / "maps.safetensors",
        {name: maps for name, (maps, _, _) in shown.items()},
        {"seeds": list(after.seeds)},
    )
    return heads, heats


def origin_of(rendered: Rendered, n: int) -> dict[str, Any]:
    """What a picture's bits depend on beside its settings: its place in its batch and in the calls of the UNet."""
    rows = {"rows": rendered.rows[n]} if rendered.rows[n] else {}
    return {"batch": rendered.batches[n], "runtime": rendered.runtimes[n], **rows}


def failure(job: Job, reason: str) -> Result:
    """The result of a job that could not be made at all."""
    pictures = tuple(PictureResult(seed, key=keys[1], error=reason) for seed, keys in job.pictures.items())
    about = {"config": job.config, "versions": versions(), **job.about()}
    return Result(status="failed", error=reason, pictures=pictures, logged=False, folder=job.folder, **about)


def fail(job: Job, reason: str) -> Result:
    """Mark a job that could not be made at all; it is tried again when its sweep is resumed."""
    result = failure(job, reason)
    write_result(job.folder, result)
    return result
