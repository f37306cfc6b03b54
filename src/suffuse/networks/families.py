"""One builder for each family of U-Nets: a configuration in, the skeleton with its parts out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from suffuse.networks.attention import SpatialTransformer
from suffuse.networks.blocks import Downsample, ResBlock, Upsample
from suffuse.networks.embed import LabelEmbedding
from suffuse.networks.unet import Head, Stage, UNet


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
    groups: int = 32
    cos_first: bool = True
    shift: float = 0.0

    @property
    def embedding(self) -> int:
        return 4 * self.channels[0]


def stable_diffusion(c: SDConfig) -> UNet:
    """The cross-attention U-Net of latent diffusion and Stable Diffusion 1 and 2."""
    last = len(c.channels) - 1

    def stage(level: int, widths: list[int], resample: Downsample | Upsample | None) -> Stage:
        out = c.channels[level]
        depth = c.depth[level]
        return Stage(
            [ResBlock(width, out, c.embedding, groups=c.groups) for width in widths],
            [transformer(level, depth) for _ in widths] if depth else [],
            resample,
        )

    def transformer(level: int, depth: int) -> SpatialTransformer:
        return SpatialTransformer(
            c.channels[level], c.context, c.heads[level], depth, groups=c.groups
        )

    down, width = [], c.channels[0]
    skips = [width]
    for level, out in enumerate(c.channels):
        shrink = Downsample(out) if level < last else None
        down.append(stage(level, [width] + [out] * (c.blocks - 1), shrink))
        skips += [out] * (c.blocks + (level < last))
        width = out
    mid = Stage(
        [ResBlock(width, width, c.embedding, groups=c.groups) for _ in range(2)],
        [transformer(last, c.mid_depth)],
    )
    up = []
    for level, out in reversed(list(enumerate(c.channels))):
        widths = [w + skips.pop() for w in [width] + [out] * c.blocks]
        up.append(stage(level, widths, Upsample(out) if level else None))
        width = out
    time = LabelEmbedding(c.channels[0], c.embedding, cos_first=c.cos_first, shift=c.shift)
    stem = nn.Conv2d(c.in_channels, c.channels[0], 3, padding=1)
    head = Head(width, c.out_channels, groups=c.groups)
    return UNet(stem, time, down, mid, up, head)


def initialise(net: UNet) -> UNet:
    """Prepares fresh weights for training: every residual branch and the head start at zero.

    The network then begins as the identity between its skips (2105.05233, appendix; CompVis's
    `zero_module`), which is what lets it train at high rates.
    """
    for module in net.modules():
        if isinstance(module, ResBlock):
            silence(module.conv2)
        elif isinstance(module, SpatialTransformer):
            silence(module.proj_out)
    silence(net.head.conv)
    return net


def silence(layer: nn.Conv2d | nn.Linear) -> None:
    """Sets weights and bias to zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
