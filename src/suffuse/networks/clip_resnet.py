"""CLIP's modified ResNets (2103.00020, section 2.4): a picture in, one vector out.

Three things differ from a ResNet: a stem of three convolutions, average pooling before every
convolution that would have had a stride (anti-aliasing, 1904.11486), and attention in place of the
last pooling, in which the mean of all places asks the places.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu, scaled_dot_product_attention

from suffuse.errors import SuffuseError
from suffuse.networks.attention import join_heads, split_heads

EXPANSION = 4  # a block's output is so many times as wide as its middle


@dataclass(frozen=True)
class ClipResNetConfig:
    """The shape of a modified ResNet; the defaults are those of RN50.

    image: side in pixels
    layers: blocks at each of four levels
    width: channels behind the stem
    heads: of the attention pooling; width * 32 / 64 in every published model
    projection: width of the space that pictures and texts share
    """

    image: int = 224
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    heads: int = 32
    projection: int = 1024

    def __post_init__(self) -> None:
        if self.width % 2 or self.features % self.heads:
            raise SuffuseError(
                f"image encoder: width {self.width} does not go with {self.heads} heads"
            )
        if self.image < 32:
            raise SuffuseError(f"image encoder: {self.image} pixels are less than a cell of 32")

    @property
    def features(self) -> int:
        """Channels of the last map."""
        return self.width * 2 ** (len(self.layers) - 1) * EXPANSION

    @property
    def cells(self) -> int:
        """Places of the last map."""
        return (self.image // 32) ** 2


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, pooling, 1 x 1; beside it pooling and a 1 x 1 where the shape changes."""

    def __init__(self, width: int, middle: int, stride: int) -> None:
        super().__init__()
        out = middle * EXPANSION
        self.stride = stride
        self.conv1, self.bn1 = nn.Conv2d(width, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = nn.Conv2d(middle, out, 1, bias=False), nn.BatchNorm2d(out)
        changes = stride > 1 or width != out
        self.shortcut = nn.Conv2d(width, out, 1, bias=False) if changes else None
        self.bn_shortcut = nn.BatchNorm2d(out) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = self._pool(relu(self.bn2(self.conv2(y))))
        y = self.bn3(self.conv3(y))
        if self.shortcut is not None and self.bn_shortcut is not None:
            x = self.bn_shortcut(self.shortcut(self._pool(x)))
        return relu(x + y)

    def _pool(self, x: Tensor) -> Tensor:
        return avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """The mean of all places, attending to itself and to them: (B, C, h, w) -> (B, out)."""

    def __init__(self, cells: int, width: int, heads: int, out: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Embedding(1 + cells, width)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)  # (B, cells, C)
        x = torch.cat((x.mean(dim=1, keepdim=True), x), dim=1) + self.position.weight
        asked = ((self.q, x[:, :1]), (self.k, x), (self.v, x))
        q, k, v = (split_heads(project(tokens), self.heads) for project, tokens in asked)
        y = scaled_dot_product_attention(q, k, v)  # (B, heads, 1, C / heads)
        return self.out(join_heads(y)[:, 0])


class ClipResNet(nn.Module):
    """A modified ResNet; RN50, RN101, RN50x4, x16 and x64 are configurations of it.

    >>> c = ClipResNetConfig(image=64, layers=(1, 1, 1, 1), width=8, heads=4, projection=48)
    >>> ClipResNet(c).eval()(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 48])
    """

    def __init__(self, config: ClipResNetConfig) -> None:
        super().__init__()
        c = self.config = config
        half = c.width // 2
        self.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(half, c.width, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(n) for n in (half, half, c.width))
        levels, width = [], c.width
        for level, count in enumerate(c.layers):
            middle = c.width * 2**level
            widths = [width] + [middle * EXPANSION] * (count - 1)
            strides = [2 if level else 1] + [1] * (count - 1)
            levels.append(nn.ModuleList(Bottleneck(w, middle, s) for w, s in zip(widths, strides)))
            width = middle * EXPANSION
        self.levels = nn.ModuleList(levels)
        self.attention = AttentionPool(c.cells, width, c.heads, c.projection)
        self._initialise()

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, image, image), by the model's own mean and deviation -> (B, projection).

        Raises SuffuseError for another size.
        """
        return self.cells(pixels)[1]

    def cells(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What it says of each place (B, features, h, w), and of the picture (B, projection).

        Raises SuffuseError for another size.
        """
        side = self.config.image
        if pixels.shape[-2:] != (side, side):
            height, width = pixels.shape[-2:]
            raise SuffuseError(
                f"image encoder: a picture of {width} x {height} pixels given, it takes"
                f" {side} x {side}"
            )
        x = relu(self.bn1(self.conv1(pixels)))
        x = relu(self.bn2(self.conv2(x)))
        x = avg_pool2d(relu(self.bn3(self.conv3(x))), 2)
        for level in self.levels:
            assert isinstance(level, nn.ModuleList)
            for block in level:
                x = block(x)
        return x, self.attention(x)

    def pool(self, pixels: Tensor) -> Tensor:
        """The same, under the name that both kinds of tower have."""
        return self(pixels)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Attention as in a transformer; every residual branch starts at zero (1706.02677)."""
        width = self.config.features
        nn.init.normal_(self.attention.position.weight, std=width**-0.5)
        for layer in (self.attention.q, self.attention.k, self.attention.v, self.attention.out):
            nn.init.normal_(layer.weight, std=width**-0.5)
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
