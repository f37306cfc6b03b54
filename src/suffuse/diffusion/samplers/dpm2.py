"""DPM-Solver-2 inspired midpoint methods of k-diffusion (arXiv 2206.00364, 2206.00927)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.samplers.common import Noise, Step, fork, halfway, move, slide, slope
from suffuse.diffusion.samplers.euler import churn


def dpm2(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """The slope of the middle, in log s, carries the whole step; two evaluations, order 2.

    The last step, which has no middle, is Euler's. Churn as in `euler`.
    """
    for i, now, then in grid.steps():
        x, now = churn(x, now, grid, noise, s_churn, s_tmin, s_tmax, s_noise)
        p = denoiser(x, now)
        if then.sigma == 0:
            x = move(x, p.x0, now, then)
        else:
            middle = halfway(grid, now, then)
            trial = move(x, p.x0, now, middle)
            d = slope(trial, denoiser(trial, middle).x0, middle, grid)
            x = slide(x, d, now, then, grid)
        yield Step(i, x, p.x0)


def dpm2_a(
    denoiser: Denoiser, x: Tensor, grid: Grid, noise: Noise, eta: float = 1.0, s_noise: float = 1.0
) -> Iterator[Step]:
    """`dpm2` to a cleaner level than the next, and noise back up to it."""
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        down, up = fork(now, then, eta)
        if down.sigma == 0:
            x = move(x, p.x0, now, down)
        else:
            middle = halfway(grid, now, down)
            trial = move(x, p.x0, now, middle)
            d = slope(trial, denoiser(trial, middle).x0, middle, grid)
            x = slide(x, d, now, down, grid)
        if up > 0:
            x = x + s_noise * up * noise()
        yield Step(i, x, p.x0)
