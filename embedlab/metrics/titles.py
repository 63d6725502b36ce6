"""How scores are called and written for people; it needs no torch, so that tables and pages are there at once."""

from __future__ import annotations

TITLES = {
    "change/cosine": ("similarity to unedited", "CLIP"),
    "change/ssim": ("similarity to unedited", "SSIM"),
    "change/pixels": ("distance from unedited", "pixels"),
    "change/latents": ("distance from unedited", "latents"),
    "round_trip/psnr": ("picture and back", "PSNR"),
    "round_trip/decoded": ("picture and back", "PSNR of the autoencoder"),
    "round_trip/latents": ("picture and back", "latents off"),
    "rows/edited": ("", "token rows edited"),
    "rows/distance": ("", "token rows' distance"),
}


def title_of(key: str) -> tuple[str, str]:
    """A score as people say it: what it belongs to, where that is said once for several, and its name.

    >>> title_of("change/ssim"), title_of("clip_score/cat"), title_of("closest/cat")
    (('similarity to unedited', 'SSIM'), ('', 'CLIP cat'), ('', 'is cat'))
    >>> title_of("eye/count/cat"), title_of("eye/outcome/first only"), title_of("attention/iou/cat")
    (('eye', 'count cat'), ('outcome', 'first only'), ('map', 'IoU cat'))
    """
    if key.startswith("eye/outcome/"):
        return "outcome", key.removeprefix("eye/outcome/")
    if key.startswith("attention/"):
        return "map", key.removeprefix("attention/").replace("iou/", "IoU ").replace("/", " ")
    if key.startswith("eye/"):
        return "eye", key.removeprefix("eye/").replace("/", " ")
    return TITLES.get(key, ("", key.replace("clip_score/", "CLIP ").replace("closest/", "is ")))


def name_of(key: str) -> str:
    """A score as people say it, where it stands alone.

    >>> name_of("clip_score/cat"), name_of("change/ssim"), name_of("closest/cat"), name_of("rows/edited")
    ('CLIP cat', 'similarity to unedited (SSIM)', 'is cat', 'token rows edited')
    """
    of, name = title_of(key)
    return f"{of} ({name})" if of else name.replace("/", " ").replace("_", " ")


def format_score(key: str, value: float | None) -> str:
    """A score as people read it: CLIPScores with one digit, shares and the eye's probabilities in percent.

    >>> format_score("clip_score/cat", 31.06), format_score("closest/cat", 0.5), format_score("change/ssim", None)
    ('31.1', '50%', '–')
    """
    if value is None:
        return "–"
    if key.startswith("clip_score/"):
        return f"{value:.1f}"
    return f"{100 * value:.0f}%" if key.startswith(("closest/", "eye/", "attention/")) else f"{value:.3f}"


ABOUT = (  # beginnings of keys, the longest first where one begins another; {} is what follows
    (
        "clip_score/prompt",
        "100 times the cosine between CLIP's features of the picture and of the whole prompt.",
    ),
    ("clip_score/", "100 times the cosine between CLIP's features of the picture and of a text with '{}'."),
    ("closest/", "Share of the pictures that CLIP finds closer to '{}' than to the other words."),
    ("change/cosine", "Cosine between the CLIP features of the edited and the unedited picture; 1 is the same."),
    ("change/ssim", "Structural similarity (SSIM) of the edited to the unedited picture of the seed; 1 is the same."),
    (
        "change/pixels",
        "Root mean square difference of edited and unedited pixels, from 0 to 1; 0 is the same.",
    ),
    ("change/latents", "Distance between edited and unedited latents, relative to the length of the unedited."),
    ("eye/outcome/", "Share of the pictures of which the detector says: {}."),
    ("eye/count/", "Probability, by the detector, that there are as many of '{}' as the prompt asks for."),
    ("eye/colour/", "Probability, by the detector, that there is a '{}' of the colour that the prompt asks for."),
    ("eye/relation", "Probability, by the detector, that all objects are there and stand as the prompt asks."),
    ("eye/ground", "Probability, by the detector, that the ground is the one that the prompt asks for."),
    ("eye/", "Probability, by the detector, that there is a '{}' in the picture."),
    (
        "attention/iou/",
        "Intersection over union of the object and where '{}' is looked at; 1 is the same area.",
    ),
    ("attention/inside/", "Share of the attention map of '{}' that lies on the object."),
    (
        "round_trip/psnr",
        "Decibels between the start picture and what inversion makes of it again; more is closer.",
    ),
    (
        "round_trip/decoded",
        "Decibels between the start picture and its latents decoded: the most to be reached.",
    ),
    ("round_trip/latents", "Root mean square of how far the latents are off after inversion, beside their own."),
    ("rows/edited", "How many token and position rows the edit changes, over all encoders."),
    ("rows/distance", "Mean distance of the edited rows from those as written, relative to their length."),
)


def about(key: str) -> str:
    """What a score measures, in a sentence; empty for one that is not ours.

    >>> about("clip_score/cat")
    "100 times the cosine between CLIP's features of the picture and of a text with 'cat'."
    >>> about("change/ssim").split(";")[1], about("mine/of_my_own")
    (' 1 is the same.', '')
    """
    start, text = next(((start, text) for start, text in ABOUT if key.startswith(start)), ("", ""))
    return text.replace("{}", key.removeprefix(start))
