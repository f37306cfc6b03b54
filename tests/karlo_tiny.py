"""A whole Karlo with random weights, small enough to draw in a second, built by diffusers."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    KandinskyV22PriorPipeline,
    PriorTransformer,
    StableUnCLIPImg2ImgPipeline,
    StableUnCLIPPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.pipelines.deprecated.unclip import (
    UnCLIPImageVariationPipeline,
    UnCLIPPipeline,
    UnCLIPTextProjModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
    StableUnCLIPImageNormalizer,
)
from tiny import SCHEDULER, TEXT, TOKENIZER, UNET, VAE, randomise
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

WIDTH = 32  # of embeddings and of the text encoder
DECODER: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 6,
    "block_out_channels": (32, 64),
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "layers_per_block": 1,
    "attention_head_dim": 16,
    "cross_attention_dim": 20,
    "class_embed_type": "identity",
    "resnet_time_scale_shift": "scale_shift",
}
UPSAMPLER: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 6,
    "out_channels": 3,
    "block_out_channels": (32, 64),
    "down_block_types": ("ResnetDownsampleBlock2D",) * 2,
    "up_block_types": ("ResnetUpsampleBlock2D",) * 2,
    "layers_per_block": 1,
    "add_attention": False,
    "resnet_time_scale_shift": "scale_shift",
}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "prior_scheduler": {"prediction_type": "sample", "clip_sample_range": 5.0},
    "decoder_scheduler": {"variance_type": "learned_range"},
    "super_res_scheduler": {},
}


def towers() -> dict[str, Any]:
    """Text encoder and tokenizer, which pads with "!", as Karlo's does."""
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, pad_token="!")
    config = CLIPTextConfig(
        **{**TEXT, "hidden_size": WIDTH, "projection_dim": WIDTH, "vocab_size": len(tokenizer)}
    )
    text = CLIPTextModelWithProjection(config)
    return {"tokenizer": tokenizer, "text_encoder": seeded(text, 1)}


def image_tower(width: int = WIDTH) -> dict[str, Any]:
    """Image encoder and feature extractor."""
    config = CLIPVisionConfig(
        image_size=16, patch_size=8, hidden_size=24, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, projection_dim=width,
    )  # fmt: skip
    prepare = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16)
    image = seeded(CLIPVisionModelWithProjection(config), 2)
    return {"image_encoder": image, "feature_extractor": prepare}


def prior(width: int = WIDTH, tokens: int = 77) -> PriorTransformer:
    made = PriorTransformer(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, embedding_dim=width,
        num_embeddings=tokens,
    )  # fmt: skip
    return seeded(made, 3)


def decoder() -> dict[str, Any]:
    """Decoder, projections, upsamplers and their schedulers."""
    projection = UnCLIPTextProjModel(
        clip_embeddings_dim=WIDTH, time_embed_dim=128, cross_attention_dim=20
    )
    schedulers = {
        name: UnCLIPScheduler(**said) for name, said in SCHEDULERS.items() if name[0] != "p"
    }
    return {
        "decoder": seeded(UNet2DConditionModel(**DECODER), 4),
        "text_proj": seeded(projection, 5),
        "super_res_first": seeded(UNet2DModel(**UPSAMPLER), 6),
        "super_res_last": seeded(UNet2DModel(**UPSAMPLER), 7),
        **schedulers,
    }


def karlo() -> UnCLIPPipeline:
    """UnCLIPPipeline."""
    scheduler = UnCLIPScheduler(**SCHEDULERS["prior_scheduler"])
    return UnCLIPPipeline(prior=prior(), prior_scheduler=scheduler, **towers(), **decoder())


def variations() -> UnCLIPImageVariationPipeline:
    """UnCLIPImageVariationPipeline."""
    return UnCLIPImageVariationPipeline(**towers(), **image_tower(), **decoder())


def kandinsky_prior() -> KandinskyV22PriorPipeline:
    """KandinskyV22PriorPipeline."""
    scheduler = UnCLIPScheduler(**SCHEDULERS["prior_scheduler"])
    tower = image_tower()
    tower["image_processor"] = tower.pop("feature_extractor")
    return KandinskyV22PriorPipeline(prior=prior(), scheduler=scheduler, **towers(), **tower)


def stable(from_text: bool = False) -> StableUnCLIPImg2ImgPipeline | StableUnCLIPPipeline:
    """StableUnCLIPImg2ImgPipeline, or StableUnCLIPPipeline."""
    doors = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2 * WIDTH}
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    text = CLIPTextModel(CLIPTextConfig(**TEXT, vocab_size=len(tokenizer)))
    timing = {k: v for k, v in SCHEDULER.items() if k != "skip_prk_steps"}
    parts: dict[str, Any] = {
        "unet": seeded(UNet2DConditionModel(**UNET, **doors), 8),
        "vae": seeded(AutoencoderKL(**VAE), 9),
        "text_encoder": seeded(text, 10),
        "tokenizer": tokenizer,
        "scheduler": DDIMScheduler(**timing, clip_sample=False),
        "image_normalizer": seeded(StableUnCLIPImageNormalizer(WIDTH), 11),
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    }
    if not from_text:
        return StableUnCLIPImg2ImgPipeline(**parts, **image_tower())
    before = {f"prior_{name}": part for name, part in towers().items()}
    # As its documentation has it: this pipeline does not tell UnCLIPScheduler where a step ends.
    scheduler = DDPMScheduler.from_config(UnCLIPScheduler(**SCHEDULERS["prior_scheduler"]).config)
    return StableUnCLIPPipeline(prior=prior(), prior_scheduler=scheduler, **before, **parts)


def seeded(module: nn.Module, seed: int) -> Any:
    randomise(module.eval(), seed)
    return module


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]
