"""Samplers of rectified flow, on data for which the best network and the exact path are known."""

import math

import pytest
import torch
from torch import Tensor

from suffuse.diffusion.grid import Grid, GridSpec, make_grid
from suffuse.diffusion.prediction import predict
from suffuse.diffusion.samplers import SAMPLERS, sampler_names
from suffuse.diffusion.schedule import Flow, Level
from suffuse.errors import SuffuseError

SCHEDULE = Flow(shift=2.0)
TRAILING = GridSpec("trailing")
MEAN, DEVIATION = 0.4, 0.6


def velocity(x: Tensor, level: Level) -> Tensor:
    """The mean of `eps - x0` given x, for x0 of normal distribution (MEAN, DEVIATION^2)."""
    alpha, sigma = level.alpha, level.sigma
    variance = alpha**2 * DEVIATION**2 + sigma**2
    surplus = (x - alpha * MEAN) / variance
    return sigma * surplus - (MEAN + alpha * DEVIATION**2 * surplus)


DENOISER = predict(velocity, "flow")


def quantile(x: Tensor, level: Level) -> Tensor:
    """Of x among all samples of its level, in standard deviations."""
    alpha, sigma = level.alpha, level.sigma
    return (x - alpha * MEAN) / (alpha**2 * DEVIATION**2 + sigma**2).sqrt()


def last(name: str, grid: Grid, x: Tensor, noise=None, **options) -> Tensor:
    *_, step = SAMPLERS[name](DENOISER, x, grid, noise, **options)
    return step.x


def error(name: str, n: int, begin: float = 0.98, end: float = 0.02, **options) -> float:
    """On even times: the flow keeps every sample's quantile."""
    s = torch.linspace(begin, end, n + 1, dtype=torch.float64)
    grid = Grid(1 - s, s, 1000 * s[:-1], 1.0, SCHEDULE)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    found = last(name, grid, x, **options)
    return float((quantile(found, grid.level(n)) - quantile(x, grid.level(0))).abs().max())


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
        ("dpm++_2m", {"form": "eps"}, 2),
        ("dpm++_2s", {}, 2),
        ("unipc", {"lower_order_final": False}, 3),
        ("lms", {"order": 2}, 2),
        ("plms", {}, 2),
    ],
)
def test_order_of_convergence_on_a_flow(name, options, order):
    """Halving the steps divides the error by 2 to the order."""
    coarse, fine = error(name, 100, **options), error(name, 200, **options)
    assert fine < 0.05
    assert math.log2(coarse / fine) > order - 0.4


@pytest.mark.parametrize("name", sampler_names())
def test_from_pure_noise_to_the_data(name):
    """The mean and the deviation of what is sampled are those of the data."""
    if name == "lcm":
        pytest.skip("jumps to the mean of x0, for models distilled to know better")
    generator = torch.Generator().manual_seed(0)
    noise = lambda: torch.randn(1, 1, 100, 100, generator=generator).double()  # noqa: E731
    grid, x = make_grid(SCHEDULE, 100, TRAILING), noise()
    found = last(name, grid, x, noise)
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(found.std()) == pytest.approx(DEVIATION, abs=0.03)
    if not SAMPLERS[name].stochastic:
        assert float((found - MEAN - DEVIATION * x).abs().max()) < 0.1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddim", {"eta": 1.0}),
        ("dpm++_2m", {"eta": 0.5}),
        ("dpm++_2s", {"eta": 0.5}),
        ("euler", {"s_churn": 10.0}),
        ("heun", {"s_churn": 10.0}),
        ("dpm2", {"s_churn": 40.0}),
    ],
)
def test_noise_keeps_the_distribution_of_a_flow(name, options):
    generator = torch.Generator().manual_seed(0)
    noise = lambda: torch.randn(1, 1, 100, 100, generator=generator).double()  # noqa: E731
    found = last(name, make_grid(SCHEDULE, 100, TRAILING), noise(), noise, **options)
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(found.std()) == pytest.approx(DEVIATION, abs=0.03)


@pytest.mark.parametrize("name", ["dpm++_2m", "dpm++_2s", "unipc"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_solvers_begin_where_lambda_is_infinite(name, order):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    found = last(name, make_grid(SCHEDULE, 60, TRAILING), x, order=order)
    assert float((found - MEAN - DEVIATION * x).abs().max()) < (0.1 if order == 1 else 0.05)


def test_the_other_form_of_unipc_begins_there_too():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    found = last("unipc", make_grid(SCHEDULE, 60, TRAILING), x, variant="bh1")
    assert float((found - MEAN - DEVIATION * x).abs().max()) < 0.05


@pytest.mark.parametrize("name", ["dpm++_2m", "dpm++_2s", "unipc"])
def test_solvers_of_the_noise_cannot_begin_there(name):
    with pytest.raises(SuffuseError, match="cannot start from pure noise"):
        last(name, make_grid(SCHEDULE, 8, TRAILING), torch.ones(1, 1, 2, 2), form="eps")


def test_a_flow_has_no_whole_steps_for_runge_kutta():
    grid = make_grid(SCHEDULE, 8, TRAILING)
    with pytest.raises(SuffuseError, match="warms up in whole training steps"):
        last("plms", grid, torch.ones(1, 1, 2, 2), warmup="runge_kutta")
