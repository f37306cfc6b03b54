"""Saved models, opened again by Suffuse and by diffusers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from diffusers import AutoencoderKL as TheirAutoencoder
from diffusers import DDIMScheduler, StableDiffusionPipeline
from test_folder import DEEP, GELU, LINEAR, WIDE, same_modules
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import AutoencoderConfig, AutoencoderKL
from suffuse.text.bpe import save_tokenizer, train_bpe
from suffuse.text.tokenizer import load_tokenizer
from suffuse.weights.folder import open_autoencoder
from suffuse.weights.load import open_parts
from suffuse.weights.parts import Defaults, Parts
from suffuse.weights.save import save_autoencoder, save_parts

PROMPT = "a cat on a red mat, 3 times"


def opened(folder: Path, **changes: Any) -> Parts:
    tiny.pipeline(**changes).save_pretrained(folder)
    return open_parts(folder)


@pytest.mark.parametrize(
    "changes",
    [{}, {"unet": {**DEEP, **LINEAR}, "vae": {**WIDE, "shift_factor": None}, "text": GELU}],
    ids=["plain", "odd"],
)
def test_diffusers_opens_what_we_save(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = {**tiny.SCHEDULER, "prediction_type": "v_prediction", "clip_sample": False}
    pipe = tiny.pipeline(**changes, scheduler=DDIMScheduler.from_config(config))
    pipe.save_pretrained(tmp_path / "theirs")
    parts = open_parts(tmp_path / "theirs")
    save_parts(parts, tmp_path / "ours", torch.float32)

    again = open_parts(tmp_path / "ours")
    same_modules(again, parts)
    assert again.unet_config == parts.unet_config
    assert again.sampling.config == parts.sampling.config
    assert (again.latent_size, again.latent_scale) == (parts.latent_size, parts.latent_scale)
    assert (again.tokenizer.windows(PROMPT) == parts.tokenizer.windows(PROMPT)).all()

    theirs = StableDiffusionPipeline.from_pretrained(tmp_path / "ours", torch_dtype=torch.float32)
    for part in ("unet", "vae", "text_encoder"):
        want = getattr(pipe, part).state_dict()
        got = getattr(theirs, part).state_dict()
        assert got.keys() == want.keys()
        assert all(torch.equal(got[k].reshape(want[k].shape), want[k]) for k in want)
    assert type(theirs.scheduler) is DDIMScheduler
    options = {"padding": "max_length", "max_length": 77, "truncation": True}
    ids = theirs.tokenizer([PROMPT], **options).input_ids
    assert ids == parts.tokenizer.windows(PROMPT).tolist()

    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    images = [
        p(PROMPT, num_inference_steps=2, latents=latents.clone(), output_type="pt").images
        for p in (pipe, theirs)
    ]
    assert (images[0] - images[1]).abs().max() < 1e-5


def test_own_tokenizer_and_patch(tmp_path: Path) -> None:
    """As the bundled model has them: every component still opens in diffusers or transformers."""
    bpe = train_bpe(["a red apple", "빨간 사과"] * 4, 300)
    save_tokenizer(bpe, tmp_path / "tokenizer", 24)
    shape = AutoencoderConfig(channels=(16, 32), blocks=1, groups=8, patch=2)
    autoencoder = AutoencoderKL(shape).eval()
    tiny.randomise(autoencoder, 5)
    text = {"vocab_size": 300, "max_position_embeddings": 24, "eos_token_id": 1}
    base = opened(tmp_path / "base", text=text)
    parts = replace(
        base,
        autoencoder=autoencoder,
        tokenizer=load_tokenizer(tmp_path / "tokenizer"),
        latent_scale=0.7,
        defaults=Defaults(steps=20, guidance=4.5, card="README.md"),
    )
    save_parts(parts, tmp_path / "model", torch.float32)
    again = open_parts(tmp_path / "model")
    same_modules(again, parts)
    assert again.autoencoder.config == shape
    assert (again.defaults, again.latent_scale) == (parts.defaults, 0.7)
    assert (again.tokenizer.windows("사과 apple") == parts.tokenizer.windows("사과 apple")).all()

    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.float32)
    ids = torch.as_tensor(parts.tokenizer.windows("빨간 apple"))
    assert pipe.tokenizer("빨간 apple", padding="max_length", max_length=24).input_ids == ids[
        0
    ].tolist()  # fmt: skip
    vae = TheirAutoencoder.from_pretrained(tmp_path / "model" / "vae")
    image, z = torch.randn(1, 3, 16, 16), torch.randn(1, 4, 4, 4)
    with torch.no_grad():
        want = pipe.text_encoder(ids)
        got = again.text(ids)
        assert tiny.deviation(got.last, want.last_hidden_state) < 1e-5
        assert tiny.deviation(got.pooled, want.pooler_output) < 1e-5
        folded = vae.encode(pixel_unshuffle(image, 2)).latent_dist.mean
        assert tiny.deviation(again.autoencoder.encode(image).mean, folded) < 1e-5
        unfolded = pixel_shuffle(vae.decode(z).sample, 2)
        assert tiny.deviation(again.autoencoder.decode(z), unfolded) < 1e-5


def test_autoencoder_alone(tmp_path: Path) -> None:
    shape = AutoencoderConfig(channels=(8, 16), blocks=1, groups=8, patch=4, decoder=(8,) * 3)
    autoencoder = AutoencoderKL(shape)
    tiny.randomise(autoencoder, 3)
    save_autoencoder(autoencoder, tmp_path / "codec", torch.float32)
    again = open_autoencoder(tmp_path / "codec")
    assert again.config == shape
    for name, weight in autoencoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)
    save_parts(replace(opened(tmp_path / "base"), autoencoder=autoencoder), tmp_path / "model")
    assert open_autoencoder(tmp_path / "model").config == shape


def test_half_precision_is_what_is_written(tmp_path: Path) -> None:
    parts = opened(tmp_path / "base")
    save_parts(parts, tmp_path / "half")
    got = open_parts(tmp_path / "half", dtype=torch.float16).unet.state_dict()
    for name, weight in parts.unet.state_dict().items():
        assert torch.equal(got[name], weight.half())


def test_an_earlier_model_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    parts = opened(tmp_path / "base")
    folder = tmp_path / "deep" / "model"
    save_parts(parts, folder)
    save_parts(replace(parts, latent_scale=0.5), folder)
    assert open_parts(folder).latent_scale == 0.5
    (folder / "diary.txt").write_text("dear diary")
    with pytest.raises(SuffuseError, match=r"holds 'diary.txt' besides a model"):
        save_parts(parts, folder)
    assert open_parts(folder).latent_scale == 0.5
    with pytest.raises(SuffuseError, match="is a file"):
        save_parts(parts, folder / "diary.txt")


def test_nothing_is_left_of_a_save_that_fails(tmp_path: Path) -> None:
    parts = opened(tmp_path / "base")
    save_parts(parts, tmp_path / "model")
    before = (tmp_path / "model" / "model_index.json").stat().st_ino
    with torch.no_grad():
        parts.text.norm.weight.fill_(1e9)  # the last component to be written
    for name in ("model", "fresh"):
        with pytest.raises(SuffuseError, match=r"final_layer_norm\.weight"):
            save_parts(parts, tmp_path / name)
    assert (tmp_path / "model" / "model_index.json").stat().st_ino == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "model"]


def test_unwritable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SuffuseError, match="cannot be written"):
        save_parts(opened(tmp_path / "base"), tmp_path / "file" / "model")
