"""The models in a folder, by name, from what their files say of themselves. Without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from suffuse.weights.formats import recognise

_PICKLES = (".ckpt", ".pt", ".pth")
_SMALL = 16 << 20  # bytes; pickled files below are learned words and adapters
_MOST = 100_000_000  # bytes of a safetensors header, as in the reference implementation


def models_in(folders: Iterable[Path]) -> dict[str, str]:
    """Folders and single files that `suffuse.load` may open, by their name without its ending.

    Of two of the same name the first counts. Nothing is loaded: whether a file really opens is
    found out when it is asked for.
    """
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if not path.name.startswith(".") and _is_model(path):
                found.setdefault(path.name if path.is_dir() else path.stem, str(path))
    return found


def _is_model(path: Path) -> bool:
    try:
        if path.is_dir():
            return _is_model_folder(path)
        if path.suffix == ".safetensors":
            return _draws(list(header(path)))
        return path.suffix in _PICKLES and path.stat().st_size > _SMALL
    except (OSError, ValueError):  # unreadable, or no safetensors file at all
        return False


def _is_model_folder(path: Path) -> bool:
    if (path / "model_index.json").is_file():
        return True
    config = path / "config.json"
    described: Any = json.loads(config.read_bytes()) if config.is_file() else {}
    name = described.get("_class_name") if isinstance(described, dict) else None
    return isinstance(name, str) and "Classifier" not in name


def header(path: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors. Raises OSError or ValueError."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MOST:
            raise ValueError
        found = json.loads(file.read(length))
    if not isinstance(found, dict):
        raise ValueError
    for key, entry in found.items():
        if key != "__metadata__" and not (isinstance(entry, dict) and _sides(entry)):
            raise ValueError
    return found


def _sides(entry: dict[str, Any]) -> bool:
    shape = entry.get("shape")
    return isinstance(shape, list) and all(isinstance(side, int) for side in shape)


def _draws(keys: list[str]) -> bool:
    """Whether weights of these names are a model that draws, or its network."""
    known = recognise(keys)
    if known is None or known.name.startswith(("LoRA", "ControlNet")):
        return False
    return known.component in (None, "unet")
