"""Search: the pictures of a folder by words or by another picture.

Every picture is embedded once by a CLIP and kept in an index on disk, so that a search embeds the
question alone. The index is one safetensors file, which cannot hold anything that runs, and lies in
the folder itself (`.suffuse/search.safetensors`): names in it are relative, so the folder may move.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from suffuse.data.decode import open_file
from suffuse.data.listing import is_picture, list_files
from suffuse.data.stream import Broken
from suffuse.errors import SuffuseError
from suffuse.systems.looking import BATCH, look
from suffuse.systems.metadata import write_bytes

if TYPE_CHECKING:
    from suffuse.systems.clip import Clip

PLACE = Path(".suffuse") / "search.safetensors"  # in the folder of pictures
FORMAT = "suffuse search index 1"
SAVE_EVERY = 60.0  # seconds; as much work is lost at most when the machine stops

Stamp = tuple[int, int]  # size in bytes and time of change in ns: who looks at these reads no file


class Hit(NamedTuple):
    """A picture that was found: its name in the folder, and its cosine with what was asked for."""

    name: str
    score: float


class Update(NamedTuple):
    """What an update came to. `broken` are pictures that cannot be read: they are left out."""

    new: int
    changed: int
    deleted: int
    broken: Broken


class Index:
    """The embedded pictures of a folder. `open` finds or begins one.

    vectors: (N, D) float32, unit length;  stamps: by name, in the order of the rows
    broken: those of pictures that could not be read
    """

    def __init__(self, folder: Path, clip: Clip, path: Path) -> None:
        self.folder, self.clip, self.path = folder, clip, path
        self.stamps: dict[str, Stamp] = {}
        self.broken: dict[str, Stamp] = {}
        self.vectors = np.empty((0, clip.width), np.float32)
        self._names: list[str] = []
        self._finder: Any = None

    @classmethod
    def open(
        cls,
        folder: str | PathLike[str],
        clip: Clip,
        path: str | PathLike[str] | None = None,
        rebuild: bool = False,
    ) -> Index:
        """The index of a folder as it was last kept, or an empty one; see `update`.

        path: the index' file; None = `PLACE` in the folder.  rebuild: whether to begin anew
        Raises SuffuseError where there is no folder, the file is no index, or it was built with
        another model or for another folder.
        """
        root = Path(folder)
        check_folder(root)
        found = cls(root, clip, root / PLACE if path is None else Path(path))
        if found.path.exists():
            found._read(rebuild)
        return found

    def __len__(self) -> int:
        return len(self.stamps)

    def update(
        self, batch: int = BATCH, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Update:
        """Embeds new and changed pictures, forgets deleted ones, and keeps the index.

        What was embedded before an interruption is kept too. Raises SuffuseError for a folder
        without pictures, and for an index that cannot be written where there is need to.
        """
        there = self._there()
        if not there:
            raise SuffuseError(f"'{self.folder}' holds no pictures")
        todo = [name for name, stamp in there.items() if self.stamps.get(name) != stamp]
        changed, gone = set(todo) & set(self.stamps), set(self.stamps) - set(there)
        fresh = [name for name in todo if self.broken.get(name) != there[name]]
        broken, before = Broken(), len(self)
        if fresh or gone:
            self._check_place()
            self._forget(changed | gone)
        try:
            # What was broken before is tried again: it may have been locked, or half copied.
            self._embed(todo, there, broken, batch, progress)
        finally:
            self.broken = {name: there[name] for name in broken.found}
            if fresh or gone or len(self) != before:
                self.save()
        new = [name for name in todo if name not in changed and name not in broken.found]
        return Update(len(new), len(changed - set(broken.found)), len(gone), broken)

    def search(self, question: Tensor, top: int = 10) -> list[Hit]:
        """The `top` pictures nearest to an embedding (D,), the nearest first.

        Raises SuffuseError where faiss is not installed.
        """
        faiss = require_faiss()
        if not len(self):
            return []
        if self._finder is None:
            self._names = list(self.stamps)
            self._finder = faiss.IndexFlatIP(self.vectors.shape[1])  # exact: nothing is missed
            self._finder.add(self.vectors)
        scores, rows = self._finder.search(question[None].numpy(), min(top, len(self)))
        return [Hit(self._names[i], float(score)) for i, score in zip(rows[0], scores[0])]

    def save(self) -> None:
        """Writes the index: there is the one before or this, whatever happens."""
        from safetensors.numpy import save

        listed = [
            [[name, *stamp] for name, stamp in files.items()]
            for files in (self.stamps, self.broken)
        ]
        files = np.frombuffer(json.dumps(listed).encode(), np.uint8)
        about = {"format": FORMAT, **self._identity(), "folder": self._home()}
        content = save({"vectors": self.vectors, "files": files}, about)
        try:
            self.path.parent.mkdir(exist_ok=True)
            write_bytes(content, self.path, overwrite=True)
        except OSError as error:
            raise self._refused(error) from error

    # ---- the folder ----------------------------------------------------------------------------

    def _there(self) -> dict[str, Stamp]:
        found: dict[str, Stamp] = {}
        for name in filter(is_picture, list_files(self.folder)):
            try:
                about = os.stat(self.folder / name)
            except OSError:  # deleted since it was listed, or a link to nowhere
                continue
            found[name] = (about.st_size, about.st_mtime_ns)
        return found

    def _embed(
        self,
        names: list[str],
        stamps: Mapping[str, Stamp],
        broken: Broken,
        batch: int,
        progress: Callable[[int, int], None],
    ) -> None:
        waiting: list[np.ndarray] = []
        done, saved = 0, time.monotonic()
        try:
            for looked in look(
                self.clip, len(names), lambda i: open_file(self.folder / names[i]), batch
            ):
                for i, why in looked.broken.items():
                    broken.add(names[i], why)
                waiting.append(looked.vectors.numpy())
                self.stamps |= {names[i]: stamps[names[i]] for i in looked.which}
                done += len(looked.which) + len(looked.broken)
                progress(done, len(names))
                if time.monotonic() - saved > SAVE_EVERY:
                    waiting = self._join(waiting)
                    self.save()
                    saved = time.monotonic()
        finally:
            self._join(waiting)

    def _join(self, waiting: list[np.ndarray]) -> list[np.ndarray]:
        """Takes rows over; what still waits then is nothing."""
        # Interrupted, rows may be here before their names, or twice.
        self.vectors = np.concatenate([self.vectors, *waiting])[: len(self.stamps)]
        self._finder = None
        return []

    def _forget(self, names: set[str]) -> None:
        stay = [name not in names for name in self.stamps]
        self.stamps = {name: at for name, at in self.stamps.items() if name not in names}
        self.vectors = self.vectors[np.array(stay, bool)]
        self._finder = None

    # ---- the file ------------------------------------------------------------------------------

    def _identity(self) -> dict[str, str]:
        info = self.clip.info
        return {"model": info.name, "hash": info.hash() or ""}

    def _home(self) -> str:
        """The folder, for an index that lies elsewhere."""
        inside = self.path.resolve() == (self.folder / PLACE).resolve()
        return "" if inside else str(self.folder.resolve())

    def _read(self, rebuild: bool) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "np") as file:
                about = file.metadata() or {}
                if about.get("format") != FORMAT:
                    raise ValueError
                if rebuild:
                    return
                vectors, files = file.get_tensor("vectors"), file.get_tensor("files")
                stamps, broken = (
                    {name: (size, at) for name, size, at in listed}
                    for listed in json.loads(files.tobytes())
                )
            if vectors.dtype != np.float32 or vectors.shape[:1] != (len(stamps),):
                raise ValueError
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            why = f": {error.strerror}" if isinstance(error, PermissionError) else ""
            ours = "remove it, or keep the index elsewhere" if not self._home() else "name another"
            raise SuffuseError(
                f"'{self.path}' is no search index that can be read{why}; {ours} (--index)"
            ) from error
        self._check(about, vectors.shape[-1])
        self.stamps, self.broken, self.vectors = stamps, broken, vectors

    def _check(self, about: Mapping[str, str], width: int) -> None:
        """Raises SuffuseError for an index of another model or folder."""
        ours = self._identity()
        theirs = {name: about.get(name, "") for name in ours}
        told = "hash" if ours["hash"] and theirs["hash"] else "model"
        if ours[told] != theirs[told] or width != self.clip.width:
            raise SuffuseError(
                f"the index '{self.path}' was built with {_named(theirs)}, and this is "
                f"{_named(ours)}: search with that one (--clip), or build it anew (--rebuild)"
            )
        if about.get("folder", "") != self._home():
            raise SuffuseError(
                f"the index '{self.path}' is of '{about.get('folder')}', not of '{self.folder}': "
                "name another (--index), or build it anew (--rebuild)"
            )

    def _check_place(self) -> None:
        """Refuses before the work is done what could not be written after it."""
        try:
            self.path.parent.mkdir(exist_ok=True)
            probe = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> SuffuseError:
        why = (error.strerror or str(error)).lower()
        return SuffuseError(
            f"cannot keep the index '{self.path}': {why}; name a file elsewhere (--index)"
        )


def check_folder(folder: Path) -> None:
    """Raises SuffuseError for what is no folder."""
    if not folder.is_dir():
        what = f"'{folder}' is no folder" if folder.exists() else f"there is no folder '{folder}'"
        raise SuffuseError(what)


def require_faiss() -> Any:
    """The library that searches. Raises SuffuseError where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise SuffuseError("search needs faiss: pip install 'suffuse[search]'") from None
    return faiss


def _named(identity: Mapping[str, str]) -> str:
    return f"{identity['model'] or 'another model'} ({identity['hash'][:10] or 'no hash'})"
