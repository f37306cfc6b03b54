"""The network behind the stored values of `parity/kdiff` and `parity/ldm`."""

from __future__ import annotations

import torch
from torch import Tensor


def denoise(x: Tensor, t: float | Tensor) -> Tensor:
    """A smooth, bounded function of an image (B, C, H, W) and a time that mixes its pixels."""
    t = torch.as_tensor(t, dtype=torch.float64)
    scale, shift = (0.6 + 0.4 * t / 1000).item(), (0.3 * torch.sin(t / 170)).item()
    return scale * torch.tanh(0.8 * x + shift) + 0.05 * x.flip(-1)
