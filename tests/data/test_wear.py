"""Low resolutions that are worn."""

from __future__ import annotations

import numpy as np
import torch

from suffuse.data.pairs import shrink
from suffuse.data.wear import NOISE, worn


def test_they_show_the_picture_and_have_been_through_something() -> None:
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    picture = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(-1, 1)
    clean = shrink(picture, 4)
    errors = []
    for seed in range(20):
        low = worn(picture, 4, np.random.default_rng(seed))
        assert low.shape == clean.shape and low.abs().max() <= 1
        levels = (low + 1) * 127.5
        assert torch.allclose(levels, levels.round(), atol=1e-3)  # as in a file
        assert torch.equal(low, worn(picture, 4, np.random.default_rng(seed)))
        errors.append(float((low - clean).mul(127.5).square().mean().sqrt()))
    assert min(errors) > 0.3 and max(errors) < 2.5 * NOISE[1]
    assert max(errors) > 2 * min(errors)  # some more than others
