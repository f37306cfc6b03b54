"""Changing the resolution by two through a smoothing filter (StyleGAN2, 1912.04958).

The filter is the outer product of (1, 3, 3, 1) / 8 with itself, linear interpolation's, which keeps
shifted pictures from aliasing (arXiv 1904.11486). Outside the picture lie zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, pad

TAPS = (1.0, 3.0, 3.0, 1.0)


def smooth_halve(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H / 2, W / 2), filtered."""
    return _apart(x, lambda y: conv2d(y, _filter(y), stride=2, padding=1))


def smooth_double(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2 H, 2 W): zeros between the pixels, filtered."""
    # Four times the filter: one pixel in four holds something.
    return _apart(x, lambda y: conv_transpose2d(y, 4 * _filter(y), stride=2, padding=1))


class FirDownsample(nn.Module):
    """Halve the resolution with a strided convolution of the filtered picture."""

    def __init__(self, width: int, out: int, *, fir: bool = True):
        super().__init__()
        self.fir = fir
        self.conv = nn.Conv2d(width, out, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        if self.fir:
            return self.conv(_apart(x, lambda y: conv2d(y, _filter(y), padding=2)))
        return self.conv(pad(x, (0, 1, 0, 1)))  # as DDPM pads


def _filter(like: Tensor) -> Tensor:
    taps = torch.tensor(TAPS, device=like.device, dtype=like.dtype) / sum(TAPS)
    return (taps[:, None] * taps).view(1, 1, len(TAPS), len(TAPS))


def _apart(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The same change of every channel: channels as images of their own."""
    return change(x.flatten(0, 1)[:, None])[:, 0].unflatten(0, x.shape[:2])
