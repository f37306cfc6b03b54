"""Stage two as a rectified flow: from a config to a folder that draws, here and in diffusers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from PIL import Image

import suffuse
from suffuse.networks.autoencoder import Autoencoder
from suffuse.systems.encoders import TextEncoder
from suffuse.training.loop import train
from suffuse.training.presets import AUTOENCODERS, LATENTS
from suffuse.training.stages import latent_stage
from suffuse.weights.fields import configured
from suffuse.weights.save import save_autoencoder

# What docs/training.md tells people to write, and the smallest run there is.
ASKED = {
    "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 2.0},
    "noising": {"timesteps": "logit-normal"},
}
SHORT = {"scenes": 8, "captions": 20, "plan": {"steps": 3, "batch": 2, "save_every": 3}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("flow")
    torch.manual_seed(0)
    save_autoencoder(Autoencoder(AUTOENCODERS["toy"].config), root / "ae")
    preset = replace(configured(LATENTS["toy"], {**ASKED, **SHORT}, "flow.json"), reading=None)
    stage = latent_stage(preset, root / "ae", root / "run", seed=0)
    assert stage.kind == "flow"
    train(stage, preset.plan, root / "run", seed=0)
    return root / "run" / "model"


@pytest.fixture(scope="module")
def system(model):
    return suffuse.load(model, device="cpu", dtype="float32")


def test_the_file_is_that_of_diffusers(model):
    """It opens, and holds nothing of the class that the preset had named."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(model, subfolder="scheduler")
    assert (scheduler.config.shift, scheduler.config.num_train_timesteps) == (2.0, 1000)
    written = json.loads((model / "scheduler" / "scheduler_config.json").read_text())
    assert set(written) <= {"_class_name", *FlowMatchEulerDiscreteScheduler().config}
    index = json.loads((model / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "FlowMatchEulerDiscreteScheduler"]


@torch.no_grad()
def test_diffusers_draws_the_same_picture(model, system):
    """The saved U-Net and scheduler in a loop as Stable Diffusion 3's pipeline has it."""
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet").float()
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(model, subfolder="scheduler")
    parts = system.parts
    cond, null = TextEncoder(parts.tokenizer, parts.text).pair(["a dog"], [""])
    states = torch.cat([null.tokens, cond.tokens])
    x = noise = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(4)
    for t in scheduler.timesteps:
        without, guided = unet(x.expand(2, -1, -1, -1), t, states).sample.chunk(2)
        x = scheduler.step(without + 3 * (guided - without), t, x).prev_sample
    decoded = parts.autoencoder.decode(x / parts.latent_scale + parts.latent_shift)
    want = ((decoded[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).numpy()
    picture = system.generate("a dog", noise=noise, steps=4, guidance=3.0)[0]
    assert np.abs(np.asarray(picture, dtype=float) - want).max() <= 1


@pytest.mark.parametrize(
    "fields",
    [
        {"sampler": "DPM++ 2M Karras"},
        {"sampler": "euler_a", "rescale": 0.7},
        {"sampler": "heun", "grid": "trailing"},
        {"strength": 0.4},
        {"strength": 0.7, "mask": True, "sampler": "unipc"},
    ],
)
def test_whatever_a_model_can_do_a_flow_can_do(system, fields):
    photo = Image.effect_noise((128, 128), 60).convert("RGB")
    mask = Image.new("L", (128, 128))
    mask.paste(255, (0, 0, 64, 128))
    if "strength" in fields:
        fields = {**fields, "image": photo}
    if "mask" in fields:
        fields = {**fields, "mask": mask}
    steps = list(system.stream(suffuse.Request("a dog", seed=1, steps=5, **fields)))
    rounded_up = {0.4: 2, 0.7: 4}
    assert len(steps) == rounded_up.get(fields.get("strength"), 5)
    assert steps[0].preview().size == (128, 128)
    picture = np.asarray(steps[-1].result)
    if "mask" in fields:
        assert np.array_equal(picture[:, 64:], np.asarray(photo)[:, 64:])
    assert picture.std() > 0
