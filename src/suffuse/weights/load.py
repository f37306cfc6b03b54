"""`open_parts`: a model from a folder, a file, the Hub, or the package itself."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

import torch

from suffuse.errors import SuffuseError
from suffuse.weights.containers import open_tensors
from suffuse.weights.folder import INDEX, open_folder
from suffuse.weights.formats import Format, recognise
from suffuse.weights.hub import fetch, is_hub_name
from suffuse.weights.mapping import some
from suffuse.weights.parts import Hints, Parts, Place, precision
from suffuse.weights.single_file import SD1, open_sd1
from suffuse.weights.tensorfile import TensorFile

_MODELS = Path(__file__).resolve().parents[1] / "models"
BUNDLED = _MODELS / "emoji"
BUNDLED_NAMES = {"suffuse-clip": _MODELS / "clip", "suffuse-unclip": _MODELS / "unclip"}


def open_parts(
    source: str | PathLike[str] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    hints: Hints | None = None,
) -> Parts:
    """Open a text-to-image model; its weights stay on the memory map where they can.

    `source` is a diffusers folder, a Stable Diffusion 1.x file (.safetensors or .ckpt), the name
    of a model on the Hub such as "owner/name" where no such path exists, or None for the model that
    the environment variable SUFFUSE_MODEL names, else the bundled one. `hints` adds what a file
    cannot say. Raises SuffuseError with one line that names what is missing, unknown, damaged or
    not supported.
    """
    hints, place = hints or Hints(), Place(device, dtype)
    source = source or os.environ.get("SUFFUSE_MODEL") or None
    path, name = (bundled(), None) if source is None else locate_source(source, place)
    if path.is_dir():
        if (path / INDEX).is_file():
            return open_folder(path, hints, place, name)
        path = _only_file(path)
    file = open_tensors(path)
    found = recognise(file)
    if found is None or found.name != SD1:
        raise SuffuseError(_not_ours(file, found))
    return open_sd1(file, hints, place)


def bundled() -> Path:
    """The folder of the model inside the package. Raises SuffuseError when it was left out."""
    if not (BUNDLED / INDEX).is_file():
        raise SuffuseError(
            "this installation has no bundled model: name a model folder, a checkpoint file or "
            "a Hub model"
        )
    return BUNDLED


def locate_source(source: str | PathLike[str], place: Place) -> tuple[Path, str | None]:
    """An existing path, the folder of a model inside the package, which `BUNDLED_NAMES` has by
    name, or the local copy of a Hub model; and its name where the path does not say it.

    Raises SuffuseError for none of these.
    """
    path, name = Path(source).expanduser(), str(source)
    try:
        if path.exists():
            return path, None
    except (OSError, ValueError):  # a name that no file can have
        pass
    if name in BUNDLED_NAMES and BUNDLED_NAMES[name].is_dir():
        return BUNDLED_NAMES[name], name
    mistyped = path.parent != Path(".") and path.parent.is_dir()  # the folder is there
    if is_hub_name(name) and not mistyped:
        return fetch(name, variant=precision(place)), name.split("/")[1]
    raise SuffuseError(f"{path}: there is no such file or folder")


def _only_file(folder: Path) -> Path:
    """The checkpoint in a folder that is no pipeline. Raises SuffuseError if it is not the only."""
    for suffix in (".safetensors", ".ckpt"):
        files = sorted(p for p in folder.iterdir() if p.suffix == suffix and p.is_file())
        if len(files) == 1:
            return files[0]
        if files:
            names = ", ".join(p.name for p in files[:6])
            raise SuffuseError(f"{folder}: holds several checkpoints ({names}); name one of them")
    seen = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise SuffuseError(
        f"{folder}: is no model folder, it has no {INDEX} and no checkpoint (it holds {seen})"
    )


def _not_ours(file: TensorFile, found: Format | None) -> str:
    """What to say of a checkpoint that is not Stable Diffusion 1.x."""
    if found is not None and found.component is not None:
        return f"{file.path}: this is only a part of a model: {found.name}"
    if found is not None:
        return f"{file.path}: this is {found.name}, which Suffuse cannot open yet"
    kinds = {name.split(".")[0]: name for name in reversed(list(file))}  # the first of each
    return (
        f"{file.path}: unknown format; of its {len(file)} weights some are "
        f"{some(reversed(kinds.values()), 6)}"
    )
