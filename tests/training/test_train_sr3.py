"""SR3's stage: pairs of the emoji world and of folders, what is learned, what is exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from suffuse.data.pairs import shrink
from suffuse.errors import SuffuseError
from suffuse.networks.pixel import sr3
from suffuse.systems.upscalers import load_upscaler
from suffuse.training.draw import Draw
from suffuse.training.loop import train
from suffuse.training.sr3 import sr3_stage
from suffuse.training.sr3_presets import SR3S

TOY = SR3S["toy"]
FEW = replace(TOY, plan=replace(TOY.plan, steps=4, batch=4, save_every=4, sample_every=4))


def test_trained_and_opened(tmp_path: Path) -> None:
    train(sr3_stage(FEW, 0), FEW.plan, tmp_path / "run")
    system = load_upscaler(tmp_path / "run/model")
    assert (system.factor, system.steps, system.cut.side) == (2, 2, 32)
    assert system.enlarging == TOY.enlarging
    (made,) = system.generate(image=Image.new("RGB", (20, 9), "red"), seed=0)
    assert made.size == (40, 18)
    with Image.open(tmp_path / "run/samples/0000004.png") as sheet:
        assert sheet.size == (3 * 32, 8 * 32)  # what went in, what came out, the picture


def test_a_fresh_network_is_bicubic_and_learns_to_do_better() -> None:
    """Its head is silent, and what it predicts is what bicubic lacks."""
    stage = sr3_stage(TOY, 0)
    system, batch = stage.system, stage.batch(0, 8, 0)
    before = system.upscale(batch.low, range(8))
    assert torch.allclose(before, system.enlarged(batch.low), atol=1e-5)
    optimizer = torch.optim.AdamW(stage.nets.parameters(), lr=3e-3)
    for step in range(60):
        loss, _ = stage.loss(batch, torch.Generator().manual_seed(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.nets.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    after = system.upscale(batch.low, range(8))
    errors = [(each - batch.images).square().mean() for each in (before, after)]
    assert errors[1] < 0.8 * errors[0]


def test_a_share_of_a_batch_is_that_part_of_the_whole() -> None:
    stage = sr3_stage(replace(FEW, shrinking=replace(FEW.shrinking, blurred=0.5)), 0)
    whole, part = stage.batch(3, 6, 1), stage.batch(3, 6, 1, slice(2, 5))
    assert torch.equal(part.images, whole.images[2:5]) and torch.equal(part.low, whole.low[2:5])
    assert not torch.equal(stage.batch(4, 6, 1).images, whole.images)
    assert whole.images.shape == (6, 3, 32, 32) and whole.low.shape == (6, 3, 16, 16)
    sharp = sr3_stage(FEW, 0).batch(3, 6, 1)
    assert torch.equal(sharp.low, shrink(sharp.images, 2))
    assert torch.equal(sharp.images, whole.images) and not torch.equal(sharp.low, whole.low)
    # A fresh network is silent, and its loss is that of any noise.
    torch.nn.init.normal_(stage.system.unet.head.conv.weight, std=0.1)
    losses = [
        stage.loss(batch, Draw(0, rows, 6))[0] * (rows.stop - rows.start)
        for batch, rows in (
            (whole, slice(0, 6)),
            (stage.batch(3, 6, 1, slice(0, 3)), slice(0, 3)),
            (stage.batch(3, 6, 1, slice(3, 6)), slice(3, 6)),
        )
    ]
    assert losses[0].item() == pytest.approx(losses[1].item() + losses[2].item(), rel=1e-4)


def test_folders_and_what_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        picture = Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8))
        picture.save(tmp_path / f"{i}.png")
    stage = sr3_stage(FEW, 0, data=str(tmp_path))
    assert stage.batch(0, 4, 0).images.shape == (4, 3, 32, 32) and stage.score(stage.nets) is None
    stage.export(stage.nets, tmp_path / "model")
    assert (tmp_path / "model/preprocessing.json").is_file()
    again = sr3_stage(FEW, 5, init=tmp_path / "model")
    first = next(again.nets.parameters())
    assert torch.equal(first, next(stage.nets.parameters()))
    small = replace(FEW, preprocess=replace(FEW.preprocess, size=16))
    for preset, data, message in (
        (SR3S["ffhq-16-128"], None, "no pictures of its own: name a folder with --data"),
        (small, str(tmp_path), "have no squares of 32"),
        (replace(FEW, crop=33), None, "crop 33 is not divisible by the factor, 2"),
    ):
        with pytest.raises(SuffuseError, match=message):
            sr3_stage(preset, 0, data=data)


def test_the_papers_settings() -> None:
    """A million steps of 256 at 1e-4 (2104.07636, section 4); sizes are the public code's."""
    sizes = {"emoji": 3.1, "ffhq-16-128": 515.0, "ffhq-64-512": 563.8, "imagenet-64-256": 564.8}
    sizes["ffhq-256-1024"] = 129.3
    for name, millions in sizes.items():
        with torch.device("meta"):
            count = sum(weight.numel() for weight in sr3(SR3S[name].unet).parameters())
        assert round(count / 1e6, 1) == millions
    for name in sizes.keys() - {"emoji"}:
        plan = SR3S[name].plan
        assert (plan.steps, plan.batch, plan.lr, plan.warmup) == (1_000_000, 256, 1e-4, 10_000)
    target = SR3S["imagenet-64-256"].target
    assert target is not None and "FID 5.2" in target.score
