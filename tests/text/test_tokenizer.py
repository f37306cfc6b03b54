"""Tokenizers of folders against transformers: golden ids, and the library itself in the test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from suffuse.errors import SuffuseError
from suffuse.text.openai import openai_clip_tokenizer
from suffuse.text.tokenizer import load_tokenizer

TOK = Path(__file__).parents[1] / "parity" / "tok"
TINY = TOK / "clip_tiny"
FOLDERS = {
    "tokenizer": "padded_77",
    "tokenizer_2": "padded_77_bang",
    "tokenizer_saved_by_transformers5": "padded_77",
}
AWKWARD = [
    "wow! a cat!! !",  # "!" is a special token where it is the padding
    "<|STARTOFTEXT|> A <|ENDOFTEXT|> cat <|endoftext|>!",
    "don't ('s) \"'s 's's it'stime 12ab ½²",
    " \t 빨간 사과 \n",
]


def golden(name: str) -> list[dict]:
    return json.loads((TOK / name / "ids.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_golden_ids_of_a_folder(folder):
    tokenizer = load_tokenizer(TINY / folder)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.window) == (632, 633, 77)
    assert tokenizer.size == 634
    for item in golden("clip_tiny"):
        ids = [tokenizer.bos, *tokenizer.encode(item["prompt"]), tokenizer.eos]
        assert ids == item["ids"], item["prompt"]
        if len(ids) <= 77:
            assert tokenizer.windows(item["prompt"]).tolist() == [item[FOLDERS[folder]]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_awkward_prompts_as_in_transformers(folder):
    theirs, ours = CLIPTokenizer.from_pretrained(TINY / folder), load_tokenizer(TINY / folder)
    for prompt in AWKWARD:
        want = theirs(prompt, padding="max_length", max_length=77).input_ids
        assert ours.windows(prompt).tolist() == [want], prompt


def test_golden_ids_of_the_openai_vocabulary():
    tokenizer = openai_clip_tokenizer()
    assert (tokenizer.size, tokenizer.bos, tokenizer.eos) == (49408, 49406, 49407)
    for item in golden("clip_openai"):
        ids = [tokenizer.bos, *tokenizer.encode(item["prompt"]), tokenizer.eos]
        assert ids == item["transformers"], item["prompt"]
    assert tokenizer.windows("")[0, -1] == 49407
    assert openai_clip_tokenizer(pad=0).windows("")[0].tolist() == [49406, 49407] + [0] * 75


@pytest.fixture(scope="module")
def tiny():
    return load_tokenizer(TINY / "tokenizer", window=8)


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=60))
def test_windows_lose_nothing(tiny, text):
    rows = tiny.windows(text)
    assert rows.dtype == np.int64 and rows.shape[1] == tiny.window == 8
    ids = tiny.encode(text)
    assert len(rows) == max(1, -(-len(ids) // 6))
    framed = [i for row in rows for i in row[1 : 1 + 6].tolist()]
    assert framed[: len(ids)] == ids
    assert (rows[:, 0] == tiny.bos).all()
    used = len(ids) - 6 * (len(rows) - 1)
    assert (rows[-1, used + 1 :] == tiny.eos).all()  # the end, then padding, here the same token


def test_a_prompt_that_fills_the_window_exactly(tiny):
    assert len(tiny.windows("a " * 6)) == 1
    assert len(tiny.windows("a " * 7)) == 2


def test_map_of_special_tokens_wins_over_config(tmp_path):
    """Published SD 2 folders contradict themselves: the map says "!", the config the end."""
    shutil.copytree(TINY / "tokenizer_2", tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({**config, "pad_token": "<|endoftext|>"})
    )
    assert load_tokenizer(tmp_path).pad == 0
    (tmp_path / "special_tokens_map.json").unlink()
    assert load_tokenizer(tmp_path).pad == 633


def test_tokens_added_later_keep_their_ids(tmp_path):
    shutil.copytree(TINY / "tokenizer", tmp_path, dirs_exist_ok=True)
    (tmp_path / "added_tokens.json").write_text('{"<cat-toy>": 634, "<my style>": 635}')
    ours = load_tokenizer(tmp_path)
    assert ours.encode("a <cat-toy> <My style>") == [320, 634, 635]
    (tmp_path / "added_tokens.json").write_text('{"<cat-toy>": 700}')
    with pytest.raises(SuffuseError, match="'<cat-toy>' has id 700"):
        load_tokenizer(tmp_path)


def test_window_unknown_or_asked_for(tmp_path):
    shutil.copytree(TINY / "tokenizer", tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')
    assert load_tokenizer(tmp_path).window == 77
    (tmp_path / "tokenizer_config.json").unlink()
    assert load_tokenizer(tmp_path).window == 77
    assert load_tokenizer(tmp_path, window=20).windows("a").shape == (1, 20)
    with pytest.raises(SuffuseError, match="window of 2"):
        load_tokenizer(tmp_path, window=2)


def test_damaged_folders(tmp_path):
    with pytest.raises(SuffuseError, match="no tokenizer here"):
        load_tokenizer(tmp_path)
    shutil.copytree(TINY / "tokenizer", tmp_path, dirs_exist_ok=True)

    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SuffuseError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()

    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "<pad>"}')
    with pytest.raises(SuffuseError, match="pad_token '<pad>' is not in the vocabulary"):
        load_tokenizer(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text("[1]")
    with pytest.raises(SuffuseError, match="expected a JSON object"):
        load_tokenizer(tmp_path)
    (tmp_path / "special_tokens_map.json").unlink()

    (tmp_path / "merges.txt").write_text("#version: 0.2\nthree of them\n")
    with pytest.raises(SuffuseError, match="line 2: expected two tokens"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_text("nosuch token\n")
    with pytest.raises(SuffuseError, match="do not agree"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(SuffuseError, match=r"vocab\.json: not readable as JSON"):
        load_tokenizer(tmp_path)
