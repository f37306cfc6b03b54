"""CLIP score: do pictures show what was asked for? (2104.08718, without its factor of 2.5.)"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import torch
from PIL import Image
from torch import Tensor

from suffuse.systems.clip import Clip

_BATCH = 32  # pictures that are held at a time


def clip_scores(
    clip: Clip,
    pairs: Iterable[tuple[Image.Image, str]],
    note: Callable[[str], None],
) -> Tensor:
    """100 max(0, cosine) of each picture with its text, (N,).

    note: gets a line for each text that had to be cut
    """
    found, rest = [torch.empty(0)], iter(pairs)
    while group := list(islice(rest, _BATCH)):
        pictures, texts = zip(*group)
        cosines = (clip.images(pictures) * clip.texts(texts, note)).sum(dim=1)
        found.append(100 * cosines.clamp_min(0))
    return torch.cat(found)
