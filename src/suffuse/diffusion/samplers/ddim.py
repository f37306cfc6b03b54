"""DDIM, deterministic or with a share of DDPM's noise (arXiv 2010.02502)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from suffuse.diffusion.classifier_guidance import shifted
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


def ddim_reverse(denoiser: Denoiser, x: Tensor, grid: Grid) -> Iterator[Step]:
    """From an image to the noise that `ddim` makes it of: eq. 14 run backwards.

    `x (B, C, H, W)` stands at the grid's cleanest level but the last, level n - 1 (a clean image is
    close enough where that level has little noise), and moves up to level 0 in n - 1 steps, as in
    guided-diffusion's `ddim_reverse_sample`. `Step.i` counts them from 0.

    Run from the last `x`, `ddim` with the same denoiser gives the image back, up to an error of
    order 1/n. `noise.slerp` walks between the noises of two images.
    """
    denoiser = shifted(denoiser)
    for k, i in enumerate(range(len(grid) - 1, 0, -1)):
        now, up = grid.level(i), grid.source(i)
        p = denoiser(x, now)
        x = up.alpha * p.x0 + up.sigma * p.eps
        yield Step(k, x, p.x0)
