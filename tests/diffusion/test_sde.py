"""SDEs against score_sde, and their marginals against their drift and diffusion."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.integrate import quad
from torch import Tensor
from torch.distributions import Normal

from suffuse.diffusion.sde import (
    SDES,
    VE,
    VP,
    SubVP,
    likelihood_times,
    likelihood_weight,
    prior_log_prob,
)
from suffuse.errors import SuffuseError

STORED = load_file(Path(__file__).parents[1] / "parity/sde/samplers/io.safetensors")

times = st.floats(1e-3, 1 - 1e-3)
vps = st.builds(VP, st.floats(0, 2), st.floats(3, 30))
subvps = st.builds(SubVP, st.floats(0.01, 2), st.floats(3, 30))
ves = st.builds(VE, st.floats(1e-3, 0.1), st.floats(1, 300))
anything = st.one_of(vps, subvps, ves)


def near(got: Tensor, want: Tensor) -> None:
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize("name", SDES)
def test_agrees_with_score_sde(name):
    sde, x, t = SDES[name](), STORED["in.x"], STORED["in.t"]
    want = {k.split(".")[2]: v for k, v in STORED.items() if k.startswith(f"out.{name}.")}
    level, step = sde.at(t), sde.discretised(t, 30)
    near(level.alpha * x, want["mean"])
    near(level.sigma.flatten(), want["std"])
    assert (sde.drift(t) * x - want["drift"]).abs().max() <= 1e-5 * x.abs().max()
    near(sde.diffusion(t).flatten(), want["diffusion"])
    assert ((step.scale - 1) * x - want["f"]).abs().max() <= 1e-5 * x.abs().max()
    near(step.noise.flatten(), want["G"])
    near(prior_log_prob(sde, x), want["prior_logp"])


@given(vps, times)
def test_vp_preserves_the_variance(sde, t):
    level = sde.at(torch.tensor(t, dtype=torch.float64))
    assert float(level.alpha**2 + level.sigma**2) == pytest.approx(1, abs=1e-12)


@given(subvps, times)
def test_sub_vp_has_the_signal_of_vp_and_less_noise(sde, t):
    t = torch.tensor(t, dtype=torch.float64)
    vp, sub = VP(sde.beta_min, sde.beta_max).at(t), sde.at(t)
    assert sub.alpha == vp.alpha
    assert float(sub.sigma) == pytest.approx(float(vp.sigma) ** 2, rel=1e-12)


@given(anything, times)
def test_marginals_solve_the_sde(sde, t):
    """d alpha / dt = drift alpha, d sigma^2 / dt = 2 drift sigma^2 + g^2 (Särkkä & Solin, 5.50)."""
    h = 1e-6
    t, after, before = (torch.tensor(v, dtype=torch.float64) for v in (t, t + h, t - h))
    level, a, b = sde.at(t), sde.at(after), sde.at(before)
    drift, g = sde.drift(t), sde.diffusion(t)
    slopes = (a.alpha - b.alpha) / (2 * h), (a.sigma**2 - b.sigma**2) / (2 * h)
    assert float(slopes[0]) == pytest.approx(float(drift * level.alpha), rel=1e-5, abs=1e-7)
    want = 2 * drift * level.sigma**2 + g**2
    assert float(slopes[1]) == pytest.approx(float(want), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE()])
def test_the_chain_tends_to_the_sde(sde):
    """n steps of the discretised SDE from 0 have the marginal of t = 1, up to O(1 / n)."""
    n = 4000
    t = torch.linspace(0, 1, n, dtype=torch.float64)
    scale, noise, _ = sde.discretised(t, n)
    alpha, variance = 1.0, 0.0
    for a, g in zip(scale.flatten().tolist(), noise.flatten().tolist()):
        alpha, variance = a * alpha, a * a * variance + g * g
    end = sde.at(torch.ones((), dtype=torch.float64))
    assert alpha == pytest.approx(float(end.alpha), rel=0.03)
    assert math.sqrt(variance) == pytest.approx(float(end.sigma), rel=2e-3)


@given(ves, st.integers(2, 3000), st.data())
def test_every_time_has_its_step(sde, n, data):
    """Time i / (n - 1), however rounded, is step i of VE's chain and not the one before."""
    i = data.draw(st.integers(0, n - 1))
    sigmas = np.exp(np.linspace(np.log(sde.sigma_min), np.log(sde.sigma_max), n))
    step = sde.discretised(torch.tensor(i / (n - 1), dtype=torch.float64), n)
    want = sigmas[i] ** 2 - (sigmas[i - 1] ** 2 if i else 0)
    assert float(step.noise) ** 2 == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE()])
def test_prior(sde):
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64) * sde.prior_std
    want = Normal(0, sde.prior_std).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(prior_log_prob(sde, x), want)
    end = sde.at(torch.ones(()))
    assert float(end.sigma) == pytest.approx(sde.prior_std, rel=1e-4)


# ---- likelihood weighting ----------------------------------------------------------------------


@settings(deadline=None)
@given(anything, times, times)
def test_urgency_is_the_integral_of_the_weight(sde, a, b):
    weight = lambda t: float(likelihood_weight(sde, torch.tensor([t], dtype=torch.float64)))  # noqa: E731
    area = quad(weight, a, b, limit=200)[0]
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    assert float(sde.urgency(b) - sde.urgency(a)) == pytest.approx(area, rel=1e-6, abs=1e-6)
    assert float(sde.when(sde.urgency(a))) == pytest.approx(float(a), rel=1e-6)


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE()])
def test_likelihood_times_replace_the_weight(sde):
    """The mean of any f over these times is that of weight * f over even ones, up to `total`."""
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    t, total = likelihood_times(sde, u, eps=1e-3)
    assert float(t.min()) >= 1e-3 and float(t.max()) <= 1
    f = lambda t: 1 + np.sin(3 * t) * t  # noqa: E731
    weighted = lambda t: f(t) * float(likelihood_weight(sde, torch.tensor([t]).double()))  # noqa: E731
    want = quad(weighted, 1e-3, 1, limit=500)[0] / (1 - 1e-3)
    assert float(f(t.numpy()).mean()) * total == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: VP(2, 1), "beta_min=2, beta_max=1"),
        (lambda: SubVP(-1, 1), "at least 0"),
        (lambda: VE(0, 1), "sigma_min=0"),
        (lambda: VE(1, 0.5), "sigma_max=0.5"),
        (lambda: VP().discretised(torch.ones(()), 20), "20 steps are too few for beta_max 20.0"),
    ],
)
def test_refuses(make, says):
    with pytest.raises(SuffuseError, match=says):
        make()
