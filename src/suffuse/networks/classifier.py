"""The classifier of noisy pictures: the way down of ADM's U-Net, and four ways to pool it.

(2105.05233, section 4 and appendix H; guided-diffusion's EncoderUNetModel)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from suffuse.errors import SuffuseError
from suffuse.networks.attention import split_heads
from suffuse.networks.blocks import silu
from suffuse.networks.embed import LabelEmbedding
from suffuse.networks.pixel import ADMConfig, adm_kit
from suffuse.networks.unet import Context, Stage, descend

Pooling = Literal["attention", "adaptive", "spatial", "spatial_v2"]
HIDDEN = 2048  # the middle of the spatial poolings

_NOTHING = Context(None, (), None, None, None)


@dataclass(frozen=True)
class ClassifierConfig:
    """`net` is the U-Net whose way down it is; its `out_channels` are the classes.

    `size` is the side of its pictures, which attention pooling fixes; 0 for any. `pool_heads` are
    those of attention pooling.
    """

    net: ADMConfig
    pool: Pooling = "attention"
    size: int = 64
    pool_heads: int = 8

    @property
    def classes(self) -> int:
        return self.net.out_channels


class Classifier(nn.Module):
    """(B, C, H, W) in [-1, 1] with noise, label (B,) or () of its level -> logits (B, K).

    Raises SuffuseError for pictures of another size than it was made for, if it was for one.
    """

    def __init__(
        self,
        stem: nn.Conv2d,
        time: LabelEmbedding,
        down: list[Stage],
        mid: Stage,
        pool: nn.Module,
        size: int = 0,
    ):
        super().__init__()
        self.stem, self.time = stem, time
        self.down, self.mid, self.pool = nn.ModuleList(down), mid, pool
        self.size = size

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.size and (height, width) != (self.size, self.size):
            raise SuffuseError(
                f"this classifier reads pictures of {self.size} x {self.size} pixels, "
                f"not {width} x {height}"
            )
        emb = silu(self.time(label.reshape(-1)))
        x = self.stem(x.to(self.stem.weight.dtype, memory_format=torch.channels_last))
        states = descend(self.down, x, emb, _NOTHING)
        x = self.mid.block(0, states[-1], emb, _NOTHING)
        return self.pool([*states, self.mid.res[1](x, emb)])


# ---- pooling: what every part of the way down made, the middle's last -> logits ------------------


class AttentionPool(nn.Module):
    """The mean of all pixels asks them what it needs to know (2103.00020, section 2.4)."""

    def __init__(self, width: int, side: int, heads: int, classes: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(32, width)
        self.position = nn.Parameter(torch.randn(side**2 + 1, width) / width**0.5)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, classes)

    def forward(self, states: list[Tensor]) -> Tensor:
        x = silu(self.norm(states[-1])).flatten(2).transpose(1, 2)  # (B, H*W, C)
        x = torch.cat((x.mean(dim=1, keepdim=True), x), dim=1) + self.position
        width = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q = linear(x[:, :1], weight[:width], bias[:width])  # of the mean: no other answer is read
        k, v = linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        return self.out(scaled_dot_product_attention(q, k, v).flatten(1))  # (B, K)


class AdaptivePool(nn.Module):
    """The mean over the pixels of the middle."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm = nn.GroupNorm(32, width)
        self.out = nn.Linear(width, classes)

    def forward(self, states: list[Tensor]) -> Tensor:
        return self.out(silu(self.norm(states[-1])).mean(dim=(2, 3)))


class SpatialPool(nn.Module):
    """The means over the pixels of everything on the way, through a perceptron."""

    def __init__(self, widths: int, classes: int, between: nn.Sequential):
        super().__init__()
        self.fc1 = nn.Linear(widths, HIDDEN)
        self.between = between
        self.fc2 = nn.Linear(HIDDEN, classes)

    def forward(self, states: list[Tensor]) -> Tensor:
        means = torch.cat([state.mean(dim=(2, 3)) for state in states], dim=-1)
        return self.fc2(self.between(self.fc1(means)))


def pooling(c: ClassifierConfig) -> nn.Module:
    """The pooling of a configuration."""
    net = c.net
    width = net.channels[-1]
    if c.pool == "attention":
        side = c.size >> (len(net.channels) - 1)
        return AttentionPool(width, side, c.pool_heads, c.classes)
    if c.pool == "adaptive":
        return AdaptivePool(width, c.classes)
    # The stem, each block, each change of resolution, the middle.
    widths = net.channels[0] + (net.blocks + 1) * sum(net.channels)
    if c.pool == "spatial":
        return SpatialPool(widths, c.classes, nn.Sequential(nn.ReLU()))
    return SpatialPool(widths, c.classes, nn.Sequential(nn.GroupNorm(32, HIDDEN), nn.SiLU()))


def classifier(c: ClassifierConfig) -> Classifier:
    """The classifier of a configuration."""
    net = c.net
    down, mid, _ = adm_kit(net).descent(net.channels[0], net.channels, net.blocks)
    stem = nn.Conv2d(net.in_channels, net.channels[0], 3, padding=1)
    time = LabelEmbedding(net.width, net.embedding, scale=net.label_scale)
    size = c.size if c.pool == "attention" else 0
    return Classifier(stem, time, down, mid, pooling(c), size)
