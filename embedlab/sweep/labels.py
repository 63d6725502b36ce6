"""What the jobs of a sweep are called: by what tells them apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from embedlab.sweep.axes import format_value, short, short_names
from embedlab.sweep.result import Result

AS_WRITTEN = "as written"  # the label of a cell without operators


def labels(results: Sequence[Result]) -> list[str]:
    """The labels of a sweep's jobs; what they leave out is added where two would be called the same.

    >>> two = [Result("done", label="puppy → cat", job=n, overrides={"model": m}) for n, m in enumerate("ab")]
    >>> labels(two), labels([two[0], two[0]])
    (['puppy → cat, model a', 'puppy → cat, model b'], ['puppy → cat, job 0', 'puppy → cat, job 0'])
    """
    common = common_parts(results)
    keys = list(dict.fromkeys(key for result in results for key in result.overrides))
    names, found = short_names(dict.fromkeys(keys)), [label(result, common) for result in results]
    alike: dict[str, list[int]] = {}
    for n, name in enumerate(found):
        alike.setdefault(name, []).append(n)
    for mine in alike.values():
        values = {key: [format_value(results[n].overrides.get(key)) for n in mine] for key in keys}
        varied = [key for key in keys if len(set(values[key])) > 1]
        for k, n in enumerate(mine):
            found[n] = ", ".join([found[n], *(f"{names[key]} {values[key][k]}" for key in varied)])
    often = Counter(found)
    pairs = zip(found, results, strict=True)
    return [name if often[name] == 1 else f"{name}, job {result.job}" for name, result in pairs]


def label(result: Result, common: Collection[str] = ()) -> str:
    r"""What tells a job apart from the others of its sweep: its edit, where that was chosen, and what else was set.

    `common` are parts of its name that all have.

    >>> label(Result("done", label="as written", name="encoder.skip={0:0.5,2:0.5},sampler.steps=9"))
    'skip {0:0.5,2:0.5}, steps 9'
    >>> label(Result("done", label="puppy → cat", name="operators.replace.by=cat,guidance.scale=2"))
    'puppy → cat, scale 2'
    >>> label(Result("done", label="as written", name=r"prompt=a\ red\ cat,encoder.skip=1"))
    'prompt a red cat, skip 1'
    >>> label(Result("done", label="puppy → cat", name="+name='at night',operators.replace.by=cat,prompt='a puppy'"))
    'at night, puppy → cat'
    """
    own = [part for part in split(result.name) if part not in common]
    name = ",".join(own) or result.name
    named = result.label or AS_WRITTEN  # one that failed early may have none
    parts = split(name) if name != named else []
    chosen = [part for part in parts if part.startswith("+name=")]  # by a list of prompts, in the place of the prompt
    first = [unquoted(part.removeprefix("+name=")) for part in chosen]
    parts = [part for part in parts if part not in chosen and not (chosen and part.startswith("prompt="))]
    others = [part.partition("=") for part in parts if not part.lstrip("+").startswith("operators")]
    settings = [f"{key.lstrip('+').split('.')[-1]} {short(unquoted(value))}" for key, _, value in others]
    alone = len(settings) == len(parts) and bool(parts or first)
    return ", ".join([*first, *settings] if alone else [*first, named, *settings])


def unquoted(value: str) -> str:
    r"""A text without the quotes or the escapes that Hydra's syntax asks for.

    >>> print(unquoted(r"a\ cat\, red"), unquoted(r"'it\'s, a cat'"), unquoted("[1,2]"))
    a cat, red it's, a cat [1,2]
    """
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return re.sub(r"\\(['\"]|\$\{)", r"\1", value[1:-1])
    return re.sub(r"\\(.)", r"\1", value)


def common_parts(results: Sequence[Result]) -> frozenset[str]:
    """The parts that the names of all jobs of a sweep have.

    >>> sorted(common_parts([Result("done", name=f"sampler.steps=9,guidance.scale={scale}") for scale in (1, 4)]))
    ['sampler.steps=9']
    """
    named = [split(result.name) for result in results]
    return frozenset(set.intersection(*map(set, named))) if len(named) > 1 else frozenset()


def split(name: str) -> list[str]:
    r"""Overrides of a job's name; commas within brackets and quotes, and behind a backslash, belong to a value.

    >>> print(*split(r"a=1,b=[2,3],c='4,\',5',d=6\,7"))
    a=1 b=[2,3] c='4,\',5' d=6\,7
    """
    parts, depth, quote = [""], 0, ""
    escaped = False
    for sign in name:
        if escaped:
            parts[-1] += sign
            escaped = False
            continue
        escaped = sign == "\\"
        if sign in "'\"":
            quote = "" if sign == quote else quote or sign
        depth += 0 if quote else (sign in "[{(") - (sign in "]})")
        if sign == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return [part for part in parts if part]
