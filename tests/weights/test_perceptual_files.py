"""Opening what compares pictures: LPIPS against taming's values, VGG-16 files, our own network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import deviation, randomise

from suffuse.errors import SuffuseError
from suffuse.networks.perceptual import FeatureConfig, FeatureNet, Perceptual
from suffuse.weights import perceptual
from suffuse.weights.perceptual import open_features, open_perceptual, save_features

GOLDEN = Path(__file__).parents[1] / "parity" / "taming" / "lpips"
IO = load_file(GOLDEN / "io.safetensors")


@torch.no_grad()
def test_lpips_agrees_with_taming():
    net = open_perceptual(GOLDEN / "lpips.pt")
    for i, got in enumerate(net.stack.features(IO["in.a"])):
        assert deviation(got, IO[f"out.features.{i:02}"]) < 1e-5
    assert deviation(net(IO["in.a"], IO["in.b"]), IO["out.distance"].flatten()) < 1e-5
    assert net.source == "LPIPS on VGG-16 (lpips.pt)"


def torchvision(folder: Path) -> tuple[Path, Path]:
    """The golden weights as people have them: torchvision's VGG-16 and LPIPS' `vgg.pth`."""
    whole = torch.load(GOLDEN / "lpips.pt")
    vgg = {
        f"features.{name.split('.', 2)[2]}": weight
        for name, weight in whole.items()
        if name.startswith("net.")
    }
    vgg["classifier.0.weight"] = torch.ones(3, 3)
    linear = {name: weight for name, weight in whole.items() if name.startswith("lin")}
    torch.save(vgg, folder / "vgg16.pth")
    torch.save(linear, folder / "vgg.pth")
    return folder / "vgg16.pth", folder / "vgg.pth"


@torch.no_grad()
def test_torchvisions_file_with_and_without_weights_of_channels(tmp_path):
    vgg, linear = torchvision(tmp_path)
    net = open_perceptual(vgg, linear)
    assert deviation(net(IO["in.a"], IO["in.b"]), IO["out.distance"].flatten()) < 1e-5
    assert net.source == "VGG-16 (vgg16.pth) with the weights of vgg.pth"
    plain = open_perceptual(vgg)
    assert all((weight == 1).all() for weight in plain.weights)
    maps = open_features(vgg).features(IO["in.a"])
    assert deviation(maps[4], IO["out.features.04"]) < 1e-5
    with pytest.raises(SuffuseError, match="name only one"):
        open_perceptual(GOLDEN / "lpips.pt", linear)


@torch.no_grad()
def test_our_own_network_is_saved_and_opened(tmp_path, monkeypatch):
    net = FeatureNet(FeatureConfig(5, (8, 16), groups=4)).eval()
    randomise(net, 1)
    path = tmp_path / "some" / "features.safetensors"
    save_features(net, path, torch.float32)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    a, b = torch.randn(2, 2, 3, 16, 16)
    got = open_perceptual(path)
    assert torch.equal(got(a, b), Perceptual(net)(a, b))
    assert "own feature network" in got.source
    assert not any(weight.requires_grad for weight in got.parameters())
    monkeypatch.setattr(perceptual, "BUNDLED", path)
    opened = open_features()
    assert isinstance(opened, FeatureNet) and torch.equal(opened(a), net(a))


def test_what_is_neither_is_said(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(SuffuseError, match="neither a VGG-16"):
        open_perceptual(tmp_path / "a.safetensors")
    save_file({"features.0.weight": torch.ones(2, 3, 3, 3)}, tmp_path / "b.safetensors")
    with pytest.raises(SuffuseError, match=r"no features\.5\.weight"):
        open_perceptual(tmp_path / "b.safetensors")
    with pytest.raises(SuffuseError, match="no such file"):
        open_perceptual(tmp_path / "c.safetensors")
    net = FeatureNet(FeatureConfig(5, (8, 16), groups=4))
    net.head = torch.nn.Linear(16, 4)
    save_features(net, tmp_path / "d.safetensors")
    with pytest.raises(SuffuseError, match="damaged, or of another version"):
        open_perceptual(tmp_path / "d.safetensors")
