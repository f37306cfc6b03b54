"""Stable Diffusion 1.x in one file, as CompVis laid it out and everybody else copied it.

The file holds no configuration. Sizes are read off the weights' shapes; the rest is convention
(8 heads, a GELU, eps prediction, the schedule), and `Hints` says where a model departs from it.
Schedule buffers are never read: half-precision files round them too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import autoencoder
from suffuse.networks.clip import ClipText, ClipTextConfig
from suffuse.networks.families import SDConfig, stable_diffusion
from suffuse.text.openai import openai_clip_tokenizer
from suffuse.text.tokenizer import Tokenizer, load_tokenizer
from suffuse.weights.first_stage import INSIDE, autoencoder_shape, count, shape
from suffuse.weights.mapping import complain
from suffuse.weights.maps.hf_clip_text import HF_CLIP_TEXT
from suffuse.weights.maps.ldm_unet import ldm_unet
from suffuse.weights.maps.ldm_vae import ldm_vae
from suffuse.weights.parts import (
    Hints,
    Info,
    Parts,
    Place,
    build,
    files_of,
    sampling_of,
    with_heads,
    with_text_hints,
)
from suffuse.weights.tensorfile import TensorFile
from suffuse.weights.vae_config import DEFAULT_SCALE

SD1 = "Stable Diffusion 1.x (single file)"  # as `formats` calls it
UNET, VAE, TEXT = "model.diffusion_model.", INSIDE, "cond_stage_model."
TOWER = TEXT + "transformer."
EMA = "model_ema."

# What Stable Diffusion 1's folder says in scheduler_config.json.
SCHEDULER: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}

# Beside the networks: the schedule's buffers, and what trainers and other programs leave. None of
# it takes part in making a picture (`scale_factor` and the marks `v_pred` and `ztsnr` are read).
_BESIDE = {
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
    "posterior_mean_coef1", "posterior_mean_coef2", "lvlb_weights", "logvar", "scale_factor",
    "cond_stage_model.logit_scale", "cond_stage_model.text_projection", "v_pred",
    "ztsnr",
}  # fmt: skip
_BESIDE_BELOW = (EMA, "embedding_manager.")


def open_sd1(file: TensorFile, hints: Hints, place: Place) -> Parts:
    """The parts of a single-file checkpoint. Raises SuffuseError naming what is wrong with it."""
    _check_rest(file)
    where = str(file.path)
    config = with_heads(unet_shape(file), hints, where)
    vae = autoencoder_shape(file, VAE)
    tower = with_text_hints(text_shape(file), hints)
    unet_file = with_ema(file) if hints.ema else file
    return Parts(
        unet=build(lambda: stable_diffusion(config), ldm_unet(config), unet_file, place, UNET),
        unet_config=config,
        autoencoder=build(lambda: autoencoder(vae), ldm_vae(vae), file, place, VAE),
        text=build(lambda: ClipText(tower), HF_CLIP_TEXT, file, place, TOWER),
        tokenizer=_tokenizer(hints, tower, where),
        sampling=sampling_of(_scheduler(file), hints, where),
        latent_scale=_scale(file) if hints.scale is None else hints.scale,
        info=Info(file.path.stem, SD1, file.path, files_of(file)),
    )


def _check_rest(file: TensorFile) -> None:
    """Refuse names that belong to none of the networks."""
    complain(
        file,
        [],
        [
            name
            for name in file
            if not name.startswith((UNET, VAE, TOWER, *_BESIDE_BELOW)) and name not in _BESIDE
        ],
    )


def _scheduler(file: TensorFile) -> dict[str, Any]:
    """The convention; v prediction and zero terminal SNR where marks or the metadata say so.

    With zero terminal SNR the first step has to start from pure noise, so the spacing is trailing
    (2305.08891, section 3.3).
    """
    config = dict(SCHEDULER)
    if "v_pred" in file or file.metadata.get("modelspec.prediction_type") == "v":
        config["prediction_type"] = "v_prediction"
    if "ztsnr" in file:
        config = {name: value for name, value in config.items() if name != "skip_prk_steps"}
        config |= {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}
        config |= {"timestep_spacing": "trailing", "steps_offset": 0, "set_alpha_to_one": True}
    return config


def _scale(file: TensorFile) -> float:
    """The latents' scale: a buffer where training measured it, else the convention."""
    return float(file.read("scale_factor")) if "scale_factor" in file else DEFAULT_SCALE


def _tokenizer(hints: Hints, tower: ClipTextConfig, where: str) -> Tokenizer:
    if hints.tokenizer is not None:
        return load_tokenizer(hints.tokenizer)
    tokenizer = openai_clip_tokenizer()
    if tokenizer.size != tower.vocab:
        raise SuffuseError(
            f"{where}: its text encoder knows {tower.vocab} tokens, OpenAI's vocabulary has "
            f"{tokenizer.size}; name the folder of its tokenizer"
        )
    return tokenizer


def with_ema(file: TensorFile) -> TensorFile:
    """The file with the U-Net's averaged weights in place of the last ones.

    `model_ema.` repeats the names below `model.` with all dots taken out (ldm/modules/ema.py).
    Raises SuffuseError when the file has none.
    """
    entries = dict(file.entries)
    for name in file:
        if name.startswith(UNET):
            averaged = EMA + name.removeprefix("model.").replace(".", "")
            if averaged not in file:
                raise SuffuseError(
                    f"{file.path}: holds no averaged weight for {name!r}; load it without ema"
                )
            entries[name] = file.entries[averaged]
    return replace(file, entries=entries)


# ---- shapes ------------------------------------------------------------------------------------


def unet_shape(file: TensorFile) -> SDConfig:
    """The U-Net's configuration, as far as shapes tell it. Raises SuffuseError naming a gap."""
    blocks = count(file, UNET + "input_blocks.")
    ends = [i for i in range(blocks) if f"{UNET}input_blocks.{i}.0.op.weight" in file]
    n, levels = (ends[0] if ends else blocks) - 1, len(ends) + 1
    if n < 1 or ends != [(n + 1) * i for i in range(1, levels)] or blocks != (n + 1) * levels:
        raise SuffuseError(
            f"{file.path}: its {blocks} input blocks do not fall into levels of equal length"
        )
    first = [f"{UNET}input_blocks.{1 + (n + 1) * i}" for i in range(levels)]
    out_channels, *_ = shape(file, UNET + "out.2.weight", 4)
    return SDConfig(
        in_channels=shape(file, UNET + "input_blocks.0.0.weight", 4)[1],
        out_channels=out_channels,
        channels=tuple(shape(file, at + ".0.out_layers.3.weight", 4)[0] for at in first),
        blocks=n,
        depth=tuple(count(file, at + ".1.transformer_blocks.") for at in first),
        mid_depth=count(file, UNET + "middle_block.1.transformer_blocks."),
        heads=(8,) * levels,
        context=shape(file, UNET + "middle_block.1.transformer_blocks.0.attn2.to_k.weight", 2)[1],
    )


def text_shape(file: TensorFile) -> ClipTextConfig:
    """The text encoder's configuration; heads are 64 wide. Raises SuffuseError naming a gap."""
    below = TOWER + "text_model."
    if below + "embeddings.position_embedding.weight" not in file:
        below = TOWER
    vocab, width = shape(file, below + "embeddings.token_embedding.weight", 2)
    return ClipTextConfig(
        vocab=vocab,
        width=width,
        layers=count(file, below + "encoder.layers."),
        heads=max(1, width // 64),
        context=shape(file, below + "embeddings.position_embedding.weight", 2)[0],
        intermediate=shape(file, below + "encoder.layers.0.mlp.fc1.weight", 2)[0],
    )
