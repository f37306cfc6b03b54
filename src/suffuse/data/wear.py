"""Low resolutions as pictures of the world are: blurred, noisy, compressed, in any order.

Zhang et al. 2021 (arXiv 2103.14006, "BSR"), as latent diffusion's and DALL-E 2's second up-sampler
were trained (2204.06125, section 2.1). This is the lighter half of it: one change of size by any
filter, then one blur, noise and JPEG; without the noise of cameras.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from suffuse.data.pairs import blur

FILTERS = ("bicubic", "bilinear", "area")
DEVIATION = (0.2, 1.0)  # of the blur, in pixels of the low resolution
NOISE = (1.0, 10.0)  # its deviation, in levels of 255
QUALITY = (50, 95)  # of JPEG


def worn(picture: Tensor, factor: int, rng: np.random.Generator) -> Tensor:
    """One picture (1, 3, H, W) in [-1, 1] -> (1, 3, H / factor, W / factor), at 8 bits."""
    how = str(rng.choice(FILTERS))
    size = [side // factor for side in picture.shape[-2:]]
    low = interpolate(picture, size, mode=how, antialias=how != "area")
    harms: list[Callable[[Tensor], Tensor]] = [
        lambda x: blur(x, torch.tensor([rng.uniform(*DEVIATION)], dtype=torch.float32)),
        lambda x: x + torch.from_numpy(rng.standard_normal(x.shape)).float() * noise,
        lambda x: _jpeg(x, int(rng.integers(QUALITY[0], QUALITY[1] + 1))),
    ]
    noise = rng.uniform(*NOISE) / 127.5
    for i in rng.permutation(len(harms)):
        low = harms[i](low)
    return _levels(low).float() / 127.5 - 1


def _jpeg(low: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(_levels(low)[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    back = np.asarray(Image.open(file))
    return torch.from_numpy(back.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def _levels(x: Tensor) -> Tensor:
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
