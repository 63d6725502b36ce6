"""Hard prompts (PEZ, Wen et al. 2023): rows that are always entries of a table, learned through rows that are free."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPTokenizer


@lru_cache(maxsize=2)
def typed_ids(tokenizer: CLIPTokenizer, words: tuple[str, ...] = ()) -> Int[Tensor, " entry"]:
    """The entries of a vocabulary that somebody can type: words of the letters a to z that are read as this one token.

    Of a model that was trained on few `words`, those alone.

    >>> from embedlab.models import tokenizer
    >>> typed_ids(tokenizer(), ("puppy", "skateboarding", "a")).tolist()
    [320, 6829, 31352]
    """
    known = {re.sub("</w>$", "", name): number for name, number in tokenizer.get_vocab().items() if name[-4:] == "</w>"}
    names = [name for name in known if re.fullmatch("[a-z]+", name) and (not words or name in words)]
    read = tokenizer.backend_tokenizer.encode_batch(names, add_special_tokens=False)  # a third of the time of a call
    return torch.tensor(sorted(known[name] for name, one in zip(names, read, strict=True) if one.ids == [known[name]]))


def nearest_entries(
    rows: Sequence[Float[Tensor, "vector dim"]], tables: Sequence[Float[Tensor, "entry dim"]]
) -> Int[Tensor, " vector"]:
    """The entry of greatest cosine with each row; of several encoders the greatest sum, so that all take the same.

    >>> nearest_entries([torch.tensor([[2.0, 0.1]])], [torch.eye(2)]).tolist()
    [0]
    """
    scores = [
        normalize(r.detach().float(), dim=-1) @ normalize(t.float(), dim=-1).T
        for r, t in zip(rows, tables, strict=True)
    ]
    return torch.stack(scores).sum(0).argmax(dim=-1)


def straight_through(row: Tensor, entry: Tensor) -> Tensor:
    """An entry of the table, with the gradient of the free row that it stands for.

    >>> free = torch.tensor([0.75], requires_grad=True)
    >>> here = straight_through(free, torch.tensor([1.0]))
    >>> here.item(), torch.autograd.grad(3 * here, free)[0].item()
    (1.0, 3.0)
    """
    return entry + (row - row.detach())
