"""What a search asks of a result, and what its sweeper gets for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from embedlab.errors import ConfigError, EmbedlabError, contained, listed
from embedlab.metrics.score import score_names
from embedlab.sweep.config import part_of
from embedlab.sweep.job import Job, reason_of
from embedlab.sweep.result import Result


def job_return(objective: Any, result: Result | None, overrides: Sequence[str]) -> JobReturn:
    """What a sweeper is told of a job. Only a search hears of failures: other sweepers would stop at the first."""
    if objective is not None and (result is None or result.status != "done"):
        why = ConfigError(result.error if result else "it was not made")
        return JobReturn(overrides=list(overrides), status=JobStatus.FAILED, _return_value=why)
    value = None if objective is None or result is None else objective_value(objective, result)
    return JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, _return_value=value)


def objective_value(objective: Any, result: Result) -> float:
    """A score by its name, or what a callable makes of a result as `result.json` has it."""
    if callable(objective):
        try:
            with contained("it"):
                return float(objective(result.as_dict()))
        except EmbedlabError:
            raise
        except Exception as error:
            raise ConfigError(f"objective cannot be computed from a result: {reason_of(error)}") from error
    if (score := result.scores.get(objective)) is None:
        raise ConfigError(f"objective cannot be computed from a result: its {objective} was not measured.")
    return score


def objective_of(config: DictConfig) -> Any:
    """What a search is told of a result; None where nobody asks."""
    objective = part_of(config, "objective") if OmegaConf.is_dict(config.get("objective")) else config.get("objective")
    if not (objective is None or isinstance(objective, str) or callable(objective)):
        raise ConfigError(
            f"objective is {objective!r}; it has to be the name of a score, such as clip_score/skunk, or a callable of "
            "a result."
        )
    return objective


def is_search(config: DictConfig) -> bool:
    """Whether a sweeper asks for jobs by what it is told of others: all of those do that have a direction."""
    return config.hydra.sweeper.get("direction") is not None


def searched(config: DictConfig) -> list[str]:
    """The keys whose values a search chooses, known before it asks for a second job; none of what is no search."""
    if not is_search(config):
        return []
    parser = OverridesParser.create()
    said = [parser.parse_override(str(line)) for line in config.hydra.overrides.task]
    chosen = [one.key_or_group for one in said if one.is_sweep_override()]
    declared = [*(config.hydra.sweeper.get("params") or ()), *chosen]
    return list(dict.fromkeys(str(key).lstrip("+") for key in declared))


def check_search(config: DictConfig, objective: Any) -> None:
    """Refuse a search that would not be told what it asks for."""
    if not is_search(config):
        return
    if objective is None:
        raise ConfigError(
            "a search needs to know what it looks for: objective=SCORE, such as objective=clip_score/skunk "
            "(experiment=search shows another)."
        )
    ways = config.hydra.sweeper.direction
    if OmegaConf.is_list(ways) and len(ways) != 1:
        raise ConfigError(
            f"hydra.sweeper.direction names {len(ways)} directions, and an objective is one number; name one."
        )


def check_objective(objective: Any, job: Job) -> None:
    """Refuse a search for a score that a job is not going to have; a callable may name its own in `scores`."""
    asked = [objective] if isinstance(objective, str) else getattr(objective, "scores", ())
    names = score_names(job.cell, job.metrics, job.source) if asked else []
    if lacking := [name for name in asked if name not in names]:
        blind = "" if job.source.has_scorer else " (model.scorer=PATH of a CLIP model adds those of CLIP)"
        raise ConfigError(f"objective asks for '{lacking[0]}'; this job has the scores {listed(names, 20)}{blind}.")
