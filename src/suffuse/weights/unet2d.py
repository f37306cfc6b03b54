"""diffusers' UNet2DModel: folders of DDPM (google/ddpm-cifar10-32 and its kin)."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from suffuse.errors import SuffuseError
from suffuse.networks.pixel import DDPMConfig, ddpm
from suffuse.networks.unet import UNet
from suffuse.weights.containers import find_weights, open_tensors
from suffuse.weights.fields import Json, as_list, check_class, honour, number, numbers, refuse
from suffuse.weights.folder import INDEX, OWN, read_json, read_own
from suffuse.weights.maps.diffusers_unet import DIFFUSERS_UNET2D
from suffuse.weights.parts import Info, Place, build, files_of, precision
from suffuse.weights.pixel import PixelModel, check_groups

# What UNet2DModel must be told, or not told, for the network to be the one we build. The values are
# its class defaults.
_FIXED: dict[str, Any] = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "act_fn": "silu",
    "attn_norm_num_groups": None,
    "resnet_time_scale_shift": "default",
    "class_embed_type": None,
}
_READ = {
    "sample_size", "in_channels", "out_channels", "freq_shift", "flip_sin_to_cos",
    "down_block_types", "up_block_types", "block_out_channels", "layers_per_block",
    "downsample_padding", "dropout", "attention_head_dim", "norm_num_groups", "norm_eps",
    "num_class_embeds", "num_train_timesteps", "add_attention",
}  # fmt: skip

# Levels without and with attention.
_DOWN = ("DownBlock2D", "AttnDownBlock2D")
_UP = ("UpBlock2D", "AttnUpBlock2D")


def open_unet2d(folder: str | PathLike[str], place: Place | None = None) -> PixelModel[UNet]:
    """The U-Net of a DDPM folder: in `unet/` beside a scheduler, or alone.

    Raises SuffuseError naming the file and what is wrong with it.
    """
    folder, place = Path(folder).expanduser(), place or Place()
    if not folder.is_dir():
        raise SuffuseError(f"{folder}: there is no such folder")
    inside = folder / "unet" if (folder / "unet").is_dir() else folder
    where = inside / "config.json"
    raw = read_json(where)
    config, own = unet2d_config(raw, str(where)), read_own(folder)
    if own.classes and len(own.classes) != config.classes:
        raise SuffuseError(
            f"{folder / OWN}: names {len(own.classes)} classes, the network has {config.classes}"
        )
    file = open_tensors(find_weights(inside, variant=precision(place)))
    # google/ddpm-* have everything at the top.
    schedulers = [folder / "scheduler" / _SCHEDULER, folder / _SCHEDULER]
    found = next((path for path in schedulers if path.is_file()), None)
    return PixelModel(
        unet=build(lambda: ddpm(config), DIFFUSERS_UNET2D, file, place),
        config=config,
        info=Info(folder.resolve().name, "diffusers folder", folder, files_of(file)),
        scheduler=read_json(found) if found else {},
        size=None if raw.get("sample_size") is None else _size(raw, str(where)),
        classes=own.classes or tuple(map(str, range(config.classes))),
        defaults=own.defaults,
    )


def is_unet2d(folder: Path) -> bool:
    """Whether `open_unet2d` is for this folder."""
    if (folder / INDEX).is_file():
        return read_json(folder / INDEX).get("_class_name") in PIPELINES
    return (folder / "config.json").is_file() and read_json(folder / "config.json").get(
        "_class_name"
    ) == "UNet2DModel"


_SCHEDULER = "scheduler_config.json"
PIPELINES = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")  # of a UNet2DModel and a scheduler


def unet2d_config(raw: Json, where: str) -> DDPMConfig:
    """`config.json` of a UNet2DModel. `where` names the file in errors."""
    check_class(raw, "_class_name", ("UNet2DModel",), where)
    honour(raw, _FIXED, _READ, where)
    channels = numbers(raw, "block_out_channels", (224, 448, 672, 896), where)
    groups = number(raw, "norm_num_groups", 32, where)
    check_groups(channels, groups, where)
    padding = raw.get("downsample_padding", 1)
    if padding not in (0, 1):
        refuse(raw, "downsample_padding", where)
    classes = raw.get("num_class_embeds")
    return DDPMConfig(
        in_channels=number(raw, "in_channels", 3, where),
        out_channels=number(raw, "out_channels", 3, where),
        channels=channels,
        blocks=number(raw, "layers_per_block", 2, where),
        attends=_attention(raw, len(channels), where),
        heads=_heads(raw, channels, where),
        mid_attention=bool(raw.get("add_attention", True)),
        groups=groups,
        eps=float(raw.get("norm_eps", 1e-5)),
        symmetric=padding == 1,
        cos_first=bool(raw.get("flip_sin_to_cos", True)),
        shift=float(raw.get("freq_shift", 0)),
        classes=0 if classes is None else number(raw, "num_class_embeds", 0, where),
    )


def _size(raw: Json, where: str) -> tuple[int, int]:
    """Height and width of the pictures that it was trained on, in pixels."""
    sides = as_list(raw["sample_size"])
    if len(sides) not in (1, 2) or not all(type(n) is int and n > 0 for n in sides):
        refuse(raw, "sample_size", where)
    return sides[0], sides[-1]


def unet2d_json(c: DDPMConfig, size: tuple[int, int]) -> dict[str, Any]:
    """The `config.json` of a network. Raises SuffuseError where UNet2DModel has no field for it."""
    widths = {n // heads for n, heads in zip(c.channels, c.heads)}
    alone = set(c.heads) == {1}
    if not alone and len(widths) > 1:
        raise SuffuseError(
            f"cannot save the U-Net: diffusers has heads of one width, not of {sorted(widths)}"
        )
    return {
        "_class_name": "UNet2DModel",
        "sample_size": size[0] if size[0] == size[1] else list(size),
        "in_channels": c.in_channels,
        "out_channels": c.out_channels,
        "block_out_channels": list(c.channels),
        "layers_per_block": c.blocks,
        "down_block_types": [_DOWN[attends] for attends in c.attends],
        "up_block_types": [_UP[attends] for attends in reversed(c.attends)],
        "attention_head_dim": None if alone else widths.pop(),
        "add_attention": c.mid_attention,
        "norm_num_groups": c.groups,
        "norm_eps": c.eps,
        "downsample_padding": int(c.symmetric),
        "flip_sin_to_cos": c.cos_first,
        "freq_shift": int(c.shift) if c.shift == int(c.shift) else c.shift,
        "dropout": c.dropout,
        "num_class_embeds": c.classes or None,
    }


def _attention(raw: Json, levels: int, where: str) -> tuple[bool, ...]:
    """Which levels attend, from the names of their blocks; the way up must mirror the way down."""
    down = raw.get("down_block_types", [_DOWN[0]] + [_DOWN[1]] * 3)
    up = raw.get("up_block_types", [_UP[1]] * 3 + [_UP[0]])
    for field, blocks, known in (("down", down, _DOWN), ("up", up, _UP)):
        if len(blocks) != levels or not all(name in known for name in blocks):
            refuse(raw, f"{field}_block_types", where)
    attends = tuple(name == _DOWN[1] for name in down)
    if tuple(name == _UP[1] for name in reversed(up)) != attends:
        raise SuffuseError(f"{where}: up_block_types do not mirror down_block_types")
    return attends


def _heads(raw: Json, channels: tuple[int, ...], where: str) -> tuple[int, ...]:
    """How many heads a level has: here `attention_head_dim` is their width; null is one head."""
    if raw.get("attention_head_dim", 8) is None:
        return (1,) * len(channels)
    width = number(raw, "attention_head_dim", 8, where)
    if any(n % width for n in channels):
        refuse(raw, "attention_head_dim", where)
    return tuple(n // width for n in channels)
