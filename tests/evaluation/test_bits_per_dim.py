"""Bits per dimension of a data set, against the bound of one batch and the exact probabilities."""

import math

import numpy as np
import pytest
import torch
from normal_score import normal
from scipy.stats import norm

from suffuse.data.stream import Broken
from suffuse.diffusion.bound import bits_per_dim
from suffuse.diffusion.guidance import bind
from suffuse.diffusion.noise import Noise
from suffuse.errors import SuffuseError
from suffuse.evaluation.likelihood import (
    evaluate_exact_likelihood,
    evaluate_likelihood,
    held_out_digits,
)
from suffuse.evaluation.pictures import Given
from suffuse.networks.families import initialise
from suffuse.networks.pixel import DDPMConfig, ddpm
from suffuse.systems.ddpm import DDPM
from suffuse.systems.generate import pixels
from suffuse.weights.parts import Info
from suffuse.weights.pixel import PixelModel

CONFIG = DDPMConfig(
    in_channels=1,
    out_channels=1,
    channels=(8, 8),
    blocks=1,
    attends=(False, False),
    heads=(1, 1),
    groups=4,
    mid_attention=False,
)


def system(size=(8, 8)):
    net = initialise(ddpm(CONFIG)).eval()  # its answer is 0
    scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": 50, "beta_end": 0.3}
    return DDPM(PixelModel(net, CONFIG, Info("tiny", "test"), scheduler=scheduler, size=size))


def test_batches_make_no_difference_and_the_parts_are_the_bounds():
    tiny, given = system(), held_out_digits(3)
    found = evaluate_likelihood(tiny, given, batch=2, seed=5)
    whole = evaluate_likelihood(tiny, given, batch=3, seed=5)
    assert found.total == pytest.approx(whole.total, rel=1e-5)
    assert found.error == pytest.approx(whole.error, rel=1e-4)

    x0 = pixels(next(given.batches(3)), 1)
    cond = tiny.cond(torch.full((3,), -1))
    noise = Noise([5, 6, 7], (1, 8, 8))
    bits = bits_per_dim(bind(tiny.unet, cond), tiny.reverse(1.0), x0, noise)
    assert found.total == pytest.approx(bits.total.mean().item(), rel=1e-5)
    assert found.prior == pytest.approx(bits.prior.mean().item(), rel=1e-5)
    assert found.decoder == pytest.approx(bits.vb[:, 0].mean().item(), rel=1e-5)
    assert found.transitions == pytest.approx(bits.vb[:, 1:].sum(1).mean().item(), rel=1e-5)
    assert (found.count, found.steps) == (3, 50)
    # Whatever it says of them, it cannot be more than 256 greys take by the worst code there is.
    assert found.total > 0 and found.decoder < -math.log2(1e-12)


def test_a_respaced_chain_and_pictures_of_another_size():
    assert evaluate_likelihood(system(), held_out_digits(1), respacing="10").steps == 10
    with pytest.raises(SuffuseError, match="the pictures are 8x8 and the model's 32x16"):
        evaluate_likelihood(system((16, 32)), held_out_digits(1))
    nothing = Given(lambda size: iter(()), 0, {}, Broken())
    with pytest.raises(SuffuseError, match="none of the pictures can be read"):
        evaluate_likelihood(system(), nothing)
    assert np.isnan(evaluate_likelihood(system(), held_out_digits(1), respacing="2").error)


# ---- the exact likelihood of a score SDE -------------------------------------------------------


def test_exact_bits_of_digits_under_a_normal_distribution():
    """Minus the logarithm of the grey levels' probabilities, whatever the batch."""
    given, tiny_sde = held_out_digits(3), normal("SubVp", -0.3, 0.7, image=1)
    found = evaluate_exact_likelihood(tiny_sde, given, batch=2, seed=5)
    whole = evaluate_exact_likelihood(tiny_sde, given, batch=3, seed=5)
    assert found.total == pytest.approx(whole.total, abs=1e-3)
    share = np.diff(norm(-0.3, 0.7).cdf(np.linspace(-1, 1, 257)))
    levels = next(given.batches(3))[..., 0]  # three equal channels
    bits = -np.log2(share)[levels].mean((1, 2))
    assert found.total == pytest.approx(bits.mean(), abs=5e-3)
    assert found.error == pytest.approx(bits.std(ddof=1) / 3**0.5, rel=0.02)
    with pytest.raises(SuffuseError, match="the pictures are 8x8 and the model's 16x16"):
        evaluate_exact_likelihood(normal("Vp", 0, 1, image=1, size=16), given)
