"""The U-Net against diffusers' with random weights, and what only ours does."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny import UNET, deviation, randomise
from torch import Tensor

from suffuse.diffusion.cond import Cond
from suffuse.networks.families import SDConfig, initialise, stable_diffusion
from suffuse.networks.unet import UNet
from suffuse.weights.configs import unet_config
from suffuse.weights.maps.diffusers_unet import DIFFUSERS_UNET

LIKE_1 = {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
# Version 2 gives each level its own number of heads and projects with linear layers.
LIKE_2 = {**LIKE_1, "attention_head_dim": (2, 4, 4), "use_linear_projection": True}
DEEP = {"layers_per_block": 2, "transformer_layers_per_block": 2, "out_channels": 8}
DDPM_ORDER = {"flip_sin_to_cos": False, "freq_shift": 1}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(changes: dict[str, Any]) -> tuple[UNet, UNet2DConditionModel]:
    """The same network twice: ours and diffusers'."""
    theirs = UNet2DConditionModel(**{**UNET, **changes}).eval()
    randomise(theirs, 3)
    ours = stable_diffusion(unet_config(json.loads(theirs.to_json_string()), "test")).eval()
    weights = theirs.state_dict()
    for name, parameter in ours.named_parameters():
        source, op = next(s for s in DIFFUSERS_UNET.spellings(name) if s[0] in weights)
        parameter.data = op.read(weights.pop(source))
    assert not weights  # nothing of theirs is left over
    return ours, theirs


@pytest.fixture(scope="module")
def nets() -> tuple[UNet, UNet2DConditionModel]:
    return pair(LIKE_1)


@pytest.mark.parametrize("changes", [{}, LIKE_1, LIKE_2, DEEP, DDPM_ORDER])
@torch.no_grad()
def test_agrees_with_diffusers(changes):
    ours, theirs = pair(changes)
    x, text, label = normal(2, 4, 8, 8), normal(2, 7, 32, seed=1), torch.tensor([7, 940])
    want = theirs(x, label, text).sample
    assert deviation(ours(x, label, ours.prepare(Cond(tokens=text))), want) < 1e-5


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (10, 6), (7, 9), (13, 5)])
@torch.no_grad()
def test_sizes_that_do_not_halve_evenly(nets, size):
    ours, theirs = nets
    x, text, label = normal(1, 4, *size), normal(1, 5, 32, seed=1), torch.tensor(501)
    got = ours(x, label, ours.prepare(Cond(tokens=text)))
    assert deviation(got, theirs(x, label, text).sample) < 1e-5


@torch.no_grad()
def test_masked_tokens_play_no_part(nets):
    ours, theirs = nets
    x, text, label = normal(2, 4, 8, 8), normal(2, 6, 32, seed=1), torch.tensor(20)
    mask = torch.arange(6) < torch.tensor([[6], [4]])  # (2, 6)
    got = ours(x, label, ours.prepare(Cond(tokens=text, mask=mask)))
    assert deviation(got, theirs(x, label, text, encoder_attention_mask=mask).sample) < 1e-5
    alone = ours(x[1:], label, ours.prepare(Cond(tokens=text[1:, :4])))
    assert deviation(got[1:], alone) < 1e-5


@torch.no_grad()
def test_a_label_is_shared_or_of_each_image(nets):
    net = nets[0]
    x, context = normal(3, 4, 8, 8), net.prepare(Cond(tokens=normal(3, 5, 32, seed=1)))
    own = net(x, torch.tensor([40, 40, 40]), context)
    for shared in (torch.tensor(40), torch.tensor([40])):
        assert deviation(net(x, shared, context), own) < 1e-5
    mixed = net(x, torch.tensor([40, 700, 40]), context)
    assert deviation(mixed[::2], own[::2]) < 1e-5
    assert deviation(mixed[1], own[1]) > 1e-2


@torch.no_grad()
def test_prepared_once_or_at_every_step(nets):
    net = nets[0]
    cond = Cond(tokens=normal(2, 5, 32, seed=1))
    once = net.prepare(cond)
    for label in (900, 300):
        x = normal(2, 4, 8, 8, seed=label)
        again = net(x, torch.tensor(label), net.prepare(cond))
        assert torch.equal(net(x, torch.tensor(label), once), again)


@torch.no_grad()
def test_memory_format_does_not_matter(nets):
    net = nets[0]
    x, context = normal(2, 4, 8, 12), net.prepare(Cond(tokens=normal(2, 5, 32, seed=1)))
    swapped = x.contiguous(memory_format=torch.channels_last)
    before = swapped.clone()
    label = torch.tensor(5)
    assert deviation(net(swapped, label, context), net(x, label, context)) < 1e-5
    assert torch.equal(swapped, before)  # sums in place are in tensors of our own


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("label", [torch.tensor(600), torch.tensor([600, 3])])
@pytest.mark.parametrize("times", [2, 3])
def test_a_batch_under_several_texts(nets, mode, label, times):
    """x goes in once, and comes out as if it had gone in once for each text."""
    net = nets[0]
    x, cond = normal(2, 4, 8, 8), Cond(tokens=normal(2 * times, 5, 32, seed=1))
    with mode():
        context = net.prepare(cond)
        labels = label if label.dim() == 0 else label.repeat(times)
        want = net(x.repeat(times, 1, 1, 1), labels, context)
        assert deviation(net(x, label, context).detach(), want.detach()) < 1e-5


@torch.no_grad()
def test_concatenated_channels_tell_rows_apart(nets):
    config = SDConfig(
        in_channels=6, channels=(16, 16), blocks=1, depth=(1, 0), heads=(2, 2), context=8, groups=8
    )
    net = stable_diffusion(config).eval()
    randomise(net, 4)
    x, masks = normal(1, 4, 8, 8), normal(2, 2, 8, 8, seed=1)
    cond = Cond(tokens=normal(2, 3, 8, seed=2), concat=masks)
    context = net.prepare(cond)
    got = net(x, torch.tensor(9), context)
    assert deviation(got, net(x.repeat(2, 1, 1, 1), torch.tensor(9), context)) < 1e-5
    for i in range(2):
        alone = Cond(tokens=cond.tokens[i : i + 1], concat=masks[i : i + 1])
        assert deviation(got[i : i + 1], net(x, torch.tensor(9), net.prepare(alone))) < 1e-5


@torch.no_grad()
def test_without_any_attention():
    config = SDConfig(channels=(8, 16), blocks=1, depth=(0, 0), mid_depth=0, heads=(1, 1), groups=4)
    net = stable_diffusion(config).eval()
    got = net(normal(2, 4, 6, 6), torch.tensor(3), net.prepare(Cond()))
    assert got.shape == (2, 4, 6, 6)
    assert got.isfinite().all()


def test_gradients_are_those_of_diffusers(nets):
    """Through every weight and the picture: sums in place leave no gradient out."""
    ours, theirs = nets
    text, label, goal = normal(2, 7, 32, seed=1), torch.tensor([7, 940]), normal(2, 4, 8, 8, seed=2)
    x, y = (normal(2, 4, 8, 8).requires_grad_() for _ in range(2))
    ours.zero_grad()
    theirs.zero_grad()
    (ours(x, label, ours.prepare(Cond(tokens=text))) - goal).square().mean().backward()
    (theirs(y, label, text).sample - goal).square().mean().backward()
    assert deviation(x.grad, y.grad) < 1e-4
    weights = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        source, op = next(s for s in DIFFUSERS_UNET.spellings(name) if s[0] in weights)
        assert deviation(parameter.grad, op.read(weights[source].grad)) < 1e-4, name


def test_a_fresh_network_answers_nothing():
    net = initialise(
        stable_diffusion(
            SDConfig(channels=(16, 16), depth=(1, 0), heads=(2, 2), context=8, groups=8)
        )
    )
    with torch.no_grad():
        got = net(normal(1, 4, 8, 8), torch.tensor(3), net.prepare(Cond(tokens=normal(1, 3, 8))))
    assert torch.equal(got, torch.zeros_like(got))
