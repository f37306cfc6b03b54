"""Pairs for super-resolution, against Pillow and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from suffuse.data.pairs import Shrinking, blur, blurred, crops, shrink
from suffuse.errors import SuffuseError


def pictures(n: int, side: int) -> np.ndarray:
    """Smooth ones, (n, side, side, 3) uint8."""
    rng = np.random.default_rng(0)
    small = rng.integers(40, 216, (n, 6, 6, 3), np.uint8)
    large = [Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC) for p in small]
    return np.stack([np.asarray(p) for p in large])


@pytest.mark.parametrize(("name", "theirs"), [("bicubic", "BICUBIC"), ("area", "BOX")])
def test_small_ones_are_pillows(name: str, theirs: str) -> None:
    given = pictures(3, 24)
    low = shrink(torch.from_numpy(given).permute(0, 3, 1, 2) / 127.5 - 1, 4, name)
    got = ((low + 1) * 127.5).permute(0, 2, 3, 1)
    assert torch.allclose(got, got.round(), atol=1e-4)  # whole levels, as in a file
    for picture, small in zip(given, got.numpy()):
        want = Image.fromarray(picture).resize((6, 6), Image.Resampling[theirs])
        assert np.abs(small - np.asarray(want).astype(float)).max() <= 1.01


def test_squares_begin_at_multiples_and_anywhere() -> None:
    y, x = np.mgrid[:20, :28]
    marked = np.stack([np.stack([y, x, x], -1)] * 200).astype(np.uint8)
    found = crops(marked, 8, 4, np.random.default_rng(1))
    assert found.shape == (200, 8, 8, 3)
    tops, lefts = found[:, 0, 0, 0], found[:, 0, 0, 1]
    assert set(tops) == {0, 4, 8, 12} and set(lefts) == {0, 4, 8, 12, 16, 20}
    assert (found == marked[0, :8, :8] + found[:, :1, :1]).all()
    with pytest.raises(SuffuseError, match="pictures of 28 x 20 have no squares of 24 pixels"):
        crops(marked, 24, 4, np.random.default_rng(1))


def test_blur_is_scipys_and_only_for_its_share() -> None:
    low = torch.randn(3, 2, 9, 7, generator=torch.manual_seed(0))
    got = blur(low, torch.tensor([0.6, 0.0, 0.4]))
    for i, deviation in ((0, 0.6), (2, 0.4)):
        for channel in range(2):
            want = gaussian_filter(low[i, channel].numpy(), deviation, mode="nearest", radius=2)
            assert np.allclose(got[i, channel].numpy(), want, atol=1e-5)
    assert torch.allclose(got[1], low[1])
    many = torch.randn(400, 1, 4, 4, generator=torch.manual_seed(1))
    changed = blurred(many, Shrinking(blurred=0.5), np.random.default_rng(0)) != many
    assert 0.4 < changed.any(3).any(2).float().mean() < 0.6
    assert blurred(many, Shrinking(), np.random.default_rng(0)) is many


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"blurred": 2.0}, "between 0 and 1, not 2.0"), ({"deviation": (0.6, 0.4)}, "must rise")],
)
def test_refused(fields: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(SuffuseError, match=message):
        Shrinking(**fields)
