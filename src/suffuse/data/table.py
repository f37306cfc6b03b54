"""Pictures that can be picked by number, whatever they are stored in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from suffuse.data.decode import BrokenPicture, decode, read, size_of
from suffuse.data.listing import CAPTIONS, Listing, captions_of
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from datasets import Dataset

_IMAGES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp")
_NAMES = ("file_name", "__key__", "id", "key")


class Row(NamedTuple):
    """One picture as it is stored: its bytes, or the file that has them."""

    name: str
    stored: bytes | Path | None
    captions: list[str]

    def bytes(self) -> bytes:
        """Raises BrokenPicture, or SuffuseError where the file has vanished."""
        if self.stored is None:
            raise BrokenPicture("no picture")
        return read(self.stored) if isinstance(self.stored, Path) else self.stored

    def picture(self) -> Image.Image:
        """RGB. Raises as `bytes` does."""
        return decode(self.bytes())

    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, from the header. Raises BrokenPicture."""
        if self.stored is None:
            raise BrokenPicture("no picture")
        return size_of(self.stored)


@dataclass(frozen=True)
class Columns:
    """Which columns of a data set hold the picture, its caption and its name."""

    image: str
    caption: str | None
    name: str | None

    @classmethod
    def find(
        cls, features: Mapping[str, Any], image: str | None, caption: str | None, where: str
    ) -> Columns:
        """By the given names, else by the usual ones. Raises SuffuseError listing what there is."""
        there = ", ".join(features)
        for asked in (image, caption):
            if asked is not None and asked not in features:
                raise SuffuseError(f"{where} has no column {asked!r}: it has {there}")
        if image is None:
            typed = [name for name, kind in features.items() if _is_image(kind)]
            image = next(iter(typed), None) or next((n for n in _IMAGES if n in features), None)
        if image is None:
            raise SuffuseError(f"{where} has no column of pictures: it has {there}; name one")
        if caption is None:
            caption = next((name for name in (*CAPTIONS, "json") if name in features), None)
        return cls(image, caption, next((name for name in _NAMES if name in features), None))

    def row(self, example: Mapping[str, Any], place: str) -> Row:
        """`place` names the picture where no column does."""
        value, stored, name = example[self.image], None, place
        if isinstance(value, Mapping):
            stored, name = value.get("bytes"), value.get("path") or place
            if stored is None and value.get("path"):
                stored = Path(value["path"])
        elif isinstance(value, (bytes, bytearray)):
            stored = bytes(value)
        elif isinstance(value, str):
            stored, name = Path(value), value
        if self.name is not None and example[self.name] is not None:
            name = str(example[self.name])
        said = [] if self.caption is None else captions_of(example[self.caption])
        return Row(name, stored, said)


class Table:
    """Rows by number. `problems` are pictures that are spoken of but not there."""

    def __init__(self, rows: Dataset, columns: Columns, where: str, identity: str) -> None:
        wanted = [name for name in (columns.image, columns.caption, columns.name) if name]
        self._rows, self._columns = rows.select_columns(wanted), columns
        self.where, self.identity = where, identity
        self.root: Path | None = None
        self.problems: dict[str, str] = {}
        if not len(rows):
            raise SuffuseError(f"{where} holds no pictures")

    @classmethod
    def of_folder(cls, listing: Listing) -> Table:
        """Raises SuffuseError for a folder without pictures."""
        from datasets import Dataset, Features, Value

        # Arrow's memory is shared with worker processes; a list of strings would be copied to
        # each of them, page by page, as its reference counts change.
        text = Value("string")
        rows = Dataset.from_dict(
            {"name": listing.names, "caption": listing.captions},
            features=Features({"name": text, "caption": [text]}),
        )
        digest = hashlib.sha256()
        for name, captions in zip(listing.names, listing.captions):
            digest.update(repr((name, captions)).encode("utf-8", "surrogateescape"))
        columns = Columns("name", "caption", None)
        table = cls(rows, columns, f"'{listing.root}'", digest.hexdigest())
        table.root, table.problems = listing.root, listing.problems
        return table

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        row = self._columns.row(self._rows[index], f"picture {index}")
        if self.root is not None and isinstance(row.stored, Path):
            row = row._replace(stored=self.root / row.stored)
        return row


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"
