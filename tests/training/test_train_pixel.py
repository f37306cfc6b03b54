"""DDPM's stage: digits, the emoji world and folders, with and without classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline
from PIL import Image
from tiny import randomise

import suffuse
from suffuse.data.classes import DIGITS, DigitsStream, EmojiClasses, class_folders, digits
from suffuse.data.emoji import World
from suffuse.data.preprocess import Preprocess
from suffuse.diffusion.loss import hybrid
from suffuse.errors import SuffuseError
from suffuse.networks.pixel import ddpm
from suffuse.systems.ddpm import DDPM
from suffuse.systems.generate import pixels
from suffuse.training.loop import train
from suffuse.training.noising import Noising
from suffuse.training.pixel import ddpm_stage
from suffuse.training.pixel_presets import COSINE, DDPMS, PixelPreset

TOY = DDPMS["toy"]
FEW = replace(TOY, plan=replace(TOY.plan, steps=4, batch=8, save_every=4, sample_every=4), steps=2)


def trained(preset: PixelPreset, folder: Path, **options: object) -> DDPM:
    train(ddpm_stage(preset, 0, **options), preset.plan, folder)  # type: ignore[arg-type]
    system = suffuse.load(folder / "model", device="cpu", dtype="float32")
    assert isinstance(system, DDPM)
    return system


def test_a_model_of_digits(tmp_path: Path) -> None:
    """Trained with classes, saved, opened; a sheet of a row for each of eight of them."""
    system = trained(FEW, tmp_path / "run")
    assert system.model.classes == DIGITS and system.model.size == (8, 8)
    picture = system.generate("7", seed=1)[0]
    assert (picture.size, picture.mode) == ((8, 8), "L")
    with Image.open(tmp_path / "run/samples/0000004.png") as sheet:
        assert sheet.size == (8 * 32, 8 * 32)


def test_without_classes_and_with_learned_variance_diffusers_draws_it(tmp_path: Path) -> None:
    scheduler = {**COSINE, "variance_type": "learned_range"}
    system = trained(replace(FEW, scheduler=scheduler), tmp_path / "run", labels=False)
    assert system.model.classes == () and system.model.config.out_channels == 2
    pipe = DDPMPipeline.from_pretrained(tmp_path / "run/model")
    want = pipe(generator=torch.Generator().manual_seed(4), num_inference_steps=2).images[0]
    got = system.generate(seed=4)[0]
    assert np.abs(np.asarray(got).astype(int) - np.asarray(want)).max() <= 1


def test_the_loss_is_the_hybrid_one_where_the_variance_is_learned() -> None:
    preset = DDPMS["digits-hybrid"]
    stage = ddpm_stage(replace(preset, unet=TOY.unet), 0)
    batch = stage.batch(0, 4, 0)
    t, eps = torch.tensor([0, 1, 500, 999]), torch.randn(batch.images.shape)
    system = stage.system
    context = system.unet.prepare(system.cond(batch.labels))
    want = hybrid(system.unet, batch.images, context, t, eps, system.reverse())
    assert torch.equal(system.loss(batch.images, batch.labels, t, eps), want)
    assert stage.score(stage.nets) > 0  # type: ignore[operator]


@pytest.mark.parametrize("weight", ["min-snr", "p2"])
def test_levels_count_as_the_preset_says(weight: Literal["min-snr", "p2"]) -> None:
    noising = Noising(weight=weight)
    stage = ddpm_stage(replace(FEW, noising=noising), 0)
    randomise(stage.system.unet, 1)  # fresh networks answer nothing: every loss is that of noise
    batch = stage.batch(0, 8, 0)
    got, _ = stage.loss(batch, torch.Generator().manual_seed(2))
    draws = torch.Generator().manual_seed(2)
    t, _ = stage.levels.draw(8, draws)
    eps = stage.levels.noise(batch.images, draws)
    plain = stage.system.loss(batch.images, batch.labels, t, eps)
    snr = stage.system.sampling.schedule.alpha_bar[t]
    snr = (snr / (1 - snr)).float()
    want = plain * ((5 / snr).clamp(max=1) if weight == "min-snr" else 1 / (1 + snr))
    assert torch.allclose(got, want.mean(), rtol=1e-4)
    assert not torch.allclose(got, plain.mean(), rtol=0.01)
    with pytest.raises(SuffuseError, match=r"^a learned variance .* leave noising\.weight at none"):
        ddpm_stage(replace(DDPMS["digits-hybrid"], noising=noising), 0)


@pytest.mark.parametrize("kind", ["learned", "learned_range"])
def test_a_learned_variance_is_read_as_its_scheduler_says(kind: str) -> None:
    system = ddpm_stage(replace(FEW, scheduler={**COSINE, "variance_type": kind}), 0).system
    assert system.reverse().variance == kind and system.model.config.out_channels == 2
    other = replace(system.model, scheduler={**COSINE, "_class_name": "DDIMScheduler"})
    assert DDPM(other).reverse().variance == "small"


def test_labels_are_left_out_at_random_and_the_same_again() -> None:
    stage = ddpm_stage(replace(FEW, dropout=0.5), 0)
    whole = stage.batch(3, 64, 0)
    assert 16 < (whole.labels == -1).sum() < 48
    part = stage.batch(3, 64, 0, slice(10, 20))
    assert torch.equal(part.labels, whole.labels[10:20])
    assert torch.equal(part.images, whole.images[10:20])
    kept = whole.labels >= 0
    names = DigitsStream().batch(3, 64, 0).captions
    assert [DIGITS[i] for i in whole.labels[kept]] == [n for n, k in zip(names, kept) if k]


def test_digits_are_those_of_scikit_learn_and_split() -> None:
    from sklearn.datasets import load_digits

    theirs = load_digits()
    parts = [digits(split) for split in ("train", "test")]
    assert [len(labels) for _, labels in parts] == [1497, 300]
    ours = sorted((label, p.tobytes()) for ps, labels in parts for p, label in zip(ps, labels))
    grey = (theirs.images / 16 * 255).round().astype(np.uint8)
    assert ours == sorted((label, p.tobytes()) for p, label in zip(grey, theirs.target))
    stream = DigitsStream()
    epoch = np.concatenate([stream.batch(i, 499, 0).pictures for i in range(3)])
    assert sorted(p[..., 0].tobytes() for p in epoch) == sorted(p.tobytes() for p in parts[0][0])
    assert not np.array_equal(epoch[:499], stream.batch(3, 499, 0).pictures)


def test_emoji_of_one_thing_each() -> None:
    stream = EmojiClasses(World(objects=6), Preprocess(size=32))
    found = stream.batch(0, 6, 0)
    assert found.pictures.shape == (6, 32, 32, 3) and set(found.captions) <= set(stream.classes)
    again = stream.batch(0, 6, 0, slice(2, 4))
    assert np.array_equal(again.pictures, found.pictures[2:4])


def test_folders_are_classes(tmp_path: Path) -> None:
    for name, colour in (("dog", "red"), ("cat", "blue")):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (20, 10), colour).save(tmp_path / "data" / name / "1.png")
    stream, classes = class_folders(str(tmp_path / "data"), Preprocess(size=8))
    assert classes == ("cat", "dog")
    found = stream.batch(0, 2, 0)
    assert [p[0, 0].argmax() == 0 for p in found.pictures] == [c == "dog" for c in found.captions]
    colour = replace(FEW, unet=replace(FEW.unet, in_channels=3))
    stage = ddpm_stage(colour, 0, data=str(tmp_path / "data"), labels=True)
    assert stage.system.model.classes == classes
    assert ddpm_stage(colour, 0, data=str(tmp_path / "data")).system.model.classes == ()
    Image.new("RGB", (8, 8)).save(tmp_path / "data/loose.png")
    with pytest.raises(SuffuseError, match=r"'loose\.png' lies in none; or use --no-labels"):
        class_folders(str(tmp_path / "data"), Preprocess(size=8))
    with pytest.raises(SuffuseError, match="no pictures of its own: name a folder with --data"):
        ddpm_stage(DDPMS["cifar10"], 0)


def test_grey_is_pillows() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 9, 7, 3), np.uint8)
    grey = np.asarray(Image.fromarray(picture[0]).convert("L")).astype(int)
    got = ((pixels(picture, 1)[0, 0] + 1) * 127.5).round().numpy().astype(int)
    assert np.abs(got - grey).max() <= 1


def test_the_papers_size_and_settings() -> None:
    """35.7 M, 800,000 steps of 128, Adam's 2e-4, average of 0.9999 (2006.11239, appendix B)."""
    row = DDPMS["cifar10"]
    with torch.device("meta"):
        count = sum(p.numel() for p in ddpm(row.unet).parameters())
    assert round(count / 1e6, 1) == 35.7
    plan = row.plan
    assert (plan.steps, plan.batch, plan.lr, plan.ema) == (800_000, 128, 2e-4, 0.9999)
    assert row.target is not None and "FID 3.17" in row.target.score
