"""`open_parts`: a model from a folder, a file, the Hub, or the package itself."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

import torch

from suffuse.errors import SuffuseError
from suffuse.weights.containers import open_tensors
from suffuse.weights.folder import INDEX, open_folder
from suffuse.weights.mapping import some
from suffuse.weights.parts import Hints, Parts, Place
from suffuse.weights.single_file import is_sd1, open_sd1
from suffuse.weights.tensorfile import TensorFile

BUNDLED = Path(__file__).resolve().parents[1] / "models" / "emoji"

# `owner/name`, as the Hub has them; anything else that does not exist is a mistyped path.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SUFFIXES = {".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".json"}


def open_parts(
    source: str | PathLike[str] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    hints: Hints | None = None,
) -> Parts:
    """Open a text-to-image model; its weights stay on the memory map where they can.

    `source` is a diffusers folder, a Stable Diffusion 1.x file (.safetensors or .ckpt), the name
    of a model on the Hub such as "owner/name" where no such path exists, or None for the bundled
    model. `hints` adds what a file cannot say. Raises SuffuseError with one line that names what is
    missing, unknown, damaged or not supported.
    """
    hints, place = hints or Hints(), Place(device, dtype)
    path = bundled() if source is None else locate_source(source)
    if path.is_dir():
        return open_folder(path, hints, place)
    file = open_tensors(path)
    if is_sd1(file):
        return open_sd1(file, hints, place)
    raise SuffuseError(_not_ours(file))


def bundled() -> Path:
    """The folder of the model inside the package. Raises SuffuseError when it was left out."""
    if not (BUNDLED / INDEX).is_file():
        raise SuffuseError(
            "this installation has no bundled model: name a model folder, a checkpoint file or "
            "a Hub model"
        )
    return BUNDLED


def locate_source(source: str | PathLike[str]) -> Path:
    """An existing path, or the local copy of a Hub model. Raises SuffuseError for neither."""
    path = Path(source).expanduser()
    try:
        if path.exists():
            return path
    except (OSError, ValueError):  # a name that no file can have
        pass
    name = str(source)
    here = path.parent != Path(".") and path.parent.is_dir()  # a mistyped name in a folder of ours
    if _HUB_NAME.fullmatch(name) and path.suffix not in _SUFFIXES and not here:
        from suffuse.weights.hub import fetch

        return fetch(name)
    raise SuffuseError(f"{path}: there is no such file or folder")


def _not_ours(file: TensorFile) -> str:
    """What to say of a checkpoint that is not Stable Diffusion 1.x."""
    seen = f"its {len(file)} weights begin with {some(file, 4)}"
    return f"{file.path}: not a format that Suffuse can open yet; {seen}"
