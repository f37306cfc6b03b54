"""A byte-level BPE trained in the test, opened by us and by transformers."""

from __future__ import annotations

import unicodedata

import pytest
from transformers import PreTrainedTokenizerFast

from suffuse.errors import SuffuseError
from suffuse.text.bpe import BOS, EOS, save_tokenizer, train_bpe
from suffuse.text.tokenizer import load_tokenizer

CAPTIONS = [
    f"{size} {colour} {thing} on a {ground} background"
    for size in ("a small", "a big", "two")
    for colour in ("red", "green", "blue")
    for thing in ("apple", "cat", "boat")
    for ground in ("white", "yellow")
] + [
    f"{ground} 배경에 {colour} {thing}"
    for colour in ("빨간", "초록")
    for thing in ("사과", "고양이")
    for ground in ("하얀", "노란")
]


@pytest.fixture(scope="module")
def backend():
    return train_bpe(CAPTIONS, 400)


@pytest.fixture(scope="module")
def folder(backend, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(backend, path, window=24)
    return path


def test_same_captions_same_tokens(backend):
    assert train_bpe(iter(CAPTIONS), 400).to_str() == backend.to_str()
    assert train_bpe(CAPTIONS[::-1], 400).to_str() == backend.to_str()
    assert (backend.token_to_id(BOS), backend.token_to_id(EOS)) == (0, 1)


def test_the_size_is_a_limit(backend):
    assert train_bpe(CAPTIONS, 300).get_vocab_size() == 300
    assert 300 < backend.get_vocab_size() < 400  # so few captions hold no more


def test_opens_as_ours_and_as_transformers(folder):
    ours, theirs = load_tokenizer(folder), PreTrainedTokenizerFast.from_pretrained(folder)
    assert (ours.bos, ours.eos, ours.pad, ours.window) == (0, 1, 1, 24)
    for prompt in ("", "a red apple", "노란 배경에 빨간 사과", "Ｗ 😀\n\tcat <|endoftext|> x"):
        want = theirs(prompt, padding="max_length").input_ids
        assert ours.windows(prompt).tolist() == [want], prompt


def test_a_word_is_one_token_wherever_it_stands(folder):
    tokenizer = load_tokenizer(folder)
    [cat] = tokenizer.encode("cat")
    assert tokenizer.encode("  Cat \n\n red")[0] == cat
    assert tokenizer.encode("red cat")[-1] == cat
    assert len(tokenizer.encode("고양이")) == 1


def test_composed_and_decomposed_hangul_are_the_same(folder):
    tokenizer = load_tokenizer(folder)
    text = "빨간 사과 뷁"  # the last syllable was never seen
    assert tokenizer.encode(unicodedata.normalize("NFD", text)) == tokenizer.encode(text)
    assert tokenizer.backend.decode(tokenizer.encode(text)).strip() == text


def test_too_small_a_vocabulary():
    with pytest.raises(SuffuseError, match="at least 258 tokens, not 257"):
        train_bpe(CAPTIONS, 257)
