"""Does a picture find its own text among many, and a text its picture?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from suffuse.data.captions import plain
from suffuse.data.decode import open_file
from suffuse.errors import SuffuseError
from suffuse.evaluation.labelled import UNKNOWN, Labelled, world_of
from suffuse.evaluation.pictures import open_folder
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


Texts = dict[str, list[str]]  # of all pictures, by what kind of text it is


def captioned_scenes(
    n: int, objects: int | None, seed: int, languages: Sequence[str]
) -> tuple[Labelled, Texts]:
    """`n` scenes of combinations that training never shows, and the plainest sentence about each.

    Raises SuffuseError.
    """
    world = world_of(objects)
    scenes = [world.scene_at(i, seed, "test") for i in range(n)]
    given = Labelled(
        lambda i: Image.fromarray(scenes[i].draw()),
        np.full(n, UNKNOWN),
        {},
        lambda i: f"scene {i}",
    )
    texts = {language: [plain(scene, language) for scene in scenes] for language in languages}
    return given, texts


def captioned_folder(folder: Path, n: int) -> tuple[Labelled, Texts]:
    """The first `n` pictures of a folder that have a caption beside them. Raises SuffuseError."""
    there = open_folder(folder)
    pairs = [(name, said) for name, said in zip(there.names, there.captions) if said][:n]
    if not pairs:
        raise SuffuseError(
            f"none of the pictures in '{folder}' has a caption: these stand in metadata.jsonl, or "
            "in text files beside the pictures"
        )
    given = Labelled(
        lambda i: open_file(folder / pairs[i][0]),
        np.full(len(pairs), UNKNOWN),
        {},
        lambda i: pairs[i][0],
    )
    return given, {"captions": [said for _, said in pairs]}


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
