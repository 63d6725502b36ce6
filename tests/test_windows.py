"""Windows: where a long prompt is cut, by each tool's rule read again here, live by compel, and by ours."""

import time

import pytest
import torch
from compel.embeddings_provider import EmbeddingsProvider, SplitLongTextMode
from hypothesis import given, settings
from hypothesis import strategies as st

from embedlab import models
from embedlab.composition import join_states
from embedlab.errors import PromptError
from embedlab.limits import SPLITS
from embedlab.prompt import tokenize
from embedlab.token_ids import ids_of
from embedlab.windows import BREAK, Break, windows_of

BODY = 75
COMMA = 267
laws = settings(max_examples=60, deadline=None)
words = st.sampled_from(
    ["cat", "a red star,", "hippopotamus.", "dog;", ", ", "xylophonist quetzalcoatl", "owl: ", "one. two", "<my-cat> "]
)
texts = st.lists(words, max_size=50).map(" ".join)
weights = st.sampled_from([1.0, 1.0, 0.5, 1.3, -1.0, 0.0])
prompts = st.lists(st.one_of(st.tuples(texts, weights), st.just(BREAK)), max_size=5)


@pytest.fixture(scope="module")
def clip():
    """The tokenizer, with a concept of three vectors."""
    tokenizer = models.tokenizer().__class__.from_pretrained(models.SHIPPED["emoji"] / "tokenizer")
    tokenizer.add_tokens(["<my-cat>", "<my-cat>_1", "<my-cat>_2"])
    return tokenizer


def many(count: int, text: str = "cat") -> list[tuple[str, float]]:
    return [(" ".join([text] * count), 1.0)]


def bodies(windows) -> list[list[int]]:
    return [row[1:end] for row, end in zip(windows.ids.tolist(), windows.ends, strict=True)]


def a1111(pieces, tokenizer, backtrack=20) -> list[list[int]]:
    """A1111's loop, read from its description: no windows, no tokens, only lists of ids; a concept stays whole."""
    first = tokenizer.convert_tokens_to_ids("<my-cat>")
    chunks: list[list[int]] = []
    chunk: list[int] = []
    last_comma = -1
    for piece in pieces:
        if isinstance(piece, Break):
            chunks.append(chunk)
            chunk, last_comma = [], -1
            continue
        ids = ids_of(piece[0], tokenizer)
        pos = 0
        while pos < len(ids):
            if ids[pos] == COMMA:
                last_comma = len(chunk)
            elif backtrack != 0 and len(chunk) == BODY and last_comma != -1 and len(chunk) - last_comma <= backtrack:
                chunks.append(chunk[: last_comma + 1])
                chunk, last_comma = chunk[last_comma + 1 :], -1
            if len(chunk) == BODY:
                chunks.append(chunk)
                chunk, last_comma = [], -1
            size = 3 if ids[pos] == first else 1
            if len(chunk) + size > BODY:
                chunks.append(chunk)
                chunk, last_comma = [], -1
            chunk = chunk + ids[pos : pos + size]
            pos += size
    return [*chunks, chunk] if chunk or not chunks else chunks


def comfyui(pieces, tokenizer) -> list[list[int]]:
    """ComfyUI's packing of groups, read from its description; a concept is a group by itself."""
    own = {tokenizer.convert_tokens_to_ids(name) for name in ("<my-cat>", "<my-cat>_1", "<my-cat>_2")}
    first = tokenizer.convert_tokens_to_ids("<my-cat>")
    batches: list[list[int]] = [[]]
    for text, _ in pieces:
        groups: list[list[int]] = []
        for k, i in enumerate(ids := ids_of(text, tokenizer)):
            new = k == 0 or i == first or (i in own) != (ids[k - 1] in own)
            groups = [*groups, [i]] if new else [*groups[:-1], [*groups[-1], i]]
        for group in groups:
            rest = group
            while rest:
                room = BODY - len(batches[-1])
                if len(rest) <= room:
                    batches[-1] += rest
                    break
                if len(group) >= 8:
                    batches[-1] += rest[:room]
                    rest = rest[room:]
                batches.append([])
    return batches


@pytest.mark.parametrize(("tokens", "windows"), [(0, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
@pytest.mark.parametrize("split", SPLITS)
def test_counts_of_windows(clip, split, tokens, windows):
    made = windows_of(many(tokens), clip, split)
    assert len(made.ids) == windows
    assert sum(map(len, bodies(made))) == tokens


def test_break_begins_a_window_and_a_last_one_adds_none(clip):
    one, two = ("a cat", 1.0), ("a dog", 1.2)
    assert bodies(windows_of([one, BREAK, two], clip)) == [ids_of("a cat", clip), ids_of("a dog", clip)]
    assert bodies(windows_of([one, BREAK], clip)) == [ids_of("a cat", clip)]
    assert bodies(windows_of([BREAK, one], clip)) == [[], ids_of("a cat", clip)]
    assert bodies(windows_of([one, BREAK, BREAK, two], clip)) == [*bodies(windows_of([one], clip)), [], [320, 1929]]
    assert bodies(windows_of([one, BREAK, ("", 1.0)], clip)) == [ids_of("a cat", clip)]


def test_a_comma_among_the_last_twenty_is_gone_back_to(clip):
    for after, first in ((19, 56), (20, 75), (0, 75)):
        text = " ".join(["cat"] * (BODY - 1 - after)) + ", " + " ".join(["dog"] * (after + 5))
        made = windows_of([(text, 1.0)], clip, "comma")
        assert [len(body) for body in bodies(made)] == [first, 80 - first], after
    assert [len(b) for b in bodies(windows_of([(text, 1.0)], clip, "comma", backtrack=0))] == [75, 5]


@pytest.mark.parity("A1111 1.10", "commas looked for over 20 tokens; concepts whole", "windows=comma", "golden")
@laws
@given(pieces=prompts, backtrack=st.sampled_from([0, 5, 20, 74]))
def test_comma_is_a1111s(clip, pieces, backtrack):
    assert bodies(windows_of(pieces, clip, "comma", backtrack=backtrack)) == a1111(pieces, clip, backtrack)


@pytest.mark.parity("ComfyUI", "texts of less than 8 tokens kept whole", "windows=segment", "golden")
@laws
@given(pieces=prompts)
def test_segment_is_comfyuis(clip, pieces):
    pieces = [piece for piece in pieces if not isinstance(piece, Break)]
    assert bodies(windows_of(pieces, clip, "segment")) == comfyui(pieces, clip)


@pytest.mark.parity("compel 2.5.1", "where text is split", "windows=word, phrase, sentence, hard", "live")
@pytest.mark.parametrize(
    ("split", "mode"),
    [
        ("hard", SplitLongTextMode.BRUTAL),
        ("word", SplitLongTextMode.WORDS),
        ("phrase", SplitLongTextMode.PHRASES),
        ("sentence", SplitLongTextMode.SENTENCES),
    ],
)
@laws
@given(pieces=prompts)
def test_split_is_compels(clip, split, mode, pieces):
    """Ids, weights and masks of compel 2.5.1, live; it has no concepts of several vectors of its own."""
    pieces = [(text.replace("<my-cat>", "skunk"), w) for text, w in (p for p in pieces if not isinstance(p, Break))]
    provider = EmbeddingsProvider(clip, None, truncate=False, device="cpu", split_long_text_mode=mode)
    fragments, theirs = [text for text, _ in pieces], [w for _, w in pieces]
    ids, expected, _ = provider.get_token_ids_and_expand_weights(fragments, theirs, device="cpu")
    made = windows_of(pieces, clip, split)
    assert made.ids.flatten().tolist() == ids.tolist()
    torch.testing.assert_close(made.weights.flatten().float(), expected, atol=0, rtol=0)


@laws
@given(pieces=prompts, split=st.sampled_from(SPLITS))
def test_no_token_is_lost_moved_or_given_another_weight(clip, pieces, split):
    made = windows_of(pieces, clip, split)
    expected = [(i, w) for text, w in (p for p in pieces if not isinstance(p, Break)) for i in ids_of(text, clip)]
    words = made.pieces >= 0
    assert list(zip(made.ids[words].tolist(), made.weights[words].tolist(), strict=True)) == expected
    assert made.numbers[words].tolist() == list(range(len(expected)))
    assert (made.weights[~words] == 1).all()
    assert (made.ids[:, 0] == clip.bos_token_id).all()


@laws
@given(pieces=prompts)
def test_ours_cuts_no_word_no_concept_and_no_group_that_has_room(clip, pieces):
    made = windows_of(pieces, clip)
    words, groups = made.cut
    assert not words
    sizes = {n: len(ids_of(p[0], clip)) for n, p in enumerate(pieces) if not isinstance(p, Break)}
    assert all(sizes[group] > BODY for group in groups)


def test_what_is_longer_than_a_window_is_cut_where_nothing_else_fits(clip):
    group = windows_of([("cat " * 70, 1.0), ("red star " * 40, 1.3)], clip)
    assert [len(body) for body in bodies(group)] == [75, 75]
    assert group.cut == ([], [1])
    letters = windows_of([("cat " * 70 + "x" * 400, 1.0)], clip)
    assert len(letters.cut[0]) >= 1
    assert sum(map(len, bodies(letters))) == len(ids_of("cat " * 70 + "x" * 400, clip))


def test_ours_prefers_the_end_of_a_phrase(clip):
    made = windows_of([("cat " * 60 + ", " + "dog " * 30, 1.0)], clip)
    assert [len(body) for body in bodies(made)] == [61, 30]


def test_plain_text_of_one_window_is_what_tokenize_gives(clip):
    for text in ("", "a picture of a puppy", "cat " * 75):
        assert torch.equal(windows_of([(text, 1.0)], clip).ids, tokenize(text, clip).ids)
    assert torch.equal(windows_of(many(200), clip, "hard").ids, tokenize("cat " * 200, clip).ids)


def test_padding_fills_what_is_after_the_end(clip):
    eos = clip.eos_token_id
    for padding, pad in (("own", clip.pad_token_id), ("eos", eos), ("zero", 0)):
        (row,) = windows_of([("a cat", 1.0)], clip, padding=padding).ids.tolist()
        assert row[:4] == [49406, 320, 2368, eos]
        assert set(row[4:]) == {pad}


def test_a_longer_window_is_read_to_its_end(clip):
    made = windows_of(many(246), clip, window=248)
    assert made.ids.shape == (1, 248)
    assert made.ends == [247]


def test_truncation_keeps_the_first_window(clip):
    assert len(windows_of(many(200), clip, truncate=True).ids) == 1


def test_joins(clip):
    made = windows_of([("a cat", 1.0), BREAK, ("a red star", 1.0)], clip)
    hidden = torch.arange(2 * 77.0).view(2, 77, 1)
    assert join_states(hidden, made).flatten().tolist() == list(range(154))
    assert join_states(hidden, made, "run").flatten().tolist() == [*range(76), *range(78, 154)]
    copied, merged = (join_states(hidden, made, join).flatten() for join in ("copied", "merged"))
    assert (copied[3], copied[81]) == (3, 3)
    assert (merged[3], merged[81]) == (42, 42)
    assert (copied != torch.arange(154)).sum() == 1


def test_ten_thousand_tokens_take_a_time_in_proportion(clip):
    def seconds(count: int) -> float:
        begun = time.perf_counter()
        windows_of([("red star, " * count, 1.2)], clip)
        return time.perf_counter() - begun

    seconds(100)
    assert seconds(4000) < 40 * max(seconds(400), 0.005)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ("a cat", "pieces is 'a cat'; it has to be a list"),
        ([("a cat",)], "is no piece of a prompt; one is"),
        ([("a cat", float("nan"))], "the weight of 'a cat' is nan; it has to be a finite number"),
        ([("a cat", "1")], "the weight of 'a cat' is '1'"),
        ([(3, 1.0)], r"\(3, 1.0\) is no piece"),
        ([("a <|endoftext|>", 1.0)], "inside a prompt would end it"),
        ([("cat " * 9000, 1.0)] * 2, "more than 15,000 tokens"),
    ],
)
def test_what_is_no_prompt_is_refused(clip, pieces, message):
    with pytest.raises(PromptError, match=message) as error:
        windows_of(pieces, clip)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("setting", [{"split": "commas"}, {"padding": 1}, {"window": 2}, {"backtrack": 75}])
def test_settings_are_checked(clip, setting):
    with pytest.raises(PromptError, match=r"windows\."):
        windows_of([("a", 1.0)], clip, **setting)
