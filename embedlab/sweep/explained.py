"""A job's cell as text, before its UNet is read."""

from __future__ import annotations

from embedlab.cell import cells_per_call, changes, denoiser_calls
from embedlab.explanation import explain
from embedlab.sampler import noise_of
from embedlab.sweep.job import Job
from embedlab.validate import validate


def explained(job: Job) -> str:
    """A job's cell, explained before its UNet is read; one that changes over time, at its first call and its last."""
    validate(job.cell, job.source)
    times = denoiser_calls(job.cell, job.source.scheduler)
    cells = cells_per_call(job.cell, times)
    towers, words = job.source.towers(), job.source.names("words")
    about = "model: " + "; ".join(f"{key} {value}" for key, value in job.source.concluded.items())
    cell = job.cell
    notes = [*cell.sampler.notes(job.source.scheduler), *cell.guidance.notes(cell.sampler.steps)]
    notes += [*cell.attention.notes(), noise_of(times, cell.start) or ""]
    about += "".join(f"\nnotice: {note}." for note in notes if note)
    if not changes(job.cell):
        return f"{explain(cells[0], towers, words)}\n{about}"
    ends = [(times[k], explain(cells[k], towers, words)) for k in (0, -1)]
    reports = [f"── call {moment.call}, step {moment.step} ──\n{report}" for moment, report in ends]
    return "\n\n".join([*reports, about])
