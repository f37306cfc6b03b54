"""Before stage two: a text encoder learns to read captions.

A text encoder that starts from random numbers learns what words mean only through the noise of the
denoising loss, and most of a short training run goes by before it does. Stable Diffusion begins
with CLIP's encoder; here the captions' scenes are known, so the encoder is taught to name what is
in them: which things, in which order, on which background. The two languages meet in the answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from suffuse.data.colours import COLOURS
from suffuse.data.emoji import Scene, World
from suffuse.data.layout import KINDS, RELATIONS, SIZES
from suffuse.networks.clip import ClipText

COUNTS = 4  # the most things in a scene


def question_count(world: World) -> int:
    """How many yes-or-no questions are asked about a scene."""
    rest = 2 * len(COLOURS) + len(KINDS) + len(RELATIONS) + len(SIZES) + COUNTS
    return 3 * len(world.things) + rest


def answers(scene: Scene, world: World) -> Tensor:
    """The right answers, (questions,) of 0 and 1.

    Which things there are, which comes first, which last; the colour above and below; the kind,
    the relation, the size and the number.
    """
    things, colours = len(world.things), list(COLOURS)
    indices = [thing.index for thing in scene.things]
    rows = [
        (things, indices),
        (things, indices[:1]),
        (things, indices[-1:]),
        (len(colours), [colours.index(scene.background.names[0])]),
        (len(colours), [colours.index(scene.background.names[-1])]),
        (len(KINDS), [KINDS.index(scene.kind)]),
        (len(RELATIONS), [RELATIONS.index(scene.relation)] if scene.relation else []),
        (len(SIZES), [SIZES.index(scene.size)] if scene.size else []),
        (COUNTS, [scene.count - 1]),
    ]
    told = torch.zeros(sum(size for size, _ in rows))
    start = 0
    for size, ones in rows:
        told[[start + i for i in ones]] = 1
        start += size
    return told


class Batch(NamedTuple):
    ids: Tensor  # (B, window) int64
    answers: Tensor  # (B, questions)


class ReadingStage:
    """Every question is answered by a logit, at the end of the text and at each place after it.

    Those places see the whole caption, and the U-Net attends to all of them.
    """

    def __init__(self, tower: ClipText, ids: Tensor, world: World, *, seed: int = 0):
        """ids: (N, captions, window), captions of the first N scenes of the world's `seed`."""
        head = nn.Linear(tower.config.width, question_count(world))
        nn.init.constant_(head.bias, -3.0)  # nearly every answer is no
        self.nets = nn.ModuleDict({"text": tower, "head": head})
        self.tower, self.head, self.ids = tower, head, ids
        told = [answers(world.scene_at(i, seed), world) for i in range(len(ids))]
        self.answers = torch.stack(told).to(torch.uint8)  # (N, questions)

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        rng = np.random.default_rng((seed, step))
        mine = rows or slice(None)
        found = rng.integers(len(self.ids), size=size)[mine]
        which = rng.integers(self.ids.shape[1], size=size)[mine]
        return Batch(self.ids[found, which].long(), self.answers[found].float())

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        states = self.tower(batch.ids, pool=False).last  # (B, window, width)
        over = (batch.ids == self.tower.config.eos).cumsum(1) > 0  # (B, window): the text is over
        seen, told = states[over], batch.answers[over.nonzero()[:, 0]]
        logits = self.head(seen)
        loss = binary_cross_entropy_with_logits(logits, told, reduction="none").sum(1).mean()
        with torch.no_grad():
            right = ((logits > 0) == told.bool()).all(1).float().mean()
        return loss, {"right": right.item()}

    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """There is nothing to look at."""

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        """Stage two goes on with the tower itself."""
