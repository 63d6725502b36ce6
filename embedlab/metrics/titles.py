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
