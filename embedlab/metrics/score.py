"""What is measured of pictures and of an edit: settings, scores, their names, and what was seen before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.cell import Cell, fingerprint
from embedlab.condition import CallConditioning
from embedlab.detector.asked import Asked, asked_of, with_words
from embedlab.detector.detect import detect
from embedlab.detector.detections import Detections
from embedlab.detector.loading import vocabulary_of
from embedlab.display import Shown
from embedlab.errors import ConfigError, ModelError, OperatorError, PromptError, check_kind, contained, listed
from embedlab.explanation import Explanation, described
from embedlab.limits import check_part
from embedlab.memo import Memo
from embedlab.metrics.attended import attended, attended_names, measured_words
from embedlab.metrics.clip_score import image_features, scores_of, text_features
from embedlab.metrics.distance import (
    DISTANCES,
    conditioning_distance,
    image_cosine,
    latent_distance,
    pixel_distance,
    row_distance,
)
from embedlab.metrics.eye import eye_names, eye_scores, outcome_names, outcome_of
from embedlab.metrics.ssim import ssim
from embedlab.models import Model, Pipeline, Source, model_of
from embedlab.operators.base import named
from embedlab.samples import Rendered
from embedlab.token_ids import ids_of
from embedlab.transfer import content_of


@dataclass(frozen=True)
class Metrics(Shown):
    """Settings of what is measured. `words` are scored each as `template` says; left out, they are the edit's words.

    `eye`: the model's detector looks for what the prompt asks for, and for the words (`detect`).
    Raises ConfigError for a template without one `{}`, and for words that are none.

    >>> Metrics(["cat", "dog", "cat"]).words
    ('cat', 'dog')
    """

    words: tuple[str, ...] | None = None
    template: str = "a picture of a {}"
    eye: bool = False

    def __post_init__(self) -> None:
        check_part(self)
        if self.words is not None:
            object.__setattr__(self, "words", tuple(dict.fromkeys(self.words)))


def scored_words(cell: Cell, settings: Metrics) -> list[str]:
    """The words that pictures are scored with: those asked for, or those of the edit."""
    if settings.words is not None:
        return list(settings.words)
    edits = [*cell.operators, *cell.parsed().attention.edits]
    return list(dict.fromkeys(word for edit in edits for word in words_named(edit)))


def check_scored(cell: Cell, settings: Metrics, source: Source) -> None:
    """Refuse words that cannot be scored, before weights are read; nobody scores words where nothing sees pictures.

    A model without a detector, or with one that is none, is refused with `eye`.
    """
    if settings.eye:
        vocabulary_of(eye_of(source))
    for word in scored_words(cell, settings) if source.has_scorer else ():
        try:
            ids_of(settings.template.format(word), source.tokenizers[0])
        except PromptError as error:
            where = "metrics.words" if settings.words is not None else "the edit; metrics.words=[…] names others"
            raise PromptError(f"{word!r:.80} cannot be scored, a word of {where}: {error}") from None


def eye_of(model: Model | Source) -> Path:
    """The folder of a model's detector; ModelError where it has none."""
    if model.eye_folder is None:
        raise ModelError(
            f"metrics.eye is true, and the model '{model.name}' has no detector, a folder 'eye' beside its parts; "
            "set metrics.eye=false, or name a model that has one."
        )
    return model.eye_folder


def _asked(cell: Cell, settings: Metrics, model: Model | Source) -> tuple[Asked, Asked]:
    """What a detector is to look for: what the prompt asks for, and the same with the words that are scored."""
    if not settings.eye:
        return Asked(), Asked()
    known = vocabulary_of(eye_of(model))
    asked = asked_of(cell.wording, known)
    return asked, with_words(asked, scored_words(cell, settings), known)


def _is_replaced(words: Sequence[str], everything: Asked) -> bool:
    """Whether a detector knows all of the words, and says more of them than which one is the closest."""
    return set(words) <= {one.word for one in everything.objects}


def words_named(operator: Any) -> tuple[str, ...]:
    """The words that an operator wants scored; OperatorError where its `words` are none."""
    try:
        with contained("it"):
            words = getattr(operator, "words", ())
            words = words if isinstance(words, str) else tuple(words)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise OperatorError(f"the words of the operator '{named(operator)}' cannot be read: {why}") from error
    if isinstance(words, str) or not all(isinstance(word, str) and word.strip() for word in words):
        raise OperatorError(f"the words of the operator '{named(operator)}' are {words!r:.80}, not a list of texts.")
    return words


class FeatureCache:
    """What looks at pictures and texts for scores and tables, and remembers what it saw: jobs share their baselines."""

    def __init__(self, model: Model, remember: int = 256):
        self.model = model
        self._pictures = Memo[str, Tensor](remember)
        self._texts = Memo[str, Tensor](remember)
        self._detections = Memo[str, Detections](remember)
        self._explained = Memo[str, Explanation](remember)

    def pictures(self, pictures: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image joint"]:
        """CLIP features of pictures; those seen before are not looked at again."""
        scorer = self.model.scorer
        assert scorer is not None
        keys = [content_of(picture) for picture in pictures]
        where = {key: n for n, key in enumerate(keys)}
        return torch.stack(
            self._pictures(keys, lambda new: list(image_features(scorer, pictures[[where[k] for k in new]])))
        )

    def detections(self, pictures: Float[Tensor, "image 3 height width"]) -> list[Detections]:
        """What the model's detector finds on pictures; those seen before are not looked at again."""
        keys = [content_of(picture) for picture in pictures]
        where = {key: n for n, key in enumerate(keys)}
        return self._detections(keys, lambda new: detect(pictures[[where[k] for k in new]], self.model))

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "text joint"]:
        """CLIP features of texts."""
        scorer = self.model.scorer
        assert scorer is not None
        return torch.stack(self._texts(texts, lambda new: list(text_features(scorer, new))))

    def explain(self, before: CallConditioning, after: CallConditioning) -> Explanation:
        """The table of a cell's tokens, of the conditionings without its edit and with it."""
        cell = after.cell
        key = fingerprint([cell.prompt, cell.operators, cell.encoder, cell.guidance])
        ask = partial(described, before, after, self.model.towers, self.model.words)
        return self._explained([key], lambda _: [ask()])[0]


@torch.inference_mode()
def score(
    model: Model | Pipeline,
    before: Rendered,
    after: Rendered,
    settings: Metrics | None = None,
    features: FeatureCache | None = None,
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Figures of each picture (by seed) and of the edit as a whole.

    clip_score/…: 100·cosine with the prompt and with each word; closest: the word with the highest of those.
    change/…: against the unedited picture of the same seed: ssim (1 is the same), pixels (root mean square, 0 to 1),
    latents (distance relative to their length), cosine of the image features. Figures of a picture do not depend on
    what is scored beside it. Of a model without a scorer (`Model.scorer`) there are no CLIP scores and no cosine.
    eye/…, where `Metrics.eye` is true: how likely the picture shows what the prompt asks for (`eye_scores`), and
    eye/outcome, what became of a prompt with two objects; they take the place of `closest` for words that the detector
    knows. attention/…, of pictures with maps: how these lie on what was drawn (`attended`).

    Raises ConfigError for pictures of different seeds or sizes, ModelError for `eye` of a model without a detector.

    >>> from embedlab import Replace, Sampler, models, render
    >>> model, cell = models.load("emoji"), Cell("a puppy", [Replace("puppy", "cat")], sampler=Sampler(steps=2))
    >>> before, after = render(model, [cell.baseline(), cell], seeds=[0])
    >>> rows, whole = score(model, before, after)
    >>> sorted(rows[0])[:4], whole["rows/edited"]
    (['change/cosine', 'change/latents', 'change/pixels', 'change/ssim'], 1.0)
    """
    settings = Metrics() if settings is None else settings
    model = model_of(model)
    check_kind(before, Rendered, "before", "lab.render gives a list of them")
    check_kind(after, Rendered, "after", "lab.render gives a list of them")
    check_kind(settings, Metrics, "settings", "lab.Metrics(words=('cat',))")
    if before.seeds != after.seeds or before.pictures.shape != after.pictures.shape:
        raise ConfigError(
            f"pictures of seeds {listed(before.seeds)}, {tuple(before.pictures.shape[2:])} pixels, cannot be compared "
            f"with seeds {listed(after.seeds)}, {tuple(after.pictures.shape[2:])} pixels."
        )
    rows: list[dict[str, Any]] = [{"seed": seed} for seed in after.seeds]
    a, b = before.pictures, after.pictures
    words = scored_words(after.cell, settings)
    columns: dict[str, Tensor] = {}
    closest: list[str] = []
    asked, everything = _asked(after.cell, settings, model)
    features = features or FeatureCache(model)
    if model.scorer:
        old, new = features.pictures(torch.cat([a, b])).chunk(2)
        texts = [after.cell.wording, *(settings.template.format(word) for word in words)]
        scores = scores_of(new, features.texts(texts))
        # the word "prompt" must not take the column of the whole prompt
        heads = ["prompt", *("the word prompt" if word == "prompt" else word for word in words)]
        columns = {f"clip_score/{head}": s for head, s in zip(heads, scores.T, strict=True)}
        columns["change/cosine"] = image_cosine(old, new)
        if len(words) > 1 and not _is_replaced(words, everything):
            closest = [words[i] for i in scores[:, 1:].argmax(1).tolist()]
    columns["change/ssim"] = ssim(a, b)
    columns["change/pixels"] = pixel_distance(a, b)
    columns["change/latents"] = latent_distance(before.latents, after.latents)
    outcomes: list[str] = []
    if settings.eye:
        found = features.detections(b)
        shown = [eye_scores(one, everything) for one in found]
        columns |= {name: torch.tensor([one[name] for one in shown]) for name in eye_names(everything)}
        outcomes = [became for one in found if (became := outcome_of(one, asked)) is not None]
    if after.maps is not None and (mapped := [w for w in measured_words(after.cell, model) if w in after.maps.words]):
        columns |= attended(after.maps, mapped, b, features.detections(b))
    for n, row in enumerate(rows):
        row |= {name: round(float(column[n]), 6) for name, column in columns.items()}
        if closest:
            row["closest"] = closest[n]
        if outcomes:
            row["eye/outcome"] = outcomes[n]
    whole = {name: round(float(column.double().mean()), 6) for name, column in columns.items()}
    for word in words if closest else ():
        whole[f"closest/{word}"] = closest.count(word) / len(closest)
    for name in outcome_names(asked):
        whole[name] = outcomes.count(name.removeprefix("eye/outcome/")) / len(outcomes)
    # a mean over the calls, of which most have the same conditioning
    pairs = list(zip(before.conditioning, after.conditioning, strict=True))
    distinct = {(id(old), id(new)): (old, new) for old, new in pairs}
    for key, often in Counter((id(old), id(new)) for old, new in pairs).items():
        old_call, new_call = distinct[key]
        distances = row_distance(new_call.original, new_call.edited)
        distances |= conditioning_distance(old_call.cond, new_call.cond)
        for name, value in distances.items():
            whole[name] = whole.get(name, 0.0) + value * often / len(pairs)
    return rows, whole


def score_names(cell: Cell, settings: Metrics, source: Source) -> list[str]:
    """The figures that `score` is going to give of an edit as a whole, known before weights are read."""
    seen = source.has_scorer
    words = scored_words(cell, settings) if seen else []
    heads = ["prompt", *("the word prompt" if word == "prompt" else word for word in words)] if seen else []
    asked, everything = _asked(cell, settings, source)
    closest = [f"closest/{word}" for word in words] if len(words) > 1 and not _is_replaced(words, everything) else []
    eye = [*eye_names(everything), *closest, *outcome_names(asked)]
    changes = [*(["change/cosine"] if seen else []), "change/ssim", "change/pixels", "change/latents"]
    mapped = attended_names(measured_words(cell, source))
    return [*(f"clip_score/{head}" for head in heads), *changes, *eye, *mapped, *DISTANCES]
