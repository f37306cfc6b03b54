"""The perceptual distance: gradients, weights, style, and our own feature network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from suffuse.networks.perceptual import (
    FeatureConfig,
    FeatureNet,
    Perceptual,
    Vgg,
    gram,
    style,
    unit,
)

WIDTHS = (4, 4, 8, 8, 8)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(kind: str) -> Perceptual:
    torch.manual_seed(0)
    if kind == "vgg":
        return Perceptual(Vgg(WIDTHS))
    return Perceptual(FeatureNet(FeatureConfig(5, (8, 8, 16), groups=4)))


@pytest.mark.parametrize("kind", ["vgg", "own"])
def test_distance(kind):
    net, a, b = small(kind), normal(2, 3, 32, 48), normal(2, 3, 32, 48, seed=1)
    assert net(a, b).shape == (2,) and (net(a, b) > 0).all()
    assert torch.allclose(net(a, b), net(b, a)) and not net(a, a).any()
    near = net(a, a + 0.05 * normal(2, 3, 32, 48, seed=2))
    assert (near < net(a, b)).all()
    assert torch.allclose(net(a[:1], b[:1]), net(a, b)[:1], atol=1e-6)


@pytest.mark.parametrize("kind", ["vgg", "own"])
def test_gradient_reaches_the_picture_and_not_the_network(kind):
    net, target = small(kind), normal(1, 3, 32, 32, seed=1)
    image = normal(1, 3, 32, 32).requires_grad_()
    for term in (Perceptual.distance.__get__(net), style):
        image.grad = None
        ours, theirs = net.maps(image, target)
        assert all(x.requires_grad for x in ours) and not any(x.requires_grad for x in theirs)
        term(ours, theirs).sum().backward()
        assert image.grad.isfinite().all() and (image.grad != 0).float().mean() > 0.9
    assert all(weight.grad is None and not weight.requires_grad for weight in net.parameters())


def test_a_grey_picture_has_finite_gradients():
    """A place where no feature is on has no direction; its slope must not be infinite."""
    net = small("vgg")
    for conv in net.stack.modules():
        if isinstance(conv, torch.nn.Conv2d):
            conv.bias.zero_().sub_(1)
    image = torch.zeros(1, 3, 32, 32, requires_grad=True)
    net(image, torch.ones(1, 3, 32, 32)).sum().backward()
    assert image.grad.isfinite().all()


def test_unit_and_gram_against_torch():
    x = normal(2, 5, 3, 4)
    assert torch.allclose(unit(x), torch.nn.functional.normalize(x, dim=1), atol=1e-6)
    want = torch.einsum("bchw,bdhw->bcd", x, x) / (5 * 3 * 4)
    assert torch.allclose(gram(x), want, atol=1e-6)


def test_style_does_not_mind_where_things_are():
    x = normal(1, 6, 8, 8)
    moved = x.roll((3, 2), (2, 3)).flip(3)
    assert style([x], [moved]) < 1e-9 < style([x], [normal(1, 6, 8, 8, seed=1)])


def test_weights_of_channels_count():
    net, a, b = small("vgg"), normal(1, 3, 32, 32), normal(1, 3, 32, 32, seed=1)
    whole = net(a, b)
    for weight in net.weights:
        weight.mul_(0.5)
    assert torch.allclose(net(a, b), whole / 2)


def test_our_own_network():
    net = FeatureNet(FeatureConfig(7, (8, 16, 24)))
    image = normal(2, 3, 40, 32)
    maps = net.features(image)
    assert [tuple(m.shape) for m in maps] == [(2, 8, 40, 32), (2, 16, 20, 16), (2, 24, 10, 8)]
    assert net.embed(image).shape == (2, 24) and net(image).shape == (2, 7)
    with torch.no_grad():  # where parts work in place, maps that were given out stay as they are
        kept = net.features(image)
        before = [m.clone() for m in kept]
        net.embed(image)
        assert all(torch.equal(x, y) for x, y in zip(kept, before))
    net(image).square().sum().backward()
    assert all(weight.grad is not None for weight in net.parameters())
