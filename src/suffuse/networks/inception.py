"""Inception-v3 (1512.00567) in the form that the Fréchet Inception Distance is defined by.

The graph of 2015-12-05 departs from the paper, and published scores hang on how: the mean of a
pooling window leaves the padding out, the last block pools by maximum, and there are 1008 classes
(pytorch-fid/inception.py lists the same differences to torchvision's network).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, batch_norm, max_pool2d, relu

PLACES = 7  # channels of the map that sFID compares (guided-diffusion/evaluations/evaluator.py)
CLASSES = 1008
_EPS = 1e-3


class Spec(NamedTuple):
    """A convolution. With stride 1 it keeps the size, with stride 2 it pads nothing."""

    out: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


Pool = Literal["mean", "max", "reduce"]  # the last halves the size
Link = Spec | tuple[Spec, Spec]  # a pair are two convolutions of the same input, joined


class Block(NamedTuple):
    """Branches on one input, and a pooled one; `project` is the width that this is brought to."""

    branches: tuple[tuple[Link, ...], ...]
    pool: Pool
    project: int | None = None


def _fine(project: int) -> Block:
    """At 35 x 35."""
    wide = (Spec(64), Spec(96, (3, 3)), Spec(96, (3, 3)))
    return Block(((Spec(64),), (Spec(48), Spec(64, (5, 5))), wide), "mean", project)


def _crosses(width: int) -> Block:
    """At 17 x 17: 7 x 7 as a row and a column."""
    row, column = (1, 7), (7, 1)
    once = (Spec(width), Spec(width, row), Spec(192, column))
    twice = (Spec(width), *(Spec(width, k) for k in (column, row, column)), Spec(192, row))
    return Block(((Spec(192),), once, twice), "mean", 192)


def _coarse(pool: Pool) -> Block:
    """At 8 x 8."""
    fork = (Spec(384, (1, 3)), Spec(384, (3, 1)))
    return Block(((Spec(320),), (Spec(384), fork), (Spec(448), Spec(384, (3, 3)), fork)), pool, 192)


STEM = (Spec(32, (3, 3), 2), Spec(32, (3, 3)), Spec(64, (3, 3)), Spec(80), Spec(192, (3, 3)))
_UNPADDED = (1, 4)  # of the stem, beside the one with a stride
_POOLED = (2, 4)  # of the stem, those that a pooling follows
_HALVED = Spec(384, (3, 3), 2)
BLOCKS: dict[str, Block] = {
    "5b": _fine(32),
    "5c": _fine(64),
    "5d": _fine(64),
    "6a": Block(((_HALVED,), (Spec(64), Spec(96, (3, 3)), Spec(96, (3, 3), 2))), "reduce"),
    "6b": _crosses(128),
    "6c": _crosses(160),
    "6d": _crosses(160),
    "6e": _crosses(192),
    "7a": Block(
        (
            (Spec(192), Spec(320, (3, 3), 2)),
            (Spec(192), Spec(192, (1, 7)), Spec(192, (7, 1)), Spec(192, (3, 3), 2)),
        ),
        "reduce",
    ),
    "7b": _coarse("mean"),
    "7c": _coarse("max"),  # an oversight in the original graph, kept since
}
_SPATIAL = list(BLOCKS).index("6d")  # its first branch is "mixed_6/conv" of the original graph


class FixedNorm(nn.Module):
    """Batch normalisation that only ever uses the statistics it was trained to."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    mean: Tensor
    variance: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.mean, self.variance, self.weight, self.bias, eps=_EPS)


class Conv(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, into: int, spec: Spec, padded: bool = True):
        super().__init__()
        self.width = spec.out
        height, width = spec.kernel
        padding = (height // 2, width // 2) if padded and spec.stride == 1 else (0, 0)
        self.conv = nn.Conv2d(into, spec.out, spec.kernel, spec.stride, padding, bias=False)
        self.norm = FixedNorm(spec.out)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.norm(self.conv(x)))


class Fork(nn.Module):
    """Two convolutions of one input, joined on channels."""

    def __init__(self, into: int, specs: tuple[Spec, Spec]):
        super().__init__()
        self.arms = nn.ModuleList(Conv(into, spec) for spec in specs)
        self.width = sum(spec.out for spec in specs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([arm(x) for arm in self.arms], 1)


def _chain(into: int, links: tuple[Link, ...]) -> nn.Sequential:
    parts: list[Conv | Fork] = []
    for link in links:
        width = parts[-1].width if parts else into
        parts.append(Conv(width, link) if isinstance(link, Spec) else Fork(width, link))
    return nn.Sequential(*parts)


class Mixed(nn.Module):
    """A block of the network; its branches' maps follow each other in the channels."""

    def __init__(self, into: int, block: Block):
        super().__init__()
        self.pool = block.pool
        self.branches = nn.ModuleList(_chain(into, links) for links in block.branches)
        self.projection = None if block.project is None else Conv(into, Spec(block.project))
        self.width = (block.project or into) + sum(_width(links[-1]) for links in block.branches)

    def forward(self, x: Tensor) -> Tensor:
        if self.pool == "mean":
            pooled = avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        else:
            pooled = max_pool2d(x, 3, 1, 1) if self.pool == "max" else max_pool2d(x, 3, 2)
        if self.projection is not None:
            pooled = self.projection(pooled)
        return torch.cat([*(branch(x) for branch in self.branches), pooled], 1)


def _width(link: Link) -> int:
    return link.out if isinstance(link, Spec) else sum(spec.out for spec in link)


class InceptionOutput(NamedTuple):
    """What the metrics take.

    pooled: (B, 2048), "pool_3", compared by FID, precision and recall
    spatial: (B, h, w, 7), the first channels of "mixed_6/conv", compared by sFID (2103.03841)
    logits: (B, 1008) without the bias, as the Inception Score has been computed from the beginning
        (improved-gan/inception_score/model.py)
    """

    pooled: Tensor
    spatial: Tensor
    logits: Tensor


class Inception(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1], 299 x 299 as a rule, 75 x 75 at least."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *(spec.out for spec in STEM)]
        self.stem = nn.ModuleList(
            Conv(into, spec, padded=i not in _UNPADDED)
            for i, ((into, _), spec) in enumerate(zip(pairwise(widths), STEM))
        )
        blocks: list[Mixed] = []
        for block in BLOCKS.values():
            blocks.append(Mixed(blocks[-1].width if blocks else widths[-1], block))
        self.mixed = nn.ModuleList(blocks)
        self.head = nn.Linear(blocks[-1].width, CLASSES, bias=False)

    def forward(self, image: Tensor) -> InceptionOutput:
        x = image
        for i, conv in enumerate(self.stem):
            x = conv(x)
            x = max_pool2d(x, 3, 2) if i in _POOLED else x
        for i, block in enumerate(self.mixed):
            x = block(x)
            if i == _SPATIAL:
                # Channels last, for statistics made by others: the order of places matters there.
                spatial = x[:, :PLACES].permute(0, 2, 3, 1)  # (B, h, w, 7)
        pooled = x.mean((2, 3))  # (B, 2048)
        return InceptionOutput(pooled, spatial, self.head(pooled))
