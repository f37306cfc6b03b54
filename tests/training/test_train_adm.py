"""ADM's stage and its classifier's: toy digits from nothing to guided pictures, and the papers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import suffuse
from suffuse.data.classes import DIGITS
from suffuse.diffusion.loss import hybrid
from suffuse.errors import SuffuseError
from suffuse.networks.classifier import ClassifierConfig, classifier
from suffuse.networks.pixel import ADMConfig, adm
from suffuse.systems.adm import open_adm_model
from suffuse.systems.classifier import load_classifier
from suffuse.systems.ddpm import DDPM
from suffuse.training.adm_presets import ADMS, CLASSIFIERS
from suffuse.training.classifier import classifier_stage
from suffuse.training.loop import train
from suffuse.training.pixel import ddpm_stage
from suffuse.weights.adm_presets import published
from suffuse.weights.pixel_folder import folder_family
from suffuse.weights.scheduler import from_config

TOY = ADMS["toy"]
FEW = replace(TOY, plan=replace(TOY.plan, steps=3, batch=8, save_every=3, sample_every=3), steps=2)
JUDGE = CLASSIFIERS["toy"]
BRIEF = replace(JUDGE, plan=replace(JUDGE.plan, steps=3, batch=8, save_every=3, sample_every=3))


def test_a_model_and_its_classifier(tmp_path: Path) -> None:
    """Trained, saved, opened; one guides the other, and training goes on from either."""
    train(ddpm_stage(FEW, 0), FEW.plan, tmp_path / "adm")
    assert folder_family(tmp_path / "adm/model") == "ADM"
    system = suffuse.load(tmp_path / "adm/model", "cpu", "float32")
    assert isinstance(system, DDPM)
    assert (system.model.classes, system.model.size) == (DIGITS, (8, 8))
    assert system.reverse().variance == "learned_range"

    train(classifier_stage(BRIEF, 0), BRIEF.plan, tmp_path / "judge")
    judge = load_classifier(tmp_path / "judge/model")
    assert judge.model.classes == DIGITS
    with Image.open(tmp_path / "judge/samples/0000003.png") as sheet:
        assert sheet.size == (10 * 32, 8 * 32)
    fields = {"seed": 1, "classifier": str(tmp_path / "judge/model"), "classifier_scale": 1e4}
    picture = system.generate("7", **fields)[0]
    assert (picture.size, picture.mode) == ((8, 8), "L")
    assert picture.tobytes() != system.generate("7", seed=1, guidance=1.0)[0].tobytes()

    again = ddpm_stage(FEW, 1, init=tmp_path / "adm/model")
    saved = open_adm_model(tmp_path / "adm/model").unet.state_dict()
    assert all(torch.equal(w, saved[name]) for name, w in again.system.unet.state_dict().items())
    more = classifier_stage(BRIEF, 1, init=tmp_path / "judge/model")
    assert torch.equal(more.judge.net.stem.weight, judge.net.stem.weight)
    assert more.judge.net.stem.weight.requires_grad
    with pytest.raises(SuffuseError, match="its U-Net has another shape than the preset's"):
        ddpm_stage(ADMS["digits"], 0, init=tmp_path / "adm/model")


def test_the_loss_is_the_hybrid_one() -> None:
    stage = ddpm_stage(TOY, 0)
    batch = stage.batch(0, 4, 0)
    t, eps = torch.tensor([0, 1, 500, 999]), torch.randn(batch.images.shape)
    system = stage.system
    context = system.unet.prepare(system.cond(batch.labels))
    want = hybrid(system.unet, batch.images, context, t, eps, system.reverse())
    assert torch.equal(system.loss(batch.images, batch.labels, t, eps), want)
    assert ddpm_stage(TOY, 0, labels=False).system.model.classes == ()


def test_a_classifier_learns_and_tells_how_well() -> None:
    """A fresh one knows nothing; some steps on one batch, and it reads what noise leaves of it."""
    stage = classifier_stage(JUDGE, 0)
    batch = stage.batch(0, 16, 0)
    assert set(batch.labels.tolist()) <= set(range(10))
    generator = torch.Generator().manual_seed(0)
    first, _ = stage.loss(batch, generator)
    optimizer = torch.optim.Adam(stage.judge.net.parameters(), 2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss, _ = stage.loss(batch, generator)
        loss.backward()
        optimizer.step()
    assert 1.5 < first < 4 and loss < first - 0.5
    stage.judge.net.eval()
    accuracy = stage.judge.accuracy(batch.images, batch.labels, torch.randn_like(batch.images))
    assert accuracy[:3].mean() > max(0.35, accuracy[-3:].mean())
    wrong = stage.score(stage.nets)
    assert wrong is not None and 0 < wrong < 1


def test_a_classifier_needs_classes(tmp_path: Path) -> None:
    with pytest.raises(SuffuseError, match="no pictures of its own: name a folder with --data"):
        classifier_stage(CLASSIFIERS["imagenet64"], 0)
    (tmp_path / "data/one").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "data/one/1.png")
    with pytest.raises(SuffuseError, match="a classifier needs two classes at least, not 1"):
        classifier_stage(JUDGE, 0, data=str(tmp_path / "data"))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_fits_the_model_of_its_name(name: str) -> None:
    model, judge = ADMS[name], CLASSIFIERS[name]
    ours, theirs = (from_config(row.scheduler).schedule for row in (judge, model))
    at = torch.tensor([0, 499, 999])
    same = torch.equal(ours.at(at).alpha, theirs.at(at).alpha)
    # ImageNet's needs the cosine, as its model has it.
    assert same and judge.preprocess.size == model.preprocess.size
    assert judge.net.in_channels == model.unet.in_channels and judge.data == model.data


def test_the_papers_sizes_and_settings() -> None:
    """2105.05233, tables 11 and 13."""
    for name, millions in (("imagenet64", 296), ("imagenet128", 422), ("imagenet256", 554)):
        row = ADMS[name]
        config = replace(row.unet, classes=1000)
        assert isinstance(config, ADMConfig) and published(config) is not None
        with torch.device("meta"):
            count = sum(p.numel() for p in adm(config).parameters())
        assert count / 1e6 == pytest.approx(millions, abs=1)
        assert row.target is not None and row.plan.ema == 0.9999
    assert (ADMS["imagenet64"].plan.batch, ADMS["imagenet256"].plan.steps) == (2048, 1_980_000)
    assert ADMS["imagenet256"].scheduler["beta_schedule"] == "linear"
    assert "2.43" in ADMS["imagenet128"].target.score  # type: ignore[union-attr]
    row = CLASSIFIERS["imagenet64"]
    made = ClassifierConfig(replace(row.net, out_channels=1000), row.pool, 64, row.net.heads[-1])
    with torch.device("meta"):
        count = sum(p.numel() for p in classifier(made).parameters())
    assert round(count / 1e6) == 65
