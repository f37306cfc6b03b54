"""OpenAI CLIP's own vocabulary, for checkpoints that carry none.

Single-file Stable Diffusion checkpoints hold the text encoder's weights and no tokenizer; every one
of them was trained with this vocabulary of 49,408 tokens. Its merges lie beside this file, under
the MIT licence (see NOTICE).
"""

from __future__ import annotations

import gzip
from importlib.resources import files

from tokenizers import AddedToken

from suffuse.text.bpe import BOS, EOS
from suffuse.text.tokenizer import CLIP_WINDOW, Tokenizer, clip_backend, parse_merges

MERGES = "openai_clip_merges.txt.gz"


def openai_clip_tokenizer(pad: int | None = None, window: int = CLIP_WINDOW) -> Tokenizer:
    """The tokenizer of CLIP ViT-L/14, hence of Stable Diffusion 1.

    `pad` is the id that fills a window: None for `<|endoftext|>`, 0 for what open_clip's towers
    (Stable Diffusion 2, SDXL's second) were trained with.
    """
    data = files("suffuse.text").joinpath(MERGES).read_bytes()
    merges = parse_merges(gzip.decompress(data).decode("utf-8").split("\n"), MERGES)
    vocab = {token: i for i, token in enumerate(_tokens(merges))}
    backend = clip_backend(vocab, merges)
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in (BOS, EOS)])
    eos = vocab[EOS]
    return Tokenizer(backend, vocab[BOS], eos, eos if pad is None else pad, window)


def _tokens(merges: list[tuple[str, str]]) -> list[str]:
    """All tokens in the order of their ids: bytes, bytes that end a word, merges, specials."""
    letters = _byte_letters()
    joined = [first + second for first, second in merges]
    return [*letters, *(letter + "</w>" for letter in letters), *joined, BOS, EOS]


def _byte_letters() -> list[str]:
    """One visible letter for each byte, as GPT-2 writes them: printable bytes stand for themselves
    and come first, the others are moved up by 256 in turn.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = 256 - len(visible)
    return [chr(b) for b in visible] + [chr(256 + i) for i in range(hidden)]
