"""What the samplers share: their `Step`, and the few formulas that most of them are made of.

All formulas are for `x = alpha * x0 + sigma * eps`. Papers that write them for `alpha = 1` (EDM,
k-diffusion) mean `x / alpha` and `s = sigma / alpha`; those that write them for
`sigma^2 = 1 - alpha^2` (DDPM, DDIM) are the same formulas again. For rectified flow those of EDM
hold in `x` and `s = sigma`, as `Schedule.scale` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.schedule import Level

Noise = Callable[[], Tensor]  # a standard normal draw (B,C,H,W)


class Step(NamedTuple):
    """What a sampler yields after each of its steps."""

    i: int  # 0 .. n-1
    x: Tensor  # (B,C,H,W) at level i + 1
    x0: Tensor  # (B,C,H,W), the clean image as predicted on the way


def ratio(level: Level) -> float:
    """`sigma / alpha`, of which lambda is minus the logarithm; infinite where alpha is 0."""
    alpha = float(level.alpha)
    return float(level.sigma) / alpha if alpha else math.inf


def move(x: Tensor, x0: Tensor, now: Level, then: Level) -> Tensor:
    """`x` carried from `now` to `then` as if `x0` were its clean image all the way.

    One Euler step of the probability-flow ODE in `x / alpha` over `s` (arXiv 2206.00364, alg. 1),
    DDIM without noise (arXiv 2010.02502, eq. 12), the first-order DPM-Solver++ (arXiv 2211.01095,
    eq. 8) and an Euler step of rectified flow (arXiv 2209.03003) are all this.
    """
    keep = then.sigma / now.sigma
    return keep * x + (then.alpha - keep * now.alpha) * x0


def slope(x: Tensor, x0: Tensor, now: Level, grid: Grid) -> Tensor:
    """`d(x / scale) / ds` given `x0`: the noise that explains `x`, for flow `eps - x0`."""
    return (x - grid.schedule.scale(now) * x0) / now.sigma


def slide(x: Tensor, d: Tensor, now: Level, then: Level, grid: Grid) -> Tensor:
    """`x` carried from `now` to `then` along the slope `d` of `x / scale` over `s`."""
    keep = grid.schedule.scale(then) / grid.schedule.scale(now)
    return keep * x + (then.sigma - keep * now.sigma) * d


def fork(now: Level, then: Level, eta: float) -> tuple[Level, Tensor]:
    """An ancestral step: down to a level cleaner than `then`, and the noise that leads up to it.

    The share `eta` of the step's posterior noise is drawn anew: `eta = 1` is DDPM's posterior
    (arXiv 2006.11239, eq. 7), DDIM's sigma (arXiv 2010.02502, eq. 16) and k-diffusion's
    `get_ancestral_step`. Returns the level, with `then`'s alpha, and the noise's deviation.
    """
    shrink = now.alpha / then.alpha
    posterior = (
        then.sigma / now.sigma * (now.sigma**2 - (shrink * then.sigma) ** 2).clamp_min(0).sqrt()
    )
    up = (eta * posterior).minimum(then.sigma)
    return then._replace(sigma=(then.sigma**2 - up**2).clamp_min(0).sqrt()), up


def halfway(grid: Grid, now: Level, then: Level, r: float = 0.5) -> Level:
    """The level a share `r` of the way from `now` to `then` in `log s`."""
    return grid.of(grid.s(now) ** (1 - r) * grid.s(then) ** r)
