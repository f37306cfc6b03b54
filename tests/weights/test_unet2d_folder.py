"""Folders of diffusers' UNet2DModel against diffusers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from tiny import deviation, randomise
from torch.nn.functional import one_hot

from suffuse.diffusion.cond import Cond
from suffuse.errors import SuffuseError
from suffuse.networks.families import initialise
from suffuse.networks.pixel import DDPMConfig, ddpm
from suffuse.weights.mapping import export
from suffuse.weights.maps.diffusers_unet import DIFFUSERS_UNET2D
from suffuse.weights.unet2d import open_unet2d, unet2d_config

# google/ddpm-cifar10-32's, but narrow.
CIFAR: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "norm_eps": 1e-6,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "downsample_padding": 0,
    "attention_head_dim": None,
}
# The class defaults, as the training tutorial leaves them.
TUTORIAL: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "layers_per_block": 1,
}
FLAVOURS = {
    "cifar": CIFAR,
    "tutorial": TUTORIAL,
    "classes": {**TUTORIAL, "num_class_embeds": 5, "attention_head_dim": 4},
    "no middle": {**TUTORIAL, "add_attention": False, "out_channels": 6, "in_channels": 1},
}


@pytest.mark.parametrize("name", FLAVOURS)
@torch.no_grad()
def test_agrees_with_diffusers(name: str, tmp_path: Path) -> None:
    theirs = UNet2DModel(**FLAVOURS[name]).eval()
    randomise(theirs, 3)
    theirs.save_pretrained(tmp_path)
    model = open_unet2d(tmp_path)
    x = torch.randn(2, theirs.config.in_channels, 8, 8, generator=torch.manual_seed(1))
    labels = torch.tensor([3, 0]) if name == "classes" else None
    cond = Cond() if labels is None else Cond(vector=one_hot(labels, 5).float())
    # Small numbers make the epsilon of the norms visible.
    for t, scale in ((torch.tensor([7, 940]), 1.0), (torch.tensor(500), 0.01)):
        want = theirs(scale * x, t, class_labels=labels).sample
        got = model.unet(scale * x, t, model.unet.prepare(cond))
        assert deviation(got, want) < 1e-5
    written = export(model.unet, DIFFUSERS_UNET2D, torch.float32)
    assert written.keys() == theirs.state_dict().keys()
    assert all(torch.equal(weight, theirs.state_dict()[k]) for k, weight in written.items())


def test_pipeline_folders_and_those_of_2022(tmp_path: Path) -> None:
    """`unet/` beside a scheduler, or both at the top with attention's old names."""
    theirs = UNet2DModel(**CIFAR).eval()
    randomise(theirs, 4)
    DDPMPipeline(theirs, DDPMScheduler(variance_type="fixed_large")).save_pretrained(tmp_path)
    new = open_unet2d(tmp_path)
    assert new.scheduler["variance_type"] == "fixed_large"
    assert new.info.hash() is not None

    old = tmp_path / "old"
    theirs.save_pretrained(old)
    (old / "scheduler_config.json").write_text('{"_class_name": "DDPMScheduler"}')
    path = old / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(path)
    for was, name in names.items():
        weights = {k.replace(f".{was}.", f".{name}."): w for k, w in weights.items()}
    save_file(weights, path)
    model = open_unet2d(old)
    assert model.scheduler == {"_class_name": "DDPMScheduler"} and model.config == new.config
    for name, weight in new.unet.state_dict().items():
        assert torch.equal(model.unet.state_dict()[name], weight)


def test_faults_are_named(tmp_path: Path) -> None:
    UNet2DModel(**TUTORIAL).save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    gone = weights.pop("mid_block.attentions.0.to_q.bias")
    save_file({**weights, "odd.one": gone}, path)
    with pytest.raises(SuffuseError, match=r"missing \('mid_block.*to_q.bias'\).*\('odd.one'\)"):
        open_unet2d(tmp_path)
    with pytest.raises(SuffuseError, match="there is no such folder"):
        open_unet2d(tmp_path / "none")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("time_embedding_type", "fourier"),
        ("downsample_type", "resnet"),
        ("resnet_time_scale_shift", "scale_shift"),
        ("class_embed_type", "timestep"),
        ("downsample_padding", 2),
        ("attention_head_dim", 5),
        ("down_block_types", ["DownBlock2D", "SkipDownBlock2D"]),
        ("invented", True),
    ],
)
def test_what_is_not_built_is_refused(field: str, value: Any) -> None:
    raw = json.loads(UNet2DModel(**TUTORIAL).to_json_string())
    with pytest.raises(SuffuseError, match=f"^here: {field} = .* is not supported"):
        unet2d_config({**raw, field: value}, "here")
    with pytest.raises(SuffuseError, match="do not divide into 7 norm groups"):
        unet2d_config({**raw, "norm_num_groups": 7}, "here")
    with pytest.raises(SuffuseError, match="up_block_types do not mirror"):
        unet2d_config({**raw, "up_block_types": ["UpBlock2D"] * 2}, "here")


def test_the_papers_size_and_a_fresh_network() -> None:
    """35.7 million parameters for CIFAR-10 (2006.11239, appendix B)."""
    with torch.device("meta"):
        net = ddpm(DDPMConfig())
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 35.7
    small = initialise(ddpm(DDPMConfig(channels=(8, 8), groups=4, attends=(True, True))))
    with torch.no_grad():
        got = small(torch.randn(1, 3, 8, 8), torch.tensor(3), small.prepare(Cond()))
    assert torch.equal(got, torch.zeros_like(got))
