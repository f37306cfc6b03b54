"""unCLIP's pixel-space decoder in our folders, part by part as diffusers' Karlo has it.

decoder/, decoder_scheduler/    the U-Net, and how it is sampled
text_proj/                      what brings embeddings and captions into it
upsamplers/1, 2, ...            models of `train sr3`, each behind the one before it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from suffuse.errors import SuffuseError
from suffuse.weights.maps.diffusers_unet import DIFFUSERS_KARLO
from suffuse.weights.maps.prior import text_projection
from suffuse.weights.parts import Place
from suffuse.weights.pixel import PixelModel
from suffuse.weights.pixel_folder import folder_family, open_pixel
from suffuse.weights.save import save_pixel, write_component, write_json
from suffuse.weights.unclip import PixelDecoderParts
from suffuse.weights.unclip_config import decoder_json, projection_json

DECODER, DECODER_SCHEDULER, TEXT, UPSAMPLERS = (
    "decoder",
    "decoder_scheduler",
    "text_proj",
    "upsamplers",
)
FOLDERS = {DECODER, DECODER_SCHEDULER, TEXT, UPSAMPLERS}
PARTS = {  # in `model_index.json`
    DECODER: ["diffusers", "UNet2DConditionModel"],
    TEXT: ["unclip", "UnCLIPTextProjModel"],
    DECODER_SCHEDULER: ["diffusers", "UnCLIPScheduler"],
}


@dataclass(frozen=True, eq=False)
class OwnPixelDecoder:
    """steps, guidance: recommended;  upsamplers: one behind another"""

    parts: PixelDecoderParts
    steps: int = 25
    guidance: float = 3.0
    upsamplers: Sequence[PixelModel[Any]] = ()


def write_pixel_decoder(folder: Path, decoder: OwnPixelDecoder, dtype: torch.dtype) -> None:
    """Its folders, in `folder`. diffusers opens `decoder` and `decoder_scheduler`, and `text_proj`
    where the CLIP's captions are as wide as its embeddings and these as long as it expects."""
    parts, projection = decoder.parts, decoder.parts.projection
    config = decoder_json(parts.config, parts.size)
    write_component(folder / DECODER, config, parts.unet, DIFFUSERS_KARLO, dtype)
    keys = text_projection(projection.image.count)
    write_component(folder / TEXT, projection_json(projection), projection, keys, dtype)
    write_json(folder / DECODER_SCHEDULER / "scheduler_config.json", parts.sampling.config)
    for number, model in enumerate(decoder.upsamplers, 1):
        save_pixel(model, folder / UPSAMPLERS / str(number), dtype)


def open_upsamplers(folder: Path, count: int, place: Place) -> tuple[PixelModel[Any], ...]:
    """So many of such a folder, in order. Raises SuffuseError."""
    numbers = range(1, count + 1)
    return tuple(open_behind(folder / UPSAMPLERS / str(n), place) for n in numbers)


def open_behind(folder: Path, place: Place) -> PixelModel[Any]:
    """An upscaler to be used behind a decoder. Raises SuffuseError for any other model, and for one
    that wants to be told a class."""
    family = folder_family(folder)
    if family not in ("SR3", "ADM"):
        raise SuffuseError(f"{folder}: is no upscaler, which `suffuse train sr3` makes")
    model = open_pixel(folder, place)
    if model.enlarging is None or model.classes:
        raise SuffuseError(f"{folder}: is no upscaler, or one by class; `train sr3` makes others")
    return model
