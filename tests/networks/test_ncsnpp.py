"""NCSN++: its filters against SciPy, its shapes and sizes, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d

from suffuse.errors import SuffuseError
from suffuse.networks.fir import FirDownsample, smooth_double, smooth_halve
from suffuse.networks.ncsnpp import PUBLISHED, NCSNpp, NCSNppConfig, initialise

SMALL = NCSNppConfig(size=16, width=16, multiples=(1, 2), blocks=1, attention=(8,))
KERNEL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31))
def test_filters_are_convolutions(h, w, seed):
    x = torch.randn(2, 3, 2 * h, 2 * w, generator=torch.Generator().manual_seed(seed)).double()
    half, double = smooth_halve(x), smooth_double(x)
    for b in range(2):
        for c in range(3):
            picture = x[b, c].numpy()
            want = convolve2d(picture, KERNEL)[2::2, 2::2][:h, :w]
            np.testing.assert_allclose(half[b, c], want, atol=1e-12)
            sparse = np.zeros((4 * h, 4 * w))
            sparse[::2, ::2] = picture
            want = 4 * convolve2d(sparse, KERNEL)[1:, 1:][: 4 * h, : 4 * w]
            np.testing.assert_allclose(double[b, c], want, atol=1e-12)


def test_filters_keep_the_brightness():
    x = torch.ones(1, 2, 16, 16)
    assert torch.allclose(smooth_halve(x)[..., 1:-1, 1:-1], torch.tensor(1.0))
    assert torch.allclose(smooth_double(x)[..., 1:-1, 1:-1], torch.tensor(1.0))
    assert FirDownsample(2, 5)(x).shape == (1, 5, 8, 8)
    assert FirDownsample(2, 5, fir=False)(x).shape == (1, 5, 8, 8)


@pytest.mark.parametrize("biggan", [True, False])
@pytest.mark.parametrize("pyramid", ["none", "residual", "input_skip"])
@pytest.mark.parametrize("output", [True, False])
def test_every_combination_runs_and_learns(biggan, pyramid, output):
    c = NCSNppConfig(
        size=16, width=16, multiples=(1, 2), blocks=1, attention=(8,), biggan=biggan, fir=biggan,
        input_pyramid=pyramid, output_pyramid=output,
    )  # fmt: skip
    net = NCSNpp(c)
    got = net(torch.rand(2, 3, 16, 16), torch.tensor([0.1, 3.0]))
    assert got.shape == (2, 3, 16, 16)
    got.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())


def test_sizes_are_those_of_the_paper():
    """Table 1 and appendix H tell 62 and 107 million for NCSN++ and its deep form."""
    millions = {}
    for name in PUBLISHED:
        if "cifar10" in name:
            with torch.device("meta"):
                net = NCSNpp(PUBLISHED[name])
            millions[name] = sum(p.numel() for p in net.parameters()) / 1e6
    assert round(millions["ve/cifar10_ncsnpp_continuous"], 1) == 62.8
    assert round(millions["ve/cifar10_ncsnpp_deep_continuous"], 1) == 107.6
    assert round(millions["vp/cifar10_ddpmpp_continuous"], 1) == 61.8


def test_fresh_networks_answer_zero():
    net = initialise(NCSNpp(SMALL)).eval()
    assert not net(torch.rand(1, 3, 16, 16), torch.tensor(2.0)).any()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"biggan": False}, "no FIR filters"),
        ({"embedding": "positional"}, "only a Fourier embedding is told sigma"),
        ({"size": 20}, "20 pixels cannot be halved 3 times"),
    ],
)
def test_refuses(options, says):
    with pytest.raises(SuffuseError, match=says):
        NCSNppConfig(**options)


def test_refuses_conditioning():
    cond = type("Cond", (), {"vector": torch.ones(1, 2), "tokens": None, "concat": None})
    with pytest.raises(SuffuseError, match="takes no conditioning"):
        NCSNpp(SMALL).prepare(cond)
