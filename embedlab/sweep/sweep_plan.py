"""The plan that a sweep leaves in `sweep.json` before any job is run: a frozen type, its one reader, its one writer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from embedlab.files import write_json
from embedlab.sweep.versioned import FORMAT, read_object

FILE = "sweep.json"


@dataclass(frozen=True)
class PlannedJob:
    """A job as the plan lists it: its number, the name of its folder in the sweep's, and what was set for it."""

    job: int
    folder: str
    key: str | None = None  # a hash of all that its result depends on
    name: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, value: Any) -> PlannedJob | None:
        """A job as it is written; None for what is none, or lies outside of the sweep's folder."""
        if not isinstance(value, Mapping):
            return None
        job, folder, overrides = value.get("job"), value.get("folder"), value.get("overrides", {})
        key, name = value.get("key"), value.get("name")
        if type(job) is not int or not isinstance(folder, str) or not isinstance(overrides, Mapping):
            return None
        inside = folder == PurePosixPath(folder).name and folder not in ("", "..") and "\0" not in folder
        texts = isinstance(key, str | None) and isinstance(name, str | None)
        return cls(job, folder, key, name, overrides) if inside and texts else None


@dataclass(frozen=True)
class SweepPlan:
    """The command of a sweep, as its words, and the jobs that it has; where and when it was started, with what.

    `damaged` names what of the file was of another kind than embedlab writes, and is left out.

    >>> plan = SweepPlan.from_dict({"format": 1, "command": ["-m"], "cwd": 5, "jobs": [{"job": 0, "folder": "0"}, 1]})
    >>> plan.command, [job.folder for job in plan.jobs], plan.damaged
    (('-m',), ['0'], ('cwd', 'jobs'))
    """

    command: tuple[str, ...] = ()
    cwd: str | None = None
    started: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    jobs: tuple[PlannedJob, ...] = ()
    prompts: tuple[tuple[str, ...], ...] = ()  # of a list of prompts: what each row sets
    damaged: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> SweepPlan:
        """A plan as it is written."""
        own = {name: value[name] for name, kind in KINDS.items() if isinstance(value.get(name), kind)}
        damaged = {name for name in KINDS if name in value and name not in own}
        if not all(isinstance(word, str) for word in own.get("command", ())):
            damaged.add("command")
            del own["command"]
        jobs = [PlannedJob.from_dict(one) for one in own.get("jobs", ())]
        own["jobs"] = [job for job in jobs if job is not None]
        if len(own["jobs"]) < len(jobs):
            damaged.add("jobs")
        rows = own.pop("prompts", [])
        if all(isinstance(row, list) and all(isinstance(word, str) for word in row) for row in rows):
            own["prompts"] = [tuple(row) for row in rows]
        else:
            damaged.add("prompts")
        own |= {name: tuple(own[name]) for name in ("command", "jobs", "prompts") if name in own}
        return cls(**own, damaged=tuple(sorted(damaged)))

    def as_dict(self) -> dict[str, Any]:
        """The plan as it is written; what it has not is left out."""
        own = {name: one for name, one in asdict(self).items() if name != "damaged" and one is not None}
        if not self.prompts:
            del own["prompts"]
        return {"format": FORMAT, **own}

    def with_jobs(self, jobs: Sequence[PlannedJob]) -> SweepPlan:
        """The plan with these jobs in the place of those of the same numbers, in order."""
        numbered = {one.job: one for one in (*self.jobs, *jobs)}
        return replace(self, jobs=tuple(numbered[number] for number in sorted(numbered)))


KINDS: dict[str, type] = {"command": list, "cwd": str, "started": str, "versions": dict, "jobs": list, "prompts": list}


def read_plan(folder: Path) -> SweepPlan | None:
    """The plan in a sweep's folder; None where there is none. ConfigError where it cannot be read, or is newer."""
    file = folder / FILE
    return SweepPlan.from_dict(read_object(file)) if os.path.lexists(file) else None


def write_plan(folder: Path, plan: SweepPlan) -> None:
    """Write a sweep's plan into its folder, whole or not at all."""
    write_json(folder / FILE, plan.as_dict())
