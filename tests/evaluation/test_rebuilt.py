"""What an autoencoder gives back, against the same by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import pipeline, randomise

from suffuse.data.preprocess import Preprocess
from suffuse.errors import SuffuseError
from suffuse.evaluation.features import open_network
from suffuse.evaluation.pictures import FolderPictures, folder_squares
from suffuse.evaluation.reconstruction import (
    Judges,
    evaluate_reconstruction,
    open_codec,
)
from suffuse.networks.perceptual import FeatureConfig, FeatureNet
from suffuse.weights.perceptual import open_perceptual, save_features


@pytest.fixture(scope="module")
def judges(tmp_path_factory) -> Judges:
    net = FeatureNet(FeatureConfig(5, (8, 16), groups=4))
    randomise(net, 1)
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    save_features(net, path)
    return Judges(open_network(path), open_perceptual(path))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    pipeline().save_pretrained(folder)
    return folder


def pictures(n: int, side: int = 16) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (n, 4, 4, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(p).resize((side, side))) for p in small])


def test_scores_by_hand(model, judges):
    codec, told = open_codec(model)
    assert told is None
    given = pictures(5)
    done: list[int] = []
    batches = [given[:3], given[3:]]
    scores = evaluate_reconstruction(codec, batches, judges, done.append)
    assert (scores.count, done) == (5, [1, 2, 3, 4, 5])
    images = torch.from_numpy(given).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        made = codec.decode(codec.encode(images).mode).clamp(-1, 1)
        levels = ((made + 1) * 127.5).round()
        lpips = judges.perceptual(images, levels / 127.5 - 1).mean().item()
    errors = (levels.permute(0, 2, 3, 1).numpy() - given).astype(np.float64) ** 2
    psnr = (20 * np.log10(255) - 10 * np.log10(errors.mean((1, 2, 3)))).mean()
    assert scores.psnr == pytest.approx(psnr, rel=1e-3)
    assert scores.lpips == pytest.approx(lpips, rel=1e-3)
    assert scores.rfid > 0 and -1 <= scores.ssim < 1


def test_refusals(model, judges, tmp_path):
    codec, _ = open_codec(model / "vae")  # an autoencoder's own folder will do
    with pytest.raises(SuffuseError, match="takes sides that 2 divides, not 15 x 15"):
        evaluate_reconstruction(codec, [pictures(2, 15)], judges)
    with pytest.raises(SuffuseError, match="from two pictures on"):
        evaluate_reconstruction(codec, [pictures(1)], judges)
    with pytest.raises(SuffuseError, match="no such file or folder"):
        open_codec(tmp_path / "none")


def test_folders_are_prepared_as_for_training_without_chance(tmp_path):
    rng = np.random.default_rng(1)
    for i in range(3):
        pixels = rng.integers(0, 256, (20, 30 + i, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    names = [f"{i}.png" for i in range(3)]
    trained = Preprocess(size=12, crop="random", flip=0.5, filter="bilinear")
    given = folder_squares(FolderPictures(tmp_path, names, [""] * 3), trained)
    assert [len(batch) for batch in given.batches(2)] == [2, 1]
    once, again = (np.concatenate(list(given.batches(3))) for _ in range(2))
    assert once.shape == (3, 12, 12, 3) and np.array_equal(once, again)
    assert (given.prepared["crop"], given.prepared["flip"]) == ("center", 0)
    assert given.prepared["filter"] == "bilinear"
    larger = folder_squares(FolderPictures(tmp_path, names, [""] * 3), trained, 16)
    assert next(larger.batches(1)).shape == (1, 16, 16, 3)
