"""Does a picture find its own text among many, and a text its picture?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from suffuse.data.captions import plain
from suffuse.data.emoji import Scene, World
from suffuse.systems.clip import Clip


@dataclass(frozen=True)
class RetrievalScores:
    """Shares of right answers, 0..1. Equal texts count as the same one.

    texts: how many different ones there are
    text_at_1, text_at_5: pictures that find their text first, or among the first five
    picture_at_1: different texts whose first picture is one of theirs
    """

    count: int
    texts: int
    text_at_1: float
    text_at_5: float
    picture_at_1: float


def held_out_scenes(world: World, n: int, seed: int = 0) -> list[Scene]:
    """`n` scenes of combinations that training never shows."""
    return [world.scene_at(i, seed, "test") for i in range(n)]


def drawn(scenes: Sequence[Scene]) -> Callable[[int], Image.Image]:
    """Picture i of these."""
    return lambda i: Image.fromarray(scenes[i].draw())


def captions(scenes: Sequence[Scene], language: str) -> list[str]:
    """The plainest sentence about each."""
    return [plain(scene, language) for scene in scenes]


def retrieve(
    clip: Clip, vectors: Tensor, texts: Sequence[str], note: Callable[[str], None]
) -> RetrievalScores:
    """vectors: (N, D) of the pictures that `texts` are about, in their order.

    note: gets a line for each text that had to be cut
    """
    different = list(dict.fromkeys(texts))
    places = {text: i for i, text in enumerate(different)}
    own = torch.tensor([places[text] for text in texts])  # (N,)
    cosines = vectors @ clip.texts(different, note).T  # (N, texts)
    right = cosines.topk(min(5, len(different)), dim=1).indices == own[:, None]  # (N, 5)
    nearest = own[cosines.argmax(dim=0)]  # (texts,)
    found = nearest == torch.arange(len(different))
    return RetrievalScores(
        len(texts),
        len(different),
        float(right[:, 0].float().mean()),
        float(right.any(dim=1).float().mean()),
        float(found.float().mean()),
    )
