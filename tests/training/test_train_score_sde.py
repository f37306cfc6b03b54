"""The stage of score SDEs: times, what is saved, and the papers' settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import suffuse
from suffuse.errors import SuffuseError
from suffuse.networks.ncsnpp import NCSNpp, NCSNppConfig
from suffuse.training.loop import train
from suffuse.training.score_sde import CLEANEST, score_sde_stage
from suffuse.training.score_sde_presets import SCORE_SDES, VE

TOY = SCORE_SDES["toy"]
FEW = replace(TOY, plan=replace(TOY.plan, steps=3, batch=8, save_every=3, sample_every=3), steps=22)


def test_a_model_of_digits_trained_saved_and_taken_up(tmp_path: Path) -> None:
    train(score_sde_stage(FEW, 0), FEW.plan, tmp_path / "run")
    system = suffuse.load(tmp_path / "run/model", device="cpu")
    assert isinstance(system, suffuse.ScoreSDE) and system.model.size == (8, 8)
    picture = system.generate(seed=1)[0]
    assert (picture.size, picture.mode) == ((8, 8), "L")
    with Image.open(tmp_path / "run/samples/0000003.png") as sheet:
        assert sheet.size == (8 * 32, 8 * 32)
    begun = score_sde_stage(FEW, 1, init=tmp_path / "run/model")
    assert torch.equal(begun.system.unet.stem.weight.cpu(), system.unet.stem.weight)
    other = replace(FEW, unet=replace(FEW.unet, blocks=2))
    with pytest.raises(SuffuseError, match="its network has another shape than the preset's"):
        score_sde_stage(other, 1, init=tmp_path / "run/model")


def test_times_are_even_or_as_the_likelihood_weighs_them() -> None:
    """What each place in [0, 1) stands for: the share of the weight (g / sigma)^2 before it."""
    even, likely = (score_sde_stage(replace(FEW, likelihood=k), 0) for k in (False, True))
    places = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(even.times(places), torch.tensor([CLEANEST, 0.500005, 1.0]))
    t = torch.logspace(-5, 0, 20001, dtype=torch.float64)
    total = 0.1 * t + 19.9 * t**2 / 2
    weight = (0.1 + 19.9 * t) / (1 - torch.exp(-total))
    share = torch.cumulative_trapezoid(weight, t)
    got = likely.times(places)
    half = t[1:][(share >= share[-1] / 2).nonzero()[0, 0]]
    torch.testing.assert_close(
        got.double(), torch.tensor([1e-5, float(half), 1.0]).double(), rtol=2e-3, atol=0
    )

    assert even.score(even.nets) == pytest.approx(1, abs=0.1)  # it answers 0 so far


def test_a_ve_network_sees_pictures_from_0_to_1() -> None:
    config = NCSNppConfig(image=1, width=8, multiples=(1, 2), blocks=1, attention=(4,))
    stage = score_sde_stage(replace(FEW, unet=config, scheduler=dict(VE)), 0)
    batch = stage.batch(0, 8, 0)
    assert (batch.min(), batch.max()) == (0, 1) and stage.system.config.size == 8
    loss, _ = stage.loss(batch, torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(1, abs=0.1)
    loss.backward()
    wrong = replace(FEW, unet=config)
    with pytest.raises(SuffuseError, match="divides by sigma"):
        score_sde_stage(wrong, 0)
    with pytest.raises(SuffuseError, match="no pictures of its own: name a folder with --data"):
        score_sde_stage(SCORE_SDES["cifar10"], 0)


def test_the_papers_settings() -> None:
    """Deep networks for 950,000 steps of 128; averages of 0.999 and 0.9999 (appendix H)."""
    for name, decay, blocks in (("cifar10", 0.999, 8), ("cifar10-subvp", 0.9999, 8)):
        row = SCORE_SDES[name]
        plan = row.plan
        assert (plan.steps, plan.batch, plan.lr, plan.ema) == (950_000, 128, 2e-4, decay)
        assert row.unet.blocks == blocks and row.target is not None
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in NCSNpp(SCORE_SDES[n].unet).parameters()) for n in SCORE_SDES
        ]
    assert sizes[0] < 3e6 and min(sizes[-2:]) > 1e8
