"""Inception-v3 from files as the published one: against pytorch-fid, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import deviation
from torch import Tensor

from suffuse.errors import SuffuseError
from suffuse.networks.inception import Inception
from suffuse.weights.containers import open_tensors
from suffuse.weights.inception import digest, is_inception, open_inception
from suffuse.weights.mapping import export
from suffuse.weights.maps.fid_inception import FID_INCEPTION

GOLDEN = Path(__file__).parents[1] / "parity" / "fid" / "inception"
SHAPES = {
    name: tuple(shape) for name, shape in json.loads((GOLDEN / "shapes.json").read_text()).items()
}


def random_weights() -> dict[str, Tensor]:
    """As the golden values were made: no weight stays 0 or 1, and no signal dies on the way."""
    rng, weights = np.random.RandomState(0), {}
    for name in sorted(SHAPES):
        if name.endswith("num_batches_tracked"):
            continue
        noise = rng.standard_normal(SHAPES[name]).astype(np.float32)
        if name.endswith("bn.weight"):
            noise = 1 + 0.2 * noise
        elif name.endswith("running_var"):
            noise = np.exp(0.3 * noise)
        elif noise.ndim > 1:
            noise = noise * np.float32((2 / noise[0].size) ** 0.5)
        else:
            noise = 0.2 * noise
        weights[name] = torch.from_numpy(np.ascontiguousarray(noise, np.float32))
    return weights


@torch.no_grad()
def test_agrees_with_pytorch_fid(tmp_path):
    weights = random_weights()
    counters = {n: torch.tensor(0) for n in SHAPES if n.endswith("num_batches_tracked")}
    path = tmp_path / "pt_inception.pth"
    torch.save({**weights, **counters}, path, _use_new_zipfile_serialization=False)
    file = open_tensors(path)
    assert is_inception(file) and len(digest(file)) == 64
    net = open_inception(file)
    picture = np.random.RandomState(1).uniform(-1, 1, (2, 3, 83, 91)).astype(np.float32)
    got, want = net(torch.from_numpy(picture)), load_file(GOLDEN / "io.safetensors")
    assert deviation(got.pooled, want["out.pooled"]) < 1e-5
    assert deviation(got.logits, want["out.logits"]) < 1e-5
    assert deviation(got.spatial, want["out.spatial"]) < 1e-5
    assert not any(weight.requires_grad for weight in net.parameters())
    back = export(net, FID_INCEPTION, torch.float32)
    assert back.keys() == weights.keys() - {"fc.bias"}


def test_names_and_number_of_weights_are_the_published_ones():
    with torch.device("meta"):
        net = Inception()
    # torchvision states 27,161,264 parameters for its network: less the auxiliary head, and with
    # 1008 classes and no bias, as the scores take them.
    head = (2048 * 1008) - (2048 * 1000 + 1000)
    assert sum(p.numel() for p in net.parameters()) == 27_161_264 - 3_326_696 + head
    theirs = {name: FID_INCEPTION.spellings(name)[0][0] for name in net.state_dict()}
    assert len(set(theirs.values())) == len(theirs)
    for ours, weight in net.state_dict().items():
        assert tuple(weight.shape) == SHAPES[theirs[ours]], ours
    rest = SHAPES.keys() - set(theirs.values())
    assert all(FID_INCEPTION.ignores(name) for name in rest)
    shapes = net(torch.empty(1, 3, 299, 299, device="meta"))
    assert [tuple(x.shape) for x in shapes] == [(1, 2048), (1, 17, 17, 7), (1, 1008)]


def test_other_networks_are_refused(tmp_path):
    name = "Mixed_5b.branch1x1.conv.weight"
    save_file({name: torch.zeros(64, 192, 1, 1)}, tmp_path / "a.safetensors")
    file = open_tensors(tmp_path / "a.safetensors")
    with pytest.raises(SuffuseError, match=r"weights are missing .*Conv2d_1a_3x3"):
        open_inception(file)
    save_file({"features.0.weight": torch.zeros(2)}, tmp_path / "b.safetensors")
    assert not is_inception(open_tensors(tmp_path / "b.safetensors"))
