"""Residual blocks and the two ways to change resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import interpolate, pad


def silu(x: Tensor) -> Tensor:
    """SiLU of a tensor that nobody else reads: in its place, where no gradient will ask for it."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def channels_last(net: nn.Module) -> None:
    """Lays the weights of convolutions out with channels last, as the fast kernels read them."""
    for weight in net.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


class ResBlock(nn.Module):
    """norm, SiLU, convolution, twice, around a skip; the label's embedding is added in between.

    `embedding=None` leaves the label out (autoencoders). (2006.11239, appendix B)
    """

    def __init__(
        self,
        width: int,
        out: int,
        embedding: int | None = None,
        *,
        groups: int = 32,
        eps: float = 1e-5,
    ):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width, eps=eps)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1)
        self.time = nn.Linear(embedding, out) if embedding else None
        self.norm2 = nn.GroupNorm(groups, out, eps=eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(width, out, 1) if width != out else None

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """x (B, C, H, W); emb (B or 1, E), the embedding after its SiLU."""
        h = self.conv1(silu(self.norm1(x)))
        if self.time is not None:
            h += self.time(emb)[:, :, None, None]  # (B or 1, out, 1, 1)
        h = self.conv2(silu(self.norm2(h)))
        h += x if self.skip is None else self.skip(x)
        return h


class Downsample(nn.Module):
    """Halve the resolution with a strided convolution.

    Autoencoders and DDPM pad on the right and bottom only (`symmetric=False`); the Stable Diffusion
    U-Net pads all around.
    """

    def __init__(self, width: int, *, symmetric: bool = True):
        super().__init__()
        self.symmetric = symmetric
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1 if symmetric else 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.symmetric else pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the resolution (or reach `size`) by nearest neighbours, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        if size is None:
            return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(interpolate(x, size=size, mode="nearest"))
