"""LMS: linear multistep over the noise ratio (k-diffusion's `sample_lms`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.samplers.common import Noise, Step, slope


def lms(denoiser: Denoiser, x: Tensor, grid: Grid, noise: Noise, order: int = 4) -> Iterator[Step]:
    """Adams-Bashforth on uneven steps: one evaluation a step, up to `order` slopes remembered."""
    past: list[tuple[float, Tensor]] = []  # s and the slope there, newest first
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        past = [(grid.s(now), slope(x, p.x0, now, grid)), *past][:order]
        weights = adams_bashforth([s for s, _ in past], grid.s(then))
        turn = sum((w * d for w, (_, d) in zip(weights, past)), 0 * x)
        scale = grid.schedule.scale
        x = scale(then) * (x / scale(now) + turn)
        yield Step(i, x, p.x0)


def adams_bashforth(nodes: Sequence[float], end: float) -> list[float]:
    """Weights that integrate the polynomial through values at `nodes` from the first to `end`."""
    # Gauss-Legendre with as many points as nodes is exact for polynomials of that degree.
    points, gauss = np.polynomial.legendre.leggauss(len(nodes))
    half = (end - nodes[0]) / 2
    tau = nodes[0] + half * (points + 1)
    weights = []
    for j, here in enumerate(nodes):
        basis = np.ones_like(tau)  # the Lagrange polynomial of node j
        for k, other in enumerate(nodes):
            if k != j:
                basis *= (tau - other) / (here - other)
        weights.append(float(half * (gauss @ basis)))
    return weights
