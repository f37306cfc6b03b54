"""The probability-flow ODE: against score_sde, and along paths that are known."""

from __future__ import annotations

import builtins
import math
from pathlib import Path

import pytest
import torch
from closed_form import denoise
from gaussian import Gaussian
from safetensors.torch import load_file

from suffuse.diffusion.ode import probability_flow
from suffuse.diffusion.prediction import predict
from suffuse.diffusion.score import from_score
from suffuse.diffusion.sde import SDES, VE, VP, SubVP
from suffuse.errors import SuffuseError

STORED = load_file(Path(__file__).parents[1] / "parity/sde/samplers/io.safetensors")
ALL = [VP(), SubVP(), VE(0.01, 10)]
MEAN, DEVIATION = 0.4, 0.6
DATA = Gaussian(torch.tensor([MEAN]).double(), torch.tensor([[DEVIATION**2]]).double())


def spread(level) -> float:
    return math.sqrt(float(level.alpha) ** 2 * DEVIATION**2 + float(level.sigma) ** 2)


@pytest.mark.parametrize("name", SDES)
def test_agrees_with_score_sde(name):
    sde, raw = SDES[name](), lambda x, level: denoise(x, level.label)
    denoiser = from_score(raw) if name == "ve" else predict(raw, "eps")
    x, eps = sde.prior_std * STORED["in.x"], 1e-5 if name == "ve" else 1e-3
    *_, last = probability_flow(denoiser, x, sde, end=eps)
    want = STORED[f"out.{name}.ode"]
    assert (last.x - want).abs().max() <= 1e-4 * want.abs().max()
    # VE's stored network drives x to 1e29, where rounding decides which steps are accepted.
    if name != "ve":
        assert last.evaluations == int(STORED[f"out.{name}.ode_nfe"])


@pytest.mark.parametrize("sde", ALL)
def test_every_image_keeps_its_quantile(sde):
    times = (torch.tensor(t).double() for t in (1.0, 1e-3))
    begin, end = (sde.at(t) for t in times)
    quantiles = torch.linspace(-2, 2, 9).double().view(9, 1, 1, 1)
    x = begin.alpha * MEAN + spread(begin) * quantiles
    steps = list(probability_flow(DATA.denoise, x, sde, rtol=1e-7, atol=1e-7))
    want = end.alpha * MEAN + spread(end) * quantiles
    assert float((steps[-1].x - want).abs().max()) < 1e-5
    assert [step.i for step in steps] == list(range(len(steps)))
    # RK45 takes two evaluations to begin, and six for a step, accepted or not.
    assert steps[-1].evaluations >= 2 + 6 * len(steps)
    assert (steps[-1].evaluations - 2) % 6 == 0
    # What a step predicts belongs to where it ends.
    want = DATA.denoise(steps[-1].x, end).x0
    torch.testing.assert_close(steps[-1].x0, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sde", ALL)
def test_there_and_back(sde):
    x = torch.randn(2, 1, 1, 1, dtype=torch.float64)
    *_, there = probability_flow(DATA.denoise, x, sde, start=1e-3, end=1.0, rtol=1e-8, atol=1e-8)
    *_, back = probability_flow(DATA.denoise, there.x, sde, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(back.x, x, rtol=1e-5, atol=1e-5)


def test_denoise_ends_on_the_clean_image():
    x = torch.randn(2, 1, 1, 1, dtype=torch.float64)
    plain = list(probability_flow(DATA.denoise, x, VP()))
    denoised = list(probability_flow(DATA.denoise, x, VP(), denoise=True))
    assert torch.equal(denoised[-1].x, plain[-1].x0)
    assert torch.equal(denoised[-2].x, plain[-2].x)


def test_refuses_what_has_no_solution():
    worse = predict(lambda x, level: x**3 * -1e3, "eps")
    with pytest.raises(SuffuseError, match="could not be solved beyond t = "):
        list(probability_flow(worse, torch.ones(1, 1, 1, 1), VP()))


def test_says_when_scipy_is_missing(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SuffuseError, match=r"pip install 'suffuse\[sde\]'"):
        next(probability_flow(DATA.denoise, torch.ones(1, 1, 1, 1), VP()))
