"""One builder for each family of U-Nets: a configuration in, the skeleton with its parts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from suffuse.networks.attention import (
    FusedAttention,
    JointAttention,
    PixelAttention,
    SpatialTransformer,
)
from suffuse.networks.blocks import Downsample, ResBlock, Upsample
from suffuse.networks.embed import LabelEmbedding, VectorEmbedding
from suffuse.networks.unet import Attention, Head, Resample, Stage, UNet


@dataclass(frozen=True)
class SDConfig:
    """Stable Diffusion's U-Net; the defaults are version 1's (2112.10752, table 15)."""

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    blocks: int = 2  # residual blocks a level on the way down, one more on the way up
    depth: tuple[int, ...] = (1, 1, 1, 0)  # transformer blocks at each level; 0 = no attention
    mid_depth: int = 1
    heads: tuple[int, ...] = (8, 8, 8, 8)  # how many heads, by level
    context: int = 768
    vector: int = 0  # numbers that come through that door, beside the label; 0: none
    groups: int = 32
    cos_first: bool = True
    shift: float = 0.0

    @property
    def embedding(self) -> int:
        return 4 * self.channels[0]


def stable_diffusion(c: SDConfig) -> UNet:
    """The cross-attention U-Net of latent diffusion and Stable Diffusion 1 and 2."""

    def transformer(level: int, depth: int) -> SpatialTransformer:
        return SpatialTransformer(
            c.channels[level], c.context, c.heads[level], depth, groups=c.groups
        )

    kit = Kit(
        res=lambda width, out: ResBlock(width, out, c.embedding, groups=c.groups),
        attend=lambda level, _: transformer(level, c.depth[level]) if c.depth[level] else None,
        middle=lambda: transformer(len(c.channels) - 1, c.mid_depth),
        shrink=Downsample,
        grow=Upsample,
    )
    down, mid, up = kit.ladder(c.channels[0], c.channels, c.blocks)
    time = LabelEmbedding(c.channels[0], c.embedding, cos_first=c.cos_first, shift=c.shift)
    stem = nn.Conv2d(c.in_channels, c.channels[0], 3, padding=1)
    head = Head(c.channels[0], c.out_channels, groups=c.groups)
    vector = VectorEmbedding(c.vector, c.embedding) if c.vector else None
    return UNet(stem, time, down, mid, up, head, vector)


@dataclass(frozen=True)
class Kit:
    """The parts that a family is put together from, and the ladder that all families share.

    Down, a level has `blocks` residual blocks; up, one more, and each eats what one part of the way
    down made: the stem (of width `stem`), a block, or a change of resolution.
    """

    res: Callable[[int, int], ResBlock]  # from one width to another
    attend: Callable[[int, bool], Attention | None]  # of a level, on the way up or not
    middle: Callable[[], Attention | None]
    shrink: Callable[[int], Resample]
    grow: Callable[[int], Resample]

    def ladder(
        self, stem: int, channels: Sequence[int], blocks: int
    ) -> tuple[list[Stage], Stage, list[Stage]]:
        """The way down, the middle, the way up (deepest first)."""
        down, middle, skips = self.descent(stem, channels, blocks)
        up, width = [], channels[-1]
        for level, out in reversed(list(enumerate(channels))):
            widths = [w + skips.pop() for w in [width] + [out] * blocks]
            blocks_here = [self.res(w, out) for w in widths]
            grow = self.grow(out) if level else None
            up.append(Stage(blocks_here, self.attention(level, blocks + 1, True), grow))
            width = out
        return down, middle, up

    def descent(
        self, stem: int, channels: Sequence[int], blocks: int
    ) -> tuple[list[Stage], Stage, list[int]]:
        """The way down, the middle, and the widths of all that the way down makes."""
        last = len(channels) - 1
        down, width, skips = [], stem, [stem]
        for level, out in enumerate(channels):
            blocks_here = [self.res(w, out) for w in [width] + [out] * (blocks - 1)]
            shrink = self.shrink(out) if level < last else None
            down.append(Stage(blocks_here, self.attention(level, blocks, False), shrink))
            skips += [out] * (blocks + (level < last))
            width = out
        attention = self.middle()
        blocks_here = [self.res(width, width) for _ in range(2)]
        return down, Stage(blocks_here, [] if attention is None else [attention]), skips

    def attention(self, level: int, count: int, up: bool) -> list[Attention]:
        """One behind each of `count` blocks; nothing where the level has none."""
        made = [self.attend(level, up) for _ in range(count)]
        return [each for each in made if each is not None]


def initialise(net: UNet) -> UNet:
    """Prepares fresh weights for training: every residual branch and the head start at zero."""
    silence_branches(net)
    silence(net.head.conv)
    return net


def silence_branches(net: nn.Module) -> None:
    """Sets the last layer of every residual branch to zero.

    The network then begins as the identity between its skips (2105.05233, appendix; CompVis's
    `zero_module`), which is what lets it train at high rates.
    """
    for module in net.modules():
        if isinstance(module, ResBlock):
            silence(module.conv2)
        elif isinstance(module, SpatialTransformer):
            silence(module.proj_out)
        elif isinstance(module, (PixelAttention, FusedAttention, JointAttention)):
            silence(module.out)


def silence(layer: nn.Conv2d | nn.Linear) -> None:
    """Sets weights and bias to zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
