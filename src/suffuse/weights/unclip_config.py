"""The configuration files of Karlo's folders, and their kin's, as ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from suffuse.errors import SuffuseError
from suffuse.networks.pixel import ADMConfig
from suffuse.networks.prior import PriorConfig
from suffuse.networks.unclip import TextProjection
from suffuse.weights.configs import UNET_FIXED, UNET_READ
from suffuse.weights.fields import (
    Json,
    check_class,
    each,
    honour,
    number,
    numbers,
    real,
    refuse,
    same,
)
from suffuse.weights.pixel import check_groups

HEAD_WIDTH = 64  # of Karlo's decoder, where a file does not say

# What both U-Nets must be told to be the ones we build: those of ADM and GLIDE.
_ADM: dict[str, Any] = {
    "resnet_time_scale_shift": "scale_shift",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}
_DECODER: dict[str, Any] = {
    **_ADM,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "class_embed_type": "identity",
}
_UPSAMPLER: dict[str, Any] = {
    **_ADM,
    "add_attention": False,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "mid_block_type": "UNetMidBlock2D",
    "downsample_type": "conv",
    "upsample_type": "conv",
}
# Levels without and with attention.
_DOWN = ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D")
_UP = ("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D")


def decoder_config(raw: Json, where: str) -> ADMConfig:
    """A Karlo's `decoder/config.json`, a UNet2DConditionModel. `where` names the file in errors."""
    check_class(raw, "_class_name", ("UNet2DConditionModel",), where)
    _insist(raw, _DECODER, where)
    honour(raw, UNET_FIXED | _DECODER, UNET_READ - {"only_cross_attention"}, where)
    channels = numbers(raw, "block_out_channels", (320, 640, 1280, 1280), where)
    check_groups(channels, 32, where)
    levels = len(channels)
    # Here the field is the width of a head, whatever it is in Stable Diffusion's U-Net.
    wide = each(raw, "attention_head_dim", HEAD_WIDTH, levels, where)
    if any(n % head for n, head in zip(channels, wide)):
        refuse(raw, "attention_head_dim", where)
    return ADMConfig(
        in_channels=number(raw, "in_channels", 4, where),
        out_channels=number(raw, "out_channels", 4, where),
        width=channels[0],
        channels=channels,
        blocks=same(raw, "layers_per_block", 2, levels, where),
        attends=_attends(raw, levels, where),
        heads=tuple(n // head for n, head in zip(channels, wide)),
        context=same(raw, "cross_attention_dim", 1280, levels, where),
    )


def decoder_json(c: ADMConfig, size: tuple[int, int]) -> dict[str, Any]:
    """The `decoder/config.json` of a decoder that `decoder_config` can read.

    Raises SuffuseError for a network that UNet2DConditionModel has no fields for.
    """
    usual = replace(
        ADMConfig(),
        **{name: getattr(c, name) for name in _SAID},
        width=c.channels[0],
    )
    if replace(c, dropout=0.0) != usual or size[0] != size[1] or not c.context:
        raise SuffuseError(f"cannot save the decoder: diffusers has no fields for {c}")
    wide = [n // heads for n, heads in zip(c.channels, c.heads)]
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": size[0],
        "in_channels": c.in_channels,
        "out_channels": c.out_channels,
        "block_out_channels": list(c.channels),
        "layers_per_block": c.blocks,
        "down_block_types": [_DOWN[attends] for attends in c.attends],
        "up_block_types": [_UP[attends] for attends in reversed(c.attends)],
        "attention_head_dim": wide[0] if len(set(wide)) == 1 else wide,
        "cross_attention_dim": c.context,
        **_DECODER,
    }


# Of an ADM, what differs between decoders.
_SAID = ("in_channels", "out_channels", "channels", "blocks", "attends", "heads", "context")


def upsampler_config(raw: Json, where: str) -> ADMConfig:
    """`config.json` of one of Karlo's super-resolution networks, a UNet2DModel."""
    check_class(raw, "_class_name", ("UNet2DModel",), where)
    _insist(raw, {**_ADM, "add_attention": False}, where)
    read = {
        "sample_size", "in_channels", "out_channels", "down_block_types", "up_block_types",
        "block_out_channels", "layers_per_block", "attention_head_dim", "dropout",
        "num_train_timesteps",
    }  # fmt: skip
    honour(raw, _UPSAMPLER, read, where)
    channels = numbers(raw, "block_out_channels", (224, 448, 672, 896), where)
    check_groups(channels, 32, where)
    attends = _attends(raw, len(channels), where)
    if any(attends):
        refuse(raw, "down_block_types", where)
    return ADMConfig(
        in_channels=number(raw, "in_channels", 3, where),
        out_channels=number(raw, "out_channels", 3, where),
        width=channels[0],
        channels=channels,
        blocks=number(raw, "layers_per_block", 2, where),
        attends=attends,
        heads=(1,) * len(channels),
        mid_attention=False,
    )


_ABSENT = UNET_FIXED | {"add_attention": True}  # what diffusers takes absent fields for


def _insist(raw: Json, fields: Json, where: str) -> None:
    """Refuse a field that is absent as well: diffusers' default would be another network."""
    for field, value in fields.items():
        default = _ABSENT.get(field, value)
        if raw.get(field, default) != value:
            refuse(raw, field, where)


def _attends(raw: Json, levels: int, where: str) -> tuple[bool, ...]:
    """Which levels attend, from the names of their blocks; the way up must mirror the way down."""
    down, up = raw.get("down_block_types", ()), raw.get("up_block_types", ())
    for field, blocks, known in (("down", down, _DOWN), ("up", up, _UP)):
        fits = isinstance(blocks, (list, tuple)) and len(blocks) == levels
        if not fits or not all(name in known for name in blocks):
            refuse(raw, f"{field}_block_types", where)
    attends = tuple(name == _DOWN[1] for name in down)
    if tuple(name == _UP[1] for name in reversed(up)) != attends:
        raise SuffuseError(f"{where}: up_block_types do not mirror down_block_types")
    return attends


# ---- the prior, and the decoder's projections ----------------------------------------------------


def projection_json(p: TextProjection) -> dict[str, Any]:
    """The `text_proj/config.json` of a decoder; diffusers opens it where it has a field for
    everything."""
    image, states = p.image, p.states.in_features
    own = {} if states == image.embedding else {"suffuse_states": states}
    return {
        "_class_name": "UnCLIPTextProjModel",
        "clip_embeddings_dim": image.embedding,
        "clip_extra_context_tokens": image.count,
        "cross_attention_dim": image.context,
        "time_embed_dim": image.time,
        **own,
        **({} if image.scale == 1 else {"suffuse_scale": image.scale}),
    }


# Fields of PriorTransformer that make it another network, with its class defaults.
_PRIOR: dict[str, Any] = {
    "additional_embeddings": 4,
    "time_embed_act_fn": "silu",
    "norm_in_type": None,
    "embedding_proj_norm_type": None,
    "encoder_hid_proj_type": "linear",
    "added_emb_type": "prd",
}
# Widths that are those of the embedding, unless they are told apart.
_WIDTHS = ("embedding_proj_dim", "clip_embed_dim")


def prior_config(raw: Json, where: str) -> PriorConfig:
    """`prior/config.json`: a PriorTransformer, Karlo's, Kandinsky 2.2's or ours."""
    check_class(raw, "_class_name", ("PriorTransformer",), where)
    read = {
        "num_attention_heads", "attention_head_dim", "num_layers", "embedding_dim",
        "num_embeddings", "dropout", "time_embed_dim", *_WIDTHS, *_OURS,
    }  # fmt: skip
    honour(raw, _PRIOR, read, where)
    embedding = number(raw, "embedding_dim", 768, where)
    heads = number(raw, "num_attention_heads", 32, where)
    width = heads * number(raw, "attention_head_dim", 64, where)
    for field, same_as in (*((f, embedding) for f in _WIDTHS), ("time_embed_dim", width)):
        if raw.get(field) not in (None, same_as):
            refuse(raw, field, where)
    states = raw.get("suffuse_states")
    return PriorConfig(
        embedding=embedding,
        width=width,
        layers=number(raw, "num_layers", 20, where),
        heads=heads,
        tokens=number(raw, "num_embeddings", 77, where),
        states=None if states is None else number(raw, "suffuse_states", 1, where),
        text_scale=real(raw, "suffuse_text_scale", 1.0, where),
    )


# What PriorTransformer has no field for: it takes tokens as wide as embeddings, and these as long
# as they come.
_OURS = ("suffuse_states", "suffuse_text_scale")


def prior_json(c: PriorConfig) -> dict[str, Any]:
    """The `config.json` of a prior; diffusers opens it where it has a field for everything."""
    ours = {"suffuse_states": c.states, "suffuse_text_scale": c.text_scale}
    plain = {"suffuse_states": None, "suffuse_text_scale": 1.0}
    return {
        "_class_name": "PriorTransformer",
        "num_attention_heads": c.heads,
        "attention_head_dim": c.width // c.heads,
        "num_layers": c.layers,
        "embedding_dim": c.embedding,
        "num_embeddings": c.tokens,
        **_PRIOR,
        **({} if ours == plain else ours),
    }
