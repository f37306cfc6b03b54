"""Folders of the networks that diffusers has no class for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import randomise
from torch import nn

from suffuse.errors import SuffuseError
from suffuse.networks.classifier import ClassifierConfig
from suffuse.networks.ncsnpp import NCSNppConfig
from suffuse.networks.pixel import ADMConfig, SR3Config
from suffuse.weights.parts import Defaults, Info
from suffuse.weights.pixel import PixelConfig, PixelModel
from suffuse.weights.pixel_folder import FAMILIES, family_of, folder_family, open_pixel
from suffuse.weights.save import save_pixel

ADM = ADMConfig(
    width=32, channels=(32, 64), blocks=1, attends=(False, True), heads=(1, 2), classes=3
)
CONFIGS = {
    "ADM": ADM,
    "Classifier": ClassifierConfig(replace(ADM, classes=0, out_channels=3), size=8, pool_heads=2),
    "SR3": SR3Config(width=8, channels=(8, 16), blocks=1, attends=(False, True), groups=4),
    "NCSNpp": NCSNppConfig(size=8, width=8, multiples=(1, 2), blocks=1, attention=(4,)),
}
# One name of each public implementation's file.
THEIRS = {
    "ADM": "input_blocks.1.0.in_layers.0.weight",
    "Classifier": "out.2.c_proj.weight",
    "SR3": "downs.0.weight",
    "NCSNpp": "all_modules.0.W",
}


def model(config: PixelConfig) -> PixelModel[nn.Module]:
    net = FAMILIES[family_of(config)].network(config)
    randomise(net, 0)
    return PixelModel(
        net,
        config,
        Info("tiny", "test"),
        scheduler={"_class_name": "DDPMScheduler", "num_train_timesteps": 100},
        size=(8, 8),
        classes=("a", "b", "c"),
        defaults=Defaults(steps=7),
    )


@pytest.mark.parametrize("family", CONFIGS)
def test_a_saved_model_opens_as_it_was(tmp_path: Path, family: str) -> None:
    saved = model(CONFIGS[family])
    save_pixel(saved, tmp_path / "model")
    assert folder_family(tmp_path / "model") == family
    opened = open_pixel(tmp_path / "model")
    told = ("config", "scheduler", "size", "classes", "defaults")
    assert all(getattr(opened, name) == getattr(saved, name) for name in told)
    weights = opened.unet.state_dict()
    assert all(torch.equal(w, weights[name]) for name, w in saved.unet.state_dict().items())
    file = tmp_path / "model/unet/diffusion_pytorch_model.safetensors"
    assert THEIRS[family] in load_file(file)


def test_a_field_that_nobody_knows_is_named(tmp_path: Path) -> None:
    save_pixel(model(CONFIGS["SR3"]), tmp_path / "model")
    file = tmp_path / "model/unet/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "colour": 1}))
    with pytest.raises(SuffuseError, match=r"config\.json: there is no field colour"):
        open_pixel(tmp_path / "model")


def test_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    assert folder_family(tmp_path) is None
    with pytest.raises(SuffuseError, match="names none of ADM"):
        open_pixel(tmp_path)
