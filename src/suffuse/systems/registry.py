"""`suffuse.load`: the system that a checkpoint belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from suffuse.errors import SuffuseError
from suffuse.systems import latent
from suffuse.systems.ddpm import DDPM, load_ddpm
from suffuse.systems.latent import LatentDiffusion, choose_device, choose_dtype
from suffuse.systems.sr3 import SuperResolution
from suffuse.systems.upscalers import load_upscaler
from suffuse.weights.load import locate_source
from suffuse.weights.parts import Place
from suffuse.weights.pixel_folder import folder_family
from suffuse.weights.unet2d import is_unet2d

System = LatentDiffusion | DDPM | SuperResolution


def load(
    path: str | PathLike[str] | None = None,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    loras: Iterable[Any] = (),
    embeddings: Iterable[str | PathLike[str]] = (),
    **hints: Any,
) -> System:
    """Opens a model: the bundled one without a path, a diffusers folder, a single file, a Hub name.

    Text-to-image models come as `LatentDiffusion`, see `latent.load` for the arguments; folders of
    a UNet2DModel as `DDPM`, those of `suffuse train sr3` as `SuperResolution`, to which only device
    and dtype apply. Raises SuffuseError.
    """
    source = path or os.environ.get("SUFFUSE_MODEL") or None
    chosen = choose_device(device)
    place = Place(chosen, choose_dtype(dtype, chosen))
    folder = None if source is None else locate_source(source, place)[0]
    pixel = folder is not None and folder.is_dir() and (is_unet2d(folder) or is_sr3(folder))
    if folder is None or not pixel:
        return latent.load(path, device, dtype, loras=loras, embeddings=embeddings, **hints)
    added = {"loras": tuple(loras), "embeddings": tuple(embeddings), **hints}
    if given := [name for name, value in added.items() if value]:
        raise SuffuseError(
            f"{folder}: {', '.join(given)} is for text-to-image models, this is none"
        )
    return load_upscaler(folder, place) if is_sr3(folder) else load_ddpm(folder, place)


def is_sr3(folder: Path) -> bool:
    """Whether a folder is that of an upscaler."""
    return folder_family(folder) == "SR3"


def draws_unasked(source: str | None) -> bool:
    """Whether the model of that name may draw without a prompt; of one on the Hub, who knows."""
    source = source or os.environ.get("SUFFUSE_MODEL") or None
    folder = Path(source or ".").expanduser()
    if source is None or not folder.exists():
        return source is not None
    return folder.is_dir() and (is_unet2d(folder) or is_sr3(folder))
