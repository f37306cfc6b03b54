"""Stage one: its loss, its start and its gradients."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import special_ortho_group
from torch.nn.functional import pixel_unshuffle

from suffuse.data.emoji import World
from suffuse.data.stream import EmojiStream
from suffuse.networks.autoencoder import AutoencoderConfig, AutoencoderKL
from suffuse.networks.discriminator import DiscriminatorConfig
from suffuse.networks.perceptual import Perceptual, Vgg, style
from suffuse.training.autoencoder import (
    AutoencoderStage,
    start_from_components,
    to_pictures,
    to_tensor,
    unit_channels,
)
from suffuse.training.loop import train
from suffuse.training.plan import Plan
from suffuse.training.reconstruction import Losses, laplacian_loss

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
    assert laplacian_loss(a[..., :25, :19], b[..., :25, :19]).isfinite()  # sides may be odd
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


SMALL = AutoencoderConfig(channels=(8, 16), blocks=1, groups=4, patch=8, latent=3)
EVERY = Losses(
    bands=0.25,
    perceptual=1.0,
    style=1.0,
    logvar=0.0,
    adversarial=0.5,
    start=3,
    discriminator=DiscriminatorConfig(width=4, layers=2),
)


def stage(config: AutoencoderConfig = SMALL, losses: Losses = EVERY, **options) -> AutoencoderStage:
    torch.manual_seed(1)
    network = Perceptual(Vgg((4, 4, 8, 8, 8))) if losses.compares else None
    stream = EmojiStream(World(objects=4))
    return AutoencoderStage(config, stream, losses, perceptual=network, **options)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("codes", [0, 16])
@pytest.mark.parametrize(
    "term", ["l1", "l2", "bands", "perceptual", "style", "adversarial", "regular"]
)
def test_every_term_reaches_the_encoder(term, codes):
    """Each alone, through decoder and latent, down to the first layer that sees the picture."""
    losses = replace(EVERY, pixels="l2" if term == "l2" else "l1")
    trained = stage(replace(SMALL, codes=codes), losses)
    images = trained.batch(0, 2, seed=0).images
    image, regular, _ = trained.reconstruct(images, generator())
    terms = trained.critics.terms(image, images)
    if term == "adversarial":
        nll = trained.critics.nll(image, terms)
        terms[term] = trained.critics.persuade(image, nll, trained.net.last_layer)[0]
    (regular if term == "regular" else terms[term]).backward()
    encoder = trained.net.encoder
    for layer in (encoder.stem, encoder.head.conv):
        assert layer.weight.grad.isfinite().all()
        assert layer.weight.grad.abs().max() > 0
    assert (encoder.stem.weight.grad != 0).float().mean() > 0.99
    # The codebook learns from its own loss alone, the discriminator from no term of this group.
    if codes:
        moved = trained.net.quantizer.codes.grad
        assert (moved is not None and moved.abs().max() > 0) == (term == "regular")
    assert all(w.grad is None for w in trained.critics.discriminator.parameters())


@pytest.mark.parametrize("config", [SMALL, TINY, replace(SMALL, codes=16)])
def test_the_whole_loss_reaches_every_weight(config):
    trained = stage(config, replace(EVERY, start=0))
    groups = trained.groups()
    assert {id(w) for ws in groups.values() for w in ws} == {
        id(w) for w in trained.nets.parameters()
    }
    batch = trained.batch(0, 2, seed=0)
    for name, weights in groups.items():
        loss, numbers = trained.loss(batch, generator(), name)
        loss.backward()
        assert all(w.grad is not None and w.grad.isfinite().all() for w in weights)
        for other in groups.keys() - {name}:
            assert all(w.grad is None for w in groups[other])
        trained.nets.zero_grad()
        assert all(isinstance(value, float) for value in numbers.values())


def test_the_discriminator_waits_for_its_step():
    trained = stage()
    for step, active in ((2, False), (3, True)):
        batch = trained.batch(step, 2, seed=0)
        numbers = trained.loss(batch, generator())[1]
        assert ("weight" in numbers) == active
        loss, numbers = trained.loss(batch, generator(), "discriminator")
        assert loss.requires_grad == active and bool(numbers) == active
    assert list(stage(losses=Losses()).groups()) == ["nets"]


def test_a_batch_in_parts_is_judged_as_well():
    """Where the pictures that the first group made are gone, they are made again."""
    trained = stage()
    batch = trained.batch(3, 2, seed=0)
    trained.loss(batch, generator())
    at_hand = trained.loss(batch, generator(), "discriminator")[0]
    again = trained.loss(batch, generator(), "discriminator")[0]
    assert trained.made is None
    assert torch.allclose(again, at_hand, rtol=1e-5)


def test_loss_of_the_emoji_preset():
    trained = stage(TINY, Losses(kl=1e-3, bands=0.25))
    batch = trained.batch(0, 2, seed=0)
    loss, numbers = trained.loss(batch, generator())
    parts = numbers["l1"] + 0.25 * numbers["bands"] + 1e-3 * numbers["kl"]
    assert loss.item() == pytest.approx(parts, rel=1e-5)
    assert list(trained.nets) == ["autoencoder"]
    with torch.no_grad():
        latent = trained.net.encode(batch.images)
        noise = torch.randn(latent.mean.shape, generator=generator())
        image = trained.net.decode(latent.sample(noise))
    assert numbers["l1"] == pytest.approx((image - batch.images).abs().mean().item(), rel=1e-5)


def test_rows_are_a_share_of_the_batch():
    trained = stage(losses=Losses())
    whole = trained.batch(3, 4, seed=5)
    part = trained.batch(3, 4, seed=5, rows=slice(1, 3))
    assert torch.equal(part.images, whole.images[1:3]) and part.step == whole.step == 3


@pytest.mark.parametrize("average", [False, True])
def test_codes_learn(average):
    """A few steps on one batch: the loss falls, and codes come into use."""
    losses = Losses(bands=0.25)
    trained = stage(replace(SMALL, codes=32), losses, average=average)
    batch = trained.batch(0, 2, seed=0)
    weights = [w for w in trained.groups()["nets"] if w.requires_grad]
    assert any(w is trained.net.quantizer.codes for w in weights) != average
    optimizer = torch.optim.AdamW(weights, lr=3e-3)
    history = []
    for step in range(25):
        loss, numbers = trained.loss(batch, generator(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(numbers)
    assert history[-1]["l1"] < 0.7 * history[0]["l1"]
    assert history[-1]["perplexity"] > 1.5
    assert {"codebook", "perplexity", "alive", "psnr"} <= set(numbers)
    state = trained.nets.state_dict()
    assert any(name.endswith("usage") for name in state)


@pytest.mark.parametrize("average", [False, True])
def test_a_run_that_was_stopped_is_the_same_run(average, tmp_path):
    """Both optimizers, the codes' averages, the discriminator's statistics: nothing is lost."""
    plan = Plan(steps=4, batch=2, warmup=1, save_every=2, sample_every=9, log_every=9)
    losses = replace(EVERY, start=1)

    def fresh() -> AutoencoderStage:
        return stage(replace(SMALL, codes=16), losses, average=average)

    whole = fresh()
    train(whole, plan, tmp_path / "whole")
    stopped, batch = fresh(), AutoencoderStage.batch

    def fail(step: int, *rest: Any) -> Any:
        if step == 2:
            raise RuntimeError("the power fails")
        return batch(stopped, step, *rest)

    stopped.batch = fail
    with pytest.raises(RuntimeError, match="power"):
        train(stopped, plan, tmp_path / "parts")
    resumed = fresh()
    train(resumed, plan, tmp_path / "parts", resume=True)
    assert len(whole.nets.state_dict()) > 50
    for name, want in whole.nets.state_dict().items():
        assert torch.equal(resumed.nets.state_dict()[name], want), name


def test_samples_are_drawn(tmp_path):
    for codes in (0, 8):
        trained = stage(replace(SMALL, codes=codes), Losses())
        trained.sample(trained.nets, tmp_path / "sheet.png")
        assert Image.open(tmp_path / "sheet.png").size == (8 * 128, 2 * 128)


def test_kl_is_torchs():
    trained = stage(losses=Losses())
    latent = trained.net.encode(trained.batch(0, 3, seed=0).images)
    ours = torch.distributions.Normal(latent.mean, (0.5 * latent.logvar).exp())
    theirs = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(latent.kl(), theirs.sum((1, 2, 3)), rtol=1e-4)


def test_a_decoder_alone_learns_and_latents_stay():
    losses = Losses(bands=0.25)
    alone = AutoencoderStage(TINY, EmojiStream(World(objects=4)), losses, noise=0.3)
    assert {*alone.groups()["nets"]} == {*alone.net.decoder.parameters()}
    loss, _ = alone.loss(alone.batch(0, 2, 0), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is None for p in alone.net.encoder.parameters())
    assert alone.net.decoder.head.conv.weight.grad.abs().max() > 0
    images, grey = alone.batch(0, 2, 0).images, torch.Generator().manual_seed(0)
    noisy, regular, _ = alone.reconstruct(images, grey)
    assert regular == 0 and not torch.equal(noisy, alone.net.decode(alone.net.encode(images).mode))
    with pytest.raises(ValueError, match="Gaussian"):
        AutoencoderStage(replace(SMALL, codes=8), EmojiStream(World(objects=4)), losses, noise=0.3)


@pytest.mark.parametrize("noise", [None, 0.3])
def test_the_score_is_the_distance_of_held_out_pictures(noise):
    world = World(objects=6)
    losses = replace(EVERY, reduction="sum", start=0)
    trained = stage(losses=losses, held_out=EmojiStream(world, split="test"), noise=noise)
    with torch.no_grad():
        trained.critics.logvar[0].fill_(2.0)
    score, state = trained.score(trained.nets), torch.get_rng_state()
    assert trained.score(trained.nets) == score and torch.equal(torch.get_rng_state(), state)
    images = to_tensor(world.batch(0, 32, "en", 1, "test")[0])
    with torch.no_grad():
        latent = trained.net.encode(images).mode
        if noise:
            drawn = [torch.randn(8, *latent.shape[1:], generator=g) for g in [generator()] * 4]
            latent = latent + 0.15 * torch.cat(drawn)
        again = trained.net.decode(latent)
        maps = trained.critics.perceptual.maps(again, images)
        want = (again - images).abs().mean() + 0.25 * laplacian_loss(again, images)
        want += trained.critics.perceptual.distance(*maps).mean() + style(*maps).mean()
    assert score == pytest.approx(want.item(), rel=1e-4)
    assert stage(losses=losses).score(trained.nets) is None


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
