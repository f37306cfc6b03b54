"""DDPM's chain against guided-diffusion, Bayes' rule by quadrature, and the paper's numbers."""

import math

import numpy as np
import pytest
import torch
from gd_values import GOLDEN, KINDS, RUNS, SCHEDULES, VARIANCES, ClosedForm, close
from scipy.integrate import quad
from scipy.stats import norm

from suffuse.diffusion.chain import Chain, Reverse, predict_mean, respaced_grid
from suffuse.diffusion.grid import make_grid
from suffuse.diffusion.posterior import Posterior, posterior, reverse_variance
from suffuse.diffusion.prediction import diffuse
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.schedule import Discrete, betas
from suffuse.errors import SuffuseError

PAPER = Chain(Discrete.from_betas(betas("linear")))
CURVES = ("linear", "quad", "sigmoid", "cosine")


# ---- tables and posterior ----------------------------------------------------------------------


@pytest.mark.parametrize("curve", ["linear", "cosine"])
def test_tables_are_those_of_guided_diffusion(curve):
    chain = Chain(SCHEDULES[curve])
    x0_weight, x_weight, var, beta = chain.tables
    stored = {
        "posterior_mean_coef1": x0_weight,
        "posterior_mean_coef2": x_weight,
        "posterior_variance": var,
        "betas": beta,
    }
    for name, table in stored.items():
        expected = GOLDEN[f"table_{curve}.{name}"]
        torch.testing.assert_close(table, expected, rtol=1e-11, atol=1e-15)
    _, log_var = reverse_variance("small", chain.tables, chain.floor)
    expected = GOLDEN[f"table_{curve}.posterior_log_variance_clipped"]
    torch.testing.assert_close(log_var, expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("curve", ["linear", "cosine"])
def test_the_posterior_is_that_of_guided_diffusion(curve):
    p = Chain(SCHEDULES[curve]).posterior(GOLDEN["in.x0"], GOLDEN["in.noise"], GOLDEN["in.t"])
    close(p.mean, GOLDEN[f"q_{curve}.posterior_mean"])
    close(p.var, GOLDEN[f"q_{curve}.posterior_variance"])
    close(p.log_var, GOLDEN[f"q_{curve}.posterior_log_variance"])


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("t", [1, 17, 99])
def test_the_posterior_is_bayes_rule(curve, t):
    """q(x_{t-1} | x_t, x0) is q(x_t | x_{t-1}) q(x_{t-1} | x0), normalised by quadrature."""
    schedule = Discrete.from_betas(betas(curve, 100, 1e-3, 0.2))
    x0, x = 0.7, -0.4
    beta, before = float(schedule.betas[t]), float(schedule.alpha_bar[t - 1])

    def joint(y: float) -> float:
        forward = norm.pdf(x, math.sqrt(1 - beta) * y, math.sqrt(beta))
        return forward * norm.pdf(y, math.sqrt(before) * x0, math.sqrt(1 - before))

    got = Chain(schedule).posterior(
        *(torch.full((1, 1, 1, 1), v, dtype=torch.float64) for v in (x0, x)), torch.tensor([t])
    )
    mean, deviation = float(got.mean), float(got.var.sqrt())
    ends = (mean - 12 * deviation, mean + 12 * deviation)
    exact = {"epsabs": 0.0, "epsrel": 1e-12, "limit": 200}
    mass = quad(joint, *ends, **exact)[0]
    first = quad(lambda y: y * joint(y), *ends, **exact)[0]
    assert mean == pytest.approx(first / mass, rel=1e-8)
    second = quad(lambda y: (y - mean) ** 2 * joint(y), *ends, **exact)[0]
    assert deviation**2 == pytest.approx(second / mass, rel=1e-8)


# ---- forward -----------------------------------------------------------------------------------


def test_the_last_step_is_nearly_noise():
    """DDPM, section 4: with 1000 linear betas, q(x_T | x0) is about N(0.00635 x0, 0.99995)."""
    level = PAPER.level(torch.tensor([999]))
    assert float(level.alpha) == pytest.approx(0.00635, abs=5e-6)
    assert float(level.sigma) ** 2 == pytest.approx(0.99995, abs=2e-5)


@pytest.mark.parametrize("curve", CURVES)
def test_step_by_step_is_the_closed_form(curve):
    """Each step's noise is put into a coordinate of its own, so that variances are exact."""
    chain = Chain(Discrete.from_betas(betas(curve, 40, 1e-3, 0.2)))
    x0 = torch.zeros(1, 1, 1, 41, dtype=torch.float64)
    x0[..., 40] = 2.0
    basis = iter(torch.eye(41, dtype=torch.float64).view(41, 1, 1, 1, 41))
    for t, x in enumerate(chain.forward(x0, lambda: next(basis))):
        alpha_bar = float(chain.schedule.alpha_bar[t])
        assert float(x[..., 40]) == pytest.approx(2 * math.sqrt(alpha_bar), rel=1e-12)
        assert float(x[..., :40].square().sum()) == pytest.approx(1 - alpha_bar, rel=1e-9)
    assert t == 39


# ---- reverse -----------------------------------------------------------------------------------


@pytest.mark.parametrize("theirs", VARIANCES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_reverse_transition_is_that_of_guided_diffusion(kind, theirs):
    reverse = Reverse(Chain(SCHEDULES["linear"]), KINDS[kind], VARIANCES[theirs], limit=1.0)
    x, t = GOLDEN["q_linear.sample"], GOLDEN["in.t"]
    p, x0 = reverse(ClosedForm(reverse.learned)(x, t), x, t)
    stored = {"mean": p.mean, "variance": p.var, "log_variance": p.log_var, "pred_xstart": x0}
    for name, got in stored.items():
        close(got, GOLDEN[f"p.{kind}.{theirs}.{name}"])


@pytest.mark.parametrize("kind", ["eps", "x0", "v", "flow", "mean"])
def test_a_perfect_network_gives_the_posterior(kind):
    t = torch.tensor([0, 5, 99])
    x0, eps = torch.randn(2, 3, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    reverse = Reverse(Chain(SCHEDULES["linear"]), kind)
    x = diffuse(x0, eps, reverse.chain.level(t))
    p, clean = reverse(reverse.target(x0, eps, x, t), x, t)
    true = reverse.chain.posterior(x0, x, t)
    torch.testing.assert_close(clean, x0, rtol=1e-4, atol=1e-4)  # levels are float32
    torch.testing.assert_close(p.mean, true.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(p.log_var, true.log_var, rtol=0, atol=0)


def test_a_sampler_follows_a_predicted_mean():
    """Without noise, DDPM's steps through the whole chain are the network's answers themselves."""
    chain, net = Chain(SCHEDULES["linear"]), ClosedForm(False)
    answers = []

    def model(x, level):
        answers.append(net.raw(x, level))
        return answers[-1]

    grid = make_grid(chain.schedule, chain.T)
    zero = lambda: torch.zeros(2, 3, 4, 4)  # noqa: E731
    steps = list(SAMPLERS["ddpm"](predict_mean(model, chain), GOLDEN["in.start"], grid, zero))
    for step, answer in zip(steps, answers, strict=True):
        torch.testing.assert_close(step.x, answer, rtol=1e-4, atol=1e-5)


def test_half_precision_keeps_the_variances():
    t = torch.tensor([1])
    p = PAPER.posterior(*torch.ones(2, 1, 1, 1, 1, dtype=torch.bfloat16), t)
    assert float(p.log_var) == pytest.approx(float(PAPER.tables.var[1].log()), rel=1e-6)


# ---- respaced ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "spec"), RUNS.items())
def test_respaced_tables_are_those_of_guided_diffusion(key, spec):
    chain = Chain.respaced(SCHEDULES["linear"], spec)
    assert chain.labels.tolist() == GOLDEN[f"run.{key}.use_timesteps"].tolist()
    torch.testing.assert_close(chain.schedule.betas, GOLDEN[f"run.{key}.betas"], rtol=1e-12, atol=0)
    level = chain.level(torch.tensor([0, 9]))
    assert level.label.tolist() == chain.labels[[0, 9]].tolist()


@pytest.mark.parametrize("spec", RUNS.values())
def test_the_grid_of_a_respacing_walks_the_chain(spec):
    """The sampler's coefficients, level by level, are the rows of the chain's tables."""
    grid = respaced_grid(SCHEDULES["linear"], spec)
    chain = Chain.respaced(SCHEDULES["linear"], spec)
    assert grid.label.int().tolist() == chain.labels.flip(0).tolist()
    assert float(grid.sigma[-1]) == 0 and len(grid.alpha) == len(grid) + 1
    walked = [posterior(now, then) for _, now, then in grid.steps()]
    for got, table in zip(Posterior(*zip(*walked, strict=True)), chain.tables, strict=True):
        torch.testing.assert_close(torch.stack(got).flip(0), table, rtol=1e-9, atol=1e-15)


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha_bar", [[1.0, 0.5], [0.5, 0.5]])
def test_betas_must_be_those_of_a_chain(alpha_bar):
    with pytest.raises(SuffuseError, match=r"must lie in \(0, 1\]"):
        Chain(Discrete(torch.tensor(alpha_bar)))


def test_unknown_readings_are_named():
    with pytest.raises(SuffuseError, match=r"'previous'.*eps, x0, v, flow"):
        Reverse(PAPER, "previous")
    with pytest.raises(SuffuseError, match=r"'fixed'.*small, large, learned, learned_range"):
        Reverse(PAPER, "eps", "fixed")
    step = Posterior(*np.split(np.ones(4), 4))
    with pytest.raises(SuffuseError, match="unknown variance 'fixed'"):
        reverse_variance("fixed", step, 1.0)
