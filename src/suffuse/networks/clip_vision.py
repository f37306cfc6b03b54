"""CLIP's vision transformer (2103.00020, section 2.4; 2010.11929): a picture in, one vector out.

A picture is cut into square patches; a class token that attends to all of them stands for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from suffuse.errors import SuffuseError
from suffuse.networks.transformer import Activation, Block, initialise_blocks


@dataclass(frozen=True)
class ClipVisionConfig:
    """The shape of a vision transformer; the defaults are those of ViT-B/32.

    image, patch: sides in pixels
    activation: not to be told from the weights, see `ClipTextConfig`
    projection: width of the space that pictures and texts share
    """

    image: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    activation: Activation = "quick_gelu"
    eps: float = 1e-5
    projection: int | None = 512

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise SuffuseError(
                f"image encoder: width {self.width} does not divide into {self.heads} heads"
            )
        if self.patch < 1 or self.image < self.patch:
            raise SuffuseError(
                f"image encoder: a picture of {self.image} pixels has no patch of {self.patch}"
            )

    @property
    def cells(self) -> int:
        """Patches of a picture."""
        return (self.image // self.patch) ** 2


class VisionOutput(NamedTuple):
    """What the tower says about (B, 3, image, image)."""

    last: Tensor  # (B, 1 + cells, width), the class token first, without the final norm
    pooled: Tensor  # (B, projection or width): the class token behind the final norm, projected


class ClipVision(nn.Module):
    """A vision transformer.

    >>> c = ClipVisionConfig(image=32, patch=8, width=64, layers=2, heads=4, intermediate=256)
    >>> ClipVision(c)(torch.zeros(1, 3, 32, 32)).pooled.shape
    torch.Size([1, 512])
    """

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        c = self.config = config
        self.patch = nn.Conv2d(3, c.width, c.patch, stride=c.patch, bias=False)
        self.cls = nn.Parameter(torch.randn(c.width) * c.width**-0.5)
        self.position = nn.Embedding(1 + c.cells, c.width)
        self.pre = nn.LayerNorm(c.width, eps=c.eps)
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, c.intermediate, activation=c.activation, eps=c.eps)
            for _ in range(c.layers)
        )
        self.norm = nn.LayerNorm(c.width, eps=c.eps)
        self.projection = nn.Linear(c.width, c.projection, bias=False) if c.projection else None
        self._initialise()

    def forward(self, pixels: Tensor) -> VisionOutput:
        """pixels (B, 3, image, image), by the model's own mean and deviation.

        Raises SuffuseError for another size.
        """
        side = self.config.image
        if pixels.shape[-2:] != (side, side):
            height, width = pixels.shape[-2:]
            raise SuffuseError(
                f"image encoder: a picture of {width} x {height} pixels given, it takes"
                f" {side} x {side}"
            )
        cells = self.patch(pixels).flatten(2).transpose(1, 2)  # (B, cells, width)
        x = torch.cat((self.cls.expand(len(cells), 1, -1), cells), dim=1)
        x = self.pre(x + self.position.weight)  # (B, 1 + cells, width)
        for block in self.blocks:
            x = block(x)
        pooled = self.norm(x[:, 0])
        return VisionOutput(x, self.projection(pooled) if self.projection is not None else pooled)

    def pool(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, image, image) -> (B, projection or width)."""
        return self(pixels).pooled

    def cells(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What it says of each patch (B, width, h, w), and of the picture (B, projection)."""
        last, pooled = self(pixels)
        side = self.config.image // self.config.patch
        return last[:, 1:].transpose(1, 2).unflatten(2, (side, side)), pooled

    @torch.no_grad()
    def _initialise(self) -> None:
        c = self.config
        nn.init.normal_(self.position.weight, std=c.width**-0.5)
        initialise_blocks(self.blocks, c.width)
        if self.projection is not None:
            nn.init.normal_(self.projection.weight, std=c.width**-0.5)
