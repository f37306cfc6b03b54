"""SR3's `.pth` files as its public implementation writes them (`I640000_E37_gen.pth`).

Sizes are read off the weights' shapes; the number of norm groups is convention.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from suffuse.errors import SuffuseError
from suffuse.networks.pixel import SR3Config, sr3
from suffuse.networks.unet import UNet
from suffuse.weights.containers import open_tensors
from suffuse.weights.first_stage import count, shape
from suffuse.weights.formats import SCHEDULE
from suffuse.weights.mapping import complain
from suffuse.weights.maps.sr3 import sr3_unet
from suffuse.weights.parts import Info, Place, build, files_of
from suffuse.weights.pixel import PixelModel, check_groups
from suffuse.weights.tensorfile import TensorFile

INSIDE = "denoise_fn."
_RES = "res_block.block2.block.3.weight"


def open_sr3(
    path: str | PathLike[str], groups: int | None = None, place: Place | None = None
) -> PixelModel[UNet]:
    """The U-Net of an SR3 file, or of the DDPM that the same code trains.

    `groups` are those of the norms: 32 unless the configuration it was trained with says otherwise,
    as `sr_sr3_64_512.json` does (16, known by its shapes). Raises SuffuseError naming what is
    missing or unknown, or why the file is none.
    """
    file = open_tensors(Path(path).expanduser())
    if INSIDE + "downs.0.weight" not in file:
        raise SuffuseError(f"{file.path}: is no network of SR3's public implementation")
    complain(file, [], [k for k in file if not k.startswith(INSIDE) and k not in SCHEDULE])
    config = sr3_shape(file, groups)
    return PixelModel(
        unet=build(lambda: sr3(config), sr3_unet(config), file, place or Place(), INSIDE),
        config=config,
        info=Info(file.path.stem, "SR3", file.path, files_of(file)),
    )


def sr3_shape(file: TensorFile, groups: int | None = None) -> SR3Config:
    """The configuration, as far as shapes tell it. Raises SuffuseError naming a gap."""
    downs = INSIDE + "downs."
    blocks = count(file, downs)
    ends = [i for i in range(1, blocks) if f"{downs}{i}.conv.weight" in file]
    n, levels = (ends[0] if ends else blocks) - 1, len(ends) + 1
    if n < 1 or ends != [(n + 1) * i for i in range(1, levels)] or blocks != (n + 1) * levels:
        raise SuffuseError(
            f"{file.path}: its {blocks} blocks on the way down do not fall into levels of equal "
            "length"
        )
    first = [f"{downs}{1 + (n + 1) * i}." for i in range(levels)]
    width, inputs, *_ = shape(file, downs + "0.weight", 4)
    channels = tuple(shape(file, at + _RES, 4)[0] for at in first)
    if groups is None:
        wide = (n, channels) == (1, (64, 128, 256, 512, 1024))  # sr_sr3_64_512.json
        groups = 16 if wide else 32
    check_groups((width, *channels), groups, str(file.path))
    return SR3Config(
        in_channels=inputs,
        out_channels=shape(file, INSIDE + "final_conv.block.3.weight", 4)[0],
        width=width,
        channels=channels,
        blocks=n,
        attends=tuple(at + "attn.norm.weight" in file for at in first),
        mid_attention=INSIDE + "mid.0.attn.norm.weight" in file,
        groups=groups,
        continuous=INSIDE + "noise_level_mlp.1.weight" in file,
    )
