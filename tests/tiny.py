"""Tiny Stable Diffusion pipelines with random weights, built by diffusers and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    SchedulerMixin,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TOKENIZER = Path(__file__).parent / "parity" / "tok" / "clip_tiny" / "tokenizer"

UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
}
VAE: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 8,
    "sample_size": 16,
}
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "quick_gelu",
    "eos_token_id": 2,
}
# Stable Diffusion 1's, as its folders have it.
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}


def randomise(module: nn.Module, seed: int) -> None:
    """Give every parameter numbers of its own: none stays 0 or 1, so that no swap goes unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(module.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim > 1:
                p.copy_(noise * p[0].numel() ** -0.5)
            else:
                p.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))


def pipeline(
    unet: dict[str, Any] | None = None,
    vae: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    scheduler: SchedulerMixin | None = None,
    seed: int = 0,
) -> StableDiffusionPipeline:
    """A pipeline of these configurations, merged into the ones above."""
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    config = CLIPTextConfig(
        **{**TEXT, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        | (text or {})
    )
    pipe = StableDiffusionPipeline(
        unet=UNet2DConditionModel(**UNET | (unet or {})),
        vae=AutoencoderKL(**VAE | (vae or {})),
        text_encoder=CLIPTextModel(config),
        tokenizer=tokenizer,
        scheduler=scheduler or PNDMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for i, part in enumerate((pipe.unet, pipe.vae, pipe.text_encoder)):
        randomise(part.eval(), 10 * seed + i)
    return pipe


def deviation(got: Tensor, want: Tensor) -> float:
    """The largest difference in units of the largest number that was wanted."""
    assert got.shape == want.shape
    assert got.isfinite().all()
    assert want.abs().max() > 0
    return float((got - want).abs().max() / want.abs().max())
