"""Autoencoders in the original layout against CompVis' and taming's values; VQ in diffusers'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL as TheirKL
from diffusers import StableDiffusionPipeline, VQModel
from safetensors.torch import load_file, save_file
from tiny import VAE, deviation, pipeline, randomise

from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import (
    AutoencoderConfig,
    AutoencoderKL,
    AutoencoderVQ,
    autoencoder,
)
from suffuse.networks.packing import pack
from suffuse.networks.quantizer import codebook_loss
from suffuse.weights.first_stage import open_first_stage
from suffuse.weights.folder import open_autoencoder
from suffuse.weights.load import open_parts
from suffuse.weights.save import save_autoencoder, save_parts

PARITY = Path(__file__).parents[1] / "parity"


@pytest.mark.parametrize(
    ("name", "factor", "tolerance"), [("ldm_kl_f8", 8, 2e-5), ("ldm_kl_f16", 16, 3e-5)]
)
@torch.no_grad()
def test_kl_agrees_with_compvis(name, factor, tolerance):
    net = open_first_stage(PARITY / "vae" / name / "model.ckpt")
    assert isinstance(net, AutoencoderKL) and net.config.factor == factor
    assert any(net.config.attends) == (factor == 16)
    io = load_file(PARITY / "vae" / name / "io.safetensors")
    got = net.encode(io["in.image"])
    for key in ("mean", "logvar"):
        assert deviation(getattr(got, key), io[f"out.{key}"]) < tolerance
    assert deviation(net.moments(io["in.image"]), io["out.moments"]) < tolerance
    assert deviation(got.kl(), io["out.kl"]) < tolerance
    assert deviation(got.sample(io["in.noise"]), io["out.sample"]) < tolerance
    assert deviation(net.decode(io["out.sample"]), io["out.decoded"]) < tolerance
    assert deviation(net.decode(io["in.z_low"]), io["out.decoded_low"]) < tolerance


@torch.no_grad()
def test_vq_agrees_with_compvis():
    """The latent is what the encoder made; decoding brings it to the codebook."""
    net = open_first_stage(PARITY / "vae" / "ldm_vq_f4" / "model.ckpt")
    assert isinstance(net, AutoencoderVQ) and net.config.codes == 64 and net.config.factor == 4
    io = load_file(PARITY / "vae" / "ldm_vq_f4" / "io.safetensors")
    z = net.encode(io["in.image"]).mode
    assert deviation(z, io["out.latents"]) < 2e-5
    quantized = net.quantize(z)
    assert deviation(quantized.z, io["out.quantized"]) < 2e-5
    assert torch.equal(quantized.indices.flatten(), io["out.indices"])
    assert deviation(codebook_loss(z, quantized.picked, 0.25, 1.0), io["out.loss"]) < 2e-5
    assert deviation(net.decode(z), io["out.decoded"]) < 2e-5
    assert deviation(net.decode(quantized.z), io["out.decoded"]) < 2e-5
    assert deviation(net.decode_codes(io["in.z_low"]), io["out.decoded_low"]) < 2e-5


@torch.no_grad()
def test_vqgan_agrees_with_taming():
    net = open_first_stage(PARITY / "taming" / "vqgan" / "last.ckpt")
    assert isinstance(net, AutoencoderVQ) and net.config.attends == (False, True)
    io = load_file(PARITY / "taming" / "vqgan" / "io.safetensors")
    z = net.encode(io["in.x"]).mode
    quantized = net.quantize(z)
    assert torch.equal(quantized.indices.flatten(), io["out.vq.indices"])
    assert deviation(quantized.z, io["out.vq.quantized"]) < 1e-5
    assert deviation(codebook_loss(z, quantized.picked, 0.25, 1.0), io["out.vq.loss"]) < 1e-5
    assert deviation(net.decode(quantized.z), io["out.vq.decoded"]) < 1e-5


ATTENTION = {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
}


@pytest.mark.parametrize("kind", ["kl", "vq", "kl attention", "vq attention"])
@torch.no_grad()
def test_agrees_with_diffusers(kind, tmp_path):
    """Also with attention inside levels, and what we save opens there."""
    common = {**VAE, **(ATTENTION if "attention" in kind else {})}
    vq = {"num_vq_embeddings": 20, "latent_channels": 5}
    theirs = (VQModel(**common, **vq) if "vq" in kind else TheirKL(**common)).eval()
    randomise(theirs, 3)
    theirs.save_pretrained(tmp_path / "vae")
    ours = open_autoencoder(tmp_path)
    assert any(ours.config.attends) == ("attention" in kind)
    image = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    z = ours.encode(image).mode
    encoded = theirs.encode(image)
    want = encoded.latents if "vq" in kind else encoded.latent_dist.mode()
    assert deviation(z, want) < 1e-5
    assert deviation(ours.decode(z), theirs.decode(want).sample) < 1e-5
    save_autoencoder(ours, tmp_path / "again", torch.float32, perceptual="a test")
    again = type(theirs).from_pretrained(tmp_path / "again" / "vae")
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, theirs.state_dict()[name]), name
    assert open_autoencoder(tmp_path / "again").config == ours.config


@pytest.mark.parametrize("codes", [0, 12])
@torch.no_grad()
def test_what_is_saved_is_opened(codes, tmp_path):
    config = AutoencoderConfig(
        channels=(8, 8, 16), blocks=1, groups=4, latent=3, patch=2, shortcut=True, codes=codes
    ).attending((False, True, True))
    net = autoencoder(config).eval()
    randomise(net, 1)
    save_autoencoder(net, tmp_path, torch.float32)
    again = open_autoencoder(tmp_path)
    assert again.config == config
    image = torch.randn(1, 3, 16, 16)
    z = net.encode(image).mode
    assert torch.equal(again.encode(image).mode, z) and torch.equal(again.decode(z), net.decode(z))


@torch.no_grad()
def test_a_model_on_codes_is_saved_and_opened(tmp_path):
    """Whole: U-Net, text, and an autoencoder with a codebook; diffusers finds its class."""
    pipeline().save_pretrained(tmp_path / "kl")
    parts = open_parts(tmp_path / "kl")
    net = autoencoder(AutoencoderConfig(channels=(8, 8), blocks=1, groups=4, codes=12)).eval()
    randomise(net, 1)
    save_parts(replace(parts, autoencoder=net), tmp_path / "vq", torch.float32)
    again = open_parts(tmp_path / "vq")
    assert isinstance(again.autoencoder, AutoencoderVQ)
    z = torch.randn(1, 4, 5, 6)
    assert torch.equal(again.autoencoder.decode(z), net.decode(z))
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path / "vq").vae
    assert isinstance(theirs, VQModel)
    assert deviation(theirs.decode(z).sample, net.decode(z)) < 1e-5
    # What pictures are made with: packed layers compute the same.
    assert deviation(pack(again.autoencoder).decode(z), net.decode(z)) < 1e-5


def test_what_cannot_be_opened_is_said(tmp_path):
    save_file({"quantize.embed.weight": torch.ones(2, 2)}, tmp_path / "gumbel.safetensors")
    with pytest.raises(SuffuseError, match="Gumbel"):
        open_first_stage(tmp_path / "gumbel.safetensors")
    save_file({"weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(SuffuseError, match="no autoencoder"):
        open_first_stage(tmp_path / "other.safetensors")
    golden = torch.load(PARITY / "taming" / "vqgan" / "last.ckpt")["state_dict"]
    golden["quantize.embedding.weight"] = torch.ones(64, 3)
    save_file(golden, tmp_path / "narrow.safetensors")
    with pytest.raises(SuffuseError, match=r"quantize.embedding.weight'? has the shape \(64, 3\)"):
        open_first_stage(tmp_path / "narrow.safetensors")
