"""Perceptual distance: pictures compared by what a network sees in them (LPIPS, 1801.03924).

The network is a stack that gives a few feature maps of a picture: VGG-16 where its weights are at
hand, else `FeatureNet`, which this project trains on its own pictures. The stack stands still; the
gradient goes through it to the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from suffuse.networks.blocks import Downsample, ResBlock, silu

# Mean and deviation of ImageNet's channels for pictures in [-1, 1], as LPIPS has them.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)

VGG16 = (64, 128, 256, 512, 512)  # channels of its five blocks
_CONVOLUTIONS = (2, 2, 3, 3, 3)


class Stack(nn.Module):
    """A network that gives feature maps.

    widths: the channels of each map
    source: what it is and where its weights come from, for the model card
    """

    widths: tuple[int, ...]
    source: str = "unnamed"

    def features(self, image: Tensor) -> list[Tensor]:
        """image (B, 3, H, W) in [-1, 1] -> maps (B, widths[i], h, w), from fine to coarse."""
        raise NotImplementedError


class Vgg(Stack):
    """The convolutions of VGG-16 (1409.1556); maps are those before each pooling, after ReLU."""

    def __init__(self, widths: Sequence[int] = VGG16):
        super().__init__()
        self.widths = tuple(widths)
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise([into] + [out] * n))
            for into, out, n in zip((3, *self.widths), self.widths, _CONVOLUTIONS)
        )

    def features(self, image: Tensor) -> list[Tensor]:
        """The sides of the image must be 16 pixels or more."""
        shift, scale = (image.new_tensor(row).view(1, 3, 1, 1) for row in (SHIFT, SCALE))
        x, maps = (image - shift) / scale, []
        for i, block in enumerate(self.blocks):
            x = max_pool2d(x, 2) if i else x
            assert isinstance(block, nn.ModuleList)
            for conv in block:
                x = relu(conv(x))
            maps.append(x)
        return maps


@dataclass(frozen=True)
class FeatureConfig:
    """labels: how many things it is taught to tell apart."""

    labels: int
    widths: tuple[int, ...] = (16, 32, 64, 96, 128)
    groups: int = 8


class FeatureNet(Stack):
    """A small classifier: a residual block a level, each level half the size of the one before.

    Taught to say what is in a picture (`training.features`), its maps stand in for VGG-16's, and
    its pooled last one for the features that sets of pictures are compared by.
    """

    def __init__(self, config: FeatureConfig):
        super().__init__()
        self.config, self.widths = config, config.widths
        widths, groups = config.widths, config.groups
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.res = nn.ModuleList(
            ResBlock(a, b, groups=groups) for a, b in zip((widths[0], *widths), widths)
        )
        self.down = nn.ModuleList(Downsample(width) for width in widths[:-1])
        self.norm = nn.GroupNorm(groups, widths[-1])
        self.head = nn.Linear(widths[-1], config.labels)

    def features(self, image: Tensor) -> list[Tensor]:
        x, maps = self.stem(image), []
        for i, block in enumerate(self.res):
            x = block(self.down[i - 1](x) if i else x)
            maps.append(x)
        return maps

    def embed(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) in [-1, 1] -> (B, widths[-1]), a picture as a point."""
        return self.seen(image).mean((2, 3))  # (B, D)

    def seen(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) -> (B, widths[-1], H / 16, W / 16), what `embed` is the mean of."""
        # `norm` makes a tensor that nobody else reads; the map itself belongs to the caller.
        return silu(self.norm(self.features(image)[-1]))

    def forward(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) in [-1, 1] -> logits (B, labels)."""
        return self.head(self.embed(image))


class Perceptual(nn.Module):
    """LPIPS on a stack: squared distances of normalised features, weighted a channel and summed.

    Without weights learned from people's judgements every channel counts 1, which makes each map's
    part a cosine distance (1801.03924, eq. 1 and section 4). Style compares which features occur
    together and not where (1508.06576, eq. 3 to 5, with Gram matrices scaled as in 1603.08155).
    """

    def __init__(self, stack: Stack):
        super().__init__()
        self.stack = stack
        self.weights = nn.ParameterList(torch.ones(width) for width in stack.widths)
        self.requires_grad_(False)
        self.eval()

    @property
    def source(self) -> str:
        """What compares the pictures, for the model card."""
        return self.stack.source

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] -> their distance (B,)."""
        return self.distance(self.stack.features(a), self.stack.features(b))

    def maps(self, image: Tensor, target: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Features of both, for `distance` and `style`; those of `target` take no gradient."""
        with torch.no_grad():
            theirs = self.stack.features(target)
        return self.stack.features(image), theirs

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Of feature maps: (B,)."""
        parts = [
            ((unit(x) - unit(y)).square() * w.view(1, -1, 1, 1)).sum(1).mean((1, 2))
            for x, y, w in zip(a, b, self.weights)
        ]
        return torch.stack(parts).sum(0)  # (B,)


def unit(x: Tensor) -> Tensor:
    """(B, C, h, w) with the vector of channels at every place brought to length 1."""
    x = x.float()
    # The small number stands outside the root, as in the published code. A place without any
    # feature has an infinite slope there, so the root is taken of the least positive number.
    length = x.square().sum(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
    return x / (length + 1e-10)


def gram(x: Tensor) -> Tensor:
    """(B, C, h, w) -> how often two channels are on together: (B, C, C)."""
    flat = x.float().flatten(2)  # (B, C, h * w)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def style(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Squared distance of Gram matrices, summed over maps: (B,)."""
    parts = [(gram(x) - gram(y)).square().sum((1, 2)) for x, y in zip(a, b)]
    return torch.stack(parts).sum(0)  # (B,)
