"""From a request to pictures: start, guidance, constraint, sampler, decoder.

Nothing here knows which paper a system is from. Image-to-image is another start (a noised picture
and the grid's tail), inpainting a constraint after each step, so any model can do both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.samplers.common import Step
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Steps = Callable[[Tensor, Grid, Noise], Iterator[Step]]  # a sampler with its denoiser bound


@dataclass(frozen=True, eq=False)
class Known:
    """A picture to start from, in the model's own space.

    latent: (1, C, h, w), scaled as the network sees it
    repaint: (1, 1, h, w) in {0, 1}, 1 where the picture may change; None = everywhere
    """

    latent: Tensor
    repaint: Tensor | None = None


def run(
    steps: Steps, grid: Grid, noise: Noise, first: Tensor, known: Known | None
) -> Iterator[Step]:
    """Denoises `first` (B, C, h, w), standard normal, along `grid`.

    With a known picture the start is that picture noised to the grid's first level (2108.01073),
    and outside `repaint` the sample is held to it after every step (2201.09865, without its
    resampling): the next step starts from what `Step.x` holds.
    """
    if known is None:
        x = first * grid.start
    else:
        x = _noised(known.latent, first, grid, 0)
    for step in steps(x, grid, noise):
        if known is not None and known.repaint is not None:
            held = _noised(known.latent, first, grid, step.i + 1)
            step.x.copy_(torch.where(known.repaint > 0, step.x, held))
            step.x0.copy_(torch.where(known.repaint > 0, step.x0, known.latent))
        yield step


def _noised(latent: Tensor, noise: Tensor, grid: Grid, i: int) -> Tensor:
    level = grid.level(i)
    return level.alpha * latent + level.sigma * noise


# ---- pictures and tensors ----------------------------------------------------------------------


def to_tensor(picture: Picture) -> Tensor:
    """RGB picture -> (1, 3, H, W) float32 in [-1, 1]."""
    levels = torch.from_numpy(np.array(picture.convert("RGB")))  # (H, W, 3)
    return levels.permute(2, 0, 1)[None].float() / 127.5 - 1  # (1, 3, H, W)


def to_picture(image: Tensor) -> Picture:
    """(3, H, W) in [-1, 1] -> RGB picture, rounded to the nearest level."""
    levels = ((image.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())


def fit(picture: Picture, width: int, height: int) -> Picture:
    """The picture at this size, by Lanczos; itself if it has it."""
    size = (width, height)
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def repaint_cells(mask: Picture, factor: int) -> Tensor:
    """White = repaint -> (1, 1, H/f, W/f) in {0, 1}: a cell is repainted if any pixel of it is."""
    white = torch.from_numpy(np.array(mask.convert("L")) >= 128).float()[None, None]
    return torch.nn.functional.max_pool2d(white, factor)


def paste(result: Picture, original: Picture, mask: Picture) -> Picture:
    """`result` where the mask is white, `original` elsewhere, byte for byte."""
    return Image.composite(result, original, mask.convert("L").point(lambda v: 255 * (v >= 128)))


def check_size(width: int, height: int, factor: int) -> None:
    """Raises SuffuseError when the sides are not whole numbers of latent cells."""
    for name, side in (("width", width), ("height", height)):
        if side % factor or side < factor:
            near = max(factor, round(side / factor) * factor)
            raise SuffuseError(
                f"{name} {side} is not divisible by {factor}, this model's factor: try {near}"
            )


def enlarge(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, 1, h, w) to another size by nearest neighbours."""
    return interpolate(mask, size=size, mode="nearest")
