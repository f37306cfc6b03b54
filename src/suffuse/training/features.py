"""The feature network of this project, taught by the labels of the emoji world.

It learns to say which things a picture shows, how big, in which relation, on which background. What
it sees in a picture on the way stands in for VGG-16 where that cannot be had: in the perceptual
loss of autoencoders, and as the features that sets of pictures are compared by.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from suffuse.data.colours import COLOURS
from suffuse.data.emoji import Scene, World
from suffuse.data.layout import KINDS, RELATIONS, SIZES
from suffuse.data.scene import SIDE
from suffuse.networks.blocks import channels_last
from suffuse.networks.perceptual import FeatureConfig, FeatureNet
from suffuse.training.autoencoder import contact_sheet, to_tensor
from suffuse.training.draw import normal, uniform
from suffuse.training.loop import Report, train
from suffuse.training.plan import Plan
from suffuse.weights.perceptual import save_features

FILE = "features.safetensors"
PLACED = 10.0  # weight of what stands where
# A thing covers a few cells of many, so that the mean over all tells little of it, and a head that
# reads that mean as it is takes long to grow: after 1,000 steps it told 6 % of the things that a
# logistic regression on the same means told 68 % of.
GAIN = 8.0
NOISE = 0.3  # the most that training pictures are disturbed by; their levels span 2
PLAN = Plan(steps=6000, batch=32, lr=2e-3, ema=0.998, weight_decay=0.05)


def label_names(world: World) -> list[str]:
    """What the network tells of a picture; things come first, by their index."""
    things = [thing.en for thing in world.things]
    return [*things, *COLOURS, *KINDS, *RELATIONS, *SIZES]


def labels(scenes: list[Scene], world: World) -> Tensor:
    """(B, labels) of 0 and 1, in the order of `label_names`."""
    things, rest = len(world.things), [*COLOURS, *KINDS, *RELATIONS, *SIZES]
    place = {name: things + i for i, name in enumerate(rest)}
    told = torch.zeros(len(scenes), things + len(rest))
    for row, scene in zip(told, scenes):
        words = (*scene.background.names, scene.kind, scene.relation, scene.size)
        row[[thing.index for thing in scene.things]] = 1
        row[[place[word] for word in words if word is not None]] = 1
    return told


def places(scenes: list[Scene], world: World, cells: int) -> Tensor:
    """(B, cells, cells) int64: which thing covers the middle of each cell, or the number of things
    where none does."""
    found = torch.full((len(scenes), cells, cells), len(world.things))
    middles = (torch.arange(cells) + 0.5) * SIDE / cells  # pixels
    for row, scene in zip(found, scenes):
        for thing, (x0, y0, x1, y1) in zip(scene.things, scene.boxes):
            across, down = ((a <= middles) & (middles < b) for a, b in ((x0, x1), (y0, y1)))
            row[down[:, None] & across] = thing.index
    return found


class Batch(NamedTuple):
    images: Tensor  # (B, 3, H, W) in [-1, 1]
    labels: Tensor  # (B, labels)
    places: Tensor  # (B, h, w)


class FeatureStage:
    """Every label is a question of its own, answered by a logit.

    What stands where is asked too, of each cell of the last map: whoever must only say what is in a
    whole picture takes long to find out that there are things in it. That head is not kept.
    """

    def __init__(
        self,
        world: World,
        widths: tuple[int, ...] = FeatureConfig(1).widths,
        *,
        seed: int = 0,
    ):
        torch.manual_seed(seed)
        self.world = world
        self.net = FeatureNet(FeatureConfig(len(label_names(world)), widths))
        channels_last(self.net)
        self.here = nn.Conv2d(widths[-1], len(world.things) + 1, 1)
        self.nets = nn.ModuleDict({"features": self.net, "here": self.here})

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        wanted = range(step * size, (step + 1) * size)[rows or slice(None)]
        pictures, _, scenes = self.world.batch(wanted.start, len(wanted), seed=seed)
        cells = SIDE >> (len(self.net.widths) - 1)
        return Batch(
            to_tensor(pictures), labels(scenes, self.world), places(scenes, self.world, cells)
        )

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        # Pictures that are compared may be noisy or blurred: features must not fall to pieces.
        noise = normal(batch.images.shape, generator).to(batch.images)
        level = NOISE * uniform((len(noise), 1, 1, 1), generator).to(noise) ** 2
        seen = self.net.seen(batch.images + level * noise)
        logits = self.net.head(GAIN * seen.mean((2, 3)))
        loss = binary_cross_entropy_with_logits(logits, batch.labels, reduction="none").sum(1)
        placed = cross_entropy(self.here(seen), batch.places)
        with torch.no_grad():
            things = len(self.world.things)
            same = (logits[:, :things] > 0) == batch.labels[:, :things].bool()
            right = same.all(1).float().mean()
        return loss.mean() + PLACED * placed, {"right": right.item(), "placed": placed.item()}

    @torch.no_grad()
    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """Held-out scenes above those of 64 others that the network finds most like them."""
        net: Any = nets["features"]
        asked = self.world.batch(0, 8, seed=1, split="test")[0]
        others = self.world.batch(0, 64, seed=1)[0]
        device = net.head.weight.device
        one, other = (net.embed(to_tensor(p).to(device)) for p in (asked, others))
        contact_sheet([asked, others[torch.cdist(one, other).argmin(1).cpu().numpy()]], path)

    @torch.no_grad()
    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        net: Any = deepcopy(nets["features"])
        net.head.weight *= GAIN
        save_features(net, folder / FILE)


def train_features(
    output: str | PathLike[str],
    world: World | None = None,
    plan: Plan = PLAN,
    *,
    seed: int = 0,
    resume: bool = False,
    report: Callable[[Report], None] = lambda _: None,
) -> Path:
    """Trains the network in `output`; the file that `open_perceptual` opens.

    Raises SuffuseError as `training.loop.train` does.
    """
    stage = FeatureStage(world or World(), seed=seed)
    folder = Path(output)
    train(stage, plan, folder, seed=seed, resume=resume, report=report)
    return folder / "model" / FILE
