"""The two-evaluation DPM-Solver++ methods of k-diffusion (arXiv 2211.01095)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.samplers.common import Noise, Step, fork, halfway, move
from suffuse.diffusion.schedule import Level


def dpmpp_2s_a(
    denoiser: Denoiser, x: Tensor, grid: Grid, noise: Noise, eta: float = 1.0, s_noise: float = 1.0
) -> Iterator[Step]:
    """DPM-Solver++(2S), algorithm 1, to a cleaner level than the next, and noise back up to it.

    The image predicted at the middle carries the whole step. A step down to sigma = 0 is Euler's.
    """
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        down, up = fork(now, then, eta)
        x0 = p.x0
        if down.sigma > 0:
            middle = halfway(grid, now, down)
            x0 = denoiser(move(x, p.x0, now, middle), middle).x0
        x = move(x, x0, now, down)
        if up > 0:
            x = x + s_noise * up * noise()
        yield Step(i, x, p.x0)


def dpmpp_sde(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Iterator[Step]:
    """DPM-Solver++ for the SDE: an ancestral step a share `r` of the way, then the whole one.

    Each of the two draws its own noise. The last step, to sigma = 0, is Euler's.
    """
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        x0 = p.x0
        if then.sigma > 0:
            middle = halfway(grid, now, then, r)
            trial = _ancestral(x, p.x0, *fork(now, middle, eta), now, s_noise, noise)
            x0 = (1 - 1 / (2 * r)) * p.x0 + 1 / (2 * r) * denoiser(trial, middle).x0
        x = _ancestral(x, x0, *fork(now, then, eta), now, s_noise, noise)
        yield Step(i, x, p.x0)


def _ancestral(
    x: Tensor, x0: Tensor, down: Level, up: Tensor, now: Level, s_noise: float, noise: Noise
) -> Tensor:
    x = move(x, x0, now, down)
    return x + s_noise * up * noise() if up > 0 else x
