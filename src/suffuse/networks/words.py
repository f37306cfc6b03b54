"""New words for a text tower: vectors that are learned while all else stands still.

Textual inversion (2208.01618): a new word stands for something in a few pictures, and all that is
trained is the embedding that the tower looks it up by.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from suffuse.errors import SuffuseError
from suffuse.networks.clip import ClipText


class NewWord(nn.Module):
    """The vectors (n, width) of the tokens from id `first` on."""

    def __init__(self, first: int, vectors: Tensor):
        super().__init__()
        self.first = first
        self.vectors = nn.Parameter(vectors.detach().clone().float())


@torch.no_grad()
def extend(tower: ClipText, first: int, vectors: Tensor, eos: int) -> None:
    """Gives `tower` the rows `vectors` (n, width) for the ids from `first` on.

    eos: the id that ends a text; towers that take it to be the largest id would take a new one
    Raises SuffuseError when the vectors are of another tower.
    """
    old, config = tower.token.weight, tower.config
    if vectors.ndim != 2 or vectors.shape[1] != config.width:
        raise SuffuseError(
            f"the vectors of a new word are {tuple(vectors.shape)}, this text encoder's have "
            f"{config.width} numbers: they are of another model"
        )
    vocab = max(config.vocab, first + len(vectors))
    table = torch.zeros(vocab, config.width, dtype=old.dtype, device=old.device)
    table[: len(old)] = old
    table[first : first + len(vectors)] = vectors.to(table)
    tower.token = nn.Embedding.from_pretrained(table, freeze=not old.requires_grad)
    tower.config = replace(config, vocab=vocab, eos=eos)


class Spoken:
    """A word whose vectors stand in for the rows of the tower's own table, until it is removed."""

    def __init__(self, tower: ClipText, word: NewWord):
        self.on, self._word = True, word
        self._hook = tower.token.register_forward_hook(self._replace)

    def _replace(self, table: nn.Embedding, given: tuple[Tensor], found: Tensor) -> Any:
        if not self.on:
            return None  # what was found
        vectors = self._word.vectors
        place = given[0] - self._word.first  # (B, L)
        mine = (place >= 0) & (place < len(vectors))
        said = embedding(place.clamp(0, len(vectors) - 1), vectors).to(found.dtype)
        return torch.where(mine[..., None], said, found)  # (B, L, width)

    def remove(self) -> None:
        self._hook.remove()

    def __enter__(self) -> Spoken:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()
