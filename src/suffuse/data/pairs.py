"""Pairs for super-resolution, made of pictures: the picture, and a smaller one made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from suffuse.errors import SuffuseError

_REACH = 2  # pixels about each that a blur weighs; at its largest the rest counts 1 in 10,000


@dataclass(frozen=True)
class Shrinking:
    """How the low resolution is made.

    filter: "bicubic" with antialiasing, as SR3's public implementation, or "area" averages, ADM's
    blurred: share of the low resolutions that are blurred (2106.15282, section 3), so that a model
        forgives what it is given: pictures of another model, in a cascade
    deviation: of the blur in pixels, drawn evenly in its logarithm
    worn: share of the low resolutions that went through several things at once, see `data.wear`

    Raises SuffuseError for values that make no sense.
    """

    filter: Literal["bicubic", "area"] = "bicubic"
    blurred: float = 0.0
    deviation: tuple[float, float] = (0.4, 0.6)
    worn: float = 0.0

    def __post_init__(self) -> None:
        for name in ("blurred", "worn"):
            if not 0 <= getattr(self, name) <= 1:
                share = getattr(self, name)
                raise SuffuseError(f"{name} is a share, between 0 and 1, not {share}")
        if not 0 < self.deviation[0] <= self.deviation[1] <= 1:
            raise SuffuseError(f"deviation must rise within (0, 1], not {self.deviation}")


def shrink(pictures: Tensor, factor: int, filter: str = "bicubic") -> Tensor:
    """Pictures (B, C, H, W) in [-1, 1] -> (B, C, H / factor, W / factor), at 8 bits as in files."""
    size = [side // factor for side in pictures.shape[-2:]]
    smooth = filter == "bicubic"
    small = interpolate(pictures, size, mode=filter, antialias=smooth)
    return ((small.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def crops(pictures: np.ndarray, side: int, step: int, rng: np.random.Generator) -> np.ndarray:
    """A square of each picture (B, H, W, 3), (B, side, side, 3): at random, at multiples of `step`.

    Raises SuffuseError where the pictures are smaller.
    """
    height, width = pictures.shape[1:3]
    if min(height, width) < side:
        raise SuffuseError(f"pictures of {width} x {height} have no squares of {side} pixels")
    places = [
        rng.integers((n - side) // step + 1, size=len(pictures)) * step for n in (height, width)
    ]
    cut = [p[y : y + side, x : x + side] for p, y, x in zip(pictures, *places)]
    return np.stack(cut)


def blur(low: Tensor, deviation: Tensor) -> Tensor:
    """(B, C, h, w), each blurred by a Gaussian of its own deviation (B,) in pixels; 0 leaves it."""
    at = torch.arange(-_REACH, _REACH + 1)
    line = torch.exp(-0.5 * (at / deviation.clamp_min(1e-3)[:, None]).square())  # (B, K)
    line = line / line.sum(1, keepdim=True)
    rows = len(low) * low.shape[1]
    kernels = line.repeat_interleave(low.shape[1], 0)  # (B * C, K)
    flat = pad(low.flatten(0, 1)[None], (_REACH,) * 4, mode="replicate")  # (1, B * C, ...)
    flat = conv2d(flat, kernels[:, None, :, None], groups=rows)
    return conv2d(flat, kernels[:, None, None, :], groups=rows).view_as(low)


def blurred(low: Tensor, how: Shrinking, rng: np.random.Generator) -> Tensor:
    """`low` with the share of it blurred that `how` says; draws the same whatever it says."""
    chance, place = rng.random((2, len(low)))
    first, last = map(math.log, how.deviation)
    deviation = np.where(chance < how.blurred, np.exp(first + place * (last - first)), 0.0)
    if not deviation.any():
        return low
    return blur(low, torch.from_numpy(deviation).float())
