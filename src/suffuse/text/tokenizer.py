"""Text to token ids, in windows as long as the text encoder sees.

CLIP's tokenizer is a byte-level BPE over lower-cased words, with a mark at the end of each word
(Radford et al. 2021, arXiv 2103.00020, section 2.4). A folder holds it as `vocab.json` and
`merges.txt`, or, written by transformers 5, as `tokenizer.json` alone; the tokens that begin, end
and pad a window are named beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from suffuse.errors import SuffuseError
from suffuse.text.bpe import BOS, EOS

CLIP_WINDOW = 77  # tokens, begin and end included
# CLIP splits text into contractions, runs of letters, single digits and runs of anything else.
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
# In transformers' order: of two descriptions of one token, the later one holds.
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary with the tokens that frame a window."""

    backend: tokenizers.Tokenizer
    bos: int
    eos: int
    pad: int
    window: int = CLIP_WINDOW  # tokens, begin and end included
    # A word learned as several tokens is written as the first of them, which stands for all.
    runs: Mapping[int, tuple[int, ...]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.window < 3:
            raise SuffuseError(
                f"tokenizer: a window of {self.window} has no room between begin and end"
            )

    @property
    def size(self) -> int:
        """The number of tokens, added ones included."""
        return self.backend.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without begin and end."""
        ids = self.backend.encode(text, add_special_tokens=False).ids
        return [one for i in ids for one in self.runs.get(i, (i,))] if self.runs else ids

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Which characters of the text each id of `encode` stands for, as (start, end)."""
        found = self.backend.encode(text, add_special_tokens=False)
        pairs = zip(found.ids, found.offsets)
        return [span for i, span in pairs for _ in self.runs.get(i, (i,))]

    def with_word(self, word: str, count: int = 1) -> tuple[Tokenizer, int]:
        """A tokenizer that knows one word more, and the first of the `count` ids it gets.

        The tokens are called `word`, `word_1`, `word_2` …, as diffusers calls them. Raises
        SuffuseError when the word is a token already.
        """
        names = [word, *(f"{word}_{i}" for i in range(1, count))]
        known = [name for name in names if self.backend.token_to_id(name) is not None]
        if known or not word.strip():
            raise SuffuseError(f"{word!r} cannot be a new word: the tokenizer has it already")
        backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
        backend.add_tokens([AddedToken(name) for name in names])
        ids = tuple(backend.get_vocab()[name] for name in names)
        runs = self.runs if count == 1 else {**self.runs, ids[0]: ids}
        return replace(self, backend=backend, runs=runs), ids[0]

    def windows(self, text: str) -> NDArray[np.int64]:
        """A text as (W, window) ids: as many windows as it needs, each with begin, end and padding.

        A text that fits gives transformers' `padding="max_length"` row; an empty one gives one
        window too. Nothing is cut.
        """
        ids, room = self.encode(text), self.window - 2
        parts = [ids[i : i + room] for i in range(0, len(ids), room)] or [[]]
        rows = np.full((len(parts), self.window), self.pad, dtype=np.int64)
        for row, part in zip(rows, parts):
            row[: len(part) + 2] = [self.bos, *part, self.eos]
        return rows


def clip_backend(vocab: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """CLIP's BPE over a vocabulary; its special tokens are still to be added.

    Raises SuffuseError if the merges do not fit the vocabulary.
    """
    try:
        model = models.BPE(vocab=vocab, merges=merges, unk_token=EOS, end_of_word_suffix="</w>")
    except Exception as error:  # the library raises bare Exceptions
        raise SuffuseError(f"tokenizer: vocabulary and merges do not agree ({error})") from error
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def load_tokenizer(folder: Path | str, window: int | None = None) -> Tokenizer:
    """The tokenizer of a folder: `tokenizer.json`, or `vocab.json` with `merges.txt`.

    `window` overrides the folder's `model_max_length`. Raises SuffuseError when the files are
    missing or damaged, or do not say which tokens begin, end and pad.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").is_file():
        backend = _read_whole(folder / "tokenizer.json")
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        backend = clip_backend(_read_json(folder / "vocab.json"), _read_merges(folder))
    else:
        raise SuffuseError(
            f"{folder}: no tokenizer here; expected tokenizer.json, or vocab.json with merges.txt"
        )
    special = {role: _added(token) for role, token in _special_names(folder).items()}
    _add_extra(backend, folder, {token.content for token in special.values()})
    ids = {role: _id(backend, token.content, role, folder) for role, token in special.items()}
    # transformers matches every special token in a prompt before words are split. Where SD 2 pads
    # with "!", an exclamation mark typed by the user is therefore that token too.
    present = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([special[r] for r in _ROLES if special[r].content not in present])
    return Tokenizer(
        backend, ids["bos_token"], ids["eos_token"], ids["pad_token"], window or _window(folder)
    )


def _id(backend: tokenizers.Tokenizer, token: str, role: str, folder: Path) -> int:
    number = backend.token_to_id(token)
    if number is None:
        raise SuffuseError(f"{folder}: {role} {token!r} is not in the vocabulary")
    return number


def _special_names(folder: Path) -> dict[str, Any]:
    """Role -> token, a string or a description of one.

    Where both files name a role, `special_tokens_map.json` wins, as in transformers: published
    SD 2 folders pad with "!" there and with `<|endoftext|>` in `tokenizer_config.json`.
    """
    names: dict[str, Any] = {role: BOS if role == "bos_token" else EOS for role in _ROLES}
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).is_file():
            known = _read_json(folder / file)
            names.update({role: known[role] for role in _ROLES if known.get(role)})
    return names


def _added(token: Any) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=True, normalized=False)
    flags = {k: bool(token.get(k)) for k in ("single_word", "lstrip", "rstrip", "normalized")}
    return AddedToken(token["content"], special=True, **flags)


def _window(folder: Path) -> int:
    """`model_max_length`; transformers writes an enormous number for "unknown"."""
    file = folder / "tokenizer_config.json"
    length = _read_json(file).get("model_max_length") if file.is_file() else None
    return int(length) if length and length < 10**6 else CLIP_WINDOW


def _add_extra(backend: tokenizers.Tokenizer, folder: Path, special: set[str]) -> None:
    """Tokens learned after the vocabulary was made (textual inversion), with the ids they got."""
    if not (folder / "added_tokens.json").is_file():
        return
    extra = _read_json(folder / "added_tokens.json")
    for token, wanted in sorted(extra.items(), key=lambda item: item[1]):
        backend.add_tokens([AddedToken(token, normalized=token not in special)])
        if backend.token_to_id(token) != wanted:
            raise SuffuseError(
                f"{folder}/added_tokens.json: {token!r} has id {wanted}, "
                f"but the vocabulary puts it at {backend.token_to_id(token)}"
            )


def _read_whole(file: Path) -> tokenizers.Tokenizer:
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exceptions
        raise SuffuseError(f"{file}: not a tokenizer ({error})") from error
    backend.no_padding()
    backend.no_truncation()
    return backend


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SuffuseError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise SuffuseError(f"{file}: expected a JSON object")
    return content


def _read_merges(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    return parse_merges(lines, str(folder / "merges.txt"))


def parse_merges(lines: list[str], source: str) -> list[tuple[str, str]]:
    """Pairs of tokens, one a line; a first `#version` line is left out."""
    merges = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2:
            raise SuffuseError(f"{source}, line {number}: expected two tokens, not {line!r}")
        merges.append((pair[0], pair[1]))
    return merges
