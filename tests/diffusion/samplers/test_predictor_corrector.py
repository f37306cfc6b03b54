"""Predictors and correctors: against score_sde, and on data whose score is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from closed_form import denoise
from safetensors.torch import load_file
from torch import Tensor

from suffuse.diffusion.prediction import Prediction, predict, x0_to_eps
from suffuse.diffusion.samplers.predictor_corrector import predictor_corrector
from suffuse.diffusion.schedule import Level
from suffuse.diffusion.score import from_score
from suffuse.diffusion.sde import SDES, VE, VP, SubVP
from suffuse.errors import SuffuseError

STORED = load_file(Path(__file__).parents[2] / "parity/sde/samplers/io.safetensors")
EPS = {"vp": 1e-3, "subvp": 1e-3, "ve": 1e-5}
THEIRS = {"ancestral_sampling": "ancestral", "ald": "annealed"}  # names that differ
RUNS = sorted({"_".join(k.split("_noise.")[0].split(".")[1:]) for k in STORED if "_noise." in k})


def network(sde: str):
    """The stored values' network: eps for VP and sub-VP, the score itself for VE."""
    raw = lambda x, level: denoise(x, level.label)  # noqa: E731
    return from_score(raw) if sde == "ve" else predict(raw, "eps")


@pytest.mark.parametrize("run", RUNS)
def test_agrees_with_score_sde(run):
    name, _, rest = run.partition("_")
    predictor, _, corrector = rest.rpartition("_")
    draws = (STORED[f"out.{name}.{rest}_noise.{i:02d}"] for i in range(100))
    sde = SDES[name]()
    *_, last = predictor_corrector(
        network(name),
        sde.prior_std * next(draws),
        sde,
        lambda: next(draws),
        n=30,
        eps=EPS[name],
        predictor=THEIRS.get(predictor, predictor),
        corrector=THEIRS.get(corrector, corrector),
        norms="batch",
    )
    want = STORED[f"out.{name}.{rest}"]
    assert last.i == 29
    assert (last.x - want).abs().max() <= 1e-5 * want.abs().max()


def test_every_stored_run_is_compared():
    assert len(RUNS) == 20


# ---- data of a known score ---------------------------------------------------------------------

MEAN, DEVIATION = 0.4, 0.6


def posterior(x: Tensor, level: Level) -> Prediction:
    """The mean of x0 given x, for x0 of normal distribution (MEAN, DEVIATION^2)."""
    alpha, sigma = level.alpha, level.sigma
    gain = alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2)
    x0 = MEAN + gain * (x - alpha * MEAN)
    eps = x0_to_eps(x, x0, level)
    return Prediction(x0, eps, eps)


def marginal(sde, z: Tensor) -> Tensor:
    """A draw from the distribution at t = 1, which the prior is a little short of."""
    end = sde.at(torch.ones((), dtype=torch.float64))
    return end.alpha * MEAN + (end.alpha**2 * DEVIATION**2 + end.sigma**2).sqrt() * z


def run(sde, n: int, pixels: int = 100, **options) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = lambda: torch.randn(1, 1, pixels, pixels, generator=generator).double()  # noqa: E731
    x = marginal(sde, noise())
    *_, last = predictor_corrector(posterior, x, sde, noise, n=n, eps=1e-4, **options)
    return last.x


def affine(sde, n: int, **options) -> tuple[float, float]:
    """Mean and deviation of the samples, without any sampling error.

    With Gaussian data the result is affine in the draws: no draw at one pixel, and each of them
    alone at a pixel of its own, give the mean and what each adds to the variance.
    """
    draws = []  # the k-th draw is one at pixel k
    pixels = 1 + n

    def noise() -> Tensor:
        z = torch.zeros(1, 1, 1, pixels + 1, dtype=torch.float64)
        z[..., len(draws) + 1] = 1
        draws.append(z)
        return z

    x = marginal(sde, noise())
    *_, last = predictor_corrector(
        posterior, x, sde, noise, n=n, eps=1e-4, corrector="none", **options
    )
    mean = last.x[0, 0, 0, 0]  # no draw at pixel 0
    return float(mean), float((last.x - mean).square().sum().sqrt())


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE(0.01, 20)], ids=["vp", "subvp", "ve"])
@pytest.mark.parametrize(
    "predictor", ["euler_maruyama", "reverse_diffusion", "ancestral", "probability_flow"]
)
def test_predictors_converge_with_order_one(sde, predictor):
    if predictor == "ancestral" and sde == SubVP():
        pytest.skip("has no such chain")
    errors = []
    for n in (100, 400):
        mean, deviation = affine(sde, n, predictor=predictor)
        errors.append(abs(mean - MEAN) + abs(deviation - DEVIATION))
    assert errors[1] < 0.05
    assert math.log(errors[0] / errors[1], 4) == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE(0.01, 20)], ids=["vp", "subvp", "ve"])
@pytest.mark.parametrize("corrector", ["langevin", "annealed"])
def test_correctors_keep_the_distribution(sde, corrector):
    x = run(sde, 150, corrector=corrector, corrections=2)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(x.std()) == pytest.approx(DEVIATION, abs=0.03)


def test_a_corrector_mends_what_a_coarse_predictor_leaves():
    off = [abs(float(run(VE(0.01, 20), 40, corrector=c).std()) - DEVIATION) for c in
           ("none", "langevin")]  # fmt: skip
    assert off[1] < off[0] / 2


@pytest.mark.parametrize("corrector", ["langevin", "annealed"])
def test_an_image_is_the_same_alone_and_in_a_batch(corrector):
    draws = torch.randn(3, 20, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1))

    def image(batch: slice) -> Tensor:
        z = iter(draws.transpose(0, 1)[:, batch].flatten(1, 2))
        sde = VP(0.1, 5.0)
        options = {"n": 6, "corrector": corrector}
        *_, last = predictor_corrector(network("vp"), next(z), sde, lambda: next(z), **options)
        return last.x

    draws = draws[:, :, :1]  # (3 images, 20 draws, 1, C, H, W)
    assert torch.allclose(image(slice(0, 3))[1:2], image(slice(1, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"predictor": "heun"}, "unknown predictor 'heun'; known ones are: euler_maruyama"),
        ({"corrector": "mala"}, "unknown corrector 'mala'; known ones are: langevin"),
        ({"n": 0}, "at least 1"),
        ({"eps": 0.0}, "between 0 and 1"),
    ],
)
def test_refuses(options, says):
    with pytest.raises(SuffuseError, match=says):
        next(predictor_corrector(posterior, torch.zeros(1, 1, 2, 2), VP(), None, **options))


def test_sub_vp_has_no_ancestral_step():
    x = torch.zeros(1, 1, 2, 2)
    steps = predictor_corrector(
        posterior, x, SubVP(), torch.zeros_like, predictor="ancestral", corrector="none"
    )
    with pytest.raises(SuffuseError, match="is for VP and VE"):
        next(steps)
