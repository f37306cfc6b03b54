"""Telling formats apart by the names of their weights.

One row a format, most particular first; a row matches when each of its signs is found among the
keys. They tell the layout, never what the numbers mean: that is for a configuration to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A known layout; `component` names its weights where the whole file is one network.

    A sign is the beginning of some key, after `*` a part of one, after `=` a whole one; each tuple
    holds alternatives.
    """

    name: str
    signs: tuple[tuple[str, ...], ...]
    component: str | None = None


def _f(name: str, *signs: str, component: str | None = None) -> Format:
    return Format(name, tuple(tuple(s.split("|")) for s in signs), component)


_UNET = "model.diffusion_model.input_blocks.0.0.weight"

FORMATS = (
    # Adapters come first: their keys contain those of what they adapt.
    _f("LoRA", "*.lora_down.|*.lora_A.|*.lora_a.|*.lora.down.|*.hada_w1_a|*.lokr_w1|*_lora."),
    _f("textual inversion", "string_to_param|=emb_params", component="embedding"),
    _f("textual inversion (SDXL)", "=clip_g", "=clip_l", component="embedding"),
    _f("ControlNet (single file)", "control_model.", component="controlnet"),
    _f("ControlNet (original)", "input_hint_block.", component="controlnet"),
    _f("ControlNet (diffusers)", "controlnet_cond_embedding.", component="controlnet"),
    # Whole models in one file.
    _f("GLIGEN (original)", "model.position_net.", "autoencoder."),
    _f("Stable Diffusion XL (single file)", _UNET, "conditioner.embedders.1."),
    _f("Stable Diffusion XL refiner (single file)", _UNET, "conditioner.embedders.0.model."),
    _f("Stable Diffusion 3 (single file)", "model.diffusion_model.joint_blocks."),
    _f("Stable Diffusion 3 transformer", "joint_blocks.", component="transformer"),
    _f("Stable Diffusion 2.x (single file)", _UNET, "cond_stage_model.model."),
    _f(
        "Stable Diffusion 1.x (single file)",
        _UNET,
        "cond_stage_model.transformer.text_model.|cond_stage_model.transformer.embeddings.",
    ),
    _f("latent diffusion (single file)", _UNET, "first_stage_model."),
    _f("latent diffusion U-Net (single file)", _UNET),
    # One network alone.
    _f("Karlo's prior (original)", "model.prd_emb", "model.clip_img_proj.", component="prior"),
    _f("Karlo's decoder (original)", "model.clip_tok_proj.", component="decoder"),
    _f("Karlo's up-sampler (original)", "model_first_steps.", component="upsampler"),
    _f("unCLIP prior (diffusers)", "prd_embedding", "embedding_proj.", component="prior"),
    _f("unCLIP projection (diffusers)", "clip_extra_context_tokens_proj.", component="text_proj"),
    _f("autoencoder of a single file", "first_stage_model.", component="vae"),
    _f("VQ autoencoder (original)", "encoder.down.0.", "quantize.embed", component="vae"),
    _f("VAE (original)", "encoder.down.0.", "decoder.up.0.", component="vae"),
    _f("VQ autoencoder (diffusers)", "encoder.down_blocks.0.", "quantize.", component="vae"),
    _f("VAE (diffusers)", "encoder.down_blocks.0.", "decoder.up_blocks.0.", component="vae"),
    _f("GLIDE (original)", "input_blocks.0.0.weight", "*.encoder_kv.", component="unet"),
    _f("U-Net (guided-diffusion)", "output_blocks.", "time_embed.0.", "*.qkv.", component="unet"),
    _f("U-Net (original)", "output_blocks.", "time_embed.0.", component="unet"),
    _f("noisy classifier (guided-diffusion)", "input_blocks.0.", "out.0.", component="classifier"),
    _f(
        "NCSN++ or DDPM++ (score_sde)",
        "model.module.all_modules.|module.all_modules.",
        component="unet",
    ),
    _f("SR3 (original)", "denoise_fn.noise_level_mlp.|denoise_fn.time_mlp.", component="unet"),
    _f("denoising-diffusion-pytorch", "model.model.init_conv.|model.init_conv.|init_conv."),
    _f("U-Net (diffusers)", "down_blocks.0.", "time_embedding.", component="unet"),
    _f("DiT (original)", "x_embedder.proj.", "y_embedder.", component="transformer"),
    _f("CLIP (OpenAI's layout)", "visual.", "token_embedding.weight", component="clip"),
    _f("CLIP (transformers)", "text_model.", "vision_model.", component="clip"),
    _f(
        "CLIP text encoder (transformers)",
        "text_model.embeddings.token_embedding.|embeddings.token_embedding.",
        component="text_encoder",
    ),
    _f("CLIP image encoder (transformers)", "vision_model.", component="image_encoder"),
    _f(
        "CLIP text encoder (OpenAI's layout)",
        "transformer.resblocks.",
        "token_embedding.weight",
        component="text_encoder",
    ),
    _f("T5 encoder (transformers)", "encoder.block.0.layer.0.", component="text_encoder"),
)

_TOKEN = _f("textual inversion", component="embedding")

# Which part of a model a key belongs to, in files that hold several.
_PARTS = (
    ("model.diffusion_model.", "unet"),
    ("model_ema.", "unet, averaged (EMA)"),
    ("first_stage_model.", "vae"),
    ("cond_stage_model.", "text_encoder"),
    ("conditioner.embedders.0.", "text_encoder"),
    ("conditioner.embedders.1.", "text_encoder_2"),
    ("text_encoders.clip_l.", "text_encoder"),
    ("text_encoders.clip_g.", "text_encoder_2"),
    ("text_encoders.t5xxl.", "text_encoder_3"),
    ("control_model.", "controlnet"),
    ("lora_unet_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
    ("unet.", "unet"),
    ("transformer.", "transformer"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("autoencoder.", "vae"),
    ("vae.", "vae"),
    ("model.", "model"),
    ("ema.", "model, averaged (EMA)"),
    ("loss.", "training loss"),
)

SCHEDULE = {
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
    "posterior_mean_coef1", "posterior_mean_coef2", "lvlb_weights", "logvar", "scale_factor",
}  # fmt: skip


def recognise(keys: Iterable[str]) -> Format | None:
    """The first format all of whose signs are among the keys, or None."""
    keys = list(keys)
    for row in FORMATS:
        if all(any(_matches(k, sign) for sign in group for k in keys) for group in row.signs):
            return row
    if len(keys) == 1 and keys[0].startswith("<") and keys[0].endswith(">"):
        return _TOKEN  # diffusers names the one vector after its word
    return None


def _matches(key: str, sign: str) -> bool:
    if sign[0] == "*":
        return sign[1:] in key
    return key == sign[1:] if sign[0] == "=" else key.startswith(sign)


def part_of(key: str, whole: str | None) -> str:
    """The component a key belongs to; `whole` names all of a file that is one network."""
    if key.removeprefix("diffusion.") in SCHEDULE:
        return "schedule"
    if whole is not None and not key.startswith(("loss.", "model_ema.", "ema.")):
        return whole
    for prefix, part in _PARTS:
        if key.startswith(prefix):
            return part
    return "other"
