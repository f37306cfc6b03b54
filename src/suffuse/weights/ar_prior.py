"""Folders of autoregressive priors: `config.json` and `model.safetensors`, under our own names."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from safetensors.torch import save_file

from suffuse.errors import SuffuseError
from suffuse.networks.ar_prior import ARPrior, ARPriorConfig
from suffuse.weights.containers import open_tensors
from suffuse.weights.fields import configured, plain
from suffuse.weights.folder import read_json
from suffuse.weights.mapping import KeyMap, Row
from suffuse.weights.parts import Place, build
from suffuse.weights.save import replace_folder, write_json
from suffuse.weights.tensorfile import show

CLASS = "ARPrior"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
CLIP = "clip"  # the field of `config.json` that names the CLIP whose embeddings it predicts


def is_ar_prior(folder: Path) -> bool:
    """Whether `save_ar_prior` wrote it."""
    config = folder / CONFIG
    return config.is_file() and read_json(config).get("_class_name") == CLASS


def open_ar_prior(
    folder: str | PathLike[str], place: Place | None = None
) -> tuple[ARPrior, str | None]:
    """The prior of a folder, in float32, and the hash of the CLIP that it was trained with.

    Raises SuffuseError naming the file and what is wrong with it.
    """
    folder, place = Path(folder).expanduser(), place or Place()
    if not folder.is_dir() or not is_ar_prior(folder):
        raise SuffuseError(f"{folder}: is no prior that `suffuse train ar-prior` makes")
    raw = dict(read_json(folder / CONFIG))
    clip = raw.pop(CLIP, None)
    if clip is not None and not isinstance(clip, str):
        raise SuffuseError(f"{folder / CONFIG}: {CLIP} = {show(clip)} is not supported")
    fields = {name: value for name, value in raw.items() if not name.startswith("_")}
    config = configured(ARPriorConfig(), fields, str(folder / CONFIG))
    file = open_tensors(folder / WEIGHTS)
    place = Place(place.device, torch.float32)  # whatever is asked for: it takes little time
    plainly = KeyMap(tuple(Row(name, name) for name in file))
    net = build(lambda: ARPrior(config), plainly, file, place)
    return net.requires_grad_(False), clip


def save_ar_prior(
    net: ARPrior,
    folder: str | PathLike[str],
    clip: str | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a folder that `open_ar_prior` opens, whole or not at all.

    clip: the hash of the CLIP whose embeddings it predicts

    Networks are stored in `dtype`, what embeddings are measured by in float32. Raises SuffuseError
    when `folder` cannot be written or holds something else.
    """
    exact = {name for name, _ in net.named_buffers()}
    weights = {
        name: w.detach().to("cpu", torch.float32 if name in exact else dtype).contiguous()
        for name, w in net.state_dict().items()
    }

    def write(fresh: Path) -> None:
        save_file(weights, fresh / WEIGHTS, metadata={"format": "pt"})
        write_json(fresh / CONFIG, {"_class_name": CLASS, CLIP: clip, **plain(net.config)})

    replace_folder(Path(folder), write, {CONFIG, WEIGHTS})
