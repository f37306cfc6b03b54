"""What a data set holds and what is wrong with it, before a training run finds out."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

import numpy as np

from suffuse.data.alike import difference_hash, near, thumbnail
from suffuse.data.buckets import Buckets
from suffuse.data.decode import BrokenPicture, decode
from suffuse.data.table import Row, Table
from suffuse.errors import SuffuseError

_AT_ONCE = 256


class Spread(NamedTuple):
    least: float
    median: float
    most: float


@dataclass(frozen=True)
class Captions:
    """How many pictures have what, how long captions are, and in which letters.

    several: pictures with more than one caption
    scripts: "latin", "hangul", "cjk" …, the letters that most of a caption is written in
    """

    described: int = 0
    missing: int = 0
    empty: int = 0
    several: int = 0
    words: Spread | None = None
    characters: Spread | None = None
    scripts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """`good` pictures can be trained on; the others are named, with the reason.

    small: how many are smaller than the training size, so that they would be enlarged
    same: groups of names of files that are equal to the byte
    alike: groups of names of pictures that look the same
    buckets: how many pictures each shape, "width x height", would get
    """

    good: int
    broken: dict[str, str]
    not_there: dict[str, str]
    width: Spread
    height: Spread
    small: int
    captions: Captions
    same: list[list[str]]
    alike: list[list[str]]
    buckets: dict[str, int]


class _Seen(NamedTuple):
    name: str
    captions: list[str]
    size: tuple[int, int]
    digest: bytes
    hash: int
    small: np.ndarray  # (8, 8, 3) uint8


def check(
    table: Table,
    size: int = 256,
    buckets: Buckets | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Decodes every picture of `table` once.

    size: in pixels, that training is meant for. Raises SuffuseError where nothing can be read, or
    the size does not fit the buckets.
    """
    buckets = buckets or Buckets()
    buckets.shapes(size)
    seen: list[_Seen] = []
    broken: dict[str, str] = {}
    for i, (row, found) in enumerate(_look(table), 1):
        if isinstance(found, str):
            broken[row.name] = found
        else:
            seen.append(found)
        progress(i, len(table))
    if not seen:
        name, why = next(iter(broken.items()))
        raise SuffuseError(f"none of the pictures of {table.where} can be read: {name}: {why}")
    shapes = Counter(buckets.choose(*one.size, size) for one in seen)
    same, first = _same(seen)
    groups = near([one.hash for one in first], [one.small for one in first])
    return Report(
        good=len(seen),
        broken=broken,
        not_there=dict(table.problems),
        width=_spread(one.size[0] for one in seen),
        height=_spread(one.size[1] for one in seen),
        small=sum(min(one.size) < size for one in seen),
        captions=describe_captions([one.captions for one in seen]),
        same=same,
        alike=[[first[i].name for i in group] for group in groups],
        buckets={f"{w} x {h}": shapes[w, h] for w, h in sorted(shapes)},
    )


def describe_captions(said: list[list[str]]) -> Captions:
    """said: the captions of each picture."""
    texts = [text for captions in said for text in captions if text]
    scripts = Counter(script(text) for text in texts)
    return Captions(
        described=sum(any(captions) for captions in said),
        missing=sum(not captions for captions in said),
        empty=sum(bool(captions) and not any(captions) for captions in said),
        several=sum(len(captions) > 1 for captions in said),
        words=_spread(len(text.split()) for text in texts) if texts else None,
        characters=_spread(map(len, texts)) if texts else None,
        scripts=dict(scripts.most_common()),
    )


def script(text: str) -> str:
    """The letters most of a text is written in, by their names in Unicode: "latin", "hangul" …"""
    letters = Counter(unicodedata.name(c, "other").split()[0] for c in text if c.isalpha())
    return letters.most_common(1)[0][0].lower() if letters else "none"


def _look(table: Table) -> Iterator[tuple[Row, _Seen | str]]:
    """Every row with what is seen of it, or the reason why nothing is."""

    def look(index: int) -> tuple[Row, _Seen | str]:
        row = table.row(index)
        try:
            data = row.bytes()
            image = decode(data)
        except BrokenPicture as error:
            return row._replace(stored=None), str(error)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        hashed, small = difference_hash(image), thumbnail(image)
        found = _Seen(row.name, row.captions, image.size, digest, hashed, small)
        return row._replace(stored=None), found

    with ThreadPoolExecutor() as threads:  # pillow decodes without holding the interpreter
        for start in range(0, len(table), _AT_ONCE):
            yield from threads.map(look, range(start, min(start + _AT_ONCE, len(table))))


def _same(seen: list[_Seen]) -> tuple[list[list[str]], list[_Seen]]:
    """Groups of equal files, and the first of every group or single."""
    groups: dict[bytes, list[_Seen]] = {}
    for one in seen:
        groups.setdefault(one.digest, []).append(one)
    names = [[one.name for one in group] for group in groups.values() if len(group) > 1]
    return names, [group[0] for group in groups.values()]


def _spread(values: Iterable[float]) -> Spread:
    ordered = sorted(values)
    return Spread(ordered[0], median(ordered), ordered[-1])
