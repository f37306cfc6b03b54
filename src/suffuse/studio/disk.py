"""Files beside the database, named by the SHA-256 of what is in them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from pathlib import Path
from typing import IO, Literal

from suffuse.errors import SuffuseError
from suffuse.systems.metadata import write_bytes

FileKind = Literal["image", "input", "film", "explanation"]
_ENDINGS: dict[FileKind, str] = {
    "image": "png",
    "input": "png",
    "film": "png",
    "explanation": "json",
}
_HASH = re.compile(r"[0-9a-f]{64}")


class Files:
    """`data/images/ab/ab….png` and likewise `inputs`, `films` and `explanations`.

    Whoever can read the folder sees whole files only: each is written under a temporary name,
    flushed to the disk, then renamed.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._lock: IO[bytes] | None = None

    def open(self) -> None:
        """Makes the folder, claims it, and removes what an interrupted write has left.

        Raises SuffuseError for a folder that cannot be written or that another studio uses.
        """
        try:
            self._data.mkdir(parents=True, exist_ok=True)
            self._lock = open(self._data / "lock", "ab")  # noqa: SIM115  (held while it runs)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise SuffuseError(
                f"another studio uses '{self._data}': stop it, or name another folder with --data"
            ) from None
        except OSError as error:
            raise SuffuseError(f"cannot use the folder '{self._data}': {error.strerror}") from error
        for kind in _ENDINGS:
            for left in (self._data / f"{kind}s").glob("*/.*.tmp"):
                left.unlink(missing_ok=True)

    def close(self) -> None:
        """Gives the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def put(self, kind: FileKind, content: bytes) -> str:
        """Keeps `content` and returns its hash. Raises OSError, as where the disk is full."""
        digest = hashlib.sha256(content).hexdigest()
        path = self._path(kind, digest)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(content, path, overwrite=True)
        return digest

    def path(self, kind: FileKind, digest: str) -> Path | None:
        """Where it is; None if there is none of this hash."""
        if kind not in _ENDINGS or not _HASH.fullmatch(digest):
            return None
        path = self._path(kind, digest)
        return path if path.is_file() else None

    def remove(self, kind: FileKind, digest: str) -> None:
        """Forgets it; nothing happens where there is none."""
        self._path(kind, digest).unlink(missing_ok=True)

    def _path(self, kind: FileKind, digest: str) -> Path:
        return self._data / f"{kind}s" / digest[:2] / f"{digest}.{_ENDINGS[kind]}"


def disk_trouble(error: OSError) -> str:
    """What hinders writing, in a few words without a path."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return f"the disk cannot be written: {os.strerror(error.errno or errno.EIO).lower()}"
