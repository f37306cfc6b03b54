"""Densities of timesteps against SciPy's distributions and diffusers' draws."""

import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from suffuse.diffusion.timesteps import (
    by_probability,
    logit_normal,
    second_moment,
    spread,
    to_steps,
)


def uniform(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


@given(count=st.integers(1, 64), steps=st.integers(1, 1000), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=50)
def test_spread_places_fall_into_every_share_once(count, steps, seed):
    places = spread(uniform(count, seed))
    assert torch.equal((places * count).floor().long(), torch.arange(count))
    t = to_steps(places, steps)
    assert t.dtype == torch.int64 and t.min() >= 0 and t.max() < steps


def test_spread_places_are_uniform():
    drawn = torch.cat([spread(uniform(16, seed)) for seed in range(500)])
    assert stats.kstest(drawn.numpy(), "uniform").pvalue > 0.01
    # One batch's mean varies far less than that of independent draws, whose deviation is 0.072.
    assert drawn.view(500, 16).mean(1).std() < 0.01


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.5, 0.6), (-1.0, 1.5)])
def test_logit_normal_is_that_of_scipy_and_of_diffusers(mean, deviation):
    drawn = logit_normal(uniform(20_000), mean, deviation)
    assert stats.kstest(drawn.logit().numpy(), stats.norm(mean, deviation).cdf).pvalue > 0.01
    theirs = compute_density_for_timestep_sampling(
        "logit_normal",
        20_000,
        logit_mean=mean,
        logit_std=deviation,
        generator=torch.Generator().manual_seed(1),
    )
    assert stats.ks_2samp(drawn.numpy(), theirs.numpy()).pvalue > 0.01


def test_the_ends_of_the_range_stay_finite():
    assert logit_normal(torch.tensor([0.0, 1.0])).isfinite().all()
    assert to_steps(torch.tensor([0.0, 1.0]), 10).tolist() == [0, 9]


def test_drawn_by_probability_and_unbiased():
    p = torch.tensor([0.5, 0.25, 0.0, 0.25])
    places = spread(uniform(4096))
    t, weight = by_probability(places, p)
    counts = torch.bincount(t, minlength=4)
    assert (counts - 4096 * p).abs().max() <= 1
    loss = torch.tensor([1.0, 2.0, 5.0, 7.0])
    # Step 2 is never drawn; of the others the weighted mean is the uniform one.
    assert (weight * loss[t]).mean().item() == pytest.approx((1 + 2 + 7) / 4, rel=1e-2)


def test_second_moment_prefers_what_varies():
    """The closed form: root mean squares 1, 5 and 0 of the losses, and a floor."""
    losses = torch.tensor([[1.0, 1.0], [1.0, 7.0], [0.0, 0.0]])
    p = second_moment(losses, floor=0.03)
    want = torch.tensor([1 / 6 * 0.97 + 0.01, 5 / 6 * 0.97 + 0.01, 0.01])
    torch.testing.assert_close(p.float(), want)
    assert p.sum().item() == pytest.approx(1)
