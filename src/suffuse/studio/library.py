"""LoRAs and learned words among the safetensors files in the configured folders. Without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from suffuse.studio.models_in import header
from suffuse.weights.formats import recognise


class Word(NamedTuple):
    """A learned word."""

    path: Path
    vectors: int  # tokens that it takes
    width: int  # of one


def loras(folders: Iterable[Path]) -> dict[str, Path]:
    """LoRA files by name, without its ending; of two with the same, the first folder's."""
    found: dict[str, Path] = {}
    for path, _ in _files(folders, "LoRA"):
        found.setdefault(path.stem, path)
    return found


def words(folders: Iterable[Path]) -> dict[str, Word]:
    """Files of a learned word, by the word."""
    found: dict[str, Word] = {}
    for path, head in _files(folders, "textual inversion"):
        about = head.get("__metadata__") or {}
        (key, entry), *more = ((k, v) for k, v in head.items() if k != "__metadata__")
        if more:
            continue  # of a model with two text encoders
        # As `weights.embedding` reads them: A1111's files are named after their word.
        word = about.get("name") or (path.stem if key == "emb_params" else key)
        shape = [1, 1, *entry["shape"]]
        found.setdefault(str(word), Word(path, shape[-2], shape[-1]))
    return found


def _files(folders: Iterable[Path], kind: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Files of that format, with their headers."""
    for folder in folders:
        if folder.is_dir():
            for path in sorted(folder.glob("*.safetensors")):
                try:
                    head = header(path)
                except (OSError, ValueError):  # unreadable, or something else
                    continue
                known = recognise(key for key in head if key != "__metadata__")
                if known is not None and known.name == kind:
                    yield path, head
