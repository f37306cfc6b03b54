"""UniPC: a predictor and a corrector that share each evaluation (arXiv 2302.04867)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.samplers.common import Noise, Step, ratio
from suffuse.diffusion.samplers.dpm_solver import Form, Point, check_start
from suffuse.diffusion.schedule import Level


def unipc(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    order: int = 2,
    form: Form = "x0",
    variant: Literal["bh1", "bh2"] = "bh2",
    lower_order_final: bool = True,
    uncorrected: Collection[int] = (),
) -> Iterator[Step]:
    """Algorithms 5 to 8: predict the next level, evaluate there, correct, go on; order `order`.

    `form` says which prediction is integrated, `variant` the function B(h) of section 3.1. Steps
    whose number is in `uncorrected` keep their prediction. A step to sigma = 0 has order 1, and one
    from pure noise too: it is infinitely long in lambda.
    """
    past: list[Point] = []  # newest first
    used, begin, x_begin = 1, grid.level(0), x
    for i, now, then in grid.steps():
        p = denoiser(x, now)
        m = p.x0 if form == "x0" else p.eps
        if past and math.isinf(past[0][0]):
            past = []
        if past and grid.skipped + i - 1 not in uncorrected:
            x = _advance(x_begin, begin, now, past[:used], form, variant, m)
        past = [(-math.log(ratio(now)), m), *past][:order]
        left = len(grid) - i if lower_order_final else order
        used = min(left, len(past)) if 0 < ratio(then) < ratio(now) else 1
        begin, x_begin = now, x
        x = _advance(x, now, then, past[:used], form, variant, None)
        yield Step(i, x, p.x0)


def _advance(
    x: Tensor,
    now: Level,
    then: Level,
    points: Sequence[Point],
    form: Form,
    variant: str,
    end: Tensor | None,
) -> Tensor:
    """`x` from `now` to `then` by what is known at `points`, newest first, and at the `end`."""
    check_start(now, form)
    (l0, m0), *older = points
    q = ratio(then) / ratio(now)  # exp(-h); h is infinite on a step to sigma = 0
    h = -math.log(q) if q > 0 else math.inf
    if form == "x0":
        scale, growth, hh = float(then.alpha), q - 1, -h
        base = float(then.sigma / now.sigma) * x - scale * growth * m0
    else:
        scale, growth, hh = float(then.sigma), 1 / q - 1, h
        base = float(then.alpha / now.alpha) * x - scale * growth * m0
    nodes = [(at - l0) / h for at, _ in older] + ([1.0] if end is not None else [])
    if not nodes:
        return base
    big_b = hh if variant == "bh1" else growth
    rho = _weights(nodes, hh, growth, big_b)
    differences = [(m - m0) / r for r, (_, m) in zip(nodes, older)]
    if end is not None:
        differences.append(end - m0)
    return base - scale * big_b * sum((w * d for w, d in zip(rho, differences)), 0 * x)


def _weights(nodes: Sequence[float], hh: float, growth: float, big_b: float) -> list[float]:
    """The weights of the differences, from the order conditions (eq. 5)."""
    if len(nodes) == 1:
        return [0.5]  # the authors' choice, which any B(h) admits
    phi, rows, right = growth / hh - 1, [], []
    for k in range(len(nodes)):
        rows.append([r**k for r in nodes])
        right.append(phi * math.factorial(k + 1) / big_b)
        phi = phi / hh - 1 / math.factorial(k + 2)
    return [float(w) for w in np.linalg.solve(np.array(rows), np.array(right))]
