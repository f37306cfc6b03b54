"""Presets of published models have the sizes that were published."""

import pytest
import torch

from suffuse.networks.autoencoder import autoencoder
from suffuse.networks.clip import ClipText
from suffuse.networks.families import stable_diffusion
from suffuse.training.presets import AUTOENCODERS, LATENTS


def _millions(make, config):
    with torch.device("meta"):
        return sum(p.numel() for p in make(config).parameters()) / 1e6


@pytest.mark.parametrize(
    ("name", "factor", "millions"),
    [
        ("ldm-f8", 8, 83.65),  # diffusers' AutoencoderKL of Stable Diffusion 1: 83,653,863
        ("ldm-vq-f4", 4, 55.3),  # 2112.10752, table 18: 55 M
        ("ldm-vq-f8", 8, 67.8),  # table 18: 68 M
    ],
)
def test_autoencoders_have_the_published_sizes(name, factor, millions):
    config = AUTOENCODERS[name].config
    assert config.factor == factor
    assert _millions(autoencoder, config) == pytest.approx(millions, abs=0.6)


def test_every_factor_is_there():
    for f in (4, 8, 16, 32):
        assert AUTOENCODERS[f"ldm-f{f}"].config.factor == f


def test_latent_models_have_the_published_sizes():
    sd1, ldm = LATENTS["sd1"], LATENTS["ldm-f8"]
    assert _millions(stable_diffusion, sd1.unet) == pytest.approx(859.52, abs=0.01)  # diffusers
    assert _millions(ClipText, sd1.text) == pytest.approx(123.06, abs=0.01)  # transformers
    whole = _millions(stable_diffusion, ldm.unet) + _millions(ClipText, ldm.text)
    assert whole == pytest.approx(1541, rel=0.01)  # table 15: 1450; its text attention is narrower


def test_numbers_of_the_bundled_model_stay():
    """Runs are resumed by them."""
    first, second = AUTOENCODERS["emoji"], LATENTS["emoji"]
    assert (first.plan.steps, first.plan.batch, first.plan.lr) == (1000, 16, 1e-3)
    assert (first.losses.kl, first.losses.bands) == (1e-6, 0.25)
    assert (second.plan.steps, second.plan.lr, second.plan.ema) == (8000, 1.2e-3, 0.998)
    assert second.scenes == 24_576 and second.dropout == 0.12
