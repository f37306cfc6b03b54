"""Stage one: its loss, its start and its gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import special_ortho_group
from torch.nn.functional import pixel_unshuffle

from suffuse.data.emoji import World
from suffuse.networks.autoencoder import AutoencoderConfig, AutoencoderKL
from suffuse.training.autoencoder import (
    AutoencoderStage,
    laplacian_loss,
    start_from_components,
    to_pictures,
    to_tensor,
    unit_channels,
)

TINY = AutoencoderConfig(channels=(32,), blocks=1, patch=8, latent=6, quant=False, shortcut=True)


def test_pictures_survive_the_way_to_tensors_and_back():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    tensor = to_tensor(pictures)
    assert tensor.shape == (2, 3, 16, 24) and tensor.min() >= -1 and tensor.max() <= 1
    assert np.array_equal(to_pictures(tensor), pictures)


def test_pyramid_bands_add_up_to_a_norm():
    a, b = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    assert laplacian_loss(a, a) == 0
    assert torch.allclose(laplacian_loss(a, b), laplacian_loss(b, a))
    # A constant difference lies in the coarsest band alone, with weight 2^levels.
    assert torch.allclose(laplacian_loss(a + 0.5, a, levels=3), torch.tensor(4.0), atol=1e-5)


def test_components_start_is_the_best_linear_autoencoder():
    """Against NumPy's SVD of the same cells: no linear code of six numbers has a smaller error."""
    torch.manual_seed(0)
    images = to_tensor(World(objects=4).batch(0, 12)[0])
    net = AutoencoderKL(TINY)
    start_from_components(net, images)
    with torch.no_grad():
        latent = net.encode(images)
        error = (net.decode(latent.mode) - images).square().mean().item()
    cells = pixel_unshuffle(images, 8).permute(0, 2, 3, 1).reshape(-1, 192).double().numpy()
    spectrum = np.linalg.svd(cells - cells.mean(0), compute_uv=False) ** 2 / len(cells)
    assert error == pytest.approx(spectrum[6:].sum() / 192, rel=1e-3)
    assert torch.allclose(latent.logvar, torch.full_like(latent.logvar, -6.0))
    # A random rotation of as many directions does worse, so the choice of basis is visible.
    basis = special_ortho_group.rvs(192, random_state=0)[:6]
    centred = cells - cells.mean(0)
    assert ((centred - centred @ basis.T @ basis) ** 2).mean() > 2 * error


@pytest.mark.parametrize("term", ["l1", "bands", "kl"])
def test_every_term_reaches_the_encoder(term):
    stage = AutoencoderStage(TINY, World(objects=4), kl=1.0, perceptual=1.0)
    batch = stage.batch(0, 2, seed=0)
    latent = stage.net.encode(batch)
    image = stage.net.decode(latent.sample(torch.randn_like(latent.mean)))
    losses = {
        "l1": (image - batch).abs().mean(),
        "bands": laplacian_loss(image, batch),
        "kl": latent.kl().mean(),
    }
    losses[term].backward()
    head = stage.net.encoder.head.conv.weight.grad
    skip = stage.net.encoder.skip.weight.grad
    assert skip.abs().max() > 0
    assert head is not None and head.isfinite().all()


def test_kl_is_torchs():
    stage = AutoencoderStage(TINY, World(objects=4))
    latent = stage.net.encode(stage.batch(0, 3, seed=0))
    ours = torch.distributions.Normal(latent.mean, (0.5 * latent.logvar).exp())
    theirs = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(latent.kl(), theirs.sum((1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("shortcut", [True, False])
def test_unit_channels_change_the_latents_and_nothing_else(shortcut):
    torch.manual_seed(0)
    net = AutoencoderKL(replace(TINY, shortcut=shortcut))
    images = to_tensor(World(objects=6).batch(0, 32, seed=0)[0])
    if shortcut:
        start_from_components(net, images)
    same = unit_channels(net, images)
    with torch.no_grad():
        before, after = net.encode(images), same.encode(images)
        assert (before.mode.std((0, 2, 3)) - 1).abs().max() > 0.1
        assert torch.allclose(after.mode.std((0, 2, 3)), torch.ones(6), atol=1e-4)
        assert torch.allclose(same.decode(after.mode), net.decode(before.mode), atol=1e-4)
        # One draw of noise gives one picture, so the variances were carried over too.
        noise = torch.randn(before.mean.shape, generator=torch.Generator().manual_seed(0))
        drawn = (net.decode(before.sample(noise)), same.decode(after.sample(noise)))
        assert torch.allclose(*drawn, atol=1e-4)


def test_unit_channels_refuse_what_they_would_spoil():
    with pytest.raises(ValueError, match="quant"):
        unit_channels(AutoencoderKL(replace(TINY, quant=True)), torch.zeros(1, 3, 8, 8))
