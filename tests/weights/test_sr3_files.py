"""SR3's files against the values of its public implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import deviation
from torch import Tensor

from suffuse.diffusion.cond import Cond
from suffuse.errors import SuffuseError
from suffuse.networks.pixel import SR3Config, sr3
from suffuse.weights.inspect import describe
from suffuse.weights.mapping import export
from suffuse.weights.maps.sr3 import sr3_unet
from suffuse.weights.sr3 import INSIDE, open_sr3, sr3_shape
from suffuse.weights.tensorfile import Entry, TensorFile

GOLDEN = Path(__file__).parents[1] / "parity" / "sr3" / "unet"


@pytest.mark.parametrize(("kind", "label"), [("sr3", "in.noise_level"), ("ddpm", "in.t")])
@torch.no_grad()
def test_golden(kind: str, label: str) -> None:
    io = load_file(GOLDEN / "io.safetensors")
    model = open_sr3(GOLDEN / f"{kind}_gen.pth", groups=8)
    assert model.config == SR3Config(
        width=16, channels=(16, 32, 32), blocks=1, attends=(False, True, False), groups=8,
        continuous=kind == "sr3",
    )  # fmt: skip
    condition, x = io["in.x"].chunk(2, dim=1)  # in this order there
    got = model.unet(x, io[label].flatten(), model.unet.prepare(Cond(concat=condition)))
    assert deviation(got, io[f"out.{kind}"]) < 1e-5

    written = export(model.unet, sr3_unet(model.config), torch.float32)
    read = {k.removeprefix(INSIDE): w for k, w in torch.load(GOLDEN / f"{kind}_gen.pth").items()}
    assert read.keys() - written.keys() <= {"time_mlp.0.inv_freq"}
    assert all(torch.equal(weight, read[name]) for name, weight in written.items())
    assert describe(GOLDEN / f"{kind}_gen.pth").format == "SR3 (original)"


def opened(weights: dict[str, Tensor], path: Path, **more: Any) -> str:
    save_file(weights, path / "sr3.safetensors")
    try:
        open_sr3(path / "sr3.safetensors", **{"groups": 8, **more})
    except SuffuseError as problem:
        return str(problem)
    return ""


def test_strict(tmp_path: Path) -> None:
    weights = dict(torch.load(GOLDEN / "sr3_gen.pth"))
    buffers = {"betas": torch.ones(10), "sqrt_alphas_cumprod": torch.ones(10)}
    assert opened(weights | buffers, tmp_path) == ""  # a schedule that was set before saving
    for name in ("odd", INSIDE + "odd", "time_mlp.0.inv_freq"):
        found = opened(weights | {name: torch.ones(1)}, tmp_path)
        assert f"1 weight is unknown ('{name}')" in found
    for name in ("mid.1.res_block.block2.block.3.bias", "downs.3.attn.out.weight"):
        left = {k: w for k, w in weights.items() if k != INSIDE + name}
        assert f"1 weight is missing ('{INSIDE}{name}')" in opened(left, tmp_path)
    assert "16 channels do not divide into 32 norm groups" in opened(weights, tmp_path, groups=None)
    found = opened({k: w for k, w in weights.items() if ".downs.5." not in k}, tmp_path)
    assert "do not fall into levels" in found
    assert "no network of SR3" in opened({"weight": torch.ones(1)}, tmp_path)


@pytest.mark.parametrize(
    ("channels", "blocks", "groups"),
    [((64, 128, 256, 512, 512), 2, 32), ((64, 128, 256, 512, 1024), 1, 16)],
)
def test_groups_of_the_published_configurations(
    channels: tuple[int, ...], blocks: int, groups: int
) -> None:
    """sr_sr3_16_128.json and sr_sr3_64_512.json."""
    config = SR3Config(channels=channels, blocks=blocks, groups=groups)
    with torch.device("meta"):
        net = sr3(config)
    entries = {}
    for name, weight in net.state_dict().items():
        theirs, op = sr3_unet(config).spellings(name)[0]
        shape = tuple(op.write(weight).shape)
        entries[INSIDE + theirs] = Entry(None, 0, torch.float32, shape, ())  # type: ignore[arg-type]
    assert sr3_shape(TensorFile(Path("file.pth"), "none", entries)) == config
