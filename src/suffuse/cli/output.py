"""Where pictures go: a folder with numbered names, or the file the user named."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.systems.metadata import Metadata

FOLDER = Path("outputs")


class Destination:
    """Settles the names of `count` pictures; `prepare` makes sure they can be written.

    `output` is a folder (existing, or without `.png`), a `.png` file, or None for `outputs/`.
    Several pictures for one named file become name-1.png, name-2.png and so on. Raises SuffuseError
    for a file that is already there, unless `overwrite`.
    """

    def __init__(self, output: Path | None, count: int, overwrite: bool) -> None:
        output = FOLDER if output is None else output
        self.overwrite = overwrite
        self._left: list[Path] = []
        if output.suffix and not output.is_dir():
            self._folder = output.parent
            self._left = _names(output, count)
        else:
            self._folder = output
        self._named = bool(self._left)
        self._number = 0
        for path in self._left:
            if path.is_dir() or (path.exists() and not overwrite):
                why = "is a folder" if path.is_dir() else "is already there: add --overwrite"
                raise SuffuseError(f"'{path}' {why}, or give another name")

    def prepare(self) -> None:
        """Make the folder and try to write in it, as permissions alone do not tell.

        Raises SuffuseError for a place that cannot be written.
        """
        folder = self._folder
        probe = folder / f".{secrets.token_hex(8)}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch(exist_ok=False)
            probe.unlink()
        except OSError as error:
            why = "it is not a folder" if folder.is_file() else error.strerror
            raise SuffuseError(f"cannot write in '{folder}': {why}; choose another") from error

    def shares_names_with(self, other: Destination) -> bool:
        """Whether both would write a file of the same name."""
        return not {path.resolve() for path in self._left}.isdisjoint(
            path.resolve() for path in other._left
        )

    def next(self, seed: int, prompt: str) -> Path:
        """The name of the next picture."""
        from suffuse.systems.metadata import file_name, next_number

        if self._named:
            return self._left.pop(0)
        self._number = max(self._number + 1, next_number(self._folder))
        return self._folder / file_name(self._number, seed, prompt)

    def save(
        self,
        image: Image,
        path: Path,
        metadata: Metadata | None = None,
        frames: Sequence[Image] = (),
    ) -> Path:
        """Write it, under a name beside `path` if another program took that meanwhile.

        frames: of an animation, behind the first
        """
        from suffuse.systems.metadata import write_png

        tried, i = path, 1
        while True:
            try:
                write_png(image, tried, metadata, frames=frames, overwrite=self.overwrite)
                return tried
            except FileExistsError:
                i += 1
                tried = path.with_stem(f"{path.stem}-{i}")


def _names(output: Path, count: int) -> list[Path]:
    if output.suffix.lower() != ".png":
        raise SuffuseError(f"pictures are written as PNG: name '{output}' something.png")
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{i + 1}") for i in range(count)]
