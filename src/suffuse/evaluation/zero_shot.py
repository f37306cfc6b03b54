"""Zero-shot classification: a class is the mean of sentences about it.

Radford et al. 2021 (2103.00020), section 3.1.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from suffuse.evaluation.labelled import Seen
from suffuse.evaluation.templates import fill
from suffuse.systems.clip import Clip


@dataclass(frozen=True)
class ZeroShotScores:
    """Shares of right answers, 0..1.

    top1, top5: pictures whose class is the nearest, or among the five nearest
    by_class: top1 of each class that has pictures, by its name
    """

    count: int
    classes: int
    top1: float
    top5: float
    by_class: dict[str, float]


def class_vectors(
    clip: Clip, names: Sequence[str], templates: Sequence[str], note: Callable[[str], None]
) -> Tensor:
    """(C, D) of unit length: what to compare pictures with.

    note: gets a line for each sentence that had to be cut
    """
    rows = [clip.texts([fill(t, name) for t in templates], note).mean(0) for name in names]
    return normalize(torch.stack(rows), dim=1)


def score(seen: Seen, classes: Tensor, names: Sequence[str]) -> ZeroShotScores:
    """How often the nearest class is the right one; `classes` (C, D) as `class_vectors` gives."""
    nearest = (seen.vectors @ classes.T).topk(min(5, len(classes)), dim=1).indices.numpy()
    right = nearest == seen.labels[:, None]  # (N, 5)
    first = right[:, 0]
    by_class = {
        names[label]: float(first[seen.labels == label].mean()) for label in np.unique(seen.labels)
    }
    return ZeroShotScores(
        len(first), len(classes), float(first.mean()), float(right.any(1).mean()), by_class
    )


def answers(seen: Seen, classes: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The nearest class of every picture (N,), and its probability among all of them (N,)."""
    chances = (scale * seen.vectors @ classes.T).softmax(dim=1)
    found = chances.max(dim=1)
    return found.indices, found.values
