"""ADM (2105.05233): DDPM's chain with a better U-Net and a learned variance.

What is new against DDPM is in the network (`networks/pixel.py`, section 3 of the paper), in the
variance that it learns (`diffusion/posterior.py`; 2102.09672, eq. 15) and in the gradient of a
classifier of noisy pictures (`systems/classifier.py`, section 4). The chain, its loss and its
samplers are DDPM's, so that an ADM is a `DDPM` around another network.
"""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

from suffuse.errors import SuffuseError
from suffuse.networks.packing import pack
from suffuse.networks.pixel import ADMConfig
from suffuse.networks.unet import UNet
from suffuse.systems.ddpm import DDPM
from suffuse.weights.adm import Heads, open_adm
from suffuse.weights.parts import Place
from suffuse.weights.pixel import PixelModel
from suffuse.weights.pixel_folder import open_pixel

PICTURES = (1, 3)  # channels that a picture has


def load_adm(
    path: str | PathLike[str], place: Place | None = None, heads: Heads | None = None
) -> DDPM:
    """The ADM of a folder of ours, or of a `.pt` of guided-diffusion or improved-diffusion.

    A file comes with the schedule of the published model of its shapes: linear or cosine, 1000 or
    4000 steps. `heads` say how attention is divided in any other. Packed for inference. Raises
    SuffuseError, also for an upsampler, which draws nothing by itself.
    """
    model = open_adm_model(path, place, heads)
    return DDPM(replace(model, unet=pack(model.unet)))


def open_adm_model(
    path: str | PathLike[str], place: Place | None = None, heads: Heads | None = None
) -> PixelModel[UNet]:
    """The same, not packed, to train on or to save. Raises SuffuseError."""
    path = Path(path).expanduser()
    if heads is not None and not isinstance(heads, Heads):
        raise SuffuseError(f"the heads of an ADM are told as Heads(count=…), not {heads!r}")
    model = open_pixel(path, place) if path.is_dir() else open_adm(path, heads, place)
    if not isinstance(model.config, ADMConfig):
        raise SuffuseError(f"{path}: is no ADM that draws")
    if model.config.in_channels not in PICTURES:
        raise SuffuseError(f"{path}: enlarges pictures and draws none: use suffuse upscale")
    return model
