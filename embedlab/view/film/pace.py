"""The pace of a film: at which values of the setting its frames stand, and for how long each is shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

from embedlab.errors import ConfigError

HALVINGS = 12  # of an interval in which too much happens


class Path(Protocol):
    """Pictures along a setting, of which more can be rendered."""

    @property
    def values(self) -> Sequence[float]:
        """The values of the setting that have pictures, rising."""

    def render(self, values: Sequence[float]) -> None:
        """Render the pictures of values that have none yet."""

    def measure(self, values: Sequence[float]) -> Sequence[float]:
        """1 - cosine of the image features between neighbours, one fewer than there are values."""


def perceptual_weights(distances: Sequence[float] | np.ndarray, weights: Sequence[float], frames: int) -> np.ndarray:
    """Values of a setting that are equally far apart, by the distances measured between known values.

    `distances` are one fewer than `weights`, finite and 0 or more; `weights` rise. Returns `frames` values, the first
    and the last of `weights` among them to the bit. Raises ConfigError for anything else.

    >>> perceptual_weights([3.0, 1.0], [0.0, 0.5, 1.0], frames=5).round(3).tolist()
    [0.0, 0.167, 0.333, 0.5, 1.0]
    """
    gaps, known = np.asarray(distances, dtype=float), np.asarray(weights, dtype=float)
    if frames < 2 or len(known) < 2 or len(gaps) != len(known) - 1:
        raise ConfigError(f"{len(gaps)} distances between {len(known)} weights make no film of {frames} frames.")
    if not (np.isfinite(gaps).all() and (gaps >= 0).all() and (np.diff(known) > 0).all()):
        raise ConfigError("distances have to be finite and 0 or more, and weights have to rise.")
    if not gaps.any():  # the setting changes nothing that is measured, so that any steps are equal
        gaps = np.diff(known)
    along = np.concatenate([[0.0], np.cumsum(gaps)])
    found = np.interp(np.linspace(0, along[-1], frames), along, known)
    found[0], found[-1] = known[0], known[-1]
    return np.maximum.accumulate(found)


def chord_lengths(steps: Sequence[float]) -> np.ndarray:
    """Chords between unit vectors whose 1 - cosine is known: distances that add up along a path.

    Equal chords are equal cosines, and unlike 1 - cosine, half of an angle is about half as long.

    >>> chord_lengths([0.0, 0.5, 2.0]).tolist()
    [0.0, 1.0, 2.0]
    """
    chords: np.ndarray = np.sqrt(2 * np.clip(np.asarray(steps, dtype=float), 0, None))
    return chords


def even_values(low: float, high: float, frames: int) -> list[float]:
    """Values in constant steps, both ends to the bit.

    >>> even_values(0.0, 1.0, 3)
    [0.0, 0.5, 1.0]
    """
    return [*np.linspace(low, high, frames)[:-1].tolist(), high]


def evenness(steps: Sequence[float]) -> float:
    """The largest step over the mean step: 1 where all are equal.

    >>> evenness([1.0, 1.0]), evenness([1.0, 3.0]), evenness([0.0])
    (1.0, 1.5, 1.0)
    """
    return max(steps) / (sum(steps) / len(steps)) if any(steps) else 1.0


def paced(path: Path, frames: int) -> tuple[list[float], list[float]]:
    """Values in constant steps of the setting, and values between which equal distances are seen; all are rendered.

    Intervals that are longer than a step are halved until none is, or HALVINGS times: a picture may turn into another
    within a ten-thousandth of the setting. Only then are equal steps looked for, twice, because what was rendered for
    the first search is known in the second. The second answer is the first where no other is more even.
    """
    constant = even_values(path.values[0], path.values[-1], frames)
    path.render(constant)
    best, least = constant, evenness(path.measure(constant))
    for _ in range(HALVINGS):
        known = path.values
        lengths = chord_lengths(path.measure(known))
        most = 0.75 * lengths.sum() / (frames - 1)
        long = [pair for pair, length in zip(pairwise(known), lengths, strict=True) if length > most]
        if not long:
            break
        path.render([(a + b) / 2 for a, b in long])
    for _ in range(2):
        known = path.values
        found = perceptual_weights(chord_lengths(path.measure(known)), known, frames).tolist()
        path.render(found)
        if (most := evenness(path.measure(found))) < least:
            best, least = found, most
    return constant, best


def durations(weights: Sequence[float], seconds: float) -> list[float]:
    """How many seconds each frame is shown, so that the setting moves at a constant speed.

    >>> durations([0.0, 0.5, 1.0], 3.0), durations([0.0, 0.25, 1.0], 3.0)
    ([1.0, 1.0, 1.0], [0.5, 1.0, 1.5])
    """
    gaps = [b - a for a, b in pairwise(weights)]
    shares = [(left + right) / 2 for left, right in zip([gaps[0], *gaps], [*gaps, gaps[-1]], strict=True)]
    return [seconds * share / sum(shares) for share in shares]


def ticks(times: Sequence[float], rate: int) -> list[int]:
    """Each of some times in whole ticks, of which `rate` are a second: one or more each, and their sum is right.

    >>> ticks([0.05, 0.05, 0.1], 30)
    [2, 1, 3]
    """
    counts: list[int] = []
    for end in np.cumsum(times) * rate:
        counts.append(max(1, round(float(end)) - sum(counts)))
    return counts
