"""The model that comes with the package: what it is made of, and that it draws what it is asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from transformers import AutoTokenizer, CLIPTextModel

import suffuse
from suffuse.data.emoji import World
from suffuse.evaluation.prompts import held_out_prompts, score
from suffuse.systems.encoders import TextEncoder
from suffuse.weights.load import BUNDLED

WORLD = World()


@pytest.fixture(scope="module")
def model():
    return suffuse.load(device="cpu", dtype="float32")


def test_weights_are_halves_and_fit_the_package():
    files = sorted(BUNDLED.rglob("*.safetensors"))
    assert len(files) == 3
    assert sum(file.stat().st_size for file in BUNDLED.rglob("*") if file.is_file()) <= 40e6
    for file in files:
        with safe_open(file, "pt") as weights:
            kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
        assert kinds == {"F16"}, file


def test_says_its_defaults_and_its_world(model):
    defaults = model.parts.defaults
    assert defaults.steps and defaults.guidance
    assert defaults.objects == WORLD.objects


def test_networks_are_those_that_diffusers_and_transformers_open(model):
    """Trained weights have outliers that random ones lack."""
    generator = torch.Generator().manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / "tokenizer")
    texts = ["a red apple on a blue background", "두 마리 판다"]
    given = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    text = CLIPTextModel.from_pretrained(BUNDLED / "text_encoder").float().eval()
    unet = UNet2DConditionModel.from_pretrained(BUNDLED / "unet").float().eval()
    x, t = torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([500, 20])
    with torch.inference_mode():
        tokens = text(given).last_hidden_state
        encoder = TextEncoder(model.parts.tokenizer, model.parts.text)
        ids = encoder.ids(texts)
        assert torch.equal(ids[:, 0], given)
        cond = encoder.embed(ids)
        theirs = unet(x, t, tokens).sample
        ours = model.parts.unet(x, t, model.parts.unet.prepare(cond))
    for got, want in ((cond.tokens, tokens), (ours, theirs)):
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize("language", ["en", "ko"])
def test_draws_what_it_is_asked(model, language):
    """Far above chance, which is one in 104; the real figures are in the model card."""
    prompts = held_out_prompts(WORLD, 20, language)[2:18]  # eight of one thing, eight of two
    pictures = [
        np.asarray(model.generate(prompt.text, seed=i, steps=12)[0])
        for i, prompt in enumerate(prompts)
    ]
    found = score(pictures, prompts, WORLD)
    assert found.background_accuracy >= 0.8
    assert found.object_accuracy >= 0.5
    assert found.pair_accuracy >= 0.5
