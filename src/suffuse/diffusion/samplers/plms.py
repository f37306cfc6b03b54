"""PLMS: linear multistep in the network's own output (PNDM, arXiv 2202.09778)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Denoiser, Prediction, solve
from suffuse.diffusion.samplers.common import Noise, Step
from suffuse.diffusion.schedule import Flow, Level
from suffuse.errors import SuffuseError

# Adams-Bashforth weights of 1 to 4 outputs, newest first (eq. 12 and its lower orders).
WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def plms(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    warmup: Literal["euler", "runge_kutta"] = "euler",
) -> Iterator[Step]:
    """DDIM's transfer (eq. 11) along a mean of this output and the three before it.

    The first outputs come from one improved Euler step, which costs an evaluation more (CompVis'
    PLMS, diffusers' `skip_prk_steps`), or from three Runge-Kutta steps, which cost nine more. What
    is averaged is the raw output, whatever it predicts; clipping wrappers have no say in it.

    Raises `SuffuseError` for Runge-Kutta steps of a rectified flow.
    """
    if warmup == "runge_kutta" and isinstance(grid.schedule, Flow):
        raise SuffuseError("PLMS warms up in whole training steps, which flow has not: use 'euler'")
    past: list[Tensor] = []  # newest first
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        past = [p.raw, *past][:4]
        if warmup == "runge_kutta" and i < min(3, len(grid) - 1):
            x0, x = _runge_kutta(denoiser, x, grid, i, p)
        elif i == 0 and warmup == "euler" and len(grid) > 1:
            end = grid.level(1)
            trial = _transfer(p, x, p.raw, now, then)[1]
            mean = (p.raw + denoiser(trial, end).raw) / 2
            x0, x = _transfer(p, x, mean, grid.source(1), end)
        else:
            mean = sum((w * raw for w, raw in zip(WEIGHTS[len(past) - 1], past)), 0 * x)
            x0, x = _transfer(p, x, mean, now, then)
        yield Step(i, x, x0)


def _transfer(
    p: Prediction, x: Tensor, raw: Tensor, now: Level, then: Level
) -> tuple[Tensor, Tensor]:
    """The clean image that `raw` means at `now`, and `x` carried along to `then`."""
    x0, eps = solve(p.kind, x, raw, now)
    return x0, then.alpha * x0 + then.sigma * eps


def _runge_kutta(
    denoiser: Denoiser, x: Tensor, grid: Grid, i: int, p: Prediction
) -> tuple[Tensor, Tensor]:
    """A step by the classical method of order 4 (eq. 13), its middle half a stride from the end."""
    now, end = grid.level(i), grid.level(i + 1)
    half = (grid.stride or round(float(now.label - end.label))) // 2
    middle = grid.at(int(end.label) + half)
    # Where the stride is odd the first trial point misses the middle by one index, as in diffusers'
    # `scheduling_pndm.py`.
    k2 = denoiser(_transfer(p, x, p.raw, now, grid.at(int(now.label) - half))[1], middle).raw
    k3 = denoiser(_transfer(p, x, k2, now, middle)[1], middle).raw
    k4 = denoiser(_transfer(p, x, k3, now, end)[1], end).raw
    return _transfer(p, x, (p.raw + 2 * k2 + 2 * k3 + k4) / 6, now, end)
