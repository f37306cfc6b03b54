"""An autoencoder's configuration file as ours, and back: diffusers' AutoencoderKL and VQModel."""

from __future__ import annotations

from typing import Any

from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import AutoencoderConfig
from suffuse.weights.fields import Json, check_class, honour, number, numbers, refuse

# diffusers' own default where a configuration is silent: Stable Diffusion 1's autoencoder.
DEFAULT_SCALE = 0.18215

KL, VQ = "AutoencoderKL", "VQModel"  # diffusers' classes

# What they must be told, or not told, for the network to be the one we build.
_FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "latents_mean": None,
    "latents_std": None,
    "norm_type": "group",
    "lookup_from_codebook": False,
}
_READ = {
    "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels",
    "layers_per_block", "latent_channels", "norm_num_groups", "sample_size", "scaling_factor",
    "shift_factor", "force_upcast", "use_quant_conv", "use_post_quant_conv",
    "mid_block_add_attention", "num_vq_embeddings", "vq_embed_dim",
}  # fmt: skip

# Levels without and with attention.
_DOWN = ("DownEncoderBlock2D", "AttnDownEncoderBlock2D")
_UP = ("UpDecoderBlock2D", "AttnUpDecoderBlock2D")


def class_name(c: AutoencoderConfig) -> str:
    """What diffusers calls the network of a configuration."""
    return VQ if c.codes else KL


def autoencoder_config(raw: Json, where: str, patch: int = 1) -> AutoencoderConfig:
    """`vae/config.json`; `patch` is the side of the square of pixels behind each of its inputs."""
    check_class(raw, "_class_name", (KL, VQ), where)
    honour(raw, _FIXED, _READ, where)
    channels = numbers(raw, "block_out_channels", (64,), where)
    inputs = number(raw, "in_channels", 3, where)
    if raw.get("out_channels", 3) != inputs or inputs % patch**2:
        refuse(raw, "out_channels", where)
    quant = raw.get("use_quant_conv", True)
    if raw.get("use_post_quant_conv", True) != quant:
        refuse(raw, "use_post_quant_conv", where)
    vq = raw["_class_name"] == VQ
    latent = number(raw, "latent_channels", 3 if vq else 4, where)
    if vq and raw.get("vq_embed_dim") not in (None, latent):
        refuse(raw, "vq_embed_dim", where)
    config = AutoencoderConfig(
        channels=channels,
        blocks=number(raw, "layers_per_block", 1, where),
        latent=latent,
        image=inputs // patch**2,
        groups=number(raw, "norm_num_groups", 32, where),
        patch=patch,
        mid_attention=bool(raw.get("mid_block_add_attention", True)),
        quant=bool(quant),
        codes=number(raw, "num_vq_embeddings", 256, where) if vq else 0,
    )
    return config.attending(_attention(raw, len(channels), where))


def _attention(raw: Json, levels: int, where: str) -> list[bool]:
    """Which levels attend, from the names of their blocks; the way up must mirror the way down."""
    down = list(raw.get("down_block_types", _DOWN[:1]))
    up = list(raw.get("up_block_types", _UP[:1]))
    for field, blocks, known in (("down", down, _DOWN), ("up", up, _UP)):
        if len(blocks) != levels or not all(name in known for name in blocks):
            refuse(raw, f"{field}_block_types", where)
    attends = [name == _DOWN[1] for name in down]
    if [name == _UP[1] for name in reversed(up)] != attends:
        raise SuffuseError(f"{where}: up_block_types do not mirror down_block_types")
    return attends


def latent_scaling(raw: Json) -> tuple[float, float]:
    """(scale, shift): the U-Net sees `(latent - shift) * scale`. Files of 2022 say neither."""
    scale, shift = raw.get("scaling_factor"), raw.get("shift_factor")
    return float(DEFAULT_SCALE if scale is None else scale), float(shift or 0.0)


def autoencoder_json(
    c: AutoencoderConfig, scale: float, shift: float, pixels: int
) -> dict[str, Any]:
    """The `vae/config.json` of a network.

    `pixels` is the height of its pictures. To diffusers an autoencoder with a patch is one over
    smaller pictures of patch x patch times as many channels; our own `patch` is written beside it.
    """
    raw: dict[str, Any] = {
        "_class_name": class_name(c),
        "sample_size": pixels // c.patch,
        "in_channels": c.image * c.patch**2,
        "out_channels": c.image * c.patch**2,
        "block_out_channels": list(c.channels),
        "layers_per_block": c.blocks,
        "latent_channels": c.latent,
        "norm_num_groups": c.groups,
        "down_block_types": [_DOWN[attends] for attends in c.attends],
        "up_block_types": [_UP[attends] for attends in reversed(c.attends)],
        "mid_block_add_attention": c.mid_attention,
        "scaling_factor": scale,
    }
    if c.codes:
        return raw | {"num_vq_embeddings": c.codes, "vq_embed_dim": c.latent}
    return raw | {
        "use_quant_conv": c.quant,
        "use_post_quant_conv": c.quant,
        "shift_factor": shift or None,
    }
