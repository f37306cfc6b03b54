"""A byte-level BPE of one's own, for text encoders trained from scratch.

Sennrich et al. 2016 (arXiv 1508.07909) over bytes, as in GPT-2: every string of every script has
an encoding, so no token for the unknown is needed. CLIP's own vocabulary is read in `tokenizer.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from suffuse.errors import SuffuseError

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
SMALLEST = 2 + 256  # the two specials and the bytes


def train_bpe(captions: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Learn at most `vocab_size` tokens from captions; the same captions give the same tokens.

    Ids 0 and 1 are `<|startoftext|>` and `<|endoftext|>`. Text is composed (NFC), so that a Korean
    syllable is always the same three bytes, lower-cased, and its runs of blanks made one space.
    Raises SuffuseError if `vocab_size` does not hold the specials and the 256 bytes.
    """
    if vocab_size < SMALLEST:
        raise SuffuseError(
            f"a byte-level vocabulary needs at least {SMALLEST} tokens, not {vocab_size}"
        )
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Lowercase(),
        ]
    )
    # A space before the first word too: "cat" is one token wherever it stands.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        # Sorted: the library keeps this order in the ids, and a set has none.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    ids = {token: tokenizer.token_to_id(token) for token in (BOS, EOS)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=list(ids.items())
    )
    return tokenizer


def save_tokenizer(tokenizer: tokenizers.Tokenizer, folder: Path | str, window: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as transformers (4 and 5) reads them.

    `window` is the number of tokens the text encoder sees at once, begin and end included.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": EOS,
        "model_max_length": window,
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
