"""Pictures of any size by a network that sees one size: overlapping tiles, denoised jointly.

At every step the network looks at each tile, and where tiles overlap their answers are averaged
(MultiDiffusion, 2302.08113, eq. 5, with smooth weights). All tiles are so parts of one picture from
the first step on, and no seam can form between them. A sampler's step is affine in the answer, so
averaging answers is averaging steps, and every sampler works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from suffuse.diffusion.prediction import RawModel
from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError

Answer = Callable[[Tensor, Level, "Group"], Tensor]  # tiles (b, C, h, w) -> (b, C or 2C, h, w)
Group = Sequence[tuple[int, "Box"]]  # of each tile, its picture's row in the batch and its place


@dataclass(frozen=True)
class Box:
    """A tile's place in the picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, picture: Tensor) -> Tensor:
        """The tile (..., height, width) of a picture (..., H, W), without a copy."""
        rows = slice(self.top, self.top + self.height)
        return picture[..., rows, self.left : self.left + self.width]


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut.

    side: of a tile, in pixels
    overlap: the least that neighbours share, in pixels
    at_once: tiles that go through the network together, which is what memory grows with
    """

    side: int
    overlap: int
    at_once: int = 4

    def __post_init__(self) -> None:
        if self.at_once < 1:
            raise SuffuseError(f"at least 1 tile at a time, not {self.at_once}")
        if not 0 <= self.overlap < self.side:
            raise SuffuseError(
                f"tiles of {self.side} pixels overlap by 0 to {self.side - 1}, not {self.overlap}"
            )

    def boxes(self, height: int, width: int, step: int) -> list[Box]:
        """The tiles of a picture; one where it is no larger than a tile.

        step: tiles begin at multiples of it, so that what is seen of the low resolution always lies
            in the same way under the tile
        """
        sides = [min(self.side, length) for length in (height, width)]
        tops, lefts = (self._starts(n, side, step) for n, side in zip((height, width), sides))
        return [Box(top, left, *sides) for top, left in product(tops, lefts)]

    def _starts(self, length: int, side: int, step: int) -> list[int]:
        count = 1 + math.ceil((length - side) / max(side - self.overlap, 1))
        last = length - side
        if count == 1:
            return [0]
        evenly = [round(i * last / (count - 1) / step) * step for i in range(count - 1)]
        return sorted({*evenly, last})


def jointly(answer: Answer, boxes: Sequence[Box], at_once: int) -> RawModel:
    """The network's answer for whole pictures (B, C, H, W), of its answers for tiles.

    One box that is the whole picture is simply asked for it, nothing being averaged.
    """
    if len(boxes) == 1:
        return lambda x, level: answer(x, level, [(row, boxes[0]) for row in range(len(x))])
    weight = window(boxes[0])  # tiles are of one size
    sides = (max(b.top + b.height for b in boxes), max(b.left + b.width for b in boxes))
    mass = torch.zeros(sides)
    for box in boxes:
        box.cut(mass).add_(weight)

    def raw(x: Tensor, level: Level) -> Tensor:
        here, total = weight.to(x.device), torch.empty(0)
        every = [(row, box) for row in range(len(x)) for box in boxes]
        for start in range(0, len(every), at_once):
            group = every[start : start + at_once]
            found = answer(torch.stack([box.cut(x[row]) for row, box in group]), level, group)
            if start == 0:
                total = x.new_zeros(len(x), found.shape[1], *x.shape[-2:])
            for (row, box), tile in zip(group, found):
                box.cut(total[row]).add_(tile * here)
        return total / mass.to(x.device)

    return raw


def window(box: Box) -> Tensor:
    """What each pixel of a tile counts, (height, width): most in its middle, hardly at its edge."""

    def hann(n: int) -> Tensor:
        return torch.sin(math.pi * (torch.arange(n) + 0.5) / n).square()

    return hann(box.height)[:, None] * hann(box.width)
