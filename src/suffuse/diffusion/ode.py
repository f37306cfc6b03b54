"""The probability-flow ODE, solved by an adaptive method (arXiv 2011.13456, section 4.3).

    dx / dt = f(x, t) - g(t)^2 score(x, t) / 2                                    (paper, eq. 13)

has the marginals of the SDE and draws no noise: every image has one latent and every latent one
image. The solver is SciPy's RK45, as in score_sde, with its step sizes and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from suffuse.diffusion.prediction import Denoiser, Prediction
from suffuse.diffusion.samplers.predictor_corrector import level_at
from suffuse.diffusion.score import score
from suffuse.diffusion.sde import SDE
from suffuse.errors import SuffuseError

Array = NDArray[np.float64]


class State(NamedTuple):
    """Where a solver stands."""

    t: float
    y: Array  # flat
    evaluations: int  # of the right-hand side, so far


class FlowStep(NamedTuple):
    """A `Step` of the flow, and how many evaluations of the network led to it."""

    i: int
    x: Tensor  # (B,C,H,W)
    x0: Tensor  # (B,C,H,W), the clean image as predicted there
    evaluations: int
    t: float


def flow(denoiser: Denoiser, x: Tensor, sde: SDE, t: Tensor) -> tuple[Tensor, Prediction]:
    """`dx / dt` at time `t ()`, (B, C, H, W), and the prediction it was made from."""
    level = level_at(sde, t, x)
    p = denoiser(x, level)
    return sde.drift(t) * x - sde.diffusion(t) ** 2 / 2 * score(p, level), p


def probability_flow(
    denoiser: Denoiser,
    x: Tensor,
    sde: SDE,
    *,
    start: float = 1.0,
    end: float = 1e-3,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    denoise: bool = False,
) -> Iterator[FlowStep]:
    """From `x (B, C, H, W)` at time `start` along the flow to `end`, a step for each the solver
    accepts.

    From 1 to eps it samples, from eps to 1 it encodes. `denoise` replaces the last x by the clean
    image predicted there. The solver keeps the error of all images together within the tolerances,
    so an image differs in another batch, by less than those.

    Raises `SuffuseError` when SciPy is missing or the solution cannot be found.
    """
    latest: list[Prediction] = []

    def slope(t: float, y: Array) -> Array:
        d, p = flow(denoiser, to_tensor(y, x), sde, torch.tensor(t, dtype=torch.float64))
        # The method's last evaluation in a step is at its end: the prediction there is for free.
        latest[:] = [p]
        return to_array(d)

    for i, state in enumerate(solve(slope, to_array(x), start, end, rtol, atol)):
        arrived = denoise and state.t == end
        at = latest[0].x0 if arrived else to_tensor(state.y, x)
        yield FlowStep(i, at, latest[0].x0, state.evaluations, state.t)


def solve(
    slope: Callable[[float, Array], Array],
    y: Array,
    start: float,
    end: float,
    rtol: float,
    atol: float,
) -> Iterator[State]:
    """The states of `dy / dt = slope(t, y)` that the solver accepts, the last at `end`.

    Raises `SuffuseError` when SciPy is missing or its step size underflows.
    """
    solver = _rk45()(slope, start, y, end, rtol=rtol, atol=atol)
    while solver.status == "running":
        message = solver.step()
        if solver.status == "failed" or not np.isfinite(solver.y).all():
            raise SuffuseError(
                f"the probability-flow ODE could not be solved beyond t = {solver.t:.4g}: "
                f"{message or 'the solution is not finite'}; try a larger tolerance or last time"
            )
        yield State(solver.t, solver.y, solver.nfev)


def _rk45() -> Any:
    try:
        from scipy.integrate import RK45
    except ImportError:
        raise SuffuseError(
            "the probability-flow ODE needs SciPy: pip install 'suffuse[sde]'"
        ) from None
    return RK45


def to_array(x: Tensor) -> Array:
    return x.detach().to("cpu", torch.float64).numpy().ravel()


def to_tensor(y: Array, like: Tensor) -> Tensor:
    return torch.from_numpy(y).reshape(like.shape).to(like)
