"""`describe` on real folders and on the key layouts of every format it knows, headers only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from suffuse.errors import SuffuseError
from suffuse.weights.inspect import Description, describe

UNET = "model.diffusion_model.input_blocks.0.0.weight"
CONTEXT = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
TOWER = "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"
VAE = ["first_stage_model.encoder.down.0.block.0.norm1.weight", "first_stage_model.decoder.x"]


def described(folder: Path, keys: list[str]) -> Description:
    """What `describe` makes of a file with these keys."""
    path = folder / "x.safetensors"
    save_file({k: torch.zeros(2) for k in keys}, path)
    return describe(path)


@pytest.mark.parametrize(
    "keys, name",
    [
        ([UNET, TOWER, *VAE], "Stable Diffusion 1.x (single file)"),
        ([UNET, "cond_stage_model.model.ln_final.weight", *VAE],
         "Stable Diffusion 2.x (single file)"),
        ([UNET, "conditioner.embedders.0.transformer.text_model.x",
          "conditioner.embedders.1.model.ln_final.weight", *VAE],
         "Stable Diffusion XL (single file)"),
        ([UNET, "conditioner.embedders.0.model.ln_final.weight", *VAE],
         "Stable Diffusion XL refiner (single file)"),
        (["model.diffusion_model.joint_blocks.0.x", "text_encoders.clip_l.transformer.x"],
         "Stable Diffusion 3 (single file)"),
        ([UNET, *VAE, "cond_stage_model.embedding.weight"], "latent diffusion (single file)"),
        ([UNET], "latent diffusion U-Net (single file)"),
        ([*VAE], "autoencoder of a single file"),
        (["encoder.down.0.block.0.x", "decoder.up.0.block.0.x"], "VAE (original)"),
        (["encoder.down.0.block.0.x", "quantize.embedding.weight"], "VQ autoencoder (original)"),
        (["encoder.down_blocks.0.x", "decoder.up_blocks.0.x"], "VAE (diffusers)"),
        (["down_blocks.0.x", "time_embedding.linear_1.weight"], "U-Net (diffusers)"),
        (["time_embed.0.weight", "output_blocks.0.0.in_layers.0.weight"], "U-Net (original)"),
        (["time_embed.0.weight", "output_blocks.0.1.qkv.weight"], "U-Net (guided-diffusion)"),
        (["input_blocks.0.0.weight", "input_blocks.3.1.encoder_kv.weight"], "GLIDE (original)"),
        (["input_blocks.0.0.weight", "out.0.weight"], "noisy classifier (guided-diffusion)"),
        (["model.model.init_conv.weight", "ema.ema_model.model.init_conv.weight"],
         "denoising-diffusion-pytorch"),
        (["lora_unet_down_blocks_0_attn.lora_down.weight", "lora_te_x.lora_up.weight"], "LoRA"),
        (["unet.down_blocks.0.attn1.to_q.lora_A.weight"], "LoRA"),
        (["unet.down_blocks.0.attn1.processor.to_q_lora.down.weight"], "LoRA"),
        (["lora_unet_x.hada_w1_a"], "LoRA"),
        (["emb_params"], "textual inversion"),
        (["<cat-toy>"], "textual inversion"),
        (["clip_g", "clip_l"], "textual inversion (SDXL)"),
        (["control_model.input_blocks.0.0.weight"], "ControlNet (single file)"),
        (["input_hint_block.0.weight", "input_blocks.0.0.weight"], "ControlNet (original)"),
        (["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.x", "time_embedding.x"],
         "ControlNet (diffusers)"),
        (["visual.conv1.weight", "token_embedding.weight"], "CLIP (OpenAI's layout)"),
        (["text_model.embeddings.x", "vision_model.embeddings.x"], "CLIP (transformers)"),
        (["text_model.embeddings.token_embedding.weight"], "CLIP text encoder (transformers)"),
        (["embeddings.token_embedding.weight"], "CLIP text encoder (transformers)"),
        (["encoder.block.0.layer.0.SelfAttention.q.weight"], "T5 encoder (transformers)"),
    ],
)  # fmt: skip
def test_formats(tmp_path: Path, keys: list[str], name: str) -> None:
    found = described(tmp_path, keys)
    assert found.format == name
    assert sum(c.tensors for c in found.components) == len(keys)


def test_unknown_layouts_show_their_keys(tmp_path: Path) -> None:
    found = described(tmp_path, ["blocks.0.weight", "blocks.1.weight", "head.bias"])
    assert found.format == "unknown"
    assert found.extras["keys"] == ["blocks.0.weight", "head.bias", "blocks.1.weight"]


def test_components_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    state = {
        UNET: torch.zeros(8, 9, 3, 3).half(),
        CONTEXT: torch.zeros(8, 768).half(),
        "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(8, 9, 3, 3),
        VAE[0]: torch.zeros(5),
        TOWER: torch.zeros(77, 4).bfloat16(),
        "betas": torch.zeros(1000),
    }
    torch.save({"state_dict": state, "global_step": 7, "epoch": 1}, path)
    found = describe(str(path))
    parts = {c.name: c for c in found.components}
    assert list(parts) == ["unet", "unet, averaged (EMA)", "vae", "text_encoder", "schedule"]
    unet = parts["unet"]
    assert (unet.tensors, unet.parameters, unet.bytes) == (2, 648 + 6144, 2 * (648 + 6144))
    assert unet.dtypes == ("float16",)
    assert parts["text_encoder"].dtypes == ("bfloat16",)
    assert found.container == "torch zip"
    assert found.extras["ema"] is True
    assert found.extras["metadata"]["global_step"] == 7
    assert found.hints == {
        "prediction": "epsilon by convention",
        "in_channels": 9,
        "task": "inpainting",
        "context_width": 768,
    }
    assert found.parameters == sum(c.parameters for c in found.components)
    json.dumps(dataclasses.asdict(found), default=str)


def test_prediction_hints(tmp_path: Path) -> None:
    xl = [UNET, "conditioner.embedders.1.model.x"]
    assert described(tmp_path, xl).hints["prediction"] == "epsilon by convention"
    marked = described(tmp_path, [*xl, "v_pred", "ztsnr"]).hints
    assert marked["prediction"] == "v" and marked["zero_terminal_snr"] is True
    two = [UNET, "cond_stage_model.model.x"]
    assert described(tmp_path, two).hints["prediction"].startswith("not in the file")
    path = tmp_path / "x.safetensors"
    save_file({k: torch.zeros(1) for k in two}, path, {"modelspec.prediction_type": "v"})
    assert describe(path).hints["prediction"] == "v"


def test_textual_inversion_pickle(tmp_path: Path) -> None:
    path = tmp_path / "cat.pt"
    vectors = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.randn(2, 8))})
    torch.save({"string_to_param": vectors, "name": "cat"}, path)
    found = describe(path)
    assert found.format == "textual inversion"
    assert [(c.name, c.parameters) for c in found.components] == [("embedding", 16)]
    assert found.extras["metadata"]["name"] == "cat"


def test_short_hash_is_that_of_the_file(tmp_path: Path) -> None:
    found = described(tmp_path, [UNET])
    digest = hashlib.sha256(Path(found.path).read_bytes()).hexdigest()
    assert found.short_hash() == digest[:10]


def test_bad_paths(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(SuffuseError):
            describe(path)
    (tmp_path / "model_index.json").write_text("[")
    with pytest.raises(SuffuseError, match="not readable as JSON"):
        describe(tmp_path)


# diffusers folders


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny U-Net, autoencoder and scheduler as diffusers saves them, plain, fp16 and sharded."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel

    folder = tmp_path_factory.mktemp("pipeline")
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, cross_attention_dim=12, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    unet.save_pretrained(folder / "unet")
    unet.half().save_pretrained(folder / "unet", variant="fp16")
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    vae.save_pretrained(folder / "vae", max_shard_size="10KB")
    EulerDiscreteScheduler(prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "safety_checker": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_diffusers_folder(pipeline: Path) -> None:
    found = describe(pipeline)
    assert found.format == "StableDiffusionPipeline (diffusers folder)"
    unet, vae = found.components
    assert (unet.name, unet.kind, unet.dtypes) == ("unet", "UNet2DConditionModel", ("float32",))
    assert unet.file == "unet/diffusion_pytorch_model.safetensors"
    assert unet.bytes == 4 * unet.parameters
    assert vae.file == "vae/diffusion_pytorch_model.safetensors.index.json"
    assert "shards" in found.container
    assert found.hints["prediction"] == "v_prediction"
    assert found.hints["scheduler"] == "EulerDiscreteScheduler"
    assert found.hints["context_width"] == 12
    assert found.extras["variants"] == {"unet": ["fp16"]}
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    assert found.short_hash() == hashlib.sha256(weights.read_bytes()).hexdigest()[:10]
    json.dumps(dataclasses.asdict(found), default=str)


def test_diffusers_component(pipeline: Path) -> None:
    found = describe(pipeline / "unet")
    assert found.format == "UNet2DConditionModel (folder)"
    assert found.components[0].name == "unet"
    assert found.extras["variants"] == ["fp16"]
    half = describe(pipeline / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert half.format == "U-Net (diffusers)"
    assert half.components[0].bytes * 2 == found.components[0].bytes
    index = describe(pipeline / "vae" / "diffusion_pytorch_model.safetensors.index.json")
    assert index.format == "VAE (diffusers)"


def test_a_folder_of_our_own_is_named_so(pipeline: Path) -> None:
    own = pipeline / "suffuse.json"
    own.write_text("{}")
    try:
        assert describe(pipeline).format == "Suffuse (diffusers folder)"
    finally:
        own.unlink()
