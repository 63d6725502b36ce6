"""What was seen on pictures, unedited and edited, in a line of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import torch

from embedlab.errors import EmbedlabError
from embedlab.metrics.clip_score import scores_of
from embedlab.metrics.score import FeatureCache, Metrics, scored_words
from embedlab.metrics.ssim import ssim
from embedlab.samples import Rendered

SURE = 0.5  # from which probability on a thing counts as seen
TEMPLATE = Metrics().template


@torch.inference_mode()
def seen(before: Rendered, after: Rendered, features: FeatureCache) -> str:
    """What the model's detector found on edited pictures, and how CLIP scores went: `4 of 4: skunk; CLIP 21 → 28`.

    What a model has nothing for is left out: without a detector there are no things, without a scorer no scores.
    """
    said = []
    model = features.model
    edited = before is not after
    if model.eye_folder is not None:
        found = [things(one.pictures, features) for one in ((before, after) if edited else (after,))]
        said.append(f"{found[0]} → {found[1]}" if edited else found[0])
    if model.scorer is not None:
        said += clip(before, after, features, edited)
    if edited:
        said.append(f"alike {float(ssim(before.pictures, after.pictures).mean()):.2f} (SSIM)")
    return "; ".join(said)


def things(pictures: torch.Tensor, features: FeatureCache) -> str:
    """What is on how many of some pictures, the most frequent first.

    >>> from embedlab import load
    >>> things(torch.ones(2, 3, 128, 128), FeatureCache(load("emoji")))
    '2 of 2: nothing'
    """
    seen = Counter[str]()
    for one in features.detections(pictures):
        sure = dict.fromkeys(thing.word for thing in one.things if thing.probability >= SURE)
        seen.update([" and ".join(sure) or "nothing"])
    return ", ".join(f"{count} of {len(pictures)}: {word}" for word, count in seen.most_common(3))


def clip(before: Rendered, after: Rendered, features: FeatureCache, edited: bool) -> Sequence[str]:
    """How CLIP scores went, of the prompt and of the words of the edit; a word that cannot be scored is left out."""
    texts = {"the prompt": after.cell.wording}
    with suppress(EmbedlabError):  # words of an operator that are none
        texts |= {f"“{word}”": TEMPLATE.format(word) for word in scored_words(after.cell, Metrics())[:3]}
    said = []
    once = {text.lower(): name for name, text in reversed(texts.items())}  # a word may be scored by the prompt itself
    for name in reversed(list(once.values())):
        text = texts[name]
        with suppress(EmbedlabError):  # a text that is too long to be scored
            wanted = features.texts([text])
            old, new = (float(scores_of(features.pictures(one.pictures), wanted).mean()) for one in (before, after))
            said.append(f"{name} {old:.1f} → {new:.1f}" if edited else f"{name} {new:.1f}")
    return [f"CLIP of {', '.join(said)}"] if said else []
