"""Embeddings of the noise level's label."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoid(
    label: Tensor, width: int, *, cos_first: bool = True, shift: float = 0.0, period: float = 1e4
) -> Tensor:
    """Sinusoidal embedding of `label` (B,) -> (B, width) in float32 (1706.03762, section 3.5).

    DDPM orders the halves (sin | cos) and divides the exponents by `half - 1` (`shift=1`);
    guided-diffusion and Stable Diffusion order them (cos | sin) with `shift=0`.
    """
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=label.device) / (half - shift)
    angle = label.float()[:, None] * torch.exp(-math.log(period) * exponent)  # (B, half)
    halves = (angle.cos(), angle.sin()) if cos_first else (angle.sin(), angle.cos())
    embedding = torch.cat(halves, dim=-1)
    return nn.functional.pad(embedding, (0, width % 2))


class LabelEmbedding(nn.Module):
    """Sinusoid, then a two-layer perceptron: label (B,) -> (B, out).

    Its middle is as wide as its output, or `hidden`. The sinusoid is that of `scale` times the
    label.
    """

    def __init__(
        self,
        width: int,
        out: int,
        *,
        hidden: int | None = None,
        cos_first: bool = True,
        shift: float = 0.0,
        scale: float = 1.0,
    ):
        super().__init__()
        self.width, self.cos_first, self.shift, self.scale = width, cos_first, shift, scale
        self.fc1 = nn.Linear(width, hidden or out)
        self.fc2 = nn.Linear(hidden or out, out)

    def forward(self, label: Tensor) -> Tensor:
        label = label.float() * self.scale
        wave = sinusoid(label, self.width, cos_first=self.cos_first, shift=self.shift)
        wave = wave.to(self.fc1.weight.dtype)
        return self.fc2(nn.functional.silu(self.fc1(wave)))


class VectorEmbedding(nn.Module):
    """What comes through the `vector` door, by a two-layer perceptron: (B, width) -> (B, out)."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.fc1 = nn.Linear(width, out)
        self.fc2 = nn.Linear(out, out)

    def forward(self, vector: Tensor) -> Tensor:
        return self.fc2(nn.functional.silu(self.fc1(vector.to(self.fc1.weight.dtype))))


class FourierEmbedding(nn.Module):
    """Random Fourier features of log sigma, then a two-layer perceptron: label (B,) -> (B, out).

    Gaussian frequencies of deviation `scale`, drawn once and never trained (2006.10739, section 5;
    2011.13456, appendix C.1).
    """

    frequencies: Tensor

    def __init__(self, width: int, out: int, scale: float = 16.0):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(width) * scale)
        self.fc1 = nn.Linear(2 * width, out)
        self.fc2 = nn.Linear(out, out)

    def forward(self, label: Tensor) -> Tensor:
        # The order of the factors is score_sde's: an angle of a thousand shows float32's rounding.
        angle = label.float().log()[:, None] * self.frequencies.float() * 2 * math.pi
        wave = torch.cat((angle.sin(), angle.cos()), dim=-1).to(self.fc1.weight.dtype)
        return self.fc2(nn.functional.silu(self.fc1(wave)))
