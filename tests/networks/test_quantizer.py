"""Quantizers against taming-transformers' values, and what training does to a codebook."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny import deviation
from torch import Tensor

from suffuse.networks.quantizer import (
    CodeKeeper,
    GumbelQuantizer,
    VectorQuantizer,
    codebook_loss,
    perplexity,
    vectors,
)

GOLDEN = Path(__file__).parents[1] / "parity" / "taming" / "quantizers"
LEGACY, FIXED = {"codes": 0.25, "commitment": 1.0}, {"codes": 1.0, "commitment": 0.25}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def book(codes: Tensor) -> VectorQuantizer:
    net = VectorQuantizer(*codes.shape)
    net.codes.data.copy_(codes)
    return net


@pytest.mark.parametrize(
    ("name", "weights"), [("v1", LEGACY), ("v2_legacy", LEGACY), ("v2_fixed", FIXED)]
)
def test_agrees_with_taming(name, weights):
    io = load_file(GOLDEN / "io.safetensors")
    net = book(torch.load(GOLDEN / "codebook.pt")["embedding.weight"])
    z = io["in.z"].requires_grad_()
    got = net(z)
    loss = codebook_loss(z, got.picked, **weights)
    ((got.z * io["in.grad_weight"]).sum() + 3 * loss).backward()
    assert deviation(got.z, io[f"out.{name}.quantized"]) < 1e-5
    assert deviation(loss, io[f"out.{name}.loss"]) < 1e-5
    assert torch.equal(got.indices.flatten(), io[f"out.{name}.indices"].flatten())
    assert deviation(z.grad, io[f"out.{name}.grad_z"]) < 1e-5
    assert deviation(net.codes.grad, io[f"out.{name}.grad_embedding"]) < 1e-5
    assert deviation(perplexity(got.indices, 16), io["out.v1.perplexity"]) < 1e-5


def test_gumbel_agrees_with_taming():
    io, weights = load_file(GOLDEN / "io.safetensors"), torch.load(GOLDEN / "gumbel.pt")
    net = GumbelQuantizer(16, into=4, width=6)
    names = {"logits.weight": "proj.weight", "logits.bias": "proj.bias", "codes": "embed.weight"}
    net.load_state_dict({ours: weights[theirs] for ours, theirs in names.items()})
    z = io["in.z"].requires_grad_()
    got = net(z, io["in.gumbel_exponentials"])
    assert deviation(got.z, io["out.gumbel.quantized"]) < 1e-5
    assert deviation(got.kl, io["out.gumbel.kl"]) < 1e-5
    assert torch.equal(got.indices, io["out.gumbel.indices"])
    got.z.sum().backward()  # a draw is one code, and still has a gradient
    assert z.grad.abs().max() > 0


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 99))
def test_nearest_is_the_nearest(codes, width, seed):
    net, z = book(normal(codes, width, seed=seed)), normal(2, width, 3, 2, seed=seed + 1)
    distances = torch.cdist(vectors(z).double(), net.codes.double())
    chosen = net.nearest(z).flatten()
    assert torch.allclose(distances.gather(1, chosen[:, None])[:, 0], distances.amin(1))
    assert torch.equal(net(net(z).z).indices, net(z).indices)  # codes stay what they are


def test_distances_do_not_need_to_fit_at_once(monkeypatch):
    net, z = book(normal(7, 3)), normal(2, 3, 5, 4, seed=1)
    want = net.nearest(z)
    monkeypatch.setattr("suffuse.networks.quantizer._DISTANCES", 20)
    assert torch.equal(net.nearest(z), want)


def test_perplexity_counts_codes_in_even_use():
    assert perplexity(torch.arange(8).repeat(3), 16) == pytest.approx(8, rel=1e-4)
    assert perplexity(torch.zeros(5, dtype=torch.long), 16) == pytest.approx(1, rel=1e-4)


def test_averages_find_the_means_of_clusters():
    """Codes that move by averages end where k-means would put them."""
    centres = torch.tensor([[3.0, 0.0], [-3.0, 1.0], [0.0, -4.0]])
    net = book(centres + normal(3, 2))
    keeper = CodeKeeper(net, average=True, decay=0.9)
    assert not net.codes.requires_grad
    g = torch.Generator().manual_seed(0)
    for step in range(120):
        points = centres.repeat(40, 1) + 0.1 * normal(120, 2, seed=step)
        z = points.T.reshape(1, 2, 12, 10)
        keeper.update(net, z, net(z).indices, g)
    assert torch.allclose(net.codes, centres, atol=0.05)
    assert torch.allclose(keeper.usage, torch.ones(3), atol=1e-3)


@pytest.mark.parametrize("average", [False, True])
def test_dead_codes_start_anew_among_the_latents(average):
    net = book(torch.cat((torch.zeros(1, 2), torch.full((3, 2), 50.0))))  # three are out of reach
    keeper = CodeKeeper(net, average=average, decay=0.9, dead=0.05)
    z, g = normal(2, 2, 4, 4), torch.Generator().manual_seed(0)
    steps = 0
    while net.codes.max() > 10:
        keeper.update(net, z, net(z).indices, g)
        steps += 1
    assert 28 <= steps <= 30  # 0.9^29 is the first below 0.05
    rows = vectors(z)
    assert all(bool((rows == code).all(1).any()) for code in net.codes[1:])
    keeper.update(net, z, net(z).indices, g)
    assert keeper.alive() == 1 and len(net(z).indices.unique()) > 1


def test_zero_restarts_none_and_unused_codes_stay():
    net = book(torch.tensor([[0.0, 0.0], [50.0, 50.0]]))
    keeper = CodeKeeper(net, average=True, decay=0.5, dead=0)
    z, g = normal(1, 2, 4, 4), torch.Generator().manual_seed(0)
    for _ in range(60):
        keeper.update(net, z, net(z).indices, g)
    assert torch.allclose(net.codes[1], torch.tensor([50.0, 50.0]), rtol=1e-3)
    assert keeper.alive() == 0.5


def test_state_is_part_of_a_checkpoint():
    net = book(normal(4, 2))
    keeper = CodeKeeper(net, average=True)
    keeper.update(
        net, normal(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.long), torch.Generator()
    )
    again = CodeKeeper(net, average=True)
    again.load_state_dict(keeper.state_dict())
    assert torch.equal(again.usage, keeper.usage) and torch.equal(again.sums, keeper.sums)
    assert not list(keeper.parameters())
