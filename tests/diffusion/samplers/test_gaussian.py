"""Gaussian data, for which everything is known: moments, guidance, inversion.

The denoiser is then linear in x, and so is every sampler in its start and its noise: one run with
each coordinate of them in an image of its own gives the exact mean and covariance of its samples.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from suffuse.diffusion.classifier_guidance import classifier
from suffuse.diffusion.grid import Grid
from suffuse.diffusion.prediction import Prediction, x0_to_eps
from suffuse.diffusion.samplers import SAMPLERS, ddim_reverse
from suffuse.diffusion.schedule import Discrete, Level, betas

SCHEDULE = Discrete.from_betas(betas("scaled_linear", 1000, 0.00085, 0.012))
MEAN = torch.tensor([0.4, -0.2, 0.1]).double()
COVARIANCE = torch.tensor([[0.5, 0.2, -0.1], [0.2, 0.3, 0.1], [-0.1, 0.1, 0.2]]).double()
ONE = torch.eye(3).double()


def spread(level: Level, covariance: Tensor = COVARIANCE) -> Tensor:
    return level.alpha**2 * covariance + level.sigma**2 * ONE


def denoise(x: Tensor, level: Level) -> Prediction:
    """The mean of x0 given `x (B, 1, 1, 3)`."""
    gain = torch.linalg.solve(spread(level), level.alpha * COVARIANCE)
    x0 = MEAN + (x - level.alpha * MEAN) @ gain
    eps = x0_to_eps(x, x0, level)
    return Prediction(x0, eps, eps)


def levels(n: int, noisiest: float = 10.0) -> Grid:
    s = torch.logspace(np.log10(noisiest), -1, n + 1, dtype=torch.float64)  # log s ends nowhere
    return Grid(s.arctan().cos(), s.arctan().sin(), torch.zeros(n), 1.0, SCHEDULE)


class Basis:
    """Noise that puts every coordinate of every draw into an image of its own, after `first`."""

    def __init__(self, images: int, first: int) -> None:
        self.images, self.next = images, first

    def __call__(self) -> Tensor:
        noise = torch.zeros(self.images, 1, 1, 3, dtype=torch.float64)
        if self.next < self.images:
            noise[self.next : self.next + 3, 0, 0] = ONE
        self.next += 3
        return noise


def moments(name: str, grid: Grid, denoiser=denoise, **options) -> tuple[Tensor, Tensor]:
    """Mean (3,) and covariance (3, 3) of the samples that exact noise leads to."""
    begin = grid.level(0)
    start = torch.cat([0 * ONE[:1], torch.linalg.cholesky(spread(begin)).T]) + begin.alpha * MEAN
    counter = Basis(4, 4)
    list(SAMPLERS[name](denoiser, start.view(4, 1, 1, 3), grid, counter, **options))
    x = torch.cat([start, start[:1].expand(counter.next - 4, 3)]).view(-1, 1, 1, 3)
    *_, last = SAMPLERS[name](denoiser, x, grid, Basis(len(x), 4), **options)
    out = last.x.view(-1, 3)
    away = out[1:] - out[0]
    return out[0], away.T @ away


def order(errors: list[float], steps: list[int]) -> float:
    """The slope of log error over log steps."""
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


ORDERS = [
    ("ddim", {}, 1),
    ("euler", {}, 1),
    ("euler_a", {"eta": 0.0}, 1),
    ("heun", {}, 2),
    ("plms", {}, 2),  # the first step is of order 2
    ("lms", {}, 3),  # the first three are not of order 4
    ("dpm2", {}, 2),
    ("dpm2_a", {"eta": 0.0}, 2),
    ("dpm++_2s", {}, 2),
    ("dpm++_2s_a", {"eta": 0.0}, 2),
    ("dpm++_2m", {}, 2),
    ("dpm++_sde", {"eta": 0.0}, 2),
    ("unipc", {}, 2),
    # Those that draw noise, in the weak sense: the distribution, not the path.
    ("ddpm", {}, 1),
    ("ddpm", {"variance": "large", "last_noise": True}, 1),
    ("ddim", {"eta": 1.0}, 1),
    ("euler_a", {}, 1),
    ("dpm2_a", {}, 2),
    ("dpm++_2s_a", {}, 2),
    ("dpm++_sde", {}, 1),
    ("dpm++_2m_sde", {}, 2),
    ("dpm++_3m_sde", {}, 2),  # the first steps are not of order 3
]


@pytest.mark.parametrize(("name", "options", "expected"), ORDERS)
def test_covariances_converge_at_the_stated_order(name, options, expected):
    steps, errors = [16, 32, 64], []
    for n in steps:
        grid = levels(n)
        end = grid.level(n)
        mean, covariance = moments(name, grid, **options)
        torch.testing.assert_close(mean, end.alpha * MEAN, rtol=0, atol=1e-12)
        errors.append(float((covariance - spread(end)).abs().max()))
    assert errors[-1] < 0.05
    assert order(errors, steps) == pytest.approx(expected, abs=0.4)


def test_every_sampler_has_a_stated_order():
    """All but LCM, which is for networks that were distilled to jump, not for scores."""
    assert {name for name, *_ in ORDERS} == set(SAMPLERS) - {"lcm"}


# ---- guidance by a measurement -----------------------------------------------------------------

NOISE, SEEN = 0.2, 0.9  # the first coordinate was measured: SEEN, with this deviation


def measured(x: Tensor, level: Level) -> Tensor:
    """The exact log p(y | x_t), (B,): what is known of x0 given x_t is Gaussian too."""
    gain = torch.linalg.solve(spread(level), level.alpha * COVARIANCE)
    left = COVARIANCE - level.alpha * COVARIANCE @ gain  # of x0 given x_t
    mean = denoise(x, level).x0[:, 0, 0, 0]
    return -((SEEN - mean) ** 2) / (2 * (left[0, 0] + NOISE**2))


def truth() -> tuple[Tensor, Tensor]:
    """Mean and covariance of the data given the measurement, by conditioning the Gaussian."""
    gain = COVARIANCE[0] / (COVARIANCE[0, 0] + NOISE**2)
    return MEAN + gain * (SEEN - MEAN[0]), COVARIANCE - gain[:, None] * COVARIANCE[0]


@pytest.mark.parametrize(("name", "options"), [("ddpm", {}), ("ddim", {}), ("heun", {})])
def test_guided_samples_are_those_given_the_measurement(name, options):
    """Ancestral sampling moves its mean and the others their noise; both reach the posterior."""
    expected_mean, expected = truth()
    errors = []
    for n in (25, 100):
        grid = levels(n, noisiest=60.0)
        end = grid.level(n)
        mean, covariance = moments(name, grid, classifier(denoise, measured), **options)
        # At the noisiest level the measurement says nothing yet: the start is as without it.
        off = (mean - end.alpha * expected_mean).abs().max()
        errors.append(float(off + (covariance - spread(end, expected)).abs().max()))
    assert errors[1] < 0.04 and errors[1] < errors[0]


# ---- inversion ---------------------------------------------------------------------------------


def test_inversion_gives_the_image_back():
    """DDIM backwards and forwards again returns at order 1, to a point of the same distribution."""
    x = MEAN + torch.linalg.cholesky(COVARIANCE) @ torch.tensor([1.0, -0.5, 0.8]).double()
    steps, errors = [32, 64, 128], []
    for n in steps:
        grid = levels(n)
        first = grid.level(n - 1)
        *_, noisy = ddim_reverse(denoise, first.alpha * x.view(1, 1, 1, 3), grid)
        back = list(SAMPLERS["ddim"](denoise, noisy.x, grid, None))[-2]
        errors.append(float((back.x.flatten() - first.alpha * x).abs().max()))
    assert errors[-1] < 0.05
    assert order(errors, steps) == pytest.approx(1, abs=0.3)
