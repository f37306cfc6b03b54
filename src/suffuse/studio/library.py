"""LoRAs and learned words in the configured folders, by name. A request never names a path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from suffuse.errors import SuffuseError

_SUFFIXES = (".safetensors", ".pt", ".bin", ".ckpt")


class Word(NamedTuple):
    """A learned word."""

    path: Path
    vectors: int  # tokens that it takes
    width: int  # of one


def loras(folders: Iterable[Path]) -> dict[str, Path]:
    """LoRA files by name, without its ending; of two with the same, the first folder's."""
    found: dict[str, Path] = {}
    for path in _files(folders):
        if _asked(path, _is_lora):
            found.setdefault(path.stem, path)
    return found


def words(folders: Iterable[Path]) -> dict[str, Word]:
    """Files of a learned word, by the word."""
    found: dict[str, Word] = {}
    for path in _files(folders):
        if (known := _asked(path, _word)) is not None:
            found.setdefault(known[0], known[1])
    return found


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        if folder.is_dir():
            yield from sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.is_file())


Answer = TypeVar("Answer")


def _asked(path: Path, question: Callable[[Path, int, int], Answer]) -> Answer | None:
    """What is known of a file, read anew when it has changed; None where it cannot be read."""
    try:
        stat = path.stat()
        return question(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, SuffuseError):
        return None


@lru_cache(maxsize=4096)
def _is_lora(path: Path, changed: int, size: int) -> bool:
    return _format(path) == "LoRA"


@lru_cache(maxsize=4096)
def _word(path: Path, changed: int, size: int) -> tuple[str, Word] | None:
    from suffuse.weights.embedding import open_embedding

    if size > 1 << 24 or _format(path) != "textual inversion":  # a word is small
        return None
    word, vectors = open_embedding(path)
    return word, Word(path, *vectors.shape)


def _format(path: Path) -> str | None:
    from suffuse.weights.containers import open_tensors
    from suffuse.weights.formats import recognise

    found = recognise(open_tensors(path))
    return None if found is None else found.name
