"""The bound's terms against guided-diffusion, SciPy's quadrature and its normal distribution."""

import math

import numpy as np
import pytest
import torch
from gd_values import GOLDEN, RUNS, SCHEDULES, ClosedForm, close, draws
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from suffuse.diffusion.bound import bits_per_dim, grey_level_log_likelihood, kl, prior, vb_terms
from suffuse.diffusion.chain import Chain, Gaussian, Reverse
from suffuse.diffusion.schedule import Discrete, betas

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def gaussian(mean: float, deviation: float) -> Gaussian:
    mean, var = (torch.tensor(v, dtype=torch.float64) for v in (mean, deviation**2))
    return Gaussian(mean, var, var.log())


# ---- the parts ---------------------------------------------------------------------------------


@given(*[st.floats(-1, 1), st.floats(0.3, 2)] * 2)
@settings(max_examples=25, deadline=None)
def test_kl_is_the_integral(a, s, b, r):
    def log_pdf(x: float, mean: float, deviation: float) -> float:
        return -(((x - mean) / deviation) ** 2) / 2 - math.log(deviation * math.sqrt(2 * math.pi))

    def integrand(x: float) -> float:
        return math.exp(log_pdf(x, a, s)) * (log_pdf(x, a, s) - log_pdf(x, b, r))

    expected, _ = quad(integrand, a - 12 * s, a + 12 * s, epsabs=1e-12, epsrel=1e-10, limit=200)
    assert float(kl(gaussian(a, s), gaussian(b, r))) == pytest.approx(expected, rel=1e-7, abs=1e-10)


@given(st.floats(-1.5, 1.5), st.floats(0.01, 1))
@settings(max_examples=25, deadline=None)
def test_grey_levels_share_all_the_probability(mean, deviation):
    p = gaussian(mean, deviation)
    probability = grey_level_log_likelihood(LEVELS, p).exp()
    assert float(probability.sum()) == pytest.approx(1, abs=1e-9)
    edges = (LEVELS.numpy()[1:] + LEVELS.numpy()[:-1]) / 2
    expected = np.diff(norm.cdf(np.concatenate([[-np.inf], edges, [np.inf]]), mean, deviation))
    # The references' approximation of the distribution function is off by 1.8e-4 at most.
    np.testing.assert_allclose(probability, expected, atol=4e-4, rtol=0)


def test_impossible_grey_levels_stay_finite():
    nats = grey_level_log_likelihood(LEVELS, gaussian(1.0, 1e-3))
    assert nats.isfinite().all() and float(nats.min()) == pytest.approx(math.log(1e-12))


@pytest.mark.parametrize("curve", ["linear", "cosine"])
def test_the_prior_term(curve):
    chain, x0 = Chain(SCHEDULES[curve]), GOLDEN["in.x0"]
    # Theirs is a difference of float32 numbers near 1, so that 1e-8 is all that can be asked.
    stored = GOLDEN[f"q_{curve}.prior_bpd"]
    torch.testing.assert_close(prior(chain, x0), stored, rtol=0, atol=1e-8)
    alpha_bar = float(chain.schedule.alpha_bar[-1])
    nats = 0.5 * (alpha_bar * (x0.double() ** 2 - 1) - math.log1p(-alpha_bar))
    expected = (nats.mean((1, 2, 3)) / math.log(2)).float()
    torch.testing.assert_close(prior(chain, x0), expected, rtol=1e-5, atol=0)


def test_the_prior_term_of_the_paper():
    """DDPM, section 4: about 1e-5 bits per dimension."""
    images = 2 * torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 1
    bits = prior(Chain(Discrete.from_betas(betas("linear"))), images)
    assert float(bits.min()) > 3e-6 and float(bits.max()) < 3e-5


# ---- all of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "spec"), RUNS.items())
def test_bits_per_dimension_are_those_of_guided_diffusion(key, spec):
    chain = Chain.respaced(SCHEDULES["linear"], spec)
    net, reverse = ClosedForm(True, scale=1), Reverse(chain, "eps", "learned_range", 1.0)
    got = bits_per_dim(net.raw, reverse, GOLDEN["in.x0"], draws(key, "bpd_noise"))
    close(got.total, GOLDEN[f"run.{key}.bpd.total_bpd"])
    torch.testing.assert_close(got.prior, GOLDEN[f"run.{key}.bpd.prior_bpd"], rtol=0, atol=1e-8)
    for name, table in {"vb": got.vb, "xstart_mse": got.x0_mse, "mse": got.eps_mse}.items():
        close(table.flip(1), GOLDEN[f"run.{key}.bpd.{name}"])  # theirs run from the noisiest
    torch.testing.assert_close(got.total, got.prior + got.vb.sum(1))


def test_the_bound_of_gaussian_data_is_its_entropy():
    """With the exact mean and variance of every reverse step nothing is lost on the way.

    For Gaussian data each reverse transition is Gaussian too, whatever the number of steps, and the
    bound is the true code length: the differential entropy and log2 of the 127.5 levels in a unit.
    """
    deviation, generator = 0.25, torch.Generator().manual_seed(0)
    x0 = deviation * torch.randn(1, 1, 200, 200, generator=generator).double()
    x0 = (127.5 * (x0.clamp(-1, 1) + 1)).round() / 127.5 - 1
    expected = -norm.logpdf(x0.numpy(), 0, deviation).mean() / math.log(2) + math.log2(127.5)
    chain = Chain(Discrete.from_betas(betas("linear", 10, 0.01, 0.5)))

    def exact(x, level):
        marginal = level.alpha**2 * deviation**2 + level.sigma**2
        step = chain.at(level.label, x)
        var = step.var + step.x0_weight**2 * deviation**2 * level.sigma**2 / marginal
        return torch.cat([x * level.sigma / marginal, var.log().expand_as(x)], 1)

    noise = lambda: torch.randn(x0.shape, generator=generator).double()  # noqa: E731
    bits = bits_per_dim(exact, Reverse(chain, "eps", "learned"), x0, noise)
    assert float(bits.total) == pytest.approx(expected, abs=0.02)
    # With the smaller of the fixed variances, right for data of one point, much is.
    small = bits_per_dim(lambda *a: exact(*a)[:, :1], Reverse(chain, "eps", "small"), x0, noise)
    assert float(small.total) > expected + 0.5


def test_terms_come_noisiest_first_and_hold_no_graph():
    weight = torch.ones((), requires_grad=True)
    chain = Chain.respaced(SCHEDULES["linear"], "4")
    x0 = GOLDEN["in.x0"]
    terms = list(
        vb_terms(lambda x, level: weight * x, Reverse(chain), x0, lambda: torch.zeros_like(x0))
    )
    assert [term.t for term in terms] == [3, 2, 1, 0]
    assert not any(term.vb.requires_grad for term in terms)
