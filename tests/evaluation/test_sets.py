"""Networks that look at sets of pictures, and what sets are worth by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import randomise

from suffuse.errors import SuffuseError
from suffuse.evaluation.features import (
    PORTS,
    InceptionNetwork,
    Network,
    look,
    open_network,
    resize,
)
from suffuse.evaluation.pictures import open_pictures
from suffuse.evaluation.sets import compare, load_statistics
from suffuse.networks.inception import Inception
from suffuse.networks.perceptual import FeatureConfig, FeatureNet
from suffuse.weights.perceptual import save_features

LPIPS = Path(__file__).parents[1] / "parity" / "taming" / "lpips" / "lpips.pt"


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Network:
    """Our own kind of feature network, with random weights."""
    net = FeatureNet(FeatureConfig(5, (8, 16), groups=4))
    randomise(net, 1)
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    save_features(net, path)
    return open_network(path)


def pictures(n: int, seed: int, side: int = 24) -> list[np.ndarray]:
    """Smooth pictures of random colours."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (n, 3, 3, 3), np.uint8)
    return [
        np.asarray(Image.fromarray(p).resize((side, side + i % 3))) for i, p in enumerate(small)
    ]


@pytest.mark.parametrize("sides", [(7, 5), (40, 90)])
def test_resizing_as_public_programs_do(sides):
    levels = np.random.default_rng(0).uniform(0, 255, sides).astype(np.float32)
    picture = torch.from_numpy(levels).expand(1, 3, *sides)
    side = 29
    # TensorFlow 1: pixel i of the new picture is read at i * old / new.
    rows = np.stack(
        [np.interp(np.arange(side) * sides[1] / side, range(sides[1]), r) for r in levels]
    )
    at = np.arange(side) * sides[0] / side
    want = np.stack([np.interp(at, range(sides[0]), column) for column in rows.T], 1)
    assert np.abs(resize(picture, side, "corner")[0, 0].numpy() - want).max() < 2e-3
    # clean-fid: pillow on floats, clipped.
    drawn = Image.fromarray(levels).resize((side, side), Image.Resampling.BICUBIC)
    want = np.asarray(drawn).clip(0, 255)
    assert np.abs(resize(picture, side, "bicubic")[0, 0].numpy() - want).max() < 2e-3


def test_what_inception_is_given():
    with torch.device("meta"):
        net = Inception()
    ends = torch.tensor([0, 128, 255], dtype=torch.uint8).expand(1, 3, 3, 3)
    for port, want in (("pytorch-fid", (-1, 1)), ("tensorflow", (-1, 127 / 128))):
        shown = InceptionNetwork(net, "0" * 64, port, "a.pth").prepare(ends)
        assert shown.shape == (1, 3, 299, 299)
        assert (shown.min().item(), shown.max().item()) == pytest.approx(want)
    named = InceptionNetwork(net, "6726825d" + "0" * 56, "clean-fid", "a.pth")
    assert "the published FID weights" in named.source and "clean-fid" in named.identity
    with pytest.raises(SuffuseError, match="unknown port 'keras': choose one of pytorch-fid"):
        InceptionNetwork(net, "0" * 64, "keras", "a.pth")
    assert set(PORTS) == {"pytorch-fid", "tensorflow", "clean-fid"}


def test_a_picture_is_seen_alike_alone_and_among_others(network):
    shown = pictures(5, seed=1)
    together, alone = look(network, shown), look(network, shown, batch=1)
    assert torch.allclose(together.points, alone.points, atol=1e-5)
    assert together.points.shape == (5, 16)
    assert together.logits is not None and together.logits.shape == (5, 5)
    assert together.statistics.places is not None
    assert torch.allclose(
        together.statistics.places.covariance, alone.statistics.places.covariance, atol=1e-5
    )
    with pytest.raises(SuffuseError, match="from two pictures on"):
        look(network, shown[:1])


def test_sets_are_scored(network):
    real, other = look(network, pictures(12, seed=2)), look(network, pictures(10, seed=3))
    same = compare(network, real, real)
    assert same.fid == pytest.approx(0, abs=1e-6) and same.sfid == pytest.approx(0, abs=1e-4)
    assert (same.precision, same.recall) == (1, 1)
    assert same.inception_score is not None and same.inception_score >= 1
    apart = compare(network, other, real)
    assert apart.fid > 100 * max(same.fid, 1e-9)
    assert any("12 pictures are few for 16 features" in note for note in same.notes)


def test_statistics_stand_for_a_set(network, tmp_path):
    real, ours = look(network, pictures(8, seed=4)), look(network, pictures(9, seed=5))
    path = tmp_path / "real.npz"
    real.statistics.save(path)
    known = load_statistics(path)
    assert known is not None and open_pictures(path) is None
    want, got = compare(network, ours, real), compare(network, ours, None, known)
    assert got.fid == pytest.approx(want.fid) and got.sfid == pytest.approx(want.sfid)
    assert (got.precision, got.recall) == (None, None)
    assert any("need the reference pictures" in note for note in got.notes)
    np.savez(path, mu=known.points.mean, sigma=known.points.covariance)
    unnamed = compare(network, ours, None, load_statistics(path))
    assert unnamed.sfid is None and len(unnamed.notes) == 4
    np.savez(path, mu=known.points.mean, sigma=known.points.covariance, network="inception 0 x")
    with pytest.raises(SuffuseError, match="another network"):
        compare(network, ours, None, load_statistics(path))


def test_a_network_without_classes():
    network = open_network(LPIPS)
    ours = look(network, pictures(4, seed=6))
    scores = compare(network, ours, ours)
    assert scores.inception_score is None and scores.fid == pytest.approx(0, abs=1e-6)
    assert "LPIPS on VGG-16" in network.source


def test_folders_and_arrays_of_pictures(tmp_path):
    shown = pictures(3, seed=7)
    for i, pixels in enumerate(shown):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_text("no")
    folder = open_pictures(tmp_path)
    assert folder is not None and len(folder) == 4
    for _ in range(2):  # it can be gone through twice, and counts a broken one once
        assert all(np.array_equal(a, b) for a, b in zip(folder, shown, strict=True))
    assert list(folder.broken.found) == ["broken.png"]
    assert len(open_pictures(tmp_path, 2) or ()) == 2
    np.savez(tmp_path / "batch.npz", arr_0=np.stack([shown[0], shown[0]]))
    array = open_pictures(tmp_path / "batch.npz")
    assert array is not None and np.array_equal(next(iter(array)), shown[0])
    np.savez(tmp_path / "batch.npz", arr_0=np.zeros((2, 4, 4, 3)))
    with pytest.raises(SuffuseError, match=r"not \(N, H, W, 3\) uint8"):
        open_pictures(tmp_path / "batch.npz")
    with pytest.raises(SuffuseError, match="no folder"):
        open_pictures(tmp_path / "absent")
