"""Euler, its ancestral form, and Heun (arXiv 2206.00364, algorithms 1 and 2; k-diffusion)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.samplers.common import Noise, Step, fork, move, slide, slope
from suffuse.diffusion.schedule import Level


def euler(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Algorithm 2 without its correction: one evaluation a step, first order.

    `s_churn` > 0 raises the noise before each step while `s` lies in [s_tmin, s_tmax].
    """
    for i, now, then in grid.steps():
        x, now = churn(x, now, grid, noise, s_churn, s_tmin, s_tmax, s_noise)
        p = denoiser(x, now)
        x = move(x, p.x0, now, then)
        yield Step(i, x, p.x0)


def euler_a(
    denoiser: Denoiser, x: Tensor, grid: Grid, noise: Noise, eta: float = 1.0, s_noise: float = 1.0
) -> Iterator[Step]:
    """Euler to a cleaner level than the next, and noise back up to it."""
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        down, up = fork(now, then, eta)
        x = move(x, p.x0, now, down)
        if up > 0:
            x = x + s_noise * up * noise()
        yield Step(i, x, p.x0)


def heun(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Algorithm 2: an Euler step, corrected by the slope at its end; two evaluations, order 2.

    The last step, where the slope is not defined, is Euler's. Churn as in `euler`.
    """
    for i, now, then in grid.steps():
        x, now = churn(x, now, grid, noise, s_churn, s_tmin, s_tmax, s_noise)
        p = denoiser(x, now)
        trial = move(x, p.x0, now, then)
        if then.sigma > 0:
            end = slope(trial, denoiser(trial, then).x0, then, grid)
            trial = slide(x, (slope(x, p.x0, now, grid) + end) / 2, now, then, grid)
        x = trial
        yield Step(i, x, p.x0)


def churn(
    x: Tensor,
    now: Level,
    grid: Grid,
    noise: Noise,
    s_churn: float,
    s_tmin: float,
    s_tmax: float,
    s_noise: float,
) -> tuple[Tensor, Level]:
    """`x` and its level with a little more noise (arXiv 2206.00364, algorithm 2, lines 4-6)."""
    s = grid.s(now)
    gamma = min(s_churn / grid.whole, math.sqrt(2) - 1) if s_tmin <= s <= s_tmax else 0.0
    if gamma <= 0 or now.alpha == 0:  # to pure noise none can be added
        return x, now
    up = grid.of(s * (1 + gamma))
    keep = up.alpha / now.alpha
    more = (up.sigma**2 - (keep * now.sigma) ** 2).sqrt()
    return keep * x + s_noise * more * noise(), up
