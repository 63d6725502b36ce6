"""The scores of a sweep as text: a line a job, as wide as the terminal is, the best of each column marked."""

from __future__ import annotations

import itertools
import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from embedlab.errors import counted, listed
from embedlab.metrics.titles import format_score, name_of, title_of
from embedlab.sweep.labels import labels
from embedlab.sweep.result import Result
from embedlab.sweep.tables import shown_scores

WIDE = 100  # columns where nobody's terminal says how many it has
GAP = "  "
NARROW = 24  # letters that a name may always have
BEST = "*"
OF_THE_EDIT = ("rows/", "conditioning/")  # scores of an edit as a whole, which stand in the files alone
DISTANCES = ("change/pixels", "change/latents", "round_trip/latents")  # the less the better
SPARED = ("change/latents", "change/pixels", "attention/", "round_trip/")  # what a narrow terminal lacks, in order


@dataclass(frozen=True)
class Column:
    """A score: what it belongs to, its name, and its value for each job, as text."""

    key: str
    group: str
    name: str
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        """Letters that it needs, without a mark: that stands in the gap behind it."""
        return max(len(text.rstrip(BEST)) for text in (self.name, *self.cells))


def table(
    results: Sequence[Result], names: Sequence[str] | None = None, most: int = 60, width: int | None = None
) -> str:
    """The mean scores of each job, a line a job; of very many the first and the last.

    `names` are what the jobs are called: by their labels where they are left out. `width` is that of the terminal, or
    100 where there is none: columns that it has no room for are left out, those of distances first, and what still does
    not fit stands below.

    >>> jobs = [Result("done", label=f"to {n}", job=n, scores={"clip_score/cat": 20.0 + n}) for n in (1, 2)]
    >>> print(table(jobs, ["to 1", "to 2"]))
         CLIPScore
               cat
    to 1      21.0
    to 2      22.0*
    <BLANKLINE>
    * the highest of its column.
    """
    names = labels(results) if names is None else names
    width = shutil.get_terminal_size((WIDE, 24)).columns if width is None else width
    scores = shown_scores(results, (key for result in results for key in result.scores))
    keys = [key for key in scores if not key.startswith(OF_THE_EDIT)]
    # jobs of different prompts ask for different things: what belongs together stands together
    keys.sort(key=lambda key: key.startswith("eye/") + key.startswith("eye/outcome/"))
    columns = [column(key, [result.scores.get(key) for result in results]) for key in keys]
    room = min(max([4, *map(len, names)]), max(NARROW, width // 3))
    left_out: list[Column] = []
    while len(columns) > 1 and room + _width(columns) > width and (spare := _spare(columns)) is not None:
        left_out.append(spare)
        columns.remove(spare)
    room = min(max([4, *map(len, names)]), max(room, width - _width(columns) - len(GAP)))
    cut = cut_alike(names, room)
    rows, hidden = list(range(len(results))), max(0, len(results) - most)
    if hidden:
        rows = [*rows[: most // 2], *rows[len(results) - (most - most // 2) :]]
    blocks = []
    for block in _blocks(columns, width - room):
        lines = [*_heads(block, room), *(_line(cut[n], room, [one.cells[n] for one in block], block) for n in rows)]
        if hidden:
            lines.insert(len(lines) - (most - most // 2), f"… {hidden} more in results.csv …")
        blocks.append("\n".join(line.rstrip() for line in lines))
    notes = "\n".join(textwrap.fill(line, max(width, 60)) for line in _notes(results, columns, left_out))
    return "\n\n".join([*blocks, notes] if notes else blocks)


def column(key: str, values: Sequence[float | None]) -> Column:
    """A score of all jobs; the best value is marked where they differ.

    >>> column("change/pixels", [0.5, 0.25, None]).cells, column("closest/cat", [1, 1]).cells
    (('0.500', '0.250*', '–'), ('100%', '100%'))
    """
    group, name = head_of(key)
    texts = [_text(key, value) for value in values]
    known = [value for value in values if value is not None]
    best = _text(key, (min if key in DISTANCES else max)(known)) if known else None
    if len({*texts} - {"–"}) > 1:
        texts = [f"{text}{BEST}" if text == best else text for text in texts]
    return Column(key, group, name, tuple(texts))


def head_of(key: str) -> tuple[str, str]:
    """What a score belongs to, and its name.

    >>> head_of("clip_score/cat"), head_of("closest/cat"), head_of("change/ssim")
    (('CLIPScore', 'cat'), ('closest to', 'cat'), ('like unedited', 'SSIM'))
    """
    for start, group in (("clip_score/", "CLIPScore"), ("closest/", "closest to")):
        if key.startswith(start):
            return group, key.removeprefix(start)
    group, name = title_of(key)
    return {"similarity to unedited": "like unedited", "distance from unedited": "distance"}.get(group, group), name


def _text(key: str, value: float | None) -> str:
    if value is not None and key in ("change/cosine", "change/ssim"):
        return f"{100 * value:.0f}%"
    return format_score(key, value)


def _width(columns: Sequence[Column]) -> int:
    """Letters of columns with the gaps before them; a group's name may be wider than they are."""
    total = 0
    for group, members in itertools.groupby(columns, key=lambda one: one.group):
        own = sum(len(GAP) + one.width for one in members)
        total += max(own, len(GAP) + len(group))
    return total


def _spare(columns: Sequence[Column]) -> Column | None:
    """The next column to do without: first one that is 0% everywhere."""
    if (none := next((one for one in columns if {*one.cells} == {"0%"}), None)) is not None:
        return none
    for key in SPARED:
        for one in reversed(columns):
            if one.key.startswith(key):
                return one
    alike = Counter(one.cells for one in columns if one.group == "CLIPScore")
    return next((one for one in columns if one.key == "clip_score/prompt" and alike[one.cells] > 1), None)


def _blocks(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """Columns in as many tables as it takes, each no wider than that."""
    blocks: list[list[Column]] = [[]]
    for one in columns:
        if blocks[-1] and _width([*blocks[-1], one]) > width:
            blocks.append([])
        blocks[-1].append(one)
    return blocks


def _heads(columns: Sequence[Column], room: int) -> list[str]:
    over = " " * room
    for group, members in itertools.groupby(columns, key=lambda one: one.group):
        over += f" {group.rjust(_width(list(members)) - len(GAP))} "
    names = _line("", room, [one.name for one in columns], columns)
    return [line for line in (over, names) if line.strip()]


def _line(name: str, room: int, cells: Sequence[str], columns: Sequence[Column]) -> str:
    line, texts = name.ljust(room), iter(cells)
    for _, members in itertools.groupby(columns, key=lambda one: one.group):
        own = list(members)
        placed = "".join(f" {_placed(next(texts), one.width)}" for one in own)
        line += placed.rjust(_width(own))
    return line


def _placed(text: str, width: int) -> str:
    """A cell to the right of its column, and behind it its mark, or the room of one."""
    value = text.removesuffix(BEST)
    return value.rjust(width) + (BEST if text != value else " ")


def cut_alike(names: Sequence[str], room: int) -> list[str]:
    """Names that fit: cut where they agree, and not where they differ; two stay two.

    >>> cut_alike(["a long beginning, cat, and so on", "a long beginning, dog, and so on"], 12)
    ['…cat,…', '…dog,…']
    >>> cut_alike(["a long beginning, then cat", "a long beginning, then dog", "short"], 12)
    ['…g, then cat', '…g, then dog', 'short']
    """
    while any(len(name) > room for name in names) and (run := shared_words(names)) is not None:
        names = [name.replace(run, " … " if run[0] == run[-1] == " " else "…") for name in names]
    found = [name if len(name) <= room else f"{name[: room - 1]}…" for name in names]
    often = Counter(found)
    tails = [
        f"…{name[1 - room :]}" if len(name) > room and often[text] > 1 else text
        for name, text in zip(names, found, strict=True)
    ]
    often = Counter(tails)
    return [
        text if often[text] == 1 else f"{text[: room - 1 - len(str(n))]}#{n}" if len(names[n]) > room else text
        for n, text in enumerate(tails)
    ]


def shared_words(names: Sequence[str]) -> str | None:
    """The longest run of words that all names have; None where it is not worth a sign.

    >>> shared_words(["a red mug in down", "the red mug in up"]), shared_words(["on it", "on us"]), shared_words(["it"])
    (' red mug in ', None, None)
    """
    if len(names) < 2:
        return None
    words = names[0].split(" ")[:60]
    for length in range(len(words) - 1, 0, -1):
        for start in range(len(words) - length + 1):
            run = " ".join(words[start : start + length])
            run = f"{' ' if start else ''}{run}{' ' if start + length < len(words) else ''}"
            if len(run) > 4 and all(name.count(run) == 1 for name in names):
                return run
    return None


def _notes(results: Sequence[Result], columns: Sequence[Column], left_out: Sequence[Column]) -> list[str]:
    said = []
    keys = {one.key for one in columns}
    if any(cell.endswith(BEST) for one in columns for cell in one.cells):
        least = ", of a distance the lowest" if keys & {*DISTANCES} else ""
        said.append(f"{BEST} the highest of its column{least}.")
    if keys & {"change/cosine", "change/ssim"}:
        said.append("Like unedited: 100% is the same image.")
    counts = {sum(1 for row in result.pictures if row.shown) for result in results}
    if len(counts) == 1 and (many := max(counts)) > 1:
        said.append(f"Means over {counted(many, 'image')}.")
    elif len(counts) > 1:
        said.append("Means over the images of a job.")
    found = [" ".join(said)] if said else []
    nothing = [name_of(one.key) for one in left_out if {*one.cells} == {"0%"}]
    others = [name_of(one.key) for one in left_out if {*one.cells} != {"0%"}]
    if nothing:
        found.append(f"0% everywhere: {listed(nothing, 20)}.")
    if others:
        found.append(f"In results.csv, for want of room here: {listed(others, 20)}.")
    return found
