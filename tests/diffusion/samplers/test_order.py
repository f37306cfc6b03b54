"""How fast samplers converge, on data for which the exact path is known."""

import math

import pytest
import torch
from torch import Tensor

from suffuse.diffusion.grid import Grid, GridSpec, make_grid
from suffuse.diffusion.prediction import Prediction, x0_to_eps
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.schedule import Discrete, Level, betas

SCHEDULE = Discrete.from_betas(betas("scaled_linear", 1000, 0.00085, 0.012))
MEAN, DEVIATION = 0.4, 0.6


def posterior(x: Tensor, level: Level) -> Prediction:
    """The mean of x0 given x, for x0 of normal distribution (MEAN, DEVIATION^2)."""
    alpha, sigma = level.alpha, level.sigma
    gain = alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2)
    x0 = MEAN + gain * (x - alpha * MEAN)
    eps = x0_to_eps(x, x0, level)
    return Prediction(x0, eps, eps)


def spread(level: Level) -> float:
    return math.sqrt(float(level.alpha) ** 2 * DEVIATION**2 + float(level.sigma) ** 2)


def exact(x: Tensor, grid: Grid) -> Tensor:
    """The end of the probability-flow ODE: a normal distribution keeps its quantiles."""
    begin, end = grid.level(0), grid.level(len(grid))
    quantile = (x - begin.alpha * MEAN) / spread(begin)
    return end.alpha * MEAN + spread(end) * quantile


def error(name: str, n: int, **options) -> float:
    s = torch.logspace(1, -1, n + 1, dtype=torch.float64)  # not to 0, where log s has no end
    grid = Grid(s.arctan().cos(), s.arctan().sin(), torch.zeros(n), 1.0, SCHEDULE)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    *_, last = SAMPLERS[name](posterior, x, grid, None, **options)
    return float((last.x - exact(x, grid)).abs().max())


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [
        ("euler", {}, 1),
        ("ddim", {}, 1),
        ("euler_a", {"eta": 0.0}, 1),
        ("heun", {}, 2),
        ("dpm2", {}, 2),
        ("dpm2_a", {"eta": 0.0}, 2),
        ("dpm++_2s_a", {"eta": 0.0}, 2),
        ("dpm++_sde", {"eta": 0.0}, 2),
        ("dpm++_2m", {}, 2),
        ("dpm++_2m", {"solver": "heun"}, 2),
        ("dpm++_2m", {"form": "eps"}, 2),
        ("dpm++_2s", {}, 2),
        ("dpm++_2s", {"order": 3, "solver": "heun", "lower_order_final": False}, 3),
        ("unipc", {"lower_order_final": False}, 3),  # the corrector adds one
        ("unipc", {"order": 1}, 2),
        ("unipc", {}, 2),  # the last step, of order 1 and not corrected, takes it away
        ("lms", {"order": 1}, 1),
        ("lms", {"order": 2}, 2),
    ],
)
def test_order_of_convergence(name, options, order):
    """Halving the steps divides the error by 2 to the order."""
    coarse, fine = error(name, 60, **options), error(name, 120, **options)
    assert fine < 0.05
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddpm", {}),
        ("ddim", {"eta": 1.0}),
        ("euler_a", {}),
        ("dpm2_a", {}),
        ("dpm++_2s_a", {}),
        ("dpm++_sde", {}),
        ("dpm++_2m_sde", {}),
        ("dpm++_3m_sde", {}),
        ("dpm++_2m", {"eta": 0.5}),
        ("dpm++_2m", {"eta": 0.5, "form": "eps"}),
        ("dpm++_2s", {"eta": 0.5}),
        ("euler", {"s_churn": 10.0}),
        ("heun", {"s_churn": 10.0}),
        ("dpm2", {"s_churn": 10.0}),
    ],
)
def test_noise_keeps_the_distribution(name, options):
    """Many samples of a stochastic sampler have the data's mean and deviation."""
    generator = torch.Generator().manual_seed(0)
    noise = lambda: torch.randn(1, 1, 100, 100, generator=generator).double()  # noqa: E731
    grid = make_grid(SCHEDULE, 100, GridSpec("trailing"))
    *_, last = SAMPLERS[name](posterior, noise(), grid, noise, **options)
    assert float(last.x.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(last.x.std()) == pytest.approx(DEVIATION, abs=0.03)
