"""Before stage two: a text encoder learns to read captions.

A text encoder that starts from random numbers learns what words mean only through the noise of the
denoising loss, and most of a short training run goes by before it does. Stable Diffusion begins
with CLIP's encoder; here the captions' scenes are known, so the encoder is taught to name what is
in them: which things, how many, on which background. The two languages meet in the answers.

Which thing stands where is asked in a form that cross-attention can use as it is: each of the
window's last nine tokens names what stands in one ninth of the picture. A place of the U-Net finds
its thing by looking at its token, instead of sorting "first", "second" and "left of" itself.
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
from suffuse.data.layout import KINDS, RELATIONS, SIZES, sizes
from suffuse.data.scene import SIDE
from suffuse.networks.clip import ClipText

COUNTS = 4  # the most things in a scene
GRID = 3  # parts of the picture across and down that have a token each


def question_count(world: World) -> int:
    """How many yes-or-no questions are asked about a scene."""
    rest = 2 * len(COLOURS) + len(KINDS) + len(RELATIONS) + len(SIZES) + COUNTS
    return len(world.things) + rest


def answers(scene: Scene, world: World) -> Tensor:
    """The right answers, (questions,) of 0 and 1.

    Which things there are; the colour above and below; the kind, the relation, the size and the
    number.
    """
    things, colours = len(world.things), list(COLOURS)
    indices = [thing.index for thing in scene.things]
    rows = [
        (things, indices),
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


def places(scene: Scene, world: World) -> Tensor:
    """What stands in each part of the picture, (9, things + sizes) of 0 and 1, row by row.

    A thing stands where its middle is; with it is told how large it is drawn.
    """
    told = torch.zeros(GRID * GRID, len(world.things) + len(sizes()))
    for item in scene.placed:
        x, y = (int(GRID * (start + item.size / 2) / SIDE) for start in (item.x, item.y))
        told[GRID * y + x, item.thing.index] = 1
        told[GRID * y + x, len(world.things) + sizes().index(item.size)] = 1
    return told


class Batch(NamedTuple):
    ids: Tensor  # (B, window) int64
    answers: Tensor  # (B, questions)
    places: Tensor  # (B, 9, things + sizes)


class ReadingStage:
    """Every question is answered by a logit, at the end of the text and at each place after it.

    Those places see the whole caption, and the U-Net attends to all of them. The last nine also
    answer for their part of the picture, unless the caption reaches so far.
    """

    def __init__(self, tower: ClipText, ids: Tensor, world: World, *, seed: int = 0):
        """ids: (N, captions, window), captions of the first N scenes of the world's `seed`."""
        head = nn.Linear(tower.config.width, question_count(world))
        here = nn.Linear(tower.config.width, len(world.things) + len(sizes()))
        for layer in (head, here):
            nn.init.constant_(layer.bias, -3.0)  # nearly every answer is no
        self.nets = nn.ModuleDict({"text": tower, "head": head, "here": here})
        self.tower, self.head, self.here, self.ids = tower, head, here, ids
        scenes = [world.scene_at(i, seed) for i in range(len(ids))]
        told = [answers(scene, world) for scene in scenes]
        self.answers = torch.stack(told).to(torch.uint8)  # (N, questions)
        told = [places(scene, world) for scene in scenes]
        self.places = torch.stack(told).to(torch.uint8)  # (N, 9, things + sizes)

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        rng = np.random.default_rng((seed, step))
        mine = rows or slice(None)
        found = rng.integers(len(self.ids), size=size)[mine]
        which = rng.integers(self.ids.shape[1], size=size)[mine]
        ids = self.ids[found, which].long()
        return Batch(ids, self.answers[found].float(), self.places[found].float())

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        states = self.tower(batch.ids, pool=False).last  # (B, window, width)
        over = (batch.ids == self.tower.config.eos).cumsum(1) > 0  # (B, window): the text is over
        whole, right = _ask(self.head, states[over], batch.answers[over.nonzero()[:, 0]])
        free = over[:, -GRID * GRID :]
        part, placed = _ask(self.here, states[:, -GRID * GRID :][free], batch.places[free])
        # Every place counts as much as the whole caption: most are empty, and easily right.
        return whole + GRID * GRID * part, {"right": right, "placed": placed}

    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """There is nothing to look at."""

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        """Stage two goes on with the tower itself."""


def _ask(head: nn.Linear, states: Tensor, told: Tensor) -> tuple[Tensor, float]:
    """The loss summed over questions, and the share of states whose every answer is right."""
    logits = head(states)
    loss = binary_cross_entropy_with_logits(logits, told, reduction="none").sum(1).mean()
    with torch.no_grad():
        right = ((logits > 0) == told.bool()).all(1).float().mean()
    return loss, right.item()
