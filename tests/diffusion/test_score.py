"""Scores and score matching: closed forms, and score_sde's two losses written out."""

from __future__ import annotations

import pytest
import torch
from gaussian import Gaussian

from suffuse.diffusion.loss import simple
from suffuse.diffusion.prediction import predict
from suffuse.diffusion.score import from_score, score, score_matching
from suffuse.diffusion.sde import VE, VP, SubVP, likelihood_weight

ALL = [VP(), SubVP(), VE()]


@pytest.mark.parametrize("sde", ALL)
def test_score_is_the_gradient_of_the_log_density(sde):
    data = Gaussian.correlated(4, mean=0.2)
    level = sde.at(torch.tensor(0.3).double())
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    log_prob = data.marginal(level).log_prob(x.flatten(1)).sum()
    (want,) = torch.autograd.grad(log_prob, x)
    torch.testing.assert_close(score(data.denoise(x, level), level), want)
    again = from_score(lambda x, level: want)(x, level)
    torch.testing.assert_close(again.x0, data.denoise(x, level).x0)


class Net:
    """Twice the noisy image, plus its label."""

    def prepare(self, cond):
        return None

    def __call__(self, x, label, context):
        return 2 * x + label.view(-1, 1, 1, 1)


@pytest.mark.parametrize("sde", ALL)
def test_losses_are_those_of_score_sde(sde):
    """`(score sigma + z)^2`, and `(score + z / sigma)^2 g^2` under likelihood weighting."""
    t, net = torch.tensor([0.2, 0.7]), Net()
    x0, z = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    level = sde.at(t)
    x = level.alpha * x0 + level.sigma * z
    for kind in ("eps", "score"):
        answer = net(x, level.label, None)
        s = answer if kind == "score" else -answer / level.sigma
        weight = likelihood_weight(sde, t)
        got = score_matching(net, x0, None, level, z, kind)
        torch.testing.assert_close(got, (s * level.sigma + z).square().mean((1, 2, 3)))
        got = score_matching(net, x0, None, level, z, kind, weight)
        want = (s + z / level.sigma).square() * sde.diffusion(t) ** 2
        torch.testing.assert_close(got, want.mean((1, 2, 3)))


@pytest.mark.parametrize("sde", ALL)
def test_sdes_are_schedules(sde):
    """The loss of every other schedule takes their levels; the optimum of eps has no error."""
    level = sde.at(torch.tensor([0.1, 0.9]))
    x0, z = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert level.alpha.shape == level.sigma.shape == (2, 1, 1, 1) and level.label.shape == (2,)
    exact = type("Exact", (Net,), {"__call__": lambda self, x, label, context: z})()
    assert float(simple(exact, x0, None, level, z, "eps").max()) == 0
    p = predict(lambda x, level: z, "eps")(level.alpha * x0 + level.sigma * z, level)
    torch.testing.assert_close(p.x0[0], x0[0], rtol=1e-3, atol=1e-3)
