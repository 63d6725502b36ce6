import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from embedlab import models
from embedlab.errors import PromptError
from embedlab.prompt import tokenize
from embedlab.token_ids import concepts_of, ids_of
from embedlab.windows import joined

TOKENIZER = models.tokenizer()


def test_the_vocabulary_is_the_true_one():
    assert tokenize("A picture of a puppy", TOKENIZER).ids[0, :8].tolist() == [
        49406,
        320,
        1674,
        539,
        320,
        6829,
        49407,
        49407,
    ]
    assert tokenize("cat skunk", TOKENIZER).ids[0, 1:3].tolist() == [2368, 42194]
    assert len(TOKENIZER) == 49408


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=120))
def test_one_window_is_the_tokenizers_own_for_any_text(text):
    if "<|" in text:
        return
    own = TOKENIZER(text, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
    tokens = tokenize(text, TOKENIZER)
    if len(tokens.ids) == 1:
        assert tokens.ids.tolist() == own.tolist()
    else:  # truncation keeps the end of text in the last place
        assert tokens.ids[0, :76].tolist() == own[0, :76].tolist()


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_words_cover_every_token_once_and_in_order(text):
    tokens = tokenize(text.replace("<|", ""), TOKENIZER)
    rows = [row for word in tokens.words for row in word.rows]
    assert rows == sorted(set(rows))
    assert len(rows) == tokens.length == len(TOKENIZER(tokens.text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize(("length", "windows"), [(0, 1), (1, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
def test_windows_of_75(length, windows):
    tokens = tokenize("cat " * length, TOKENIZER)
    assert tokens.ids.shape == (windows, 77)
    assert (tokens.ids[:, 0] == TOKENIZER.bos_token_id).all()
    assert (tokens.ids == TOKENIZER.eos_token_id).any(dim=1).all()
    assert len(tokens.rows("cat")) == length if length else tokens.words == ()


def test_phrases_and_words_of_several_tokens_are_found_wherever_they_stand():
    tokens = tokenize("A Pomeranian, a fluffy cat; a pomeranian and a FLUFFY   CAT", TOKENIZER)
    first, second = tokens.rows("pomeranian")
    assert len(first) == len(second) > 1
    assert len(tokens.rows("fluffy cat")) == 2
    assert [word.text for word in tokens.words][:3] == ["A", "Pomeranian", ","]


def test_a_part_of_a_word_is_not_the_word():
    with pytest.raises(PromptError, match=r"'cat' is not in the prompt; its words are a, catalog\."):
        tokenize("a catalog", TOKENIZER).rows("cat")
    with pytest.raises(PromptError, match="the prompt is empty"):
        tokenize("", TOKENIZER).rows("cat")


def test_a_word_cut_between_windows_is_found_and_reported():
    tokens = tokenize("cat " * 74 + "pomeranian", TOKENIZER)
    (rows,) = tokens.rows("pomeranian")
    assert rows[0] == 75
    assert rows[1] == 78
    assert any("cut in two between windows: pomeranian" in note for note in tokens.notes())


def test_truncation_says_what_it_left_out():
    tokens = tokenize("cat " * 75 + "and a puppy", TOKENIZER, truncate=True)
    assert tokens.ids.shape == (1, 77)
    assert tokens.dropped == ("and", "a", "puppy")
    assert tokens.notes() == ["truncated: 3 words left out, from 'and' on"]
    with pytest.raises(PromptError, match="truncation left out and, a, puppy"):
        tokens.rows("puppy")


def test_a_prompt_of_ten_thousand_words_runs_in_windows():
    tokens = tokenize("cat " * 10_000, TOKENIZER)
    assert tokens.ids.shape == (134, 77)
    assert tokens.notes() == ["the prompt has 10000 tokens and runs in 134 windows of 75"]


def test_end_of_text_inside_a_prompt_is_refused():
    with pytest.raises(PromptError, match="would end it"):
        tokenize("a cat <|endoftext|> a puppy", TOKENIZER)


def test_a_run_keeps_the_outer_start_and_end_only():
    assert [len(joined(k, "run")) for k in (1, 2, 3)] == [77, 152, 227]
    rows = joined(3, "run")
    assert rows[0] == 0
    assert rows[-1] == 230
    assert not {76, 77, 153, 154} & set(rows)


PADDED = CLIPTokenizer.from_pretrained(models.SHIPPED["emoji"] / "tokenizer", pad_token="!")  # as SD 2 and XL's second
TEXTS = [
    ("wow! cat ! dog", ["wow", "!", "cat", "!", "dog"]),
    ("dog! cat and a cat", ["dog", "!", "cat", "and", "a", "cat"]),
    ("wow!!?! it's 2026!", ["wow", "!!?!", "it", "'s", "2", "0", "2", "6", "!"]),
    ("!", ["!"]),
    (
        "Cafe\u0301 \u5c0f\u72d7 \u0130stanbul! \U0001f469\u200d\U0001f4bb",
        ["Caf\u00e9", "\u5c0f\u72d7", "\u0130stanbul", "!", "\U0001f469\u200d\U0001f4bb"],
    ),
]


@pytest.mark.parametrize(("text", "words"), TEXTS)
def test_word_borders_come_from_the_text_whatever_the_tokenizer_pads_with(text, words):
    for tokenizer in (TOKENIZER, PADDED):
        tokens = tokenize(text, tokenizer)
        assert [word.text for word in tokens.words] == words
        own = tokenizer(text, add_special_tokens=False).input_ids
        assert tokens.ids.flatten().tolist()[1 : len(own) + 1] == own


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab! ?.,'st1\u00e9e\u0301\U0001f43a\u4e2d\n"), max_size=60))
def test_all_encoders_see_the_same_words(text):
    one, other = tokenize(text, TOKENIZER), tokenize(text, PADDED)
    both = {word.text for word in one.words} & {word.text for word in other.words}
    assert both >= {word.text for word in one.words if "'" not in text}  # "!'s" is one sign and a contraction to one
    rows = [row for word in other.words for row in word.rows]
    assert rows == sorted(set(rows))
    assert len(rows) == other.length == len(PADDED(text, add_special_tokens=False).input_ids)


def test_names_that_were_added_are_words_and_swallow_none():
    tokenizer = CLIPTokenizer.from_pretrained(models.SHIPPED["emoji"] / "tokenizer")
    tokenizer.add_tokens(["<my-cat>"])
    tokens = tokenize("a <my-cat> on a bench, <my-cat>!", tokenizer)
    assert [word.text for word in tokens.words] == ["a", "<my-cat>", "on", "a", "bench", ",", "<my-cat>", "!"]
    assert tokens.rows("<my-cat>") == [(2,), (7,)]
    other = tokenize("a <my-cat> on a bench, <my-cat>!", TOKENIZER, concepts=concepts_of([tokenizer, TOKENIZER]))
    assert [word.text for word in other.words] == [word.text for word in tokens.words], "also where it is not known"
    assert len(other.rows("on")) == 1


def test_concepts_that_are_exchanged_for_others_are_read_anew():
    tokenizer = CLIPTokenizer.from_pretrained(models.SHIPPED["emoji"] / "tokenizer")
    tokenizer.add_tokens(["<one>"])
    before = ids_of("<one> and <one>_1", tokenizer)
    tokenizer.add_tokens(["<one>_1"])
    assert ids_of("<one> and a cat", tokenizer)[:2] == [49408, 49409]
    assert before != ids_of("<one> and <one>_1", tokenizer)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", ["\U0001f43a" * 100_000, "cat " * 100_000, "!" * 10_000_000, "x" * 300_000])
def test_texts_beyond_all_use_are_refused_at_once(text):
    with pytest.raises(PromptError, match=r"the prompt has [\d,]+ (tokens|characters); at most [\d,]+ are read\."):
        tokenize(text, TOKENIZER)


def test_a_tokenizer_goes_with_its_model():
    mine = CLIPTokenizer.from_pretrained(models.SHIPPED["emoji"] / "tokenizer")
    assert tokenize("a cat", mine).ids.tolist() == tokenize("a cat", TOKENIZER).ids.tolist()
    held = weakref.ref(mine)
    del mine
    gc.collect()
    assert held() is None
