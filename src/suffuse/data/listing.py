"""Folders of pictures: which there are, and what is said of each.

A caption stands in `metadata.jsonl` (or .csv, .parquet) beside the pictures, as the `datasets`
library has it, or in a text file of the picture's name: dog.png, dog.txt. The folder is listed here
and not by that library's "imagefolder", which copies the list to a cache, takes a folder called
`test` for a split, and knows no text files.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from suffuse.errors import SuffuseError

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *(".ppm", ".pgm", ".jp2", ".tga", ".ico"),
)
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
CAPTIONS = ("caption", "text", "prompt", "captions", "txt", "description")


@dataclass
class Listing:
    """Pictures in the order of their names, relative to `root`, with any number of captions."""

    root: Path
    names: list[str] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)  # name -> why it is left out


def list_files(root: Path) -> list[str]:
    """Every file below `root`, relative, sorted, without hidden ones.

    Links are followed. A folder that is reached in several ways is listed once, so circles end.
    """
    found: list[str] = []
    known = {os.path.realpath(root)}
    for place, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        shown = sorted((name for name in folders if not name.startswith(".")), reverse=True)
        real = {os.path.realpath(os.path.join(place, name)): name for name in shown}
        folders[:] = sorted(name for path, name in real.items() if path not in known)
        known.update(real)
        inside = PurePosixPath(Path(place).relative_to(root).as_posix())
        found += [str(inside / name) for name in files if not name.startswith(".")]
    return sorted(found)


def is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def list_pictures(root: Path, files: list[str], caption: str | None = None) -> Listing:
    """The pictures among `files`, which `list_files` found.

    caption: the column of the metadata; else the first known one. Raises SuffuseError.
    """
    listing = Listing(root, [name for name in files if is_picture(name)])
    there = set(files)
    said = _metadata(root, files, there, caption, listing.problems)
    for name in listing.names:
        beside = str(PurePosixPath(name).with_suffix(".txt"))
        captions = said.get(name)
        if captions is None:
            captions = [_side_car(root / beside)] if beside in there else []
        listing.captions.append(captions)
    return listing


def captions_of(value: Any) -> list[str]:
    """Captions from what a column holds: a sentence, several, or fields with one among them."""
    if isinstance(value, str):
        return [" ".join(value.split())]
    if isinstance(value, bytes):
        return captions_of(value.decode("utf-8", "replace"))
    if isinstance(value, Mapping):
        return captions_of(next((value[name] for name in CAPTIONS if name in value), None))
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in captions_of(item)]
    return []


def _refuse(error: OSError) -> None:
    raise SuffuseError(f"cannot list '{error.filename}': {error.strerror}")


def _metadata(
    root: Path, files: list[str], there: set[str], caption: str | None, problems: dict[str, str]
) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    for file in files:
        if PurePosixPath(file).name not in METADATA:
            continue
        for where, row in _rows(root / file):
            if not isinstance(row, Mapping) or not isinstance(row.get("file_name"), str):
                raise SuffuseError(f"{where} names no picture: it needs a file_name")
            name = os.path.normpath(PurePosixPath(file).parent / row["file_name"])
            name = Path(name).as_posix()
            if name in there:
                said.setdefault(name, []).extend(captions_of(_said(row, caption, where)))
            else:
                problems[name] = f"named in {file}, but not there"
    return said


def _said(row: Mapping[str, Any], caption: str | None, where: str) -> Any:
    if caption is None:
        return row
    if caption not in row:
        raise SuffuseError(f"{where} has no {caption!r}: it has {', '.join(map(str, row))}")
    return row[caption]


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a metadata file, each with where it stands, for messages."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
            yield from ((f"'{path}' row {i}", row) for i, row in enumerate(rows, 1))
            return
        with path.open(encoding="utf-8-sig", newline="") as opened:
            if path.suffix == ".csv":
                for i, row in enumerate(csv.DictReader(opened), 1):
                    yield f"'{path}' row {i}", row
                return
            for i, line in enumerate(opened, 1):
                if line.strip():
                    yield f"'{path}' line {i}", _parsed(line, f"'{path}' line {i}")
    except (OSError, ValueError, csv.Error) as error:
        raise SuffuseError(f"cannot read '{path}': {error}") from None


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise SuffuseError(f"{where} is not JSON: {error}") from None


def _side_car(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError:
        raise SuffuseError(f"'{path}' is not text in UTF-8: save it as such") from None
    except OSError as error:
        raise SuffuseError(f"cannot read '{path}': {error.strerror}") from None
