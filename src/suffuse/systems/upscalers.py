"""Opening upscalers: SR3's and ADM's, from our folders and from their makers' files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from suffuse.errors import SuffuseError
from suffuse.networks.packing import pack
from suffuse.networks.unet import UNet
from suffuse.systems.sr3 import SuperResolution
from suffuse.weights.adm import open_adm
from suffuse.weights.adm_presets import PUBLISHED
from suffuse.weights.containers import open_tensors
from suffuse.weights.load import locate_source
from suffuse.weights.parts import Defaults, Place
from suffuse.weights.pixel import Enlarging, PixelModel
from suffuse.weights.pixel_folder import folder_family, open_pixel
from suffuse.weights.sr3 import INSIDE, open_sr3

# The public implementation's sr_sr3_16_128.json and sr_sr3_64_512.json, which a file does not hold.
SR3_SCHEDULER: Mapping[str, Any] = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 2000,
    "beta_start": 1e-6,
    "beta_end": 1e-2,
    "beta_schedule": "linear",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "timestep_spacing": "linspace",
}
SR3_FACTOR = 8  # of both


def load_upscaler(
    source: str | PathLike[str], place: Place | None = None, factor: int | None = None
) -> SuperResolution:
    """The upscaler of a folder that training wrote, or of a file of SR3 or guided-diffusion.

    factor: how many times a side grows, where a file does not say it: 8 for SR3 unless given

    Raises SuffuseError for a model that enlarges nothing.
    """
    model = open_upscaler(source, place or Place(), factor)
    return SuperResolution(replace(model, unet=pack(model.unet)))


def open_upscaler(
    source: str | PathLike[str], place: Place, factor: int | None = None
) -> PixelModel[UNet]:
    """The same, its network as it was saved."""
    path = locate_source(source, place)[0]
    if path.is_dir():
        return _folder(path, place, factor)
    file = open_tensors(path)
    if INSIDE + "downs.0.weight" in file:
        return _sr3(path, place, factor)
    if "output_blocks.0.0.in_layers.0.weight" in file:
        return _adm(path, place, factor)
    raise SuffuseError(f"{path}: is no upscaler, neither SR3's nor guided-diffusion's")


def _folder(folder: Path, place: Place, factor: int | None) -> PixelModel[UNet]:
    if folder_family(folder) not in ("SR3", "ADM"):
        raise SuffuseError(f"{folder}: is no upscaler, which `suffuse train sr3` makes")
    model = open_pixel(folder, place)
    told = model.enlarging
    if told is not None and factor not in (None, told.factor):
        raise SuffuseError(f"{folder}: enlarges {told.factor} times, not {factor}")
    return model if told or factor is None else replace(model, enlarging=Enlarging(factor))


def _sr3(path: Path, place: Place, factor: int | None) -> PixelModel[UNet]:
    model = open_sr3(path, place=place)
    side = 512 if model.config.channels[-1] == 1024 else 128  # type: ignore[union-attr]
    return replace(
        model,
        scheduler=SR3_SCHEDULER,
        size=(side, side),
        defaults=Defaults(steps=100),
        enlarging=Enlarging(factor or SR3_FACTOR),
    )


def _adm(path: Path, place: Place, factor: int | None) -> PixelModel[UNet]:
    model = open_adm(path, place=place)
    row = next((row for row in PUBLISHED if model.published in row.names), None)
    if row is None or not row.low:
        raise SuffuseError(f"{path}: is no upscaler, it draws pictures from noise alone")
    known = row.size // row.low
    if factor not in (None, known):
        raise SuffuseError(f"{path}: enlarges {known} times, not {factor}")
    return replace(model, enlarging=Enlarging(known, filter="bilinear"))
