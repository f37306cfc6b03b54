"""Log-likelihoods of Gaussian data, whose truth is known, and the estimator's properties."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from closed_form import denoise
from gaussian import Gaussian
from safetensors.torch import load_file
from torch import Tensor

from suffuse.diffusion.likelihood import bits_per_dim, dequantise, log_likelihood, probe
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.prediction import Prediction, predict, x0_to_eps
from suffuse.diffusion.schedule import Level
from suffuse.diffusion.sde import VE, VP, SubVP
from suffuse.errors import SuffuseError

ALL = [VP(), SubVP(), VE(0.01, 50)]
SHAPE = (3, 2, 2)
DIMS = 12


def every_axis(x: Tensor) -> list[Tensor]:
    """Probes whose estimate is the divergence itself, whatever the Jacobian."""
    axes = math.sqrt(DIMS) * torch.eye(DIMS).to(x)
    return [axis.reshape(1, *SHAPE).expand_as(x) for axis in axes]


def images(data: Gaussian, n: int) -> Tensor:
    root = torch.linalg.cholesky(data.covariance)
    z = torch.randn(n, DIMS, generator=torch.Generator().manual_seed(0)).double()
    return (data.mean + z @ root.T).reshape(n, *SHAPE)


@pytest.mark.parametrize("sde", ALL)
def test_gaussian_data_in_bits(sde):
    """Issue's measure: within 1e-3 bits/dim of the truth, with score_sde's tolerances."""
    data = Gaussian.correlated(DIMS)
    x = images(data, 16)
    found = log_likelihood(data.denoise, x, sde, every_axis(x))
    got = bits_per_dim(found.log_prob, DIMS)
    clean = sde.at(torch.tensor(1e-5).double())
    want = bits_per_dim(data.marginal(clean).log_prob(x.flatten(1)), DIMS)
    assert float((got - want).abs().max()) < 1e-3
    assert found.evaluations > 6 * found.steps > 0
    assert found.latent.shape == x.shape


@pytest.mark.parametrize("sde", ALL)
def test_independent_pixels_need_one_rademacher_probe(sde):
    data = Gaussian(torch.zeros(DIMS).double(), 0.25 * torch.eye(DIMS).double())
    x = images(data, 4).float()
    signs = probe(Noise([1, 2, 3, 4], SHAPE))
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    found = log_likelihood(data.denoise, x, sde, [signs])
    clean = sde.at(torch.tensor(1e-5).double())
    want = data.marginal(clean).log_prob(x.double().flatten(1))
    assert float(bits_per_dim((found.log_prob - want).abs(), DIMS, 0, 256).max().abs()) < 1e-3


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_probes_are_unbiased(kind):
    """Over many probes the mean is the truth, within four standard errors, and not exactly it."""
    data = Gaussian.correlated(DIMS)
    x = images(data, 1).expand(400, *SHAPE)
    found = log_likelihood(
        data.denoise, x, VP(), [probe(Noise(range(400), SHAPE, dtype=torch.float64), kind)]
    ).log_prob
    want = log_likelihood(data.denoise, x[:1], VP(), every_axis(x[:1])).log_prob
    error = float(found.std()) / 20
    assert error > 0.01
    assert abs(float(found.mean()) - float(want)) < 4 * error


def test_more_probes_vary_less():
    data = Gaussian.correlated(DIMS)
    x = images(data, 1).expand(60, *SHAPE)
    noise = Noise(range(60), SHAPE, dtype=torch.float64)
    probes = [probe(noise) for _ in range(9)]
    one = log_likelihood(data.denoise, x, VP(), probes[:1], rtol=1e-3, atol=1e-3).log_prob.std()
    nine = log_likelihood(data.denoise, x, VP(), probes, rtol=1e-3, atol=1e-3).log_prob.std()
    assert float(nine / one) == pytest.approx(1 / 3, abs=0.12)


def preconditioned(x: Tensor, level: Level) -> Prediction:
    """The denoiser of k-diffusion's stored values (see `parity/kdiff`), for VE levels."""
    s = level.sigma
    r = (s**2 + 0.25).sqrt()
    x0 = 0.25 / r**2 * x + s * 0.5 / r * denoise(x / r, 250 * s.log())
    return Prediction(x0, x0_to_eps(x, x0, level), x0)


def test_agrees_with_k_diffusion():
    """Its solver works in sigma with a tolerance of 1e-4, which is how close its value is."""
    stored = load_file(Path(__file__).parents[1] / "parity/kdiff/samplers/io.safetensors")
    x = 0.3 * stored["in.start"].double()
    torch.manual_seed(int(stored["log_likelihood.probe"]))
    signs = torch.randint_like(stored["in.start"], 2).double() * 2 - 1
    sde = VE(0.03, 14.6)
    got = log_likelihood(preconditioned, x, sde, [signs], eps=0.0, rtol=1e-6, atol=1e-6).log_prob
    torch.testing.assert_close(got.float(), stored["log_likelihood.ll"], rtol=2e-4, atol=0)


def test_refuses_to_guess_without_a_probe():
    with pytest.raises(SuffuseError, match="at least one probe"):
        log_likelihood(predict(lambda x, level: x, "eps"), torch.zeros(1, 1, 2, 2), VP(), [])


# ---- bits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("low, high, offset", [(-1, 1, 7), (0, 1, 8)])
def test_offset_is_that_of_score_sde(low, high, offset):
    log_prob = torch.tensor([-3.0, 5.0])
    want = -log_prob / (4 * math.log(2)) + offset
    torch.testing.assert_close(bits_per_dim(log_prob, 4, low, high), want)


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (0.0, 1.0)])
def test_uniform_grey_levels_take_eight_bits(low, high):
    """Uniform density over the range is the uniform distribution of 256 levels: 8 bits each."""
    levels = torch.randint(256, (5, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    u = torch.rand(5, 3, 4, 4)
    x = dequantise(levels.to(torch.uint8), u, low, high)
    assert float(x.min()) >= low and float(x.max()) <= high
    back = ((x - low) / (high - low) * 256).floor()
    assert torch.equal(back, levels.float())
    log_prob = torch.full((5,), -48 * math.log(high - low))
    torch.testing.assert_close(bits_per_dim(log_prob, 48, low, high), torch.full((5,), 8.0))
