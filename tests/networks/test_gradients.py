"""Gradients of convolutions against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import conv2d

from suffuse.networks import gradients
from suffuse.networks.gradients import TrainedConv2d, for_training, weight_gradient
from suffuse.networks.packing import pack


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9),
    st.integers(1, 5000), st.booleans(),
)  # fmt: skip
def test_the_weights_gradient_is_torchs(b, c, o, h, w, limit, last) -> None:
    """Whatever the shape, the layout and how many lines fit at a time."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(b, n, h, w, generator=generator, dtype=torch.float64) for n in (c, o))
    if last:
        x, grad = (v.contiguous(memory_format=torch.channels_last) for v in (x, grad))
    weight = torch.zeros(o, c, 3, 3, dtype=torch.float64, requires_grad=True)
    conv2d(x, weight, padding=1).backward(grad)
    before, gradients.LIMIT = gradients.LIMIT, limit
    try:
        found = weight_gradient(grad, x)
    finally:
        gradients.LIMIT = before
    torch.testing.assert_close(found, weight.grad, rtol=1e-12, atol=1e-12)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 256, 3, padding=1),  # too narrow to gain
        nn.Conv2d(256, 256, 3, padding=1),
        nn.Conv2d(256, 256, 3, padding=1, bias=False),
        nn.Conv2d(256, 256, 3, stride=2, padding=1),
        nn.Conv2d(256, 256, 1),
    )


def test_a_network_learns_the_same() -> None:
    plain = network()
    trained = copy.deepcopy(plain)
    for_training(trained)
    changed = [type(part) is TrainedConv2d for part in trained]
    assert changed == [False, True, True, False, False]
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    found = []
    for net in (plain, trained):
        given = x.clone().requires_grad_()
        net(given).square().sum().backward()
        found.append([given.grad, *(p.grad for p in net.parameters())])
    for mine, theirs in zip(*found):
        assert (mine - theirs).abs().max() <= 2e-6 * theirs.abs().max()
    assert list(trained.state_dict()) == list(plain.state_dict())


def test_a_frozen_layer_still_passes_gradients_on() -> None:
    net = network().requires_grad_(False)
    for_training(net)
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    net(x).sum().backward()
    assert x.grad is not None and net[1].weight.grad is None


def test_second_derivatives_are_refused_instead_of_wrong() -> None:
    net = nn.Conv2d(256, 256, 3, padding=1)
    for_training(net)
    x = torch.randn(1, 256, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_it_is_packed_for_inference_like_any_other() -> None:
    net = network()
    for_training(net)
    x = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(pack(net)(x), net(x), rtol=1e-5, atol=1e-5)
    assert not any(type(part) is TrainedConv2d for part in pack(net).modules())
