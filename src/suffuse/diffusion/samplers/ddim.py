"""DDIM, deterministic or with a share of DDPM's noise (arXiv 2010.02502)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.samplers.common import Noise, Step, fork


def ddim(
    denoiser: Denoiser, x: Tensor, grid: Grid, noise: Noise, eta: float = 0.0, s_noise: float = 1.0
) -> Iterator[Step]:
    """Eq. 12: the predicted image at the next level, the predicted noise, and new noise.

    `eta` 0 is deterministic and 1 is DDPM; `s_noise` scales the new noise (CompVis' temperature).
    Whether clipping x0 changes the noise is for `guidance.clip` to say.
    """
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        down, up = fork(now, then, eta)
        x = down.alpha * p.x0 + down.sigma * p.eps
        if eta > 0:
            x = x + s_noise * up * noise()
        yield Step(i, x, p.x0)
