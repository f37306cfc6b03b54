"""Packed networks against the ones they were made from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny import deviation, randomise
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from suffuse.diffusion.cond import Cond
from suffuse.networks import packing
from suffuse.networks.autoencoder import AutoencoderConfig, AutoencoderKL
from suffuse.networks.families import SDConfig, stable_diffusion
from suffuse.networks.packing import (
    PackedConv2d,
    PackedLinear,
    PhasedUpsample,
    SplitFeedForward,
    has_layouts,
    pack,
    replace_parts,
)
from suffuse.networks.unet import UNet

CONFIG = SDConfig(
    channels=(16, 32, 32), blocks=1, depth=(1, 1, 0), heads=(2, 2, 2), context=12, groups=8
)
onednn = pytest.mark.skipif(not has_layouts(torch.float32), reason="no oneDNN on this machine")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def net() -> UNet:
    net = stable_diffusion(CONFIG).eval()
    randomise(net, 1)
    return net


@pytest.fixture
def narrow(monkeypatch) -> Iterator[None]:
    """Feed-forward layers in many pieces, which pictures of this size would not need."""
    monkeypatch.setattr(SplitFeedForward, "limit", 3000)
    yield


def answer(net: UNet, *size: int) -> Tensor:
    """One guided step: a picture under two texts."""
    context = net.prepare(Cond(tokens=normal(2, 5, 12, seed=1)))
    return net(normal(1, 4, *size), torch.tensor(321), context)


@pytest.mark.parametrize("layouts", [False, pytest.param(True, marks=onednn)])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_unet_computes_the_same(net, narrow, layouts, mode):
    with mode():
        packed = pack(net, layouts=layouts)
        # Sizes change and come back; some do not double on the way up.
        for size in ((8, 8), (12, 16), (7, 9), (8, 8)):
            assert deviation(answer(packed, *size), answer(net, *size)) < 1e-5


@pytest.mark.parametrize("layouts", [False, pytest.param(True, marks=onednn)])
@torch.inference_mode()
def test_autoencoder_computes_the_same(layouts):
    config = AutoencoderConfig(channels=(16, 32, 32), blocks=1, groups=8, patch=2, shortcut=True)
    net = AutoencoderKL(config).eval()
    randomise(net, 2)
    packed = pack(net, layouts=layouts)
    z, image = normal(1, 4, 3, 5), normal(2, 3, 16, 24)
    assert deviation(packed.decode(z), net.decode(z)) < 1e-5
    assert deviation(packed.encode(image).mean, net.encode(image).mean) < 1e-5


@onednn
@torch.no_grad()
def test_linear_layers_in_onednn_order(net):
    """What bfloat16 gets, in float32: half precision needs processors that tests cannot expect."""
    packed = pack(net)
    replace_parts(packed, {nn.Linear: PackedLinear})
    for size in ((8, 8), (6, 4)):
        assert deviation(answer(packed, *size), answer(net, *size)) < 1e-5


@pytest.mark.skipif(not has_layouts(torch.bfloat16), reason="no bfloat16")
@torch.inference_mode()
def test_bfloat16(net):
    half = stable_diffusion(CONFIG).eval()
    half.load_state_dict(net.state_dict())
    packed = pack(half.to(torch.bfloat16))
    context = packed.prepare(Cond(tokens=normal(2, 5, 12, seed=1).bfloat16()))
    got = packed(normal(1, 4, 8, 8), torch.tensor(321), context)
    assert deviation(got.float(), answer(net, 8, 8)) < 0.05


@torch.no_grad()
def test_the_network_itself_is_left_alone():
    net = stable_diffusion(CONFIG).eval()
    randomise(net, 1)
    kept = {name: weight.clone() for name, weight in net.state_dict().items()}
    answer(pack(net), 8, 8)
    assert net.state_dict().keys() == kept.keys()
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, kept[name]), name
    assert all(parameter.requires_grad for parameter in net.parameters())
    with torch.enable_grad():
        answer(net, 8, 8).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@torch.no_grad()
def test_weights_are_shared_until_they_are_laid_out(net):
    packed = pack(net)
    assert packed.down[0].res[0].norm1.weight is net.down[0].res[0].norm1.weight
    assert packed.stem.weight.data_ptr() == net.stem.weight.data_ptr()
    assert packed.stem.weight.dtype == net.stem.weight.dtype


@onednn
def test_no_gradients_and_no_saving(net):
    packed = pack(net)
    with pytest.raises(RuntimeError, match="no gradients"):
        answer(packed, 8, 8)
    with pytest.raises(RuntimeError, match="cannot be saved"):
        packed.state_dict()


def test_compiling_needs_no_layouts(net):
    packed = pack(net, layouts=False)
    assert not any(isinstance(part, PackedConv2d) for part in packed.modules())
    assert any(isinstance(part, PhasedUpsample) for part in packed.modules())
    assert any(isinstance(part, SplitFeedForward) for part in packed.modules())


@onednn
@pytest.mark.parametrize(
    ("stride", "padding", "kernel"), [(1, 1, 3), (2, 1, 3), (2, 0, 3), (1, 0, 1)]
)
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_every_convolution_we_have(stride, padding, kernel, bias):
    conv = nn.Conv2d(9, 17, kernel, stride=stride, padding=padding, bias=bias)
    packed = PackedConv2d(conv)
    for x in (
        normal(2, 9, 7, 10),
        normal(1, 9, 5, 5),
        normal(2, 9, 7, 10).to(memory_format=torch.channels_last),
    ):
        assert deviation(packed(x), conv(x)) < 1e-5


@torch.no_grad()
def test_phases_are_the_convolution_of_the_doubled_picture():
    weight, x = normal(3, 2, 3, 3), normal(1, 2, 4, 5, seed=1)
    want = conv2d(interpolate(x, scale_factor=2.0), weight, padding=1)
    kernels = packing.phase_kernels(weight)
    assert [tuple(k.shape) for k in kernels] == [(3, 2, 2, 2)] * 4
    for (i, j), kernel in zip([(0, 0), (0, 1), (1, 0), (1, 1)], kernels):
        got = conv2d(x, kernel, padding=1)[:, :, i : i + 4, j : j + 5]
        assert deviation(got, want[:, :, i::2, j::2]) < 1e-5
