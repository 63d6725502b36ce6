"""A composed config → the values that it names. Every part is a callable's keyword list."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import hydra.utils
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from embedlab.errors import ConfigError, contained, listed
from embedlab.sweep import settings

HERE, conf_dir = settings.HERE, settings.conf_dir  # which are read without Hydra, too


def part_of(config: DictConfig, name: str) -> Any:
    """One part of a config, instantiated; None where it is left out."""
    if config.get(name) is None:
        return None
    try:
        with contained(name):
            return hydra.utils.instantiate(meant(config[name]), _convert_="all")
    except RuntimeError as error:
        if error.__cause__ is None or isinstance(error.__cause__, Exception):
            raise
        raise ConfigError(f"{error} when it was made; nothing of a config may end the process.") from error


def meant(part: Any) -> Any:
    r"""A part of a config, so that a `${` that is text comes out as itself: Hydra resolves twice what it makes.

    >>> part = OmegaConf.create({"of": {"_target_": "builtins.dict", "text": r"a \${b}"}})
    >>> hydra.utils.instantiate(meant(part.of))
    {'text': 'a ${b}'}
    """
    plain = OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part
    return OmegaConf.create(_escaped(plain)) if "${" in json.dumps(plain, default=str) else part


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return escaped(escaped(value))
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    return [_escaped(inner) for inner in value] if isinstance(value, list) else value


def escaped(text: str) -> str:
    r"""A text that means itself to OmegaConf.

    >>> print(escaped(r"a ${b} \c"))
    a \${b} \c
    """
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


class Maker:
    """Instantiates parts, each distinct one once: the jobs of a sweep share their model, and most of the rest."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def __call__(self, config: DictConfig, name: str) -> Any:
        """As `part_of`."""
        if config.get(name) is None:
            return None
        key = json.dumps([name, OmegaConf.to_container(config[name], resolve=True)], default=repr)
        if key not in self.known:
            self.known[key] = part_of(config, name)
        return self.known[key]


# what operators edit in the default prompt: `rows` are these; of another prompt they have to be named
DEFAULT_PROMPT = "A picture of a puppy"
WORDS = {"operators.permute.rows": "a picture", "operators.swap.rows": "picture", "operators.swap.by": "puppy"}
OTHERWISE = "puppy"
# what a message does not propose as the word to be edited, where there are others
SMALL = frozenset(
    ["a", "an", "the", "of", "in", "on", "at", "and", "or", "with", "to", "by", "for", "from", "is", "as"]
)


def lacking(config: DictConfig) -> list[str]:
    """The rows that operators of a config edit and that are not set; in YAML `???`."""

    def unset(value: Any, key: str) -> Iterator[str]:
        if value == "???" and (key in WORDS or key.endswith(".rows")):
            yield key
        for name, inner in value.items() if isinstance(value, dict) else ():
            yield from unset(inner, f"{key}.{name}")

    operators = config.get("operators")
    return list(unset(OmegaConf.to_container(operators), "operators")) if OmegaConf.is_dict(operators) else []


def complete(
    config: DictConfig, command: Callable[[Sequence[str]], str] = " ".join, keys: Sequence[str] | None = None
) -> DictConfig:
    """A config in which each operator says which rows it edits.

    Left out, they are those of the default prompt. No word is guessed of another one: ConfigError names what is not
    set, all of it, and what would fit. `command` makes of the missing settings what is to be typed; of several jobs
    `keys` are those that all lack.

    >>> config = OmegaConf.create({"prompt": "a red fox", "operators": {"scale": {"rows": "???", "by": 2}}})
    >>> complete(config)
    Traceback (most recent call last):
        ...
    embedlab.errors.ConfigError: operators.scale.rows is not set; it has to be a word of the prompt (a, red, fox): \
operators.scale.rows=fox
    """
    words = {key: WORDS.get(key, OTHERWISE) for key in (lacking(config) if keys is None else keys)}
    if not words:
        return config
    texts = list(texts_in(config.prompt))
    if texts and texts != [DEFAULT_PROMPT]:
        fit, more = words_in(texts), []
        for _, mine in groupby(words, key=lambda key: key.rpartition(".")[0]):
            keys = list(mine)
            values = proposed(texts, [len(words[key].split()) for key in keys])
            more += [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
        what, none = "a word of the prompt", "which has none that can be named"
        if len(texts) > 1:
            what, none = "a word of all its prompts", "which have none in common"
        choice = f" ({listed(fit, 12)})" if fit else f", {none}"
        is_, it = ("is", "it") if len(words) == 1 else ("are", "each")
        raise ConfigError(f"{listed(words)} {is_} not set; {it} has to be {what}{choice}: {command(more)}")
    whole = copy.deepcopy(config)
    with read_write(whole), open_dict(whole):
        for key, word in words.items():
            OmegaConf.update(whole, key, word)
    return whole


def texts_in(prompt: Any) -> Iterator[str]:
    """The texts that a prompt is, or may be over time; nothing of what is no prompt, which its cell refuses."""
    if isinstance(prompt, str):
        yield prompt
    elif OmegaConf.is_dict(prompt):
        for value in prompt.get("values") or ():
            yield from texts_in(value)


def words_in(texts: Sequence[str]) -> list[str]:
    """The words that all of some texts have, as a person reads them.

    >>> words_in(["A red fox, a fox!", "The fox"]), words_in(["It's 5 o'clock"])
    (['fox'], ["It's", "o'clock"])
    """
    found: dict[str, str] = {}
    for word in re.findall(r"(?<![\w<])[^\W\d_]+(?:['’-][^\W\d_]+)*(?![\w>])", texts[0]):
        found.setdefault(word.lower(), word)
    others = [set(words_in([text.lower()])) for text in texts[1:]]
    return [word for key, word in found.items() if all(key in other for other in others)]


def proposed(texts: Sequence[str], counts: Sequence[int]) -> list[str]:
    """For each of some settings that name so many words a value that fits, in Hydra's syntax: other words for each.

    >>> proposed(["A cat above a dog, in oil"], [1]), proposed(["A cat above a dog"], [1, 1]), proposed(["5"], [1])
    (['dog'], ['above', 'dog'], ['{role: all}'])
    """
    clause = re.split(r"[^\w\s'’-]", texts[0].strip())[0]
    inside = {word.lower() for word in words_in([clause])}
    fit = words_in(texts)
    ranked = sorted(fit, key=lambda word: (word.lower() not in SMALL, word.lower() in inside))  # the last is the best
    if sum(counts) > len(ranked) or (len(texts) > 1 and max(counts) > 1):
        return ["{role: all}"] * len(counts)
    if max(counts) > 1:  # a phrase
        first = clause.split()[: max(counts)]
        return [quoted(" ".join(first if count > 1 else ranked[-1:])) for count in counts]
    return [quoted(word) for word in ranked[len(ranked) - len(counts) :]]


def quoted(word: str) -> str:
    """A word as a value of Hydra's syntax."""
    bare = re.fullmatch(r"[A-Za-z][A-Za-z ]*", word) and word.lower() not in ("null", "true", "false", "nan", "inf")
    return word if bare else f'"{word}"'
