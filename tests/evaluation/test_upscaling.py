"""Scores of upscalers, against NumPy and Pillow, and the search for a schedule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import randomise

from suffuse.errors import SuffuseError
from suffuse.evaluation.features import StackNetwork
from suffuse.evaluation.upscaling import Drawing, candidates, evaluate_upscaling, search
from suffuse.networks.perceptual import FeatureConfig, FeatureNet
from suffuse.systems.sr3 import SuperResolution, drawn_by
from suffuse.training.sr3 import sr3_stage
from suffuse.training.sr3_presets import SR3S
from suffuse.weights.pixel import Inference


@pytest.fixture
def system() -> SuperResolution:
    """A fresh network is silent, and what it predicts is what bicubic lacks: it draws bicubic."""
    return sr3_stage(SR3S["toy"], 0).system


def pictures(n: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    small = rng.integers(60, 190, (n, 5, 5, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(p).resize((16, 16))) for p in small])


def network() -> StackNetwork:
    net = FeatureNet(FeatureConfig(5, (8, 16), groups=4))
    randomise(net, 1)
    return StackNetwork(net, "0" * 64).eval()


def test_bicubic_is_scored_as_pillow_makes_it(system: SuperResolution, tmp_path: Path) -> None:
    given = pictures()
    found = evaluate_upscaling(
        system, [given[:3], given[3:]], Drawing(seed=1), network(), sheet=tmp_path / "sheet.png"
    )
    small = [Image.fromarray(p).resize((8, 8), Image.Resampling.BICUBIC) for p in given]
    large = [p.resize((16, 16), Image.Resampling.BICUBIC) for p in small]
    again = [p.resize((8, 8), Image.Resampling.BICUBIC) for p in large]
    error = np.stack([np.asarray(p, float) for p in large]) - given
    want = np.mean(10 * np.log10(255**2 / np.square(error).mean((1, 2, 3))))
    assert found.bicubic.psnr == pytest.approx(want, abs=0.1)
    back = np.stack([np.asarray(a, float) - np.asarray(s) for a, s in zip(again, small)])
    assert found.bicubic.consistency == pytest.approx(np.square(back / 255).mean(), rel=0.1)
    # The draw is bicubic's picture, and there is no mean of one.
    assert found.drawn == pytest.approx(found.bicubic) and found.mean is None and found.count == 4
    assert found.bicubic.distance is not None and found.bicubic.distance > 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert np.array_equal(np.asarray(sheet)[:16, -16:], given[0])


def test_the_mean_of_draws_is_nearer_than_a_draw(system: SuperResolution) -> None:
    """For draws that scatter about the picture; and a batch does not change them."""
    head = system.unet.head.conv
    torch.nn.init.normal_(head.weight, std=0.1)
    found = evaluate_upscaling(system, [pictures()], Drawing(draws=4))
    assert found.mean is not None and found.mean.psnr > found.drawn.psnr
    assert found.drawn.distance is None
    parts = evaluate_upscaling(system, [pictures()[:1], pictures()[1:]], Drawing())
    assert parts.drawn[:3] == pytest.approx(found.drawn[:3], rel=1e-2)


def test_schedules_are_ranked_by_their_score(system: SuperResolution) -> None:
    grid = candidates(4, kinds=("linear",), starts=(1e-4, 1e-2), ends=(0.3, 0.97, 0.99))
    assert grid and all(float(drawn_by(each).alpha_bar[-1]) < 0.01 for each in grid)
    assert Inference(4, "linear", 1e-4, 0.3) not in grid  # hardly noise
    ranked = search(system, grid, lambda s: -abs(s.enlarging.inference.end - 0.97))  # type: ignore[union-attr]
    assert ranked[0].inference.end == 0.97 and len(ranked) == len(grid) == 4
    best = system.drawing_by(ranked[0].inference)
    assert best.steps == 4 and best.upscale(torch.zeros(1, 3, 8, 8), [0]).shape[-1] == 16


def test_refused(system: SuperResolution) -> None:
    with pytest.raises(SuffuseError, match="takes sides that 2 divides, not 15 x 16"):
        evaluate_upscaling(system, [pictures()[:, :, :15]], Drawing())
    with pytest.raises(SuffuseError, match="scored from two pictures on"):
        evaluate_upscaling(system, [pictures(1)], Drawing())
