"""Residual blocks and the ways to change resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import avg_pool2d, group_norm, interpolate, pad

Size = tuple[int, int]  # height and width


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

    With `scale_shift` the embedding says how the second norm's output is scaled and shifted:
    adaptive group norm (2105.05233, section 3.1). A `resample` changes the resolution before the
    first convolution and on the skip, as BigGAN's blocks do (1809.11096, appendix B).
    """

    def __init__(
        self,
        width: int,
        out: int,
        embedding: int | None = None,
        *,
        groups: int = 32,
        eps: float = 1e-5,
        scale_shift: bool = False,
        resample: Halve | Double | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.scale_shift, self.resample, self.dropout = scale_shift, resample, dropout
        self.norm1 = nn.GroupNorm(groups, width, eps=eps)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1)
        self.time = nn.Linear(embedding, 2 * out if scale_shift else out) if embedding else None
        self.norm2 = nn.GroupNorm(groups, out, eps=eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(width, out, 1) if width != out else None

    def forward(self, x: Tensor, emb: Tensor | None = None, size: Size | None = None) -> Tensor:
        """x (B, C, H, W); emb (B or 1, E), the embedding after its SiLU; size after growing."""
        h = silu(self.norm1(x))
        if self.resample is not None:
            h, x = self.resample(h, size), self.resample(x, size)
        h = self.conv1(h)
        if self.time is None:
            h = self.norm2(h)
        elif self.scale_shift:
            h = self.modulate(h, self.time(emb))
        else:
            h += self.time(emb)[:, :, None, None]  # (B or 1, out, 1, 1)
            h = self.norm2(h)
        h = self.conv2(F.dropout(silu(h), self.dropout, self.training))
        h += x if self.skip is None else self.skip(x)
        return h

    def modulate(self, h: Tensor, emb: Tensor) -> Tensor:
        """The second norm, scaled and shifted by the halves of emb (B or 1, 2 * out)."""
        scale, shift = emb.chunk(2, dim=1)  # (B or 1, out) each
        scale = 1 + scale
        if len(emb) == 1:  # one label for the whole batch: the norm's own weights can carry it
            weight = self.norm2.weight * scale[0]
            bias = torch.addcmul(shift[0], self.norm2.bias, scale[0])
            return group_norm(h, self.norm2.num_groups, weight, bias, self.norm2.eps)
        scale, shift = scale[:, :, None, None], shift[:, :, None, None]
        return torch.addcmul(shift, self.norm2(h), scale)


class Halve(nn.Module):
    """Half the resolution by averages of 2 x 2, without weights: inside a residual block."""

    def forward(self, x: Tensor, size: Size | None = None) -> Tensor:
        return avg_pool2d(x, 2)


class Double(nn.Module):
    """Double the resolution (or reach `size`) by nearest neighbours, without weights."""

    def forward(self, x: Tensor, size: Size | None = None) -> Tensor:
        if size is None:
            return interpolate(x, scale_factor=2.0, mode="nearest")
        return interpolate(x, size=size, mode="nearest")


# What stands between two resolutions of a U-Net takes the label's embedding, which a residual block
# uses, and the size to reach, which growing does.


class Downsample(nn.Module):
    """Halve the resolution with a strided convolution.

    Autoencoders and DDPM pad on the right and bottom only (`symmetric=False`); the Stable Diffusion
    U-Net pads all around.
    """

    def __init__(self, width: int, *, symmetric: bool = True):
        super().__init__()
        self.symmetric = symmetric
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1 if symmetric else 0)

    def forward(self, x: Tensor, emb: Tensor | None = None, size: Size | None = None) -> Tensor:
        return self.conv(x if self.symmetric else pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the resolution (or reach `size`) by nearest neighbours, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor | None = None, size: Size | None = None) -> Tensor:
        if size is None:
            return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(interpolate(x, size=size, mode="nearest"))
