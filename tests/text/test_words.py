"""Tokens grouped to the words they came from, for both kinds of tokenizer."""

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from suffuse.text.bpe import train_bpe
from suffuse.text.tokenizer import Tokenizer, load_tokenizer
from suffuse.text.words import words

CLIP = load_tokenizer(tiny.TOKENIZER)
OWN = Tokenizer(train_bpe(["a red apple", "고양이 위에 사과"], 300), 0, 1, 1, 32)
TEXTS = st.text("ab c,.'-é가e\u0301 ㄱ😀1\n", max_size=30)


def grouped(tokenizer, text):
    return words(text, tokenizer.spans(text))


@pytest.mark.parametrize("tokenizer", [CLIP, OWN])
@given(text=TEXTS)
def test_every_token_is_of_one_word_and_words_are_in_order(tokenizer, text):
    ids, found = tokenizer.encode(text), grouped(tokenizer, text)
    assert len(tokenizer.spans(text)) == len(ids)
    places = [place for word in found for place in word.tokens]
    if text.strip():
        assert places == list(range(len(ids)))
    at = 0
    for word in found:
        at = text.index(word.text, at) + len(word.text)


@pytest.mark.parametrize("tokenizer", [CLIP, OWN])
def test_words_as_people_see_them(tokenizer):
    text = "A cat's well-made hat, e\u0301tude 고양이 위에!"
    found = grouped(tokenizer, text)
    names = ["A", "cat's", "well-made", "hat", ",", "e\u0301tude", "고양이", "위에", "!"]
    assert [word.text for word in found] == names
    for word in found:  # a word's tokens say the word
        said = tokenizer.backend.decode([tokenizer.encode(text)[i] for i in word.tokens])
        if tokenizer is OWN:
            import unicodedata

            assert said.strip() == unicodedata.normalize("NFC", word.text).lower()


def test_the_tokens_of_a_learned_word_are_one_word():
    tokenizer, first = OWN.with_word("<thing>", 3)
    assert tokenizer.encode("red <thing> apple")[-1] != first
    (thing,) = [w for w in grouped(tokenizer, "red <thing> apple") if "thing" in w.text]
    ids = tokenizer.encode("red <thing> apple")
    assert [ids[i] for i in thing.tokens][:3] == [first, first + 1, first + 2]


def test_nothing_is_no_word():
    assert words("", []) == []
