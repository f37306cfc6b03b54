"""DPM-Solver and DPM-Solver++, multistep and singlestep, deterministic or with noise.

arXiv 2206.00927 (the noise is predicted), arXiv 2211.01095 (the image is), and its section 5 for
the stochastic form. All are one exponential integrator over `lambda = log(alpha / sigma)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Denoiser, Prediction
from suffuse.diffusion.samplers.common import Noise, Step, ratio
from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError

Form = Literal["x0", "eps"]
Solver = Literal["midpoint", "heun"]
Point = tuple[float, Tensor]  # lambda, and what was predicted there


def multistep(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    order: int = 2,
    form: Form = "x0",
    solver: Solver = "midpoint",
    eta: float = 0.0,
    s_noise: float = 1.0,
    lower_order_final: bool = True,
    euler_at_final: bool = False,
) -> Iterator[Step]:
    """One evaluation a step; derivatives come from the `order - 1` predictions before it.

    `form="eps"` is DPM-Solver, `"x0"` DPM-Solver++; `eta=1` their stochastic forms (k-diffusion's
    `dpmpp_2m_sde` and, at order 3 with `solver="heun"`, `dpmpp_3m_sde`). `lower_order_final` ends
    short grids, of fewer than 15 steps, on lower orders; `euler_at_final` ends any grid on order 1.
    A step to sigma = 0 always has order 1. (diffusers 0.42 has a sign wrong in the third order of
    the stochastic form; this does not.)
    """
    _check(order)
    short = lower_order_final and grid.whole < 15
    past: list[Point] = []  # newest first
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        past = [(-math.log(ratio(now)), _predicted(p, form)), *past][:order]
        left = len(grid) - i
        stuck = not 0 < ratio(then) < ratio(now)  # a step to sigma = 0, or to where it is
        first = stuck or (left == 1 and (euler_at_final or short))
        points = past[:1] if first else past[:2] if left == 2 and short else past
        d = _derivatives_behind(points, then)
        x = integrate(x, now, then, d, form, solver, eta, s_noise, noise)
        yield Step(i, x, p.x0)


def singlestep(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    order: int = 2,
    form: Form = "x0",
    solver: Solver = "midpoint",
    eta: float = 0.0,
    s_noise: float = 1.0,
    lower_order_final: bool = True,
) -> Iterator[Step]:
    """Groups of `order` steps, each starting anew where its group began; one evaluation a step.

    Within a group the order rises 1, 2, 3, as in diffusers' `scheduling_dpmsolver_singlestep.py`;
    `lower_order_final` lets the last group be shorter. A step from pure noise, which is infinitely
    long in lambda, is a group of its own. Options as in `multistep`.
    """
    _check(order)
    orders = _orders(grid.whole, order, lower_order_final, float(grid.sigma[-1]) == 0)
    group: list[Point] = []  # oldest first: the first is where this group began
    begin, x_begin = grid.level(0), x
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        if orders[grid.skipped + i] == 1 or not group or math.isinf(group[0][0]):
            begin, x_begin, group = now, x, []
        group = [*group, (-math.log(ratio(now)), _predicted(p, form))]
        d = _derivatives_ahead(group, then, solver)
        weights: Solver = "heun" if len(group) == 3 else solver
        x = integrate(x_begin, begin, then, d, form, weights, eta, s_noise, noise)
        yield Step(i, x, p.x0)


def integrate(
    x: Tensor,
    now: Level,
    then: Level,
    derivatives: Sequence[Tensor],
    form: Form,
    solver: Solver,
    eta: float,
    s_noise: float,
    noise: Noise,
) -> Tensor:
    """`x` at `then`, given the prediction at `now` and its derivatives in `lambda`, times `h^k`.

    The linear part of the equation is solved exactly, the prediction is a polynomial (arXiv
    2206.00927, eq. 3.7; 2211.01095, eq. 14). `solver="midpoint"` replaces the weight of a first
    derivative by half that of the prediction, which agrees to second order.
    """
    keep, c, fresh = _weights(now, then, form, 0.0 if then.sigma == 0 else eta)
    if solver == "midpoint" and len(derivatives) == 2:
        c = [c[0], c[0] / 2]
    x = sum((weight * d for weight, d in zip(c, derivatives)), keep * x)
    return x + s_noise * fresh * noise() if fresh > 0 else x


def _weights(now: Level, then: Level, form: Form, eta: float) -> tuple[float, list[float], float]:
    """Weights of x, of the prediction and its two derivatives; the deviation of the new noise."""
    alpha, sigma = float(then.alpha), float(then.sigma)
    s, s_then = ratio(now), ratio(then)
    q = s_then / s  # exp(-h); written so that a step to s = 0, of infinite h, stays finite
    h = -math.log(q) if q > 0 else math.inf
    check_start(now, form)
    if form == "x0":
        k = h * (1 + eta)
        c1 = alpha * (1 - q ** (1 + eta))
        c2 = alpha - c1 / k if k else 0.0
        c3 = alpha / 2 - c2 / k if k else 0.0
        keep = sigma / float(now.sigma) * q**eta
        return keep, [c1, c2, c3], sigma * math.sqrt(max(1 - q ** (2 * eta), 0))
    c1 = -(1 + eta) * alpha * (s - s_then)  # -sigma' (exp(h) - 1)
    c2 = c1 / h + (1 + eta) * sigma if h else 0.0
    c3 = c2 / h + (1 + eta) * sigma / 2 if h else 0.0
    fresh = alpha * math.sqrt(max(eta * (s**2 - s_then**2), 0))
    return alpha / float(now.alpha), [c1, c2, c3], fresh


def _derivatives_behind(past: Sequence[Point], then: Level) -> list[Tensor]:
    """The newest prediction and its derivatives, from those at levels before it."""
    (l0, m0), *older = past
    if not older:
        return [m0]
    h = -math.log(ratio(then)) - l0
    (l1, m1) = older[0]
    r0 = (l0 - l1) / h
    d0 = (m0 - m1) / r0
    if len(older) == 1:
        return [m0, d0]
    (l2, m2) = older[1]
    r1 = (l1 - l2) / h
    bend = (d0 - (m1 - m2) / r1) / (r0 + r1)
    # The second derivative is twice the bend; the authors' code uses it once, and so does everyone.
    return [m0, d0 + r0 * bend, bend]


def _derivatives_ahead(group: Sequence[Point], then: Level, solver: Solver) -> list[Tensor]:
    """The oldest prediction and its derivatives, from those at levels after it."""
    (l0, m0), *newer = group
    if not newer:
        return [m0]
    h = -math.log(ratio(then)) - l0
    slopes = [(m - m0) / ((at - l0) / h) for at, m in newer]
    if len(newer) == 1 or solver == "midpoint":
        return [m0, slopes[-1]]
    r1, r2 = ((at - l0) / h for at, _ in newer)
    bend = (slopes[1] - slopes[0]) / (r2 - r1)
    return [m0, slopes[0] - r1 * bend, 2 * bend]


def _orders(n: int, order: int, lower_order_final: bool, to_zero: bool) -> list[int]:
    """The order of each of `n` steps: 1, 2, .. `order` again and again, and a shorter end."""
    orders = [i % order + 1 for i in range(n)]
    if to_zero or (lower_order_final and n % order == 0):
        orders[-1] = 1
    return orders


def _predicted(p: Prediction, form: Form) -> Tensor:
    return p.x0 if form == "x0" else p.eps


def check_start(now: Level, form: Form) -> None:
    """Raises `SuffuseError` where the noise would be integrated from a level without signal."""
    if form == "eps" and now.alpha == 0:
        raise SuffuseError(
            "solvers of the noise (form 'eps') cannot start from pure noise, as this model does: "
            "use form 'x0' (dpm++)"
        )


def _check(order: int) -> None:
    if order not in (1, 2, 3):
        raise SuffuseError(f"the order of a DPM-Solver is 1, 2 or 3, not {order}")
