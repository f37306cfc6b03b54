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
from suffuse.systems.score_sde import ScoreSDE, is_score_sde, load_score_sde
from suffuse.weights.load import locate_source
from suffuse.weights.parts import Place
from suffuse.weights.unet2d import is_unet2d

System = LatentDiffusion | DDPM | ScoreSDE


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
    a UNet2DModel as `DDPM`, to which only device and dtype apply; score SDEs as `ScoreSDE`, whose
    `.pth` files need to be told their `config`, one of `networks.ncsnpp.PUBLISHED`. Raises
    SuffuseError.
    """
    source = path or os.environ.get("SUFFUSE_MODEL") or None
    chosen = choose_device(device)
    place = Place(chosen, choose_dtype(dtype, chosen))
    folder = None if source is None else locate_source(source, place)[0]
    score_sde = folder is not None and is_score_sde(folder)
    if folder is None or not (score_sde or (folder.is_dir() and is_unet2d(folder))):
        return latent.load(path, device, dtype, loras=loras, embeddings=embeddings, **hints)
    config, ema = (hints.pop(k, None) if score_sde else None for k in ("config", "ema"))
    added = {"loras": tuple(loras), "embeddings": tuple(embeddings), **hints}
    if given := [name for name, value in added.items() if value]:
        raise SuffuseError(
            f"{folder}: {', '.join(given)} is for text-to-image models, this is none"
        )
    if score_sde:
        # Half precision cannot tell the last noise levels apart: it is used only if asked for.
        exact = Place(chosen, torch.float32) if dtype == "auto" else place
        return load_score_sde(folder, exact, config, ema is not False)
    return load_ddpm(folder, place)


def draws_unasked(source: str | None) -> bool:
    """Whether the model of that name may draw without a prompt; of one on the Hub, who knows."""
    source = source or os.environ.get("SUFFUSE_MODEL") or None
    folder = Path(source or ".").expanduser()
    if source is None or not folder.exists():
        return source is not None
    return is_score_sde(folder) or (folder.is_dir() and is_unet2d(folder))
