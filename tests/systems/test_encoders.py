"""Prompts to conditioning: windows joined, batches of equal length, one null."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from suffuse.errors import SuffuseError
from suffuse.networks.clip import ClipText, ClipTextConfig
from suffuse.systems.encoders import TextEncoder
from suffuse.text.tokenizer import load_tokenizer

FOLDER = Path(__file__).parents[1] / "parity" / "tok" / "clip_tiny" / "tokenizer"
SMALL = ClipTextConfig(vocab=634, width=16, layers=3, heads=2, context=8, intermediate=32)
LONG = "a photo of a cat " * 3  # 15 tokens: three windows of six


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return TextEncoder(load_tokenizer(FOLDER, window=8), ClipText(SMALL).eval())


@torch.no_grad()
def test_long_prompts_are_windows_side_by_side(encoder):
    tokens = encoder.encode([LONG]).tokens
    assert tokens.shape == (1, 3 * 8, 16)
    rows = torch.from_numpy(encoder.tokenizer.windows(LONG))
    for i in range(3):
        alone = encoder.tower(rows[i : i + 1]).last
        torch.testing.assert_close(tokens[:, 8 * i : 8 * i + 8], alone)


@torch.no_grad()
def test_shorter_ones_are_filled_with_the_empty_prompt(encoder):
    cond, null = encoder.pair([LONG, "a cat"], ["", "a dog"])
    assert cond.tokens.shape == null.tokens.shape == (2, 24, 16) and cond.mask is None
    torch.testing.assert_close(null.tokens[:1], encoder.null(windows=3).tokens)
    empty = encoder.null().tokens
    torch.testing.assert_close(cond.tokens[1:, 8:], torch.cat([empty, empty], 1))
    torch.testing.assert_close(cond.tokens[1:, :8], encoder.encode(["a cat"]).tokens)


@torch.no_grad()
def test_repeated_prompts_are_encoded_once(encoder):
    seen = []
    hook = encoder.tower.register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))
    four, _ = encoder.pair(["a cat"] * 4, ["a dog"] * 4)
    one, _ = encoder.pair(["a cat"], ["a dog"])
    hook.remove()
    assert seen == [2, 2]
    assert torch.equal(four.tokens, one.tokens.expand(4, -1, -1))


@torch.no_grad()
def test_clip_skip(encoder):
    ids = torch.from_numpy(encoder.tokenizer.windows("a cat"))
    skipped = TextEncoder(encoder.tokenizer, encoder.tower, skip=1).encode(["a cat"]).tokens
    torch.testing.assert_close(skipped, encoder.tower(ids, skip=1).last)
    assert not torch.allclose(skipped, encoder.encode(["a cat"]).tokens, atol=1e-3)


def test_gradients_and_dropout_of_captions(encoder):
    """Training: some captions are replaced by the null, and the tower learns from the others."""
    cond = encoder.encode(["a cat", "a dog"]).where(torch.tensor([True, False]), encoder.null())
    assert torch.equal(cond.tokens[1], encoder.null().tokens[0])
    cond.tokens.sum().backward()
    assert encoder.tower.blocks[0].attn.q.weight.grad.abs().sum() > 0
    encoder.tower.zero_grad()


def test_parts_of_different_models(encoder):
    tokenizer = encoder.tokenizer
    small = ClipTextConfig(vocab=600, width=16, layers=3, heads=2, context=8, intermediate=32)
    with pytest.raises(SuffuseError, match="634 tokens, the text encoder knows 600"):
        TextEncoder(tokenizer, ClipText(small))
    with pytest.raises(SuffuseError, match="window is 77 tokens, the text encoder's 8"):
        TextEncoder(load_tokenizer(FOLDER), encoder.tower)
    with pytest.raises(SuffuseError, match="clip skip 3 is out of range"):
        TextEncoder(tokenizer, encoder.tower, skip=3)
