"""Many Embeddings → many Conditionings, in one batched call of each text encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import CLIPTokenizer

from embedlab.arguments import explained
from embedlab.checks import finite_number, in_choices, is_whole, whole_number
from embedlab.clip import States, Tower, forward, mixed
from embedlab.composition import Layout, hidden_of, matched, pooled_of, rows_joined, sections, streams
from embedlab.display import Shown, block, facts, short, strip
from embedlab.embeddings import Embeddings, at, embed, placed, row_names, stretched_length, vectors
from embedlab.errors import (
    ConfigError,
    NoRowsError,
    OperatorError,
    PromptError,
    SamplerError,
    brief,
    check_kind,
    counted,
    listed,
)
from embedlab.limits import WINDOW, Join, Normaliser, Padding, Pooled, Split, check_join, check_part, mix_of
from embedlab.models import TextEncoders, text_encoders_of
from embedlab.parsed_prompt import ParsedPrompt, parsed
from embedlab.prompt import Tokens, of_layout, shown_text, token_chips, tokenize
from embedlab.schedule import Schedule, Setting, value_of, varies
from embedlab.select import Spans, roles, select
from embedlab.selector import ROLES, Rows, format_selector, rows_of, words_of
from embedlab.token_ids import concepts_of
from embedlab.transfer import content_of
from embedlab.weighting import DEFAULT, Encode, Method, Weighted, content, encoder_of, weigh
from embedlab.windows import BACKTRACK, Windows, windows_of

Skip = int | Mapping[int, Setting[float]] | Sequence[Sequence[Setting[float]]]  # layers, or a mix: {0: 0.5, 2: 0.5}
Prompt = tuple[Embeddings, ...]  # one prompt before each text encoder: one for SD 1 and 2, two for SDXL


@dataclass(frozen=True)
class Conditioning(Shown):
    """What the UNet is told: hidden states of one prompt, widths of all encoders joined, and the pooled output.

    `tokens` is the prompt that was read, and `rows` says which of its rows each hidden state stands for; -1 is of
    another prompt. `reads` has the two for each text encoder, where these read several prompts. `others` are
    conditionings whose predictions are added to this one's, and `weight` and theirs say how much of each (A1111's AND).
    `widths` are those of each encoder's columns. `layers` holds, for each encoder, the mean and the standard deviation
    of the word rows at every hidden state (0 is what enters), as they were when it was encoded.

    >>> from embedlab import embed_all, encode, models
    >>> towers = models.load("emoji").towers
    >>> (puppy,) = encode([embed_all("a puppy", towers)], towers)
    >>> puppy.hidden.shape[0], puppy.spans("puppy")
    (77, [(2,)])
    """

    hidden: Float[Tensor, "row width"]
    pooled: Float[Tensor, " joint"]
    tokens: Tokens | None = None
    rows: tuple[int, ...] = ()
    layers: tuple[Float[Tensor, "layer moment"], ...] = ()
    weight: float = 1.0
    others: tuple[tuple[float, Conditioning], ...] = ()
    widths: tuple[int, ...] = ()
    reads: tuple[tuple[Tokens, tuple[int, ...]], ...] = ()

    def __repr__(self) -> str:
        text = "" if self.tokens is None else f"{short(self.tokens.text, 80)}, "
        more = f", {len(self.others)} more to be added" if self.others else ""
        return f"Conditioning({text}hidden {' × '.join(map(str, self.hidden.shape))}, pooled {len(self.pooled)}{more})"

    def _repr_html_(self) -> str:
        names = {} if self.tokens is None else row_names(self.tokens)
        norms = self.hidden.detach().float().norm(dim=-1).tolist()
        rows = self.rows or (-1,) * len(norms)
        titles = [
            f"row {n}{f', {names[row]}' if row in names else ''}: length {norm:.3f}"
            for n, (row, norm) in enumerate(zip(rows, norms, strict=False))
        ]
        note = f"{len(norms)} hidden states of width {self.hidden.shape[-1]}, pooled output of {len(self.pooled)}"
        more = {
            "pooled output, length": f"{float(self.pooled.detach().float().norm()):.3f}",
            "weight": self.weight if self.others or self.weight != 1 else None,
            "beside it": ", ".join(f"{weight:g} × {other!r}" for weight, other in self.others[:4]),
            "numbers": None if self.finite else "some are NaN or infinite",
        }
        title = "a conditioning" if self.tokens is None else shown_text(self.tokens.text)
        chips = "" if self.tokens is None else token_chips(self.tokens)
        return block(title, chips, strip(norms, titles), facts(more), note=note)

    @property
    def streams(self) -> list[tuple[float, Conditioning]]:
        """All whose predictions are added, with the weight of each: one, but for AND."""
        return [(self.weight, self), *self.others]

    @cached_property
    def content(self) -> str:
        """A hash of all that a row of the UNet is told by it; others beside it, and the weights, are not in it."""
        return f"{tuple(self.hidden.shape)} {content_of(self.hidden)} {content_of(self.pooled)}"

    def zeros(self) -> Conditioning:
        """Nothing at all: SDXL's unconditional half when no negative prompt is given."""
        return replace(self, hidden=torch.zeros_like(self.hidden), pooled=torch.zeros_like(self.pooled))

    @property
    def finite(self) -> bool:
        """Whether all numbers are."""
        return all(bool(torch.isfinite(c.hidden).all() and torch.isfinite(c.pooled).all()) for _, c in self.streams)

    def spans(self, rows: Any, table: str = "hidden") -> Spans:
        """Where the rows that a selector names stand among the hidden states; the pooled output is one vector."""
        everything = rows_of(rows) == (Rows(role="all"),)
        if table == "pooled":
            if not everything:
                raise OperatorError(
                    f"the pooled output is one vector: rows is {{role: all}}, not '{format_selector(rows)}'."
                )
            return [(0,)]
        if everything:
            return [tuple(range(len(self.hidden)))]
        if self.tokens is None:
            raise OperatorError("this conditioning does not know its tokens; rows can only be {role: all}.")
        where = {row: n for n, row in enumerate(self.rows) if row >= 0}
        whole = [span for span in select(rows, self.tokens) if self._is_own(span)]
        spans = [span for span in (tuple(where[row] for row in span if row in where) for span in whole) if span]
        if not spans:
            raise NoRowsError(
                f"none of the rows '{format_selector(rows)}' is among the {len(self.hidden)} that reach the UNet."
            )
        if words_of(rows) and sum(map(len, spans)) < sum(map(len, whole)):
            raise OperatorError(
                f"of '{format_selector(rows)}' only a part is among the {len(self.hidden)} rows that reach the UNet."
            )
        if len({len(span) for span in spans}) > 1:
            return [tuple(sorted({row for span in spans for row in span}))]
        return spans

    def _is_own(self, span: Sequence[int]) -> bool:
        """Whether rows of the prompt are not those of another part of AND."""
        assert self.tokens is not None
        parts = [] if self.tokens.layout is None else [part for _, part in streams(self.tokens.layout)]
        window = self.tokens.window
        windows = [{one.first + n for one in sections(part) for n in range(one.count)} for part in parts]
        reached = {row // window for row in self.rows if row >= 0}
        others = set().union(*(part for part in windows if not part & reached)) if len(parts) > 1 else set()
        return not any(row // window in others for row in span)

    def take(self, table: str, rows: Sequence[Sequence[int]]) -> Float[Tensor, "span row dim"]:
        """The vectors at `rows`; all spans are of one length."""
        in_choices(table, "table", ("hidden", "pooled"), OperatorError)
        return self.pooled[None, None] if table == "pooled" else at(rows, self.hidden)

    def put(self, table: str, rows: Sequence[Sequence[int]], values: Float[Tensor, "*span row dim"]) -> Conditioning:
        """The conditioning with other vectors at `rows`; `values` broadcast over the spans."""
        in_choices(table, "table", ("hidden", "pooled"), OperatorError)
        if table == "pooled":
            return replace(self, pooled=placed([(0,)], self.pooled[None], values).reshape(-1))
        return replace(self, hidden=placed(rows, self.hidden, values))


class Texts:
    """From a text to its conditioning: the Lookup of the stages after the encoder. Each text is encoded once.

    >>> from embedlab import models
    >>> texts = texts_of(models.load("emoji").towers)
    >>> texts("a cat").hidden.shape
    torch.Size([77, 96])
    """

    def __init__(self, encode: Callable[[str], Conditioning]):
        if not callable(encode):
            raise ConfigError(f"encode is {brief(encode)}; it has to be a function from a text to a Conditioning.")
        self._encode = encode
        self._known: dict[str, Conditioning] = {}

    def __repr__(self) -> str:
        return f"Texts({', '.join(map(short, list(self._known)[:4]))}{', …' if len(self._known) > 4 else ''})"

    def __call__(self, text: str) -> Conditioning:
        """The conditioning of a text."""
        if not isinstance(text, str):
            raise OperatorError(f"{brief(text)} is no text; after the encoder, rows come from a prompt or a vector.")
        if text not in self._known:
            self._known[text] = self._encode(text)
        return self._known[text]

    @explained
    def rows(self, what: Any, table: str, prompt: Conditioning, like: Any = None) -> Float[Tensor, "row dim"]:
        """Rows of another prompt: those that `like` selects there, or as `{prompt: …, rows: …}` says; or vectors."""
        own = prompt.pooled[None] if table == "pooled" else prompt.hidden
        if isinstance(what, Tensor | list | tuple):
            return vectors(what, own)
        if isinstance(what, Mapping):
            if unknown := [key for key in what if key not in ("prompt", "rows")]:
                raise OperatorError(f"rows of another prompt are {{prompt: …, rows: …}}; '{unknown[0]}' is neither.")
            if "prompt" not in what:
                raise OperatorError("rows of another prompt are {prompt: …, rows: …}; `prompt` is missing.")
            what, like = what["prompt"], what.get("rows", like)
        other = self(what)
        try:
            spans = other.spans(like, table)
        except PromptError as error:
            raise PromptError(f"{error} Say which rows of it: {{prompt: {what}, rows: …}}.") from None
        return other.take(table, spans).flatten(0, 1)

    @explained
    def mean_length(self, table: str, prompt: Conditioning) -> Tensor:
        """The mean norm of the prompt's own hidden states, or the norm of its pooled output."""
        norms: Tensor = (prompt.pooled[None] if table == "pooled" else prompt.hidden).float().norm(dim=-1)
        return norms.mean()


@dataclass(frozen=True)
class Encoder(Shown):
    """How prompts are read.

    language: what signs in a prompt mean: `plain` (text, and `{a|b:0.3}`), `a1111`, `compel` or `comfyui`
    (`embedlab.language`). weighting: what a weight does to the hidden states, by the name of whose it is; normalise:
    what is done to weights first (`embedlab.weighting`). windows: where a long prompt is cut, with `backtrack` tokens
    looked through for punctuation; padding: what fills a window (`embedlab.windows`). join: how windows reach the UNet:
    `windows`, `run` (one start and end for all), `copied` or `merged` (compel's), or `truncate` (only the first).
    pooled: the pooled output of weighted and long prompts (`embedlab.weighting.pooled`; `raw` is that of the first
    window of the text as it is written). balance: a factor on the hidden states of each text encoder. skip: how many
    last layers are skipped (clip skip), or a mix of several as weights that sum to 1: `{0: 0.5, 2: 0.5}`. stretch:
    windows of more than 77 places on a position table drawn out so many times after its first 20 rows (Long-CLIP: 4
    makes 248).

    >>> Encoder(skip=1).skips, Encoder(skip={0: 0.5, 2: 0.5}).skips, Encoder(stretch=4).window
    ((1,), (0, 2), 248)
    """

    join: Setting[Join] = "windows"
    skip: Setting[Skip] = 0
    stretch: Setting[float | None] = None
    language: str = "plain"
    weighting: Setting[str] = DEFAULT
    normalise: Setting[Sequence[Normaliser]] = ()
    windows: Setting[Split] = "whole"
    backtrack: Setting[int] = BACKTRACK
    padding: Setting[Padding] = "own"
    pooled: Setting[Pooled] = "weighted"
    balance: Setting[Sequence[float] | None] = None

    def __post_init__(self) -> None:
        if isinstance(self.language, Schedule):
            raise ConfigError(f"language is {self.language}; it cannot change over time.")
        if varies(self):
            return
        check_part(self)
        for name in ("normalise", "balance"):
            if isinstance(value := getattr(self, name), Sequence):
                object.__setattr__(self, name, tuple(value))
        if not is_whole(self.skip):
            object.__setattr__(self, "skip", mix_of(self.skip))
        if self.stretch is not None:
            object.__setattr__(self, "stretch", finite_number(self.stretch, "encoder.stretch", SamplerError))

    @property
    def truncate(self) -> bool:
        """Whether only the first window is read."""
        return self.join == "truncate"

    @property
    def skips(self) -> tuple[int, ...]:
        """The counts of skipped layers that are read."""
        return tuple(k for k, _ in self.mix)

    @property
    def mix(self) -> tuple[tuple[int, float], ...]:
        """The counts of skipped layers with their weights, which sum to 1."""
        skip: Any = value_of(self.skip)
        return skip if isinstance(skip, tuple) else ((skip, 1.0),)

    @property
    def window(self) -> int:
        """How many places a window of CLIP has."""
        return self.window_of(WINDOW)

    def window_of(self, *places: int) -> int:
        """How many places a window has before text encoders of so many positions (Long-CLIP's has 248)."""
        factor = value_of(self.stretch)
        return min(places) if factor is None else stretched_length(WINDOW, factor=factor)

    def tokenize(
        self,
        text: str | ParsedPrompt,
        tokenizer: CLIPTokenizer | Any,
        concepts: tuple[str, ...] | None = None,
        places: int = WINDOW,
    ) -> Tokens:
        """The tokens of a prompt, by these settings (`embedlab.tokenize`), before an encoder of so many positions."""
        window = self.window_of(places)
        backtrack = min(value_of(self.backtrack), window - 3)
        split: Split = value_of(self.windows)
        padding: Padding = value_of(self.padding)
        text = self.parse(text)
        return tokenize(text, tokenizer, self.truncate, window, concepts, split, padding, backtrack)

    def tokenize_all(
        self, texts: Sequence[str | ParsedPrompt], tokenizers: Sequence[CLIPTokenizer], places: Sequence[int]
    ) -> list[Tokens]:
        """The tokens of a prompt before each text encoder, in as many windows each, of as many places."""
        concepts = concepts_of(tokenizers)
        least = min(places)
        found = [self.tokenize(text, one, concepts, least) for text, one in zip(texts, tokenizers, strict=True)]
        if len({len(tokens.ids) for tokens in found}) == 1 and len(set(map(str, texts))) == 1:
            return found
        layouts = matched([tokens.layout for tokens in found if tokens.layout is not None])
        return [of_layout(tokens, layout) for tokens, layout in zip(found, layouts, strict=True)]

    def parse(self, text: Any) -> Any:
        """A text as the language reads it, of which nothing may change over time."""
        read = parsed(text, self.language) if isinstance(text, str) else text
        if varies(read):
            raise PromptError(f"{brief(text)} changes over time; a Cell takes it, or resolve(parsed(…), moment).")
        return read

    def embed(self, text: str | ParsedPrompt, towers: TextEncoders, second: str | ParsedPrompt | None = None) -> Prompt:
        """The rows of a text before every text encoder, by these settings; `second` is what the second one reads."""
        towers = text_encoders_of(towers)
        texts = [text, *[text if second is None else second] * (len(towers) - 1)]
        places = [len(tower.position_table) for tower in towers]
        tokens = self.tokenize_all(texts, [tower.tokenizer for tower in towers], places)
        stretch = value_of(self.stretch)
        return tuple(embed(one, tower, stretch=stretch) for one, tower in zip(tokens, towers, strict=True))

    def encode(
        self,
        prompts: Sequence[Prompt],
        towers: TextEncoders,
        groups: Sequence[Any] | None = None,
        at_once: int = 1,
    ) -> list[Conditioning]:
        """The conditionings of prompts, by these settings (`encode`)."""
        return encode(
            prompts,
            towers,
            value_of(self.join),
            self.mix,
            weighting=value_of(self.weighting),
            normalise=value_of(self.normalise),
            pooled=value_of(self.pooled),
            balance=value_of(self.balance),
            groups=groups,
            at_once=at_once,
        )


def embed_all(
    prompt: str | ParsedPrompt, towers: TextEncoders, truncate: bool = False, stretch: float | None = None
) -> Prompt:
    """The rows of a prompt before every text encoder; all of them see the same words.

    An `Embeddings` for each, of token and position rows (window, position, dim). `truncate` reads only the first
    window, `stretch` as `embed` does; `Encoder(...).embed` has all settings. `towers` is a list of text encoders, a
    model, or a diffusers pipeline.

    Raises ModelError for what are no text encoders, PromptError for what is no text.

    >>> from embedlab import models
    >>> [part.token.shape for part in embed_all("a cat", models.load("emoji").towers)]
    [torch.Size([1, 77, 96])]
    """
    if not isinstance(prompt, str | ParsedPrompt):
        raise PromptError(f"a prompt is a text; {brief(prompt)} is none.")
    return Encoder(join="truncate" if truncate else "windows", stretch=stretch).embed(prompt, towers)


def check_cell(cell: Any) -> None:
    """Refuse what is no cell."""
    if not hasattr(cell, "guidance") or not hasattr(cell, "encoder"):
        hint = f"; write Cell({cell!r:.80})" if isinstance(cell, str) else ""
        hint = "; the cell comes first, then the model" if hasattr(cell, "towers") else hint
        raise ConfigError(f"{brief(cell)} is no Cell{hint}.")


def check_prompt(prompt: Any, towers: Sequence[Tower]) -> None:
    """Refuse what is no prompt before these text encoders: one Embeddings each, of its width."""
    if not isinstance(prompt, list | tuple) or not all(isinstance(part, Embeddings) for part in prompt):
        hint = ": embed_all(text, towers) makes one" if isinstance(prompt, str) else ""
        raise PromptError(f"{brief(prompt)} is no prompt before the encoders{hint}; one is a tuple of Embeddings.")
    widths = [(part.token.shape[-1], tower.width) for part, tower in zip(prompt, towers, strict=False)]
    if len(prompt) != len(towers) or any(mine != theirs for mine, theirs in widths):
        mine = [part.token.shape[-1] for part in prompt]
        theirs = [tower.width for tower in towers]
        raise PromptError(f"this prompt has rows of width {listed(mine)}; these text encoders take {listed(theirs)}.")


def as_prompt(given: Any, towers: Sequence[Tower], how: Encoder) -> Prompt:
    """A prompt before some text encoders: itself, a text that is read, or the rows before the only one of them.

    >>> from embedlab import load
    >>> towers = load("emoji").towers
    >>> torch.equal(as_prompt("a cat", towers, Encoder())[0].token, embed_all("a cat", towers)[0].token)
    True
    """
    if isinstance(given, str | ParsedPrompt):
        return how.embed(given, towers)
    return (given,) if isinstance(given, Embeddings) else given


def is_one_prompt(given: Any) -> bool:
    """Whether it is one prompt, and no list of them: a text, rows, or a tuple of rows, one for each text encoder."""
    rows = isinstance(given, tuple) and bool(given) and all(isinstance(part, Embeddings) for part in given)
    return rows or isinstance(given, str | ParsedPrompt | Embeddings)


@overload
def encode(  # type: ignore[overload-overlap]
    prompts: str | ParsedPrompt | Embeddings | tuple[Embeddings, ...],
    towers: TextEncoders,
    encoder: Encoder | Join = "windows",
    skip: Skip = 0,
    at_once: int = 1,
    weighting: str | Method = DEFAULT,
    normalise: Sequence[Normaliser] = (),
    pooled: Pooled = "weighted",
    balance: Sequence[float] | None = None,
    groups: Sequence[Any] | None = None,
    *,
    join: Join | None = None,
) -> Conditioning: ...
@overload
def encode(
    prompts: Sequence[str | ParsedPrompt | Embeddings | Prompt],
    towers: TextEncoders,
    encoder: Encoder | Join = "windows",
    skip: Skip = 0,
    at_once: int = 1,
    weighting: str | Method = DEFAULT,
    normalise: Sequence[Normaliser] = (),
    pooled: Pooled = "weighted",
    balance: Sequence[float] | None = None,
    groups: Sequence[Any] | None = None,
    *,
    join: Join | None = None,
) -> list[Conditioning]: ...
def encode(
    prompts: Any,
    towers: TextEncoders,
    encoder: Encoder | Join = "windows",
    skip: Skip = 0,
    at_once: int = 1,
    weighting: str | Method = DEFAULT,
    normalise: Sequence[Normaliser] = (),
    pooled: Pooled = "weighted",
    balance: Sequence[float] | None = None,
    groups: Sequence[Any] | None = None,
    *,
    join: Join | None = None,
) -> Conditioning | list[Conditioning]:
    """Encode prompts, edited or not, of any lengths together; `at_once` windows a call at the most.

    A prompt is a text, or what `embed_all` and `edit` give; of one alone its conditioning is the answer, of a list a
    list. `towers` is a list of text encoders, a model, or a diffusers pipeline. How texts are read and rows encoded is
    said by an `Encoder`, or by its settings one by one.

    With one a call, what is told of a prompt does not depend on its company by one bit; with more, the last digits of
    the pooled output do. The encoder of SD 1 takes 60 ms a window on a CPU either way. Equal windows go through once.

    `join` is how windows reach the UNet: one after the other with all their rows (A1111, ComfyUI, compel), or as one
    run with only the outer start and end (`no_boseos_middle` of diffusers' long prompt weighting). `skip` reads an
    earlier hidden state, or a weighted mix: `((0, 0.5), (2, 0.5))`. The others are as in `Encoder`; prompts of one of
    `groups` are one batch to a weighting that looks at batches (A1111's), each is its own where they are left out.

    Hidden states are (row, width), the widths of all encoders joined; the pooled output is (joint). Raises PromptError
    for what are no prompts of these encoders, SamplerError for settings that do not fit, and for windows of unequal
    lengths.

    >>> from embedlab import load
    >>> cat = encode("a cat", load("emoji"))
    >>> cat.hidden.shape, cat.pooled.shape
    (torch.Size([77, 96]), torch.Size([96]))
    >>> [one.hidden.shape for one in encode(["a cat", "a dog, " * 40], load("emoji"), Encoder(skip=1))]
    [torch.Size([77, 96]), torch.Size([154, 96])]
    """
    way: Join
    if isinstance(encoder, Encoder):
        given = (join, skip, weighting, normalise, pooled, balance)
        if given != (None, 0, DEFAULT, (), "weighted", None):
            raise ConfigError("an Encoder was given, and settings beside it; write all of them in Encoder(…).")
        reading, skip = encoder, encoder.mix
        way = value_of(encoder.join)
        weighting, normalise = value_of(encoder.weighting), value_of(encoder.normalise)
        pooled, balance = value_of(encoder.pooled), value_of(encoder.balance)
    else:
        way = encoder if join is None else join
        check_join(way)
        reading = Encoder(join="truncate" if way == "truncate" else "windows")
    at_once = whole_number(at_once, "at_once", SamplerError, least=1, of=" of windows")
    towers, alone = text_encoders_of(towers), is_one_prompt(prompts)
    if not alone and not isinstance(prompts, list | tuple):
        raise PromptError(
            f"prompts is {brief(prompts)}; it has to be a text, what embed_all gives, or a list of those."
        )
    prompts = [as_prompt(one, towers, reading) for one in ([prompts] if alone else prompts)]
    for prompt in prompts:
        check_prompt(prompt, towers)
    if not prompts:
        return []
    if balance is not None and len(balance) != len(towers):
        raise SamplerError(
            f"encoder.balance has {counted(len(balance), 'number')}, one for each of {len(towers)} text encoders is "
            "needed."
        )
    mix = Encoder(skip=skip).mix
    if len({part.tokens.window for prompt in prompts for part in prompt}) > 1:
        raise SamplerError("prompts with windows of different lengths cannot be encoded in one call.")
    at_once = min(at_once, sum(len(part.tokens.ids) for prompt in prompts for part in prompt))
    batches = list(range(len(prompts))) if groups is None else list(groups)
    if len(batches) != len(prompts):
        raise PromptError(f"groups names {len(batches)} of {counted(len(prompts), 'prompt')}; each has a group.")
    how = Weighing(weighting, tuple(normalise), pooled, way)
    read = [
        read_by(tower, [prompt[t] for prompt in prompts], mix, at_once, how, batches) for t, tower in enumerate(towers)
    ]
    answers = []
    for n, prompt in enumerate(prompts):
        tokens = prompt[0].tokens
        parts = []
        for k, (weight, layout) in enumerate(streams(layout_of(tokens))):
            found = [one[n].streams[k] for one in read]
            factors = [1.0] * len(found) if balance is None else balance
            hidden = [h if factor == 1 else h * factor for (h, _), factor in zip(found, factors, strict=True)]
            layers = tuple(one[n].layers for one in read)
            rows, widths = tuple(rows_joined(layout, way)), tuple(one.shape[1] for one in hidden)
            reads = reads_of([part.tokens for part in prompt], k, way)
            whole = Conditioning(
                torch.cat(hidden, dim=-1), found[-1][1], tokens, rows, layers, widths=widths, reads=reads
            )
            parts.append((weight, whole))
        (weight, first), *others = parts
        answers.append(replace(first, weight=weight, others=tuple(others)) if others or weight != 1 else first)
    return answers[0] if alone else answers


@dataclass(frozen=True)
class Weighing:
    """What is made of weights, sections and windows."""

    weighting: str | Method
    normalise: Sequence[Normaliser]
    pooled: Pooled
    join: Join


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt as one text encoder gives it: hidden states and pooled output of each stream, moments of each layer."""

    streams: list[tuple[Float[Tensor, "row dim"], Float[Tensor, " joint"]]]
    layers: Float[Tensor, "layer moment"]


def reads_of(tokens: Sequence[Tokens], stream: int, join: Join) -> tuple[tuple[Tokens, tuple[int, ...]], ...]:
    """`Conditioning.reads`: nothing where all text encoders read one text."""
    if len({one.text for one in tokens}) == 1:
        return ()
    return tuple((one, tuple(rows_joined(streams(layout_of(one))[stream][1], join))) for one in tokens)


def layout_of(tokens: Tokens) -> Layout:
    """How windows come together; PromptError for tokens that do not say."""
    if tokens.layout is None:
        raise PromptError("these tokens were not made by tokenize(…), and do not say how their windows come together.")
    return tokens.layout


def read_by(
    tower: Tower,
    parts: Sequence[Embeddings],
    mix: Sequence[tuple[int, float]],
    at_once: int,
    how: Weighing,
    groups: Sequence[Any],
) -> list[ReadPrompt]:
    """Prompts before one text encoder, read, weighed and put together."""
    own = read_windows(tower, parts, mix, at_once)
    beside = [_beside(part.tokens, how.pooled) for part in parts]
    asked = [(n, one.windows) for n, part in enumerate(parts) for one in part.tokens.sections]
    extras = [windows for more in beside for windows in more]

    inside = [bool(part.later) for part in parts for _ in part.tokens.ids]  # windows that are edited in the encoder

    @cache
    def beyond() -> Encode:
        """For what is no window of a prompt as it is: without weights there is nothing such."""
        token, position = ([getattr(part, table).flatten(0, 1) for part in parts] for table in ("token", "position"))
        for windows in extras:
            token.append(tower.token_table.detach()[windows.ids[0].to(token[0].device)])
            position.append(parts[0].position_table[: windows.ids.shape[1]])
        return encoder_of(tower, mix, torch.cat(token), at_once, torch.cat(position))

    def encode(ids: Tensor, mask: Tensor | None, source: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """What was read already, and variants."""
        same = source == place
        there = same.all(1)
        left_out = same.any(1) if mask is not None else same.any(1) & ~there
        if any(inside[n] for n in (place[left_out, 0] // ids.shape[1]).tolist() if n < len(inside)):
            raise OperatorError(
                f"weighting={how.weighting} with pooled={how.pooled} reads the prompt with words left out, which edits "
                "at a layer of the encoder do not fit; take weighting=a1111 pooled=first, or no weights."
            )
        if mask is not None or not there.any():
            return beyond()(ids, mask, source, place)
        known = place[there, 0] // ids.shape[1]
        if there.all():
            return own.hidden[known], own.pooled[known]
        answers = []
        for mine, others in zip(
            (own.hidden, own.pooled), beyond()(ids[~there], None, source[~there], place[~there]), strict=True
        ):
            order = torch.cat([there.nonzero(), (~there).nonzero()]).flatten().argsort()
            answers.append(torch.cat([mine[known], others])[order.to(mine.device)])
        return answers[0], answers[1]

    batches = [groups[n] for n, _ in asked] + [("beside", n) for n in range(len(extras))]
    pooled: Pooled = "first" if how.pooled == "raw" else how.pooled
    every = [windows for _, windows in asked] + extras
    weighed = iter(weigh(every, encode, how.weighting, how.normalise, pooled, edited=True, groups=batches))
    found = [[next(weighed) for _ in part.tokens.sections] for part in parts]
    more = [[next(weighed) for _ in extra] for extra in beside]
    return [
        _together(part.tokens, mine, extra, layers, how)
        for part, mine, extra, layers in zip(parts, found, more, own.layers, strict=True)
    ]


def _together(
    tokens: Tokens, found: Sequence[Weighted], beside: Sequence[Weighted], layers: Tensor, how: Weighing
) -> ReadPrompt:
    of = {section.first: one for section, one in zip(tokens.sections, found, strict=True)}
    empty = beside[0] if tokens.needs_empty else None
    answers = []
    for _, layout in streams(layout_of(tokens)):
        hidden = hidden_of(layout, lambda s: of[s.first].hidden, None if empty is None else empty.hidden[0], how.join)
        pooled = pooled_of(layout, lambda s: of[s.first].pooled, None if empty is None else empty.pooled, how.pooled)
        answers.append((hidden, beside[-1].pooled if how.pooled == "raw" else pooled))
    return ReadPrompt(answers, layers)


def _beside(tokens: Tokens, pooled: Pooled) -> list[Windows]:
    """What is encoded beside a prompt: the empty one, and the beginning of its text as it is written."""
    found = [tokens.sections[0].windows.empty()] if tokens.needs_empty else []
    if pooled == "raw":
        raw = windows_of([(tokens.text, 1.0)], tokens.tokenizer, "hard", window=tokens.window, truncate=True)
        found.append(replace(raw, source=torch.full_like(raw.source, -1)))
    return found


@dataclass(frozen=True)
class WindowStates:
    """Windows as an encoder reads them, without weights; `layers` are the `moments` of each prompt's words."""

    hidden: Float[Tensor, "window position dim"]
    pooled: Float[Tensor, "window joint"]
    layers: list[Float[Tensor, "layer moment"]]


def read_windows(
    tower: Tower, parts: Sequence[Embeddings], mix: Sequence[tuple[int, float]], at_once: int
) -> WindowStates:
    """All windows of some prompts; equal ones go through the encoder once, unless gradients are wanted."""
    ids = torch.cat([part.tokens.ids for part in parts])
    rows = torch.cat([part.summed for part in parts])
    words = torch.cat([roles(part.tokens)[ROLES.index("words")] for part in parts])
    keys: list[Any] = list(range(len(ids)))
    if len(ids) > 1 and not torch.is_grad_enabled():
        keys = [(tuple(i.tolist()), content(r, None)) for i, r in zip(ids, rows, strict=True)]
    changed = _changed_inside(tower, parts)
    keys = [(key, changed[n][0] if n in changed else None) for n, key in enumerate(keys)]  # ids and rows say not all
    first = {key: n for n, key in reversed(list(enumerate(keys)))}
    which = torch.tensor(sorted(first.values()))
    number = {n: k for k, n in enumerate(which.tolist())}
    hidden, pooled, sums = [], [], []
    for some in which.split(at_once):
        states = forward(tower, ids[some], rows[some.to(rows.device)])
        states = _with_changes(states, [changed.get(n) for n in some.tolist()])
        hidden.append(mixed(tower, states, mix))
        pooled.append(states.pooled)
        sums += [window_sums(states, n, words[row]) for n, row in enumerate(some.tolist())]
    again = [number[first[key]] for key in keys]
    counts = [len(part.tokens.ids) for part in parts]
    of_prompts = torch.stack(sums)[again].split(counts)
    at = torch.tensor(again, device=rows.device)
    return WindowStates(torch.cat(hidden)[at], torch.cat(pooled)[at], [moments(one.sum(0)) for one in of_prompts])


def _changed_inside(tower: Tower, parts: Sequence[Embeddings]) -> dict[int, tuple[int, States, int]]:
    """Windows of prompts that are edited at layers of the encoder, by their number: prompt, its states, place in it."""
    found: dict[int, tuple[int, States, int]] = {}
    first = 0
    for n, part in enumerate(parts):
        if part.later:
            states = _read_inside(tower, part)
            found |= {first + k: (n, states, k) for k in range(len(part.tokens.ids))}
        first += len(part.tokens.ids)
    return found


def _with_changes(states: States, changed: Sequence[tuple[int, States, int] | None]) -> States:
    """The states of some windows, those that were edited inside in their place."""
    if not any(changed):
        return states

    def merged(pick: Callable[[States], Tensor]) -> Tensor:
        own = pick(states)
        return torch.stack([own[n] if one is None else pick(one[1])[one[2]] for n, one in enumerate(changed)])

    def hidden(k: int) -> Callable[[States], Tensor]:
        return lambda one: one.hidden[k]

    every = tuple(merged(hidden(k)) for k in range(len(states.hidden)))
    return States(every, merged(lambda one: one.last), merged(lambda one: one.pooled))


def _read_inside(tower: Tower, part: Embeddings) -> States:
    """A prompt's windows through the encoder, edited at the layers that its edits name."""
    depth = len(tower.core.encoder.layers)
    if deep := [edit.layer for edit in part.later if edit.layer > depth]:
        raise OperatorError(f"stage is {{layer: {deep[0]}}}; this text encoder has {depth} layers, so 0 to {depth}.")

    rows, put = part.summed, dict[int, Tensor]()
    if 0 in (layers := sorted({edit.layer for edit in part.later})):
        rows = _edited_at(tower, part, 0, rows)
    for layer in layers:
        if layer:  # what the encoder makes of the edits before, edited outside of it, is put there on the next run
            put[layer] = _edited_at(tower, part, layer, _forward_with(tower, part, rows, put).hidden[layer])
    return _forward_with(tower, part, rows, put)


def _forward_with(tower: Tower, part: Embeddings, rows: Tensor, put: Mapping[int, Tensor]) -> States:
    """A prompt's windows through the encoder, with other hidden states at some layers."""

    def instead(layer: int) -> Callable[[Tensor], Tensor]:
        return lambda _: put[layer]

    return forward(tower, part.tokens.ids, rows, edits={layer: instead(layer) for layer in put})


def _edited_at(tower: Tower, part: Embeddings, layer: int, hidden: Tensor) -> Tensor:
    """Hidden states before a layer (window, position, dim) after the edits that wait for it."""
    for edit in (one for one in part.later if one.layer == layer):
        flat = hidden.flatten(0, 1)
        met = Conditioning(flat, flat[0], part.tokens, tuple(range(len(flat))), widths=(flat.shape[1],))
        texts = Texts(partial(_state_of, tower, layer, edit.how))
        hidden = edit.apply(met, texts).hidden.to(hidden).unflatten(0, (-1, hidden.shape[1]))
    return hidden


def _state_of(tower: Tower, layer: int, how: Encoder | None, text: str) -> Conditioning:
    """The hidden states of another text before a layer: what edits there take rows from."""
    (part,) = (how or Encoder()).embed(text, [tower])
    hidden = forward(tower, part.tokens.ids, part.summed).hidden[layer].flatten(0, 1)
    return Conditioning(hidden, hidden[0], part.tokens, tuple(range(len(hidden))), widths=(hidden.shape[1],))


@torch.no_grad()
def window_sums(states: States, n: int, words: Bool[Tensor, " position"]) -> Float[Tensor, "layer sum"]:
    """Of the word rows of a window at every hidden state: how many numbers, their sum and that of their squares."""
    rows = torch.stack([hidden[n][words.to(hidden.device)] for hidden in states.hidden]).double().flatten(1).cpu()
    return torch.stack([torch.full((len(rows),), float(rows.shape[1])), rows.sum(1), rows.square().sum(1)], dim=1)


def moments(sums: Float[Tensor, "layer sum"]) -> Float[Tensor, "layer moment"]:
    """Mean and standard deviation at every hidden state; (0, 2) where there are no words."""
    count, total, squares = sums.unbind(1)
    if not count.any():
        return sums.new_zeros(0, 2)
    mean = total / count
    variance = (squares - total * mean) / (count - 1).clamp(min=1)
    return torch.stack([mean, variance.clamp(min=0).sqrt()], dim=1).float()


def equal_lengths(conditionings: Sequence[Conditioning]) -> list[Conditioning]:
    """Conditionings of one number of rows, as diffusers' pipelines want them, that say to the UNet what they said.

    Each is repeated as a whole: cross-attention takes a mean over rows, weighted by a softmax, and a mean over rows
    that all stand equally often is the same mean (to rounding). 77 and 154 rows become 154; 154 and 231 become 462.

    Raises OperatorError where that takes more than 100 times 77 rows, as it may for `encoder.join=run`.

    >>> from embedlab import models
    >>> towers = models.load("emoji").towers
    >>> long, short = encode([embed_all(text, towers) for text in ("a cat, " * 40, "a dog")], towers)
    >>> [len(c.hidden) for c in (long, short)], [len(c.hidden) for c in equal_lengths([long, short])]
    ([154, 77], [154, 154])
    """
    if not isinstance(conditionings, list | tuple) or not all(isinstance(c, Conditioning) for c in conditionings):
        raise OperatorError(f"{brief(conditionings)} is no list of Conditionings, as encode gives them.")
    lengths = [len(c.hidden) for c in conditionings]
    length = math.lcm(*lengths)
    if length > 100 * WINDOW:
        raise OperatorError(
            f"conditionings of {listed(lengths)} rows come to one length at {length} rows only, which is too many; "
            "with encoder.join=windows lengths are multiples of 77."
        )
    times = [length // n for n in lengths]
    return [
        replace(c, hidden=c.hidden.repeat(n, 1), rows=(*c.rows, *[-1] * (len(c.hidden) * (n - 1))))
        for c, n in zip(conditionings, times, strict=True)
    ]


def filled(
    hidden: Float[Tensor, "row width"], length: int, empty: Float[Tensor, "window width"]
) -> Float[Tensor, "length width"]:
    """Hidden states followed by whole windows of the empty prompt, up to a length, as compel does."""
    windows, rest = divmod(length - len(hidden), len(empty))
    if rest:
        raise OperatorError(
            f"{len(hidden)} rows cannot be filled up to {length} with whole windows of an empty prompt: that takes "
            "encoder.join=windows, and nothing truncated."
        )
    return torch.cat([hidden, *[empty] * windows])


def texts_of(towers: TextEncoders, encoder: Encoder | None = None) -> Texts:
    """Texts as these encoders read them: what operators after the encoder take rows of other prompts from.

    >>> from embedlab import models
    >>> texts_of(models.load("emoji").towers)("a cat").spans("cat")
    [(2,)]
    """
    how, towers = encoder or Encoder(), text_encoders_of(towers)
    check_kind(how, Encoder, "encoder", "lab.Encoder(skip=1)")

    def one(text: str) -> Conditioning:
        return how.encode([how.embed(text, towers)], towers)[0]

    return Texts(one)
