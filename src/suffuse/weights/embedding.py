"""Files of words learned by textual inversion: diffusers' and A1111's.

Both hold the vectors of one word. diffusers names them after it; A1111 calls them `emb_params` and
the word is the file's name. Older files of A1111 are pickles that carry the name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from suffuse.errors import SuffuseError
from suffuse.networks.words import extend
from suffuse.weights.containers import open_tensors
from suffuse.weights.mapping import some
from suffuse.weights.parts import Parts
from suffuse.weights.tensorfile import TensorFile, show

A1111 = "emb_params"
FILE = "learned_embeds.safetensors"  # diffusers' name for its file


class Embedding(NamedTuple):
    word: str
    vectors: Tensor  # (n, width), n tokens


def open_embedding(path: str | PathLike[str]) -> Embedding:
    """The word in a file, or in a folder with diffusers' `learned_embeds.safetensors`.

    Raises SuffuseError when the file holds something else.
    """
    path = Path(path).expanduser()
    file = open_tensors(path / FILE if path.is_dir() else path)
    name = _name(file)
    vectors = file.read(name, torch.float32)
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    if vectors.ndim != 2 or not len(vectors):
        raise SuffuseError(f"{file.path}: {show(name)} of {tuple(vectors.shape)} is not a word")
    return Embedding(_word(file, name), vectors)


def _name(file: TensorFile) -> str:
    """Which of the tensors are the vectors."""
    if A1111 in file:
        return A1111
    params = [n for n in file if n.startswith("string_to_param.")]
    names = params or [n for n in file if not n.startswith("string_to_token.")]
    if len(names) != 1:
        raise SuffuseError(
            f"{file.path}: a learned word is one tensor, this file has {some(names, 4)}; "
            "it is of another model, or something else"
        )
    return names[0]


def _word(file: TensorFile, name: str) -> str:
    told = file.metadata.get("name")
    if isinstance(told, str) and told:
        return told
    plain = name.removeprefix("string_to_param.").removeprefix("_parameters.")
    return file.path.stem if plain in (A1111, "*") else plain


def with_embeddings(parts: Parts, paths: Iterable[str | PathLike[str]]) -> Parts:
    """`parts` whose tokenizer and text encoder know the words in these files as well.

    The text encoder is changed in place. Raises SuffuseError for a word that it has already or
    vectors of another width.
    """
    for path in paths:
        word, vectors = open_embedding(path)
        try:
            tokenizer, first = parts.tokenizer.with_word(word, len(vectors))
            extend(parts.text, first, vectors, tokenizer.eos)
        except SuffuseError as problem:
            raise SuffuseError(f"{path}: {problem}") from None
        parts = replace(parts, tokenizer=tokenizer)
    return parts


def save_embedding(
    embedding: Embedding,
    path: str | PathLike[str],
    naming: Literal["diffusers", "a1111"] = "diffusers",
) -> None:
    """Write one .safetensors file, whole or not at all; for A1111 its name should be the word.

    Raises SuffuseError when it cannot be written.
    """
    path = Path(path)
    name = A1111 if naming == "a1111" else embedding.word
    vectors = embedding.vectors.detach().float().cpu().contiguous()
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: vectors}, fresh, {"format": "pt"})
        fresh.replace(path)
    except OSError as problem:
        raise SuffuseError(f"{path}: cannot be written ({problem.strerror})") from None
    finally:
        fresh.unlink(missing_ok=True)
