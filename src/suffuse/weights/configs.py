"""The configuration files of a diffusers folder as ours, and back.

A field that would change the network and that Suffuse does not build raises SuffuseError with its
name, so that a model is never opened as something it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import AutoencoderConfig
from suffuse.networks.clip import ClipTextConfig
from suffuse.networks.families import SDConfig
from suffuse.weights.tensorfile import show

Json = Mapping[str, Any]

# diffusers' own default where a configuration is silent: Stable Diffusion 1's autoencoder.
DEFAULT_SCALE = 0.18215

# What UNet2DConditionModel must be told, or not told, for the network to be the one we build. The
# values are its class defaults.
_UNET_FIXED: dict[str, Any] = {
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
_UNET_READ = {
    "sample_size", "in_channels", "out_channels", "flip_sin_to_cos", "freq_shift",
    "down_block_types", "up_block_types", "block_out_channels", "layers_per_block",
    "norm_num_groups", "cross_attention_dim", "transformer_layers_per_block",
    "attention_head_dim", "only_cross_attention", "mid_block_only_cross_attention",
    "use_linear_projection", "upcast_attention", "dropout", "addition_time_embed_dim",
    "projection_class_embeddings_input_dim", "addition_embed_type_num_heads",
}  # fmt: skip

_VAE_FIXED: dict[str, Any] = {"act_fn": "silu", "latents_mean": None, "latents_std": None}
_VAE_READ = {
    "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels",
    "layers_per_block", "latent_channels", "norm_num_groups", "sample_size", "scaling_factor",
    "shift_factor", "force_upcast", "use_quant_conv", "use_post_quant_conv",
    "mid_block_add_attention",
}  # fmt: skip


def unet_config(raw: Json, where: str) -> SDConfig:
    """`unet/config.json`. `where` names the file in errors."""
    _class(raw, "_class_name", ("UNet2DConditionModel",), where)
    _honour(raw, _UNET_FIXED, _UNET_READ, where)
    for field in ("only_cross_attention", "mid_block_only_cross_attention"):
        if any(_list(raw.get(field))):
            _refuse(raw, field, where)
    channels = _numbers(raw, "block_out_channels", (320, 640, 1280, 1280), where)
    levels = len(channels)
    layers = _each(raw, "transformer_layers_per_block", 1, levels, where)
    attention = _attention(raw, levels, where)
    return SDConfig(
        in_channels=_number(raw, "in_channels", 4, where),
        out_channels=_number(raw, "out_channels", 4, where),
        channels=channels,
        blocks=_same(raw, "layers_per_block", 2, levels, where),
        depth=tuple(n if attends else 0 for n, attends in zip(layers, attention)),
        mid_depth=layers[-1],
        # By its history this field is the number of heads here, and their width elsewhere
        # (https://github.com/huggingface/diffusers/issues/2011).
        heads=_each(raw, "attention_head_dim", 8, levels, where),
        context=_same(raw, "cross_attention_dim", 1280, levels, where),
        groups=_number(raw, "norm_num_groups", 32, where),
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
        _refuse(raw, "down_block_types", where)
    attends = [known[name] for name in down]
    if [mirror.get(name) for name in reversed(up)] != attends:
        _refuse(raw, "up_block_types", where)
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
        "use_linear_projection": False,
        "norm_num_groups": c.groups,
        "flip_sin_to_cos": c.cos_first,
        "freq_shift": int(c.shift) if c.shift == int(c.shift) else c.shift,
    }


def autoencoder_config(raw: Json, where: str, patch: int = 1) -> AutoencoderConfig:
    """`vae/config.json`; `patch` is the side of the square of pixels behind each of its inputs."""
    _class(raw, "_class_name", ("AutoencoderKL",), where)
    _honour(raw, _VAE_FIXED, _VAE_READ, where)
    channels = _numbers(raw, "block_out_channels", (64,), where)
    for field, block in (("down", "DownEncoderBlock2D"), ("up", "UpDecoderBlock2D")):
        if list(raw.get(f"{field}_block_types", [block])) != [block] * len(channels):
            _refuse(raw, f"{field}_block_types", where)
    inputs = _number(raw, "in_channels", 3, where)
    if raw.get("out_channels", 3) != inputs or inputs % patch**2:
        _refuse(raw, "out_channels", where)
    quant = raw.get("use_quant_conv", True)
    if raw.get("use_post_quant_conv", True) != quant:
        _refuse(raw, "use_post_quant_conv", where)
    return AutoencoderConfig(
        channels=channels,
        blocks=_number(raw, "layers_per_block", 1, where),
        latent=_number(raw, "latent_channels", 4, where),
        image=inputs // patch**2,
        groups=_number(raw, "norm_num_groups", 32, where),
        patch=patch,
        mid_attention=bool(raw.get("mid_block_add_attention", True)),
        quant=bool(quant),
    )


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
    levels = len(c.channels)
    return {
        "_class_name": "AutoencoderKL",
        "sample_size": pixels // c.patch,
        "in_channels": c.image * c.patch**2,
        "out_channels": c.image * c.patch**2,
        "block_out_channels": list(c.channels),
        "layers_per_block": c.blocks,
        "latent_channels": c.latent,
        "norm_num_groups": c.groups,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "mid_block_add_attention": c.mid_attention,
        "use_quant_conv": c.quant,
        "use_post_quant_conv": c.quant,
        "scaling_factor": scale,
        "shift_factor": shift or None,
    }


def text_config(raw: Json, where: str) -> ClipTextConfig:
    """`text_encoder/config.json`; absent fields have transformers' defaults (CLIPTextConfig)."""
    if raw.get("model_type") != "clip_text_model":
        _refuse(raw, "model_type", where)
    projected = "CLIPTextModelWithProjection" in _list(raw.get("architectures"))
    return ClipTextConfig(
        vocab=_number(raw, "vocab_size", 49408, where),
        width=_number(raw, "hidden_size", 512, where),
        layers=_number(raw, "num_hidden_layers", 12, where),
        heads=_number(raw, "num_attention_heads", 8, where),
        context=_number(raw, "max_position_embeddings", 77, where),
        intermediate=_number(raw, "intermediate_size", 2048, where),
        activation=raw.get("hidden_act", "quick_gelu"),
        eps=float(raw.get("layer_norm_eps", 1e-5)),
        eos=_number(raw, "eos_token_id", 49407, where),
        projection=_number(raw, "projection_dim", 512, where) if projected else None,
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


def _class(raw: Json, field: str, known: tuple[str, ...], where: str) -> None:
    if raw.get(field) not in known:
        _refuse(raw, field, where)


def _honour(raw: Json, fixed: Json, read: set[str], where: str) -> None:
    """Refuse any field that asks for what is not built, an unheard-of one included."""
    for field, value in raw.items():
        if field.startswith("_") or field in read:
            continue
        if value != fixed.get(field, value if value in (None, False) else None):
            _refuse(raw, field, where)


def _refuse(raw: Json, field: str, where: str) -> NoReturn:
    raise SuffuseError(f"{where}: {field} = {show(raw.get(field))} is not supported")


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _number(raw: Json, field: str, default: int, where: str) -> int:
    """A whole number from 1 up (0 for token ids)."""
    value = raw.get(field, default)
    if type(value) is not int or value < (0 if field.endswith("_id") else 1):
        _refuse(raw, field, where)
    return value


def _numbers(raw: Json, field: str, default: tuple[int, ...], where: str) -> tuple[int, ...]:
    value = raw.get(field, default)
    if not value or not all(type(n) is int and n > 0 for n in _list(value)):
        _refuse(raw, field, where)
    return tuple(_list(value))


def _each(raw: Json, field: str, default: int, levels: int, where: str) -> tuple[int, ...]:
    """One number for each level, written as a list or once for all."""
    values = _numbers(raw, field, (default,), where)
    if not isinstance(raw.get(field), (list, tuple)):
        values *= levels
    if len(values) != levels:
        _refuse(raw, field, where)
    return values


def _same(raw: Json, field: str, default: int, levels: int, where: str) -> int:
    """A number that must be the same at every level."""
    values = set(_each(raw, field, default, levels, where))
    if len(values) != 1:
        _refuse(raw, field, where)
    return values.pop()
