"""score_sde's checkpoints: against its networks' outputs, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import deviation

from suffuse.errors import SuffuseError
from suffuse.networks.ncsnpp import NCSNpp, NCSNppConfig
from suffuse.weights.containers import open_tensors
from suffuse.weights.mapping import export
from suffuse.weights.maps.score_sde import score_sde
from suffuse.weights.parts import Place
from suffuse.weights.score_sde import open_score_sde

GOLDEN = Path(__file__).parents[1] / "parity" / "sde" / "networks"
IO = load_file(GOLDEN / "io.safetensors")

NCSNPP = NCSNppConfig(
    size=16, width=32, multiples=(1, 1), blocks=1, attention=(8,), unit_range=False
)
DDPMPP = replace(
    NCSNPP, embedding="positional", biggan=False, fir=False, input_pyramid="none",
    divide_by_label=False,
)  # fmt: skip
CONFIGS = {
    "ncsnpp": NCSNPP,
    "ncsnpp_deep": replace(NCSNPP, input_pyramid="input_skip", output_pyramid=True),
    "ddpmpp": DDPMPP,
    "ddpm": replace(DDPMPP, rescale=False, groups=32),
}


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_agrees_with_score_sde(name):
    net = open_score_sde(GOLDEN / f"{name}.pth", CONFIGS[name], ema=False)
    label = IO["in.sigma"] if CONFIGS[name].divide_by_label else IO["in.t"]
    got = net(IO["in.x"], label, net.prepare(type("Cond", (), dict.fromkeys(
        ("vector", "tokens", "mask", "concat")))))  # fmt: skip
    assert deviation(got, IO[f"out.{name}"]) < 1e-5
    # A label for all is a label for each.
    alone, all_ = net(IO["in.x"], label[:1]), net(IO["in.x"], label[:1].expand(2))
    torch.testing.assert_close(alone, all_)


@torch.no_grad()
def test_images_in_the_unit_range():
    net = open_score_sde(GOLDEN / "ncsnpp.pth", replace(NCSNPP, unit_range=True), ema=False)
    assert deviation(net((IO["in.x"] + 1) / 2, IO["in.sigma"]), IO["out.ncsnpp"]) < 1e-5


def test_averaged_weights():
    """A list without names: each has to land on the weight whose place in the order it has."""
    path = GOLDEN / "ncsnpp_deep.pth"
    net, last = (open_score_sde(path, CONFIGS["ncsnpp_deep"], ema=e) for e in (True, False))
    stored = torch.load(path, weights_only=False)
    averages = stored["ema"]["shadow_params"]
    keys = score_sde(CONFIGS["ncsnpp_deep"])
    ours, theirs = export(net, keys, torch.float32), list(stored["model"])
    trained = [n.removeprefix("module.") for n in theirs if not n.endswith(("sigmas", ".0.W"))]
    assert len(trained) == len(averages) > 100
    assert all(torch.equal(ours[n], w) for n, w in zip(trained, averages))
    assert torch.equal(net.time.frequencies, last.time.frequencies)
    assert not torch.equal(net.stem.weight, last.stem.weight)


@pytest.mark.parametrize("name", CONFIGS)
def test_maps_lead_back(name):
    path = GOLDEN / f"{name}.pth"
    net = open_score_sde(path, CONFIGS[name], ema=False)
    file = open_tensors(path)
    written = export(net, score_sde(CONFIGS[name]), torch.float32)
    inside = {n.rpartition("module.")[2]: n for n in file if "module." in n}
    del inside["sigmas"]
    assert written.keys() == inside.keys()
    assert all(torch.equal(written[n], file[inside[n]]) for n in written)


def test_refuses(tmp_path):
    path = GOLDEN / "ddpmpp.pth"
    with pytest.raises(SuffuseError, match="0 averaged weights do not match its 132 trained"):
        open_score_sde(path, DDPMPP)
    with pytest.raises(SuffuseError, match="are missing"):
        open_score_sde(path, replace(DDPMPP, blocks=2), ema=False)
    with pytest.raises(SuffuseError, match=r"unknown \('module\.all_modules\.\d"):
        open_score_sde(path, replace(DDPMPP, multiples=(1,), attention=(16,)), ema=False)
    with pytest.raises(SuffuseError, match="has the shape"):
        open_score_sde(path, replace(DDPMPP, width=64), ema=False)
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "other.pth")
    with pytest.raises(SuffuseError, match="no network in score_sde's layout"):
        open_score_sde(tmp_path / "other.pth", DDPMPP)


@torch.no_grad()
def test_half_precision():
    net = open_score_sde(
        GOLDEN / "ncsnpp.pth", NCSNPP, ema=False, place=Place("cpu", torch.bfloat16)
    )
    got = net(IO["in.x"].bfloat16(), IO["in.sigma"])
    assert deviation(got.float(), IO["out.ncsnpp"]) < 0.1
    assert isinstance(net, NCSNpp) and not net.training
