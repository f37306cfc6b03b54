"""SHA-256 of checkpoints, remembered, since reading four gigabytes takes longer than a picture."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from suffuse.errors import SuffuseError

WORTH = 64 << 20  # bytes; less is read again each time
_KEPT = 1000  # answers in the cache; the oldest leave first


def sha256(files: Sequence[Path]) -> str:
    """The digest in hex of the files' bytes, one after the other.

    An answer for large files is kept under their paths, sizes and times of change in
    `$XDG_CACHE_HOME/suffuse/hashes.json`. Raises SuffuseError for a file that cannot be read.
    """
    try:
        stats = [(str(path.resolve()), path.stat()) for path in files]
    except OSError as problem:
        raise SuffuseError(f"{files[0]}: cannot be read ({problem.strerror})") from None
    if sum(stat.st_size for _, stat in stats) < WORTH:
        return _digest(files)
    key = "|".join(f"{path}:{stat.st_size}:{stat.st_mtime_ns}" for path, stat in stats)
    known = _remembered()
    if key not in known:
        known[key] = _digest(files)
        _remember(known)
    return known[key]


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "suffuse" / "hashes.json"


def _digest(files: Sequence[Path]) -> str:
    digest, buffer = hashlib.sha256(), bytearray(2**20)
    for path in files:
        try:
            with open(path, "rb", buffering=0) as f:
                while size := f.readinto(buffer):
                    digest.update(memoryview(buffer)[:size])
        except OSError as problem:
            raise SuffuseError(f"{path}: cannot be read ({problem.strerror})") from None
    return digest.hexdigest()


def _remembered() -> dict[str, str]:
    """What is in the cache; nothing where it is missing or damaged."""
    try:
        found = json.loads(cache().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(known: dict[str, str]) -> None:
    """A cache that cannot be written is done without."""
    file = cache()
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(dict(list(known.items())[-_KEPT:])), encoding="utf-8")
        temporary.replace(file)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
