"""The concepts that a model is given by `concepts=[PATH, …]`: named, fitted to its encoders, added to its vocabulary.

What was handed in stays as it was: words are added to copies of tokenizers, rows to tables of our own (`Tower.added`).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from tokenizers import AddedToken
from torch import Tensor
from transformers import CLIPTokenizer

from embedlab.errors import ModelError
from embedlab.models.concept_files import Concept, load_concepts
from embedlab.models.places import path_of


def entries_of(given: Any) -> tuple[str, ...]:
    """What `concepts` names, one text each: `PATH` or `NAME=PATH`; of a mapping, names are keys.

    >>> entries_of({"<my-cat>": "cat.pt"}), entries_of("cat.pt"), entries_of(None)
    (('<my-cat>=cat.pt',), ('cat.pt',), ())
    """
    if given is None:
        return ()
    if isinstance(given, Mapping):
        return tuple(f"{name}={path}" for name, path in given.items())
    return tuple(map(str, [given] if isinstance(given, str | Path) else given))


def parted(entry: str) -> tuple[str | None, str]:
    """The name that is given with a path, and the path; a file may have a = in its own name."""
    path = path_of(entry)
    if "=" not in entry or (path is not None and path.exists()):
        return None, entry
    name, _, rest = entry.partition("=")
    return name, rest


def read_entry(entry: str) -> tuple[Concept, ...]:
    """The concepts that an entry names."""
    name, path = parted(entry)
    return load_concepts(path, name)


def read_concepts(
    entries: Iterable[str], widths: Sequence[int], tokenizers: Sequence[CLIPTokenizer], model: str
) -> tuple[Concept, ...]:
    """The concepts for a model with text encoders of these widths: each with one part an encoder, in their order.

    Raises ModelError for one of another model, one whose name is a word already, and two of one name.
    """
    concepts: list[Concept] = []
    known: dict[str, str] = {}  # names are looked for in small letters, as CLIP reads
    for entry in entries:
        for concept in read_entry(entry):
            concepts.append(fitted(concept, widths, model))
            check_new(concept, tokenizers)
            for name in concept.names:
                if other := known.get(name.lower()):
                    raise ModelError(
                        f"two concepts are called '{name}', of '{other}' and '{concept.path}'; give one another name: "
                        f"NAME={concept.path}."
                    )
                known[name.lower()] = str(concept.path)
    return tuple(concepts)


def fitted(concept: Concept, widths: Sequence[int], model: str) -> Concept:
    """A concept with one part for each of a model's text encoders; ModelError where it is of another model."""
    keys, mine = concept.keys, [rows.shape[1] for rows in concept.vectors]
    two = ("clip_l", "clip_g")
    if mine != list(widths) or (len(widths) > 1 and keys != two):
        has = " and ".join(f"{key} {width}".strip() for key, width in zip(keys, mine, strict=True))
        have = "those" if len(widths) > 1 else "the one"
        raise ModelError(
            f"'{concept.path}' holds vectors {has} wide, and {have} of '{model}' "
            f"{'are' if len(widths) > 1 else 'is'} {' and '.join(map(str, widths))} wide: a concept of another model."
        )
    return concept


def check_new(concept: Concept, tokenizers: Iterable[CLIPTokenizer]) -> None:
    """Refuse a concept whose name a vocabulary has already."""
    for words in tokenizers:
        there = {name.lower() for name in words.get_added_vocab()}
        for name in concept.names:
            small = name.lower()
            ids = [words.convert_tokens_to_ids(one) for one in (name, small, f"{small}</w>")]
            if small in there or any(number not in (None, words.unk_token_id) for number in ids):
                of, other = (f" '{concept.path}'", f"<{name}>={concept.path}") if concept.path else ("", f"<{name}>")
                raise ModelError(
                    f"'{name}', the name of the concept{of}, is a word of the vocabulary already; give it another: "
                    f"'{other}'."
                )


def with_words(tokenizer: CLIPTokenizer, concepts: Sequence[Concept]) -> CLIPTokenizer:
    """A copy of a tokenizer that knows concepts; the tokenizer itself where there are none.

    A name that begins and ends with a letter or digit is found as a whole word alone, `art` not in `party`.
    """
    return _with_names(tokenizer, tuple(name for concept in concepts for name in concept.names))


@lru_cache(maxsize=8)
def _with_names(tokenizer: CLIPTokenizer, names: tuple[str, ...]) -> CLIPTokenizer:
    if not names:
        return tokenizer
    own = copy.deepcopy(tokenizer)
    for name in names:
        whole = name[0].isalnum() and name[-1].isalnum()
        own.add_tokens([AddedToken(name, single_word=whole, normalized=True)])
    return own


def rows_added(concepts: Sequence[Concept], encoder: int) -> Float[Tensor, "vector dim"] | None:
    """The rows that concepts add to the token table of one encoder, in the order of their names."""
    return torch.cat([concept.vectors[encoder] for concept in concepts]) if concepts else None


def identity_lines(concepts: Sequence[Concept]) -> list[str]:
    """What a picture depends on of concepts: their names and the content of their vectors."""
    return [f"concept {concept.name.lower()} {concept.content}" for concept in concepts]


def content_of_entry(entry: str) -> str:
    """A hash of the concepts that an entry names."""
    return hashlib.sha256("\n".join(identity_lines(read_entry(entry))).encode()).hexdigest()
