"""`suffuse.load`: the system that a checkpoint belongs to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from suffuse.errors import SuffuseError
from suffuse.systems import latent
from suffuse.systems.adm import load_adm
from suffuse.systems.ddpm import DDPM, load_ddpm
from suffuse.systems.latent import LatentDiffusion, choose_device, choose_dtype
from suffuse.systems.request import Request
from suffuse.systems.score_sde import ScoreSDE, load_score_sde
from suffuse.systems.sr3 import SuperResolution
from suffuse.systems.unclip import UnCLIP
from suffuse.systems.unclip_load import is_unclip, open_unclip
from suffuse.systems.upscalers import load_upscaler
from suffuse.weights.containers import open_tensors
from suffuse.weights.formats import recognise
from suffuse.weights.load import locate_source
from suffuse.weights.parts import Place
from suffuse.weights.pixel_folder import folder_family
from suffuse.weights.unet2d import is_unet2d

System = LatentDiffusion | DDPM | ScoreSDE | SuperResolution | UnCLIP


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

    Text-to-image models come as `LatentDiffusion`, see `latent.load` for the arguments. Models of
    pixels take device and dtype alone. Folders of a UNet2DModel and ADMs come as `DDPM`; the `.pt`
    file of an ADM that nobody knows needs `heads`, which say how its attention is divided
    (`weights.adm.Heads`). Score SDEs come as `ScoreSDE`; a `.pth` file needs `config`, one of
    `networks.ncsnpp.PUBLISHED`. Those of SR3 come as `SuperResolution`, Karlo's folders and their
    kin as `UnCLIP`. Raises SuffuseError.
    """
    source = path or os.environ.get("SUFFUSE_MODEL") or None
    chosen = choose_device(device)
    place = Place(chosen, choose_dtype(dtype, chosen))
    where, name = (None, None) if source is None else locate_source(source, place)
    kind = None if where is None else kind_of(where)
    if where is None or kind is None:
        return latent.load(path, device, dtype, loras=loras, embeddings=embeddings, **hints)
    told = {hint: hints.pop(hint, None) for hint in HINTS.get(kind, ())}
    told = {hint: value for hint, value in told.items() if value is not None}
    added = {"loras": tuple(loras), "embeddings": tuple(embeddings), **hints}
    if given := [field for field, value in added.items() if value]:
        raise SuffuseError(f"{where}: {', '.join(given)} is for text-to-image models, this is none")
    if kind == "NCSNpp" and dtype == "auto":
        # Half precision cannot tell the last noise levels apart: it is used only if asked for.
        place = Place(chosen, torch.float32)
    if kind not in LOADERS:
        raise SuffuseError(
            f"{where}: is a classifier and draws nothing itself: guide another model with it, as "
            "classifier of a request"
        )
    if kind == "UnCLIP":
        told["name"] = name
    return LOADERS[kind](where, place, **told)


def suited(system: System, request: Request) -> System:
    """The system with the LoRAs and learned words that a request asks for. Raises SuffuseError."""
    return system.suited(request) if isinstance(system, LatentDiffusion) else system


LOADERS: dict[str, Callable[..., System]] = {
    "DDPM": load_ddpm,
    "ADM": load_adm,
    "NCSNpp": load_score_sde,
    "SR3": load_upscaler,
    "UnCLIP": open_unclip,
}
HINTS = {"ADM": ("heads",), "NCSNpp": ("config", "ema"), "UnCLIP": ("noise_level",)}
_FILES = {
    "U-Net (guided-diffusion)": "ADM",
    "U-Net (original)": "ADM",
    "noisy classifier (guided-diffusion)": "Classifier",
    "NCSN++ or DDPM++ (score_sde)": "NCSNpp",
    "SR3 (original)": "SR3",
}


def kind_of(path: Path) -> str | None:
    """Which kind of model it is, if not latent diffusion: the class in its folder, or what its
    weights' names say; None for all others. Raises SuffuseError for a file that cannot be read."""
    if path.is_dir():
        if is_unclip(path):
            return "UnCLIP"
        return "DDPM" if is_unet2d(path) else folder_family(path)
    found = recognise(open_tensors(path))
    return None if found is None else _FILES.get(found.name)


def draws_unasked(source: str | None) -> bool:
    """Whether the model of that name may draw without a prompt; of one on the Hub, who knows."""
    source = source or os.environ.get("SUFFUSE_MODEL") or None
    if source is None:
        return False
    path = Path(source).expanduser()
    return not path.exists() or kind_of(path) is not None
