"""Latent consistency models: predict the clean image, noise it again (arXiv 2310.04378)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.samplers.common import Noise, Step

SIGMA_DATA = 0.5  # deviation of the data, as the consistency function takes it


def lcm(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    timestep_scaling: float = 10.0,
) -> Iterator[Step]:
    """Multistep consistency sampling (algorithm 3).

    The consistency function is `c_skip x + c_out x0` (eq. 9) with the coefficients of arXiv
    2303.01469, appendix C, in the scaled label. No noise follows the last prediction.
    """
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        t = timestep_scaling * float(now.label)
        c_skip = SIGMA_DATA**2 / (t**2 + SIGMA_DATA**2)
        c_out = t / (t**2 + SIGMA_DATA**2) ** 0.5
        clean = c_skip * x + c_out * p.x0
        x = then.alpha * clean
        if i < len(grid) - 1:
            x = x + then.sigma * noise()
        yield Step(i, x, clean)
