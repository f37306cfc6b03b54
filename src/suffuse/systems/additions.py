"""What is laid on top of a model: LoRA adapters and learned words, as a `Request` names them.

Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

from suffuse.errors import SuffuseError


class LoraFile(NamedTuple):
    """A file of LoRA adapters and how much of it to take; 1 is as it was trained."""

    path: str
    scale: float = 1.0

    def __str__(self) -> str:
        return f"{self.path}:{self.scale:g}"


def lora(given: Any) -> LoraFile:
    """`FILE`, `FILE:SCALE`, a pair of both, or what `Request.to_json` wrote.

    Raises SuffuseError.
    """
    path, scale = given, 1.0
    if isinstance(given, Mapping):
        path, scale = _recorded(given, "LoRA"), given.get("scale", 1.0)
    elif isinstance(given, str):
        path, scale = _split(given)
    elif isinstance(given, (tuple, list)) and len(given) == 2:
        path, scale = given
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise SuffuseError(f"the scale of a LoRA must be a number, not {scale!r}")
    return LoraFile(_path(path, "LoRA"), float(scale))


def embedding(given: Any) -> str:
    """A file of a learned word, or what `Request.to_json` wrote of one. Raises SuffuseError."""
    found = _recorded(given, "embedding") if isinstance(given, Mapping) else given
    return _path(found, "embedding")


def classifier(given: Any) -> str | None:
    """A classifier's file or folder, or what `Request.to_json` wrote of one; None stays None.

    Raises SuffuseError.
    """
    if given is None:
        return None
    found = _recorded(given, "classifier") if isinstance(given, Mapping) else given
    return _path(found, "classifier")


def listed(name: str, given: Any) -> Iterable[Any]:
    """The entries of a field that is a list. Raises SuffuseError if it is none."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise SuffuseError(f"{name} must be a list of files, not {given!r}")
    return given


def fingerprint(path: str) -> dict[str, Any]:
    """What is stored of a file: its path and SHA-256."""
    return {"path": path, "sha256": _hash(path)}


def check_file(path: str, what: str) -> None:
    """Raises SuffuseError when there is no such file or folder."""
    if not Path(path).expanduser().exists():
        raise SuffuseError(f"there is no {what} '{path}'")


def _split(given: str) -> tuple[str, float]:
    path, colon, number = given.rpartition(":")
    if not colon:
        return given, 1.0
    try:
        return path, float(number)
    except ValueError:  # a colon in the path
        return given, 1.0


def _path(given: Any, what: str) -> str:
    if not isinstance(given, (str, PathLike)) or not fspath(given):
        raise SuffuseError(f"a {what} is named by its file, not by {given!r}")
    return str(fspath(given))


def _recorded(given: Mapping[str, Any], what: str) -> Any:
    path, digest = given.get("path"), given.get("sha256")
    if isinstance(path, str) and digest is not None:
        check_file(path, what)
        if _hash(path) != digest:
            raise SuffuseError(f"the {what} '{path}' has changed since it was used: name it again")
    return path


def _hash(path: str) -> str:
    """SHA-256 in hex of a file, or of the files in a folder by their names."""
    place = Path(path).expanduser()
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    digest = hashlib.sha256()
    try:
        for file in files:
            with open(file, "rb") as opened:
                while block := opened.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise SuffuseError(f"cannot read '{path}': {error.strerror}") from None
    return digest.hexdigest()
