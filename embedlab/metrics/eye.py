"""How likely a picture shows what a prompt asks for, by the detector of the model."""

from __future__ import annotations

from math import prod

from embedlab.detector.asked import Asked, Object
from embedlab.detector.detections import OUTCOMES, Detection, Detections, outcome, stands


def eye_names(asked: Asked) -> list[str]:
    """The figures that `eye_scores` gives of one picture.

    >>> cat, dog = Object("cat", ("cat",), count=2), Object("dog", ("dog",), colour="red")
    >>> eye_names(Asked((cat, dog), ((0, "above", 1),), "white"))
    ['eye/cat', 'eye/dog', 'eye/count/cat', 'eye/colour/dog', 'eye/relation', 'eye/ground']
    """
    names = [f"eye/{one.word}" for one in asked.objects]
    names += [f"eye/count/{one.word}" for one in asked.objects if one.count is not None]
    names += [f"eye/colour/{one.word}" for one in asked.objects if one.colour is not None]
    names += ["eye/relation"] * bool(asked.relations) + ["eye/ground"] * (asked.ground is not None)
    return list(dict.fromkeys(names))


def outcome_names(asked: Asked) -> list[str]:
    """The shares of a job: how often each outcome of a prompt with two objects was met."""
    return [f"eye/outcome/{name}" for name in OUTCOMES] if asked.pair else []


def eye_scores(found: Detections, asked: Asked) -> dict[str, float]:
    """Probabilities (0 to 1) that a picture shows what is asked for, by name.

    `eye/WORD`: it is there. `eye/count/WORD`: there are as many as asked. `eye/colour/WORD`: there is one of the colour
    asked. `eye/relation`: all objects of the relations are there and stand so. `eye/ground`: it is the ground asked.

    >>> cat = Detection("cat", 64.0, 34.0, 50.0, 0.9, {"red": 0.5, "blue": 0.5})
    >>> eye_scores(Detections((cat,), {"white": 0.75}), Asked((Object("cat", ("cat",), 1, "red"),), (), "white"))
    {'eye/cat': 0.9, 'eye/count/cat': 0.9, 'eye/colour/cat': 0.45, 'eye/ground': 0.75}
    """
    scores: dict[str, list[float]] = {name: [] for name in eye_names(asked)}
    for one in asked.objects:
        things = found.of(*one.members)
        scores[f"eye/{one.word}"].append(found.presence(*one.members))
        if one.count is not None:
            scores[f"eye/count/{one.word}"].append(exactly(one.count, [thing.probability for thing in things]))
        if one.colour is not None:
            coloured = [thing.probability * thing.colours.get(one.colour, 0.0) for thing in things]
            scores[f"eye/colour/{one.word}"].append(max(coloured, default=0.0))
    if asked.relations:
        scores["eye/relation"].append(_related(found, asked))
    if asked.ground is not None:
        scores["eye/ground"].append(found.grounds.get(asked.ground, 0.0))
    return {name: min(values) for name, values in scores.items()}  # of a word that is there twice, the less likely


def outcome_of(found: Detections, asked: Asked) -> str | None:
    """What became of a prompt with two objects, in one word; None of other prompts."""
    return outcome(found, *asked.pair) if asked.pair else None


def exactly(count: int, probabilities: list[float]) -> float:
    """How likely just so many of independent things are there.

    >>> exactly(1, [0.5, 0.5]), exactly(3, [0.9])
    (0.5, 0.0)
    """
    ways = [1.0] + [0.0] * len(probabilities)
    for p in probabilities:
        ways = [ways[k] * (1 - p) + (ways[k - 1] * p if k else 0.0) for k in range(len(ways))]
    return ways[count] if count < len(ways) else 0.0


def _related(found: Detections, asked: Asked) -> float:
    likeliest: dict[int, Detection | None] = {}
    for number in {n for a, _, b in asked.relations for n in (a, b)}:
        likeliest[number] = _pick(found, asked.objects[number])
    if not all(likeliest.values()):
        return 0.0
    for a, relation, b in asked.relations:
        one, other = likeliest[a], likeliest[b]
        assert one is not None
        assert other is not None
        if not stands(one, relation, other):
            return 0.0
    return prod(thing.probability for thing in likeliest.values() if thing is not None)


def _pick(found: Detections, one: Object) -> Detection | None:
    """The object that is meant: the likeliest of the word, by its colour where one is asked."""
    colour = one.colour
    return max(
        found.of(*one.members),
        key=lambda thing: thing.probability * (1.0 if colour is None else thing.colours.get(colour, 0.0)),
        default=None,
    )
