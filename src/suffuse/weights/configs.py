"""The configuration files of a diffusers folder as ours, and back.

A field that would change the network and that Suffuse does not build raises SuffuseError with its
name, so that a model is never opened as something it is not.
"""

from __future__ import annotations

from typing import Any

from suffuse.errors import SuffuseError
from suffuse.networks.clip import ClipTextConfig
from suffuse.networks.clip_vision import ClipVisionConfig
from suffuse.networks.families import SDConfig
from suffuse.networks.transformer import ACTIVATIONS
from suffuse.weights.fields import (
    Json,
    as_list,
    check_class,
    each,
    honour,
    number,
    numbers,
    real,
    refuse,
    same,
)

# What UNet2DConditionModel must be told, or not told, for the network to be the one we build. The
# values are its class defaults.
UNET_FIXED: dict[str, Any] = {
    "center_input_sample": False,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_eps": 1e-5,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "num_class_embeds": None,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "cross_attention_norm": None,
}
# Read below, or without effect on the network: sizes that belong to parts which the fields above
# switch off, dropout, and `upcast_attention`, which asks for a precision inside attention that
# diffusers' own default (scaled_dot_product_attention) does not use either.
UNET_READ = {
    "sample_size", "in_channels", "out_channels", "flip_sin_to_cos", "freq_shift",
    "down_block_types", "up_block_types", "block_out_channels", "layers_per_block",
    "norm_num_groups", "cross_attention_dim", "transformer_layers_per_block",
    "attention_head_dim", "only_cross_attention", "mid_block_only_cross_attention",
    "use_linear_projection", "upcast_attention", "dropout", "addition_time_embed_dim",
    "projection_class_embeddings_input_dim", "addition_embed_type_num_heads",
}  # fmt: skip


def unet_config(raw: Json, where: str, vector: bool = False) -> SDConfig:
    """`unet/config.json`. `where` names the file in errors.

    vector: whether it is to have that door, as unCLIP's has for image embeddings
    """
    check_class(raw, "_class_name", ("UNet2DConditionModel",), where)
    doors = {"class_embed_type": "projection" if vector else None}
    if raw.get("class_embed_type") != doors["class_embed_type"]:
        refuse(raw, "class_embed_type", where)
    honour(raw, UNET_FIXED | doors, UNET_READ, where)
    for field in ("only_cross_attention", "mid_block_only_cross_attention"):
        if any(as_list(raw.get(field))):
            refuse(raw, field, where)
    channels = numbers(raw, "block_out_channels", (320, 640, 1280, 1280), where)
    levels = len(channels)
    layers = each(raw, "transformer_layers_per_block", 1, levels, where)
    attention = _attention(raw, levels, where)
    return SDConfig(
        in_channels=number(raw, "in_channels", 4, where),
        out_channels=number(raw, "out_channels", 4, where),
        channels=channels,
        blocks=same(raw, "layers_per_block", 2, levels, where),
        depth=tuple(n if attends else 0 for n, attends in zip(layers, attention)),
        mid_depth=layers[-1],
        # By its history this field is the number of heads here, and their width elsewhere
        # (https://github.com/huggingface/diffusers/issues/2011).
        heads=each(raw, "attention_head_dim", 8, levels, where),
        context=same(raw, "cross_attention_dim", 1280, levels, where),
        vector=number(raw, "projection_class_embeddings_input_dim", 0, where) if vector else 0,
        groups=number(raw, "norm_num_groups", 32, where),
        cos_first=bool(raw.get("flip_sin_to_cos", True)),
        shift=float(raw.get("freq_shift", 0)),
    )


def _attention(raw: Json, levels: int, where: str) -> list[bool]:
    """Which levels attend, from the names of their blocks; the way up must mirror the way down."""
    known = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
    mirror = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}
    down = raw.get("down_block_types", ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"])
    up = raw.get("up_block_types", ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3)
    if len(down) != levels or not all(name in known for name in down):
        refuse(raw, "down_block_types", where)
    attends = [known[name] for name in down]
    if [mirror.get(name) for name in reversed(up)] != attends:
        refuse(raw, "up_block_types", where)
    return attends


def unet_json(c: SDConfig, latent_size: tuple[int, int]) -> dict[str, Any]:
    """The `unet/config.json` of a network, with 1 x 1 convolutions as projections."""
    if c.depth[-1] not in (0, c.mid_depth):
        raise SuffuseError(
            "cannot save the U-Net: diffusers gives its middle the depth of the last level, "
            f"{c.depth[-1]}, not {c.mid_depth}"
        )
    height, width = latent_size
    layers = [*(n or 1 for n in c.depth[:-1]), c.mid_depth]
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": height if height == width else [height, width],
        "in_channels": c.in_channels,
        "out_channels": c.out_channels,
        "block_out_channels": list(c.channels),
        "layers_per_block": c.blocks,
        "transformer_layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if n else "DownBlock2D" for n in c.depth],
        "up_block_types": ["CrossAttnUpBlock2D" if n else "UpBlock2D" for n in reversed(c.depth)],
        "attention_head_dim": list(c.heads),
        "cross_attention_dim": c.context,
        **(_projecting(c.vector) if c.vector else {}),
        "use_linear_projection": False,
        "norm_num_groups": c.groups,
        "flip_sin_to_cos": c.cos_first,
        "freq_shift": int(c.shift) if c.shift == int(c.shift) else c.shift,
    }


def _projecting(width: int) -> dict[str, Any]:
    return {"class_embed_type": "projection", "projection_class_embeddings_input_dim": width}


def text_config(raw: Json, where: str) -> ClipTextConfig:
    """`text_encoder/config.json`; absent fields have transformers' defaults (CLIPTextConfig)."""
    check_class(raw, "model_type", ("clip_text_model",), where)
    projected = "CLIPTextModelWithProjection" in as_list(raw.get("architectures"))
    return text_tower(raw, number(raw, "projection_dim", 512, where) if projected else None, where)


def text_tower(raw: Json, projection: int | None, where: str) -> ClipTextConfig:
    """The fields of a text tower, whether alone or a part of a CLIP."""
    if raw.get("hidden_act", "quick_gelu") not in tuple(ACTIVATIONS):
        refuse(raw, "hidden_act", where)
    return ClipTextConfig(
        vocab=number(raw, "vocab_size", 49408, where),
        width=number(raw, "hidden_size", 512, where),
        layers=number(raw, "num_hidden_layers", 12, where),
        heads=number(raw, "num_attention_heads", 8, where),
        context=number(raw, "max_position_embeddings", 77, where),
        intermediate=number(raw, "intermediate_size", 2048, where),
        activation=raw.get("hidden_act", "quick_gelu"),
        eps=real(raw, "layer_norm_eps", 1e-5, where),
        eos=number(raw, "eos_token_id", 49407, where),
        projection=projection,
    )


def text_json(c: ClipTextConfig, bos: int, pad: int) -> dict[str, Any]:
    """The `text_encoder/config.json` of a tower."""
    plain = "CLIPTextModel" if c.projection is None else "CLIPTextModelWithProjection"
    return {
        "architectures": [plain],
        "model_type": "clip_text_model",
        "vocab_size": c.vocab,
        "hidden_size": c.width,
        "intermediate_size": c.intermediate,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "max_position_embeddings": c.context,
        "hidden_act": c.activation,
        "layer_norm_eps": c.eps,
        "projection_dim": c.projection or c.width,
        "bos_token_id": bos,
        "eos_token_id": c.eos,
        "pad_token_id": pad,
    }


def vision_tower(raw: Json, projection: int | None, where: str) -> ClipVisionConfig:
    """The fields of a picture tower, whether alone or a part of a CLIP."""
    if raw.get("num_channels", 3) != 3:
        refuse(raw, "num_channels", where)
    if raw.get("hidden_act", "quick_gelu") not in tuple(ACTIVATIONS):
        refuse(raw, "hidden_act", where)
    return ClipVisionConfig(
        image=number(raw, "image_size", 224, where),
        patch=number(raw, "patch_size", 32, where),
        width=number(raw, "hidden_size", 768, where),
        layers=number(raw, "num_hidden_layers", 12, where),
        heads=number(raw, "num_attention_heads", 12, where),
        intermediate=number(raw, "intermediate_size", 3072, where),
        activation=raw.get("hidden_act", "quick_gelu"),
        eps=real(raw, "layer_norm_eps", 1e-5, where),
        projection=projection,
    )


def vision_json(c: ClipVisionConfig) -> dict[str, Any]:
    """The `config.json` of a picture tower."""
    return {
        "model_type": "clip_vision_model",
        "image_size": c.image,
        "patch_size": c.patch,
        "num_channels": 3,
        "hidden_size": c.width,
        "intermediate_size": c.intermediate,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "hidden_act": c.activation,
        "layer_norm_eps": c.eps,
        "projection_dim": c.projection or c.width,
    }
