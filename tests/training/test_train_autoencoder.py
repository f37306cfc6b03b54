"""Stage one: its loss, its start and its gradients."""

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
