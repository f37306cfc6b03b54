"""The autoencoder against diffusers' with random weights, and its options of our own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL as Theirs
from tiny import VAE, deviation, randomise
from torch import Tensor
from torch.nn.functional import pixel_shuffle

from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import (
    AutoencoderConfig,
    AutoencoderKL,
    AutoencoderVQ,
    DiagonalGaussian,
    autoencoder,
)
from suffuse.weights.mapping import export
from suffuse.weights.maps.diffusers_vae import DIFFUSERS_VAE
from suffuse.weights.vae_config import autoencoder_config

LIKE_1 = {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 2,
}
LIKE_3 = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(changes: dict[str, Any]) -> tuple[AutoencoderKL, Theirs]:
    """The same autoencoder twice: ours and diffusers'."""
    theirs = Theirs(**{**VAE, **changes}).eval()
    randomise(theirs, 5)
    ours = AutoencoderKL(autoencoder_config(json.loads(theirs.to_json_string()), "test")).eval()
    weights = theirs.state_dict()
    for name, parameter in ours.named_parameters():
        source, op = next(s for s in DIFFUSERS_VAE.spellings(name) if s[0] in weights)
        parameter.data = op.read(weights.pop(source))
    assert not weights
    return ours, theirs


@pytest.mark.parametrize("changes", [{}, LIKE_1, LIKE_3])
@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
@torch.no_grad()
def test_agrees_with_diffusers(changes, size):
    ours, theirs = pair(changes)
    image = normal(2, 3, *size).clamp(-1, 1)
    posterior, want = ours.encode(image), theirs.encode(image).latent_dist
    assert deviation(posterior.mean, want.mean) < 1e-5
    assert deviation(posterior.logvar, want.logvar) < 1e-5
    z = normal(*want.mean.shape, seed=1)
    assert deviation(posterior.sample(z), want.mean + want.std * z) < 1e-5
    assert deviation(posterior.kl(), want.kl()) < 1e-5
    assert deviation(ours.decode(z), theirs.decode(z).sample) < 1e-5


@torch.no_grad()
def test_latents_of_odd_sizes(size=(5, 7)):
    ours, theirs = pair(LIKE_1)
    z = normal(1, 4, *size)
    assert deviation(ours.decode(z), theirs.decode(z).sample) < 1e-5
    image = normal(1, 3, 4 * size[0], 4 * size[1])
    assert deviation(ours.encode(image).mode, theirs.encode(image).latent_dist.mode()) < 1e-5


@torch.no_grad()
def test_memory_format_does_not_matter():
    net, _ = pair({})
    z = normal(1, 4, 6, 6)
    swapped = z.contiguous(memory_format=torch.channels_last)
    assert deviation(net.decode(swapped), net.decode(z)) < 1e-5


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_and_shortcut(patch, shortcut):
    config = AutoencoderConfig(
        channels=(8, 16), blocks=1, groups=4, patch=patch, mid_attention=False, shortcut=shortcut
    )
    net = AutoencoderKL(config)
    f = config.factor
    assert f == 2 * patch
    image = normal(2, 3, 2 * f, 3 * f)
    posterior = net.encode(image)
    assert posterior.mean.shape == posterior.logvar.shape == (2, 4, 2, 3)
    out = net.decode(posterior.sample(normal(2, 4, 2, 3, seed=1)))
    assert out.shape == image.shape
    ((out - image).square().mean() + 1e-3 * posterior.kl().mean()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_a_decoder_of_its_own():
    """It is diffusers' decoder of those levels, the picture unfolded from its smaller patch."""
    config = AutoencoderConfig(
        channels=(32,), blocks=1, groups=8, patch=8, quant=False, decoder=(8, 16, 32)
    )
    ours = AutoencoderKL(config).eval()
    randomise(ours, 5)
    theirs = Theirs(
        in_channels=12,
        out_channels=12,
        block_out_channels=(8, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    weights = {n: w for n, w in export(ours, DIFFUSERS_VAE, torch.float32).items() if "dec" in n}
    assert not theirs.load_state_dict(weights, strict=False).unexpected_keys
    z = normal(2, 4, 3, 5)
    assert deviation(ours.decode(z), pixel_shuffle(theirs.decode(z).sample, 2)) < 1e-5
    assert ours.encode(ours.decode(z)).mode.shape == z.shape


def test_a_decoder_of_too_many_levels():
    with pytest.raises(SuffuseError, match="3 levels has no f = 2"):
        AutoencoderKL(AutoencoderConfig(channels=(8, 8), groups=4, decoder=(8, 8, 8)))


@pytest.mark.parametrize("codes", [0, 9])
@pytest.mark.parametrize("halvings", range(6))
@torch.no_grad()
def test_every_factor(halvings, codes):
    config = AutoencoderConfig(
        channels=(4,) * (halvings + 1), blocks=1, groups=2, latent=3, codes=codes
    )
    net = autoencoder(config)
    assert isinstance(net, AutoencoderVQ if codes else AutoencoderKL)
    assert config.factor == 2**halvings
    image = normal(1, 3, 32, 64)
    z = net.encode(image).mode
    assert z.shape == (1, 3, 32 >> halvings, 64 >> halvings)
    assert net.decode(z).shape == image.shape


def test_attention_is_named_by_resolution():
    """As in CompVis' kl-f16: 256 pixels, attention at 16."""
    f16 = AutoencoderConfig(channels=(128, 128, 256, 256, 512), latent=16, attention=(16,))
    assert f16.attends == (False, False, False, False, True)
    assert f16.attending((False, True, False, False, True)).attention == (128, 16)
    assert replace(f16, resolution=64, attention=(16, 4)).attends == (0, 0, 1, 0, 1)
    assert replace(f16, patch=2, attention=(8,)).attends == f16.attends
    with torch.device("meta"):
        net = AutoencoderKL(f16)
    attentions = [[len(rung.attn) for rung in half] for half in (net.encoder.down, net.decoder.up)]
    assert attentions == [[0, 0, 0, 0, 2], [3, 0, 0, 0, 0]]


def test_codes_come_with_convolutions_around_them():
    with pytest.raises(ValueError, match="quant"):
        autoencoder(AutoencoderConfig(codes=4, quant=False))


def test_log_variance_is_clamped():
    moments = torch.cat((torch.zeros(1, 2, 1, 1), torch.tensor([-99.0, 99.0]).view(1, 2, 1, 1)), 1)
    assert DiagonalGaussian.of(moments).logvar.flatten().tolist() == [-30.0, 20.0]
