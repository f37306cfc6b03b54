"""The patch discriminator and its losses against taming-transformers' values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import deviation
from torch import nn

from suffuse.networks.discriminator import (
    ActNorm,
    DiscriminatorConfig,
    PatchDiscriminator,
    adaptive_weight,
    discriminator_loss,
    still,
)

GOLDEN = Path(__file__).parents[1] / "parity" / "taming" / "discriminator"
IO = load_file(GOLDEN / "io.safetensors")


def golden() -> PatchDiscriminator:
    net = PatchDiscriminator(DiscriminatorConfig(width=8))
    net.load_state_dict(torch.load(GOLDEN / "discriminator.pt"))
    return net


@torch.no_grad()
def test_logits_and_losses_agree_with_taming():
    net = golden().eval()
    real, fake = net(IO["in.x"]), net(IO["in.fake"])
    assert deviation(real, IO["out.eval"]) < 1e-5
    assert deviation(fake, IO["out.eval_fake"]) < 1e-5
    assert deviation(discriminator_loss(real, fake, "hinge"), IO["out.hinge"]) < 1e-5
    assert deviation(discriminator_loss(real, fake, "vanilla"), IO["out.vanilla"]) < 1e-5


@torch.no_grad()
def test_training_pass_agrees_with_taming():
    net = golden().train()
    assert deviation(net(IO["in.x"]), IO["out.train"]) < 1e-5
    state = net.state_dict()
    prefix = "out.after_step.main_"
    for name, want in IO.items():
        if name.startswith(prefix):
            place, buffer = name.removeprefix(prefix).split("_", 1)
            got = state[f"main.{place}.{buffer}"]
            assert got == want if got.ndim == 0 else deviation(got, want) < 1e-5


@torch.no_grad()
def test_actnorm_agrees_with_taming():
    """The first batch sets it; what is loaded after that is not set again."""
    config = DiscriminatorConfig(width=8, layers=2, actnorm=True)
    state = torch.load(GOLDEN / "actnorm.pt")
    loaded = PatchDiscriminator(config)
    loaded.load_state_dict(state)
    assert deviation(loaded(IO["in.fake"]), IO["out.actnorm_then"]) < 1e-5
    fresh = PatchDiscriminator(config)
    fresh.load_state_dict(
        {k: torch.zeros_like(v) if k.endswith("initialized") else v for k, v in state.items()}
    )
    assert deviation(fresh(IO["in.x"]), IO["out.actnorm_first"]) < 1e-5
    assert deviation(fresh(IO["in.fake"]), IO["out.actnorm_then"]) < 1e-5
    for name, weight in fresh.state_dict().items():
        assert torch.allclose(weight, state[name], atol=1e-5), name


def test_actnorm_makes_unit_variance():
    layer, x = ActNorm(5), 3 * torch.randn(4, 5, 6, 6) + 2
    y = layer.train()(x).transpose(0, 1).flatten(1)
    assert torch.allclose(y.mean(1), torch.zeros(5), atol=1e-5)
    assert torch.allclose(y.std(1), torch.ones(5), atol=1e-4)
    assert torch.equal(layer.eval()(x), layer.train()(x))


def test_a_patch_sees_seventy_pixels():
    """The receptive field of pix2pix' discriminator, by the gradient of one logit."""
    torch.manual_seed(0)
    net = PatchDiscriminator(DiscriminatorConfig(width=4)).eval()
    image = torch.randn(1, 3, 128, 128, requires_grad=True)
    logits = net(image)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    seen = image.grad[0].abs().sum(0).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [70, 70]


def test_first_weights():
    torch.manual_seed(0)
    net = PatchDiscriminator(DiscriminatorConfig(width=32))
    conv, norm = net.main[2], net.main[3]
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert conv.weight.std().item() == pytest.approx(0.02, rel=0.05) and conv.bias is None
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.02) and not norm.bias.any()


def test_adaptive_weight_is_the_ratio_of_gradients():
    last = torch.tensor([2.0, 1.0], requires_grad=True)
    nll, adversarial = (3 * last).sum(), 0.5 * last.square().sum()
    want = (2 * 9) ** 0.5 / (5**0.5 + 1e-4)
    assert adaptive_weight(nll, adversarial, last).item() == pytest.approx(want, rel=1e-5)
    assert adaptive_weight(nll * 1e9, adversarial, last) == 1e4
    assert adaptive_weight(0 * nll, adversarial, last) == 0
    assert not adaptive_weight(nll, adversarial, last).requires_grad


def test_still_networks_pass_gradients_and_take_none():
    net, image = golden(), torch.randn(1, 3, 32, 32, requires_grad=True)
    net.main[0].bias.requires_grad_(False)
    with still(net):
        loss = net(image).mean()
    assert net.main[0].weight.requires_grad and not net.main[0].bias.requires_grad
    loss.backward()
    assert image.grad.abs().max() > 0
    assert all(weight.grad is None for weight in net.parameters())
