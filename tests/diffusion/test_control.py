"""Conditions on Gaussian data, where the posterior is known; and what replacing keeps."""

from __future__ import annotations

import pytest
import torch
from gaussian import Gaussian
from torch import Tensor

from suffuse.diffusion.classifier_guidance import classifier, gradient, shifted
from suffuse.diffusion.control import colourised, inpainted, measured
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.ode import probability_flow
from suffuse.diffusion.prediction import Denoiser
from suffuse.diffusion.samplers.predictor_corrector import predictor_corrector
from suffuse.diffusion.schedule import Level
from suffuse.diffusion.sde import VE, VP, SubVP

ALL = [VP(), SubVP(), VE(0.01, 10)]
DATA = Gaussian.correlated(4, spread=0.5, mean=0.3)
A = torch.tensor([[1.0, -0.5, 0.3, 0.2]]).double()  # the measurement y = A x0 + noise
Y, ERROR = torch.tensor([0.8]).double(), 0.1


def likelihood(x: Tensor, level: Level) -> Tensor:
    """The exact `log p(y | x_t)`: x0 given x_t is normal, and so is y."""
    m = DATA.marginal(level)
    gain = level.alpha * DATA.covariance @ torch.linalg.inv(m.covariance_matrix)
    mean = DATA.mean + (x.flatten(1) - m.mean) @ gain.T  # (B,4)
    rest = DATA.covariance - level.alpha * gain @ DATA.covariance
    variance = (A @ rest @ A.T + ERROR**2).squeeze()
    return -((Y - mean @ A.T)[:, 0] ** 2) / (2 * variance)


def truth() -> tuple[Tensor, Tensor]:
    """Mean and covariance of x0 given y."""
    s = DATA.covariance
    gain = s @ A.T / (A @ s @ A.T + ERROR**2)
    return DATA.mean + (gain @ (Y - A @ DATA.mean)), s - gain @ A @ s


def conditioned(scale: float = 1.0) -> Denoiser:
    return shifted(classifier(DATA.denoise, likelihood, scale))


@pytest.mark.parametrize("sde", ALL)
def test_the_conditional_sde_samples_the_posterior(sde):
    generator = torch.Generator().manual_seed(0)
    noise = lambda: torch.randn(2500, 1, 2, 2, generator=generator).double()  # noqa: E731
    guided = conditioned()
    x = sde.prior_std * noise()
    *_, last = predictor_corrector(guided, x, sde, noise, n=150, eps=1e-3, corrector="none")
    mean, covariance = truth()
    got = last.x.flatten(1)
    assert float((got.mean(0) - mean).abs().max()) < 0.05
    assert float((got.T.cov() - covariance).abs().max()) < 0.05


def test_the_conditional_flow_ends_on_the_posterior_too():
    z = torch.randn(2000, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    guided = conditioned()
    *_, last = probability_flow(guided, z, VP(), rtol=1e-3, atol=1e-3)
    mean, covariance = truth()
    assert float((last.x.flatten(1).mean(0) - mean).abs().max()) < 0.05
    assert float((last.x.flatten(1).T.cov() - covariance).abs().max()) < 0.05


def test_a_condition_shifts_the_noise_by_its_gradient():
    level = VP().at(torch.tensor(0.4).double())
    x = torch.randn(3, 1, 2, 2).double()
    plain, guided = DATA.denoise(x, level), conditioned(2.0)(x, level)
    want = plain.eps - 2 * level.sigma * gradient(likelihood, x, level)
    torch.testing.assert_close(guided.eps, want)
    torch.testing.assert_close(level.alpha * guided.x0 + level.sigma * guided.eps, x)


def test_measurements_are_exact_near_the_image():
    """With little noise the predicted image is the image, and the measurement that of y."""
    level = VP().at(torch.tensor(1e-4).double())
    log_prob = measured(DATA.denoise, lambda x0: -((Y - x0.flatten(1) @ A.T)[:, 0] ** 2) / 0.02)
    x = torch.randn(2, 1, 2, 2).double()
    torch.testing.assert_close(
        gradient(log_prob, x, level), gradient(likelihood, x, level), rtol=0.02, atol=1e-2
    )


# ---- replacing ---------------------------------------------------------------------------------


def complete(sde, projection, n: int, seeds, corrector="langevin") -> Tensor:
    noise = Noise(seeds, (3, 2, 2), dtype=torch.float64)
    data = Gaussian.correlated(12, mean=0.3)
    x = sde.prior_std * noise()
    project = projection(noise)
    *_, last = predictor_corrector(
        data.denoise, x, sde, noise, n=n, eps=1e-3, corrector=corrector, project=project
    )
    return last.x


@pytest.mark.parametrize("sde", ALL)
def test_known_pixels_come_back(sde):
    image, known = torch.randn(2, 3, 2, 2).double(), torch.tensor([[1.0, 0], [0, 1]]).double()
    got = complete(sde, lambda noise: inpainted(image, known, noise), 30, [0, 1])
    torch.testing.assert_close(got * known, image * known)
    assert float(((got - image) * (1 - known)).abs().max()) > 0.01


@pytest.mark.parametrize("sde", ALL)
def test_grey_values_come_back(sde):
    image = torch.randn(2, 3, 2, 2).double()
    got = complete(sde, lambda noise: colourised(image, noise), 30, [0, 1])
    torch.testing.assert_close(got.mean(1), image.mean(1))
    assert float((got - image).abs().max()) > 0.01


@pytest.mark.parametrize("sde", [VP(), VE(0.01, 10)], ids=["vp", "ve"])
def test_unknown_pixels_follow_the_known_ones(sde):
    """Most of the way from the data's mean to what the known ones tell of them.

    Not all of it: at high noise the replaced part was not drawn together with the rest.
    """
    covariance = torch.tensor([[1, 0.9, 0.8], [0.9, 1, 0.9], [0.8, 0.9, 1]]).double() / 4
    data = Gaussian(torch.full((3,), 0.3).double(), covariance)
    known = torch.tensor([1.0, 1, 0]).double()
    image = torch.tensor([1.0, 0.9, 0]).double()
    gain = covariance[2:, :2] @ torch.linalg.inv(covariance[:2, :2])
    want = float(gain @ (image[:2] - 0.3))
    generator = torch.Generator().manual_seed(0)
    noise = lambda: torch.randn(1000, 3, 1, 1, generator=generator).double()  # noqa: E731
    project = inpainted(image.view(1, 3, 1, 1), known.view(1, 3, 1, 1), noise)
    *_, last = predictor_corrector(
        data.denoise, sde.prior_std * noise(), sde, noise, n=200, corrector="none", project=project
    )
    unknown = last.x[:, 2]
    assert 0.75 * want < float(unknown.mean()) - 0.3 < 1.1 * want
    assert float(unknown.std()) < 0.35  # it is 0.5 where nothing is known


def test_replaced_parts_have_the_noise_of_their_level():
    image = torch.full((500, 3, 2, 2), 0.7)
    level = Level(torch.tensor(0.6), torch.tensor(0.5), torch.tensor(0.0))
    for part in (inpainted(image, torch.ones(1, 1, 2, 2), Noise(range(500), (3, 2, 2))),
                 colourised(image, Noise(range(500), (3, 2, 2)))):  # fmt: skip
        x = part(torch.zeros_like(image), level)
        grey = x.sum(1) / 3**0.5  # a coordinate in an orthonormal basis
        assert float(grey.mean()) == pytest.approx(0.6 * 0.7 * 3**0.5, abs=0.05)
        assert float(grey.std()) == pytest.approx(0.5, abs=0.03)
