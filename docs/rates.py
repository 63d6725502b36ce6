"""The rates that docs/studies.md gives: many seeds, judged by the eye, with Wilson's 95 % intervals.

python docs/rates.py    # 656 pictures; writes docs/studies/rates.csv
"""

import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import embedlab as lab
from embedlab.detector.detections import Detections, stands
from embedlab.pretrain.bars import Rate
from embedlab.pretrain.drawings import KINDS

Judge = Callable[[Detections], bool]
PAD = lab.Rows(role="pad")


def related(one: str, relation: str, other: str) -> Judge:
    """Both are there, and the first stands so to the second."""
    return lambda seen: bool(seen.of(one) and seen.of(other)) and stands(seen.of(one)[0], relation, seen.of(other)[0])


def coloured(**colours: str) -> Judge:
    """Each is there, the likeliest of it in its colour."""
    return lambda seen: all([t.colour for t in seen.of(word)[:1]] == [name] for word, name in colours.items())


def counted(word: str, count: int) -> Judge:
    """So many of a word and nothing else."""
    return lambda seen: len(seen.of(word)) == len(seen.things) == count


def of_kind(kind: str) -> Judge:
    """The likeliest object is one of a kind."""
    return lambda seen: bool(seen.things) and seen.things[0].word in KINDS[kind]


def asked() -> Iterator[tuple[str, str, tuple[lab.Operator, ...], int, dict[str, Judge]]]:
    """Study, prompt, edit, how many seeds, and what is asked of each picture."""
    for stage in (None, "position", "token", "both", "hidden"):
        swap = (lab.Swap("cat", by="dog", stage=stage),) if stage else ()
        ways = {way: related("cat", way, "dog") for way in ("above", "below")}
        yield "turned_over", "a cat above a dog", swap, 64, ways
    for one, two, seeds in (("a yellow apple", "a green heart", 24), ("a purple shirt", "a green umbrella", 12)):
        second = lab.Replace(two, by=two, stage="hidden")
        padding = lab.Replace(PAD, by={"prompt": one, "rows": PAD}, stage="hidden", lengths="repeat")
        right = coloured(**{phrase.split()[2]: phrase.split()[1] for phrase in (one, two)})
        for edit in ((), (second,), (padding,), (second, padding)):
            yield "colour_leaks", f"{one} and {two}", edit, seeds, {"both colours": right}
    for name, weight, count in (("one", 1, 2), ("two", 1, 2), ("three", 1, 3), ("four", 1, 4), ("four", 0.25, 3)):
        edit = (lab.Interpolate("two", toward=name, weight=weight),) if name != "two" else ()
        yield "counting", "a picture of two stars", edit, 24, {f"{count} stars": counted("star", count)}
    for word, kind, other in (
        ("boat", "vehicle", "animal"),
        ("plane", "vehicle", "animal"),
        ("fish", "animal", "vehicle"),
    ):
        add = lab.Add(word, direction={other: 1, kind: -1})
        yield "arithmetic", f"a {word}", (add,), 24, {k: of_kind(k) for k in (other, kind)}


def rates() -> Iterator[dict[str, object]]:
    """A row for each rate, with its interval in percent."""
    model = lab.load("emoji")
    for study, prompt, edit, seeds, judges in asked():
        (rendered,) = lab.render(model, [lab.Cell(prompt, edit)], range(seeds))
        seen = lab.detect(rendered.pictures, model)
        for name, judge in judges.items():
            rate = Rate(sum(map(judge, seen)), len(seen))
            low, high = rate.interval
            edits = ", ".join(map(str, edit)) or "as written"
            print(f"{study}: {prompt}; {edits}: {name} {rate}", flush=True)
            yield {
                "study": study, "prompt": prompt, "edit": edits, "judged": name, "hits": rate.hits, "seeds": rate.of,
                "low": f"{100 * low:.1f}", "high": f"{100 * high:.1f}",
            }  # fmt: skip


def write(table: Path) -> None:
    """All rates into a table."""
    rows = list(rates())
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "studies" / "rates.csv")
