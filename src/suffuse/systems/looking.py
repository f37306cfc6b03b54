"""Pictures through a CLIP's picture tower, read by threads while the tower computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor

from suffuse.data.decode import BrokenPicture

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.systems.clip import Clip

BATCH = 32  # pictures that the tower takes at a time
T = TypeVar("T")


class Looked(NamedTuple):
    """Some of the pictures that were asked for, in their order.

    which: their numbers;  vectors: (B, D) float32, unit length
    broken: numbers of pictures before these that could not be read, and why
    """

    which: list[int]
    vectors: Tensor
    broken: dict[int, str]


def look(
    clip: Clip, count: int, open: Callable[[int], Image], batch: int = BATCH
) -> Iterator[Looked]:
    """Embeds pictures 0 to `count`, `batch` at a time.

    `open` gives picture i as RGB; it runs in threads, ahead of the tower, and may raise
    BrokenPicture. Whatever else it raises is raised here.
    """

    def prepared(i: int) -> Tensor | str:
        try:
            return clip.prepare(open(i))
        except BrokenPicture as error:
            return str(error)

    which: list[int] = []
    pixels: list[Tensor] = []
    broken: dict[int, str] = {}
    for i, found in enumerate(_ahead(prepared, range(count), 2 * batch)):
        if isinstance(found, str):
            broken[i] = found
        else:
            which.append(i)
            pixels.append(found)
        if len(pixels) == batch or (i == count - 1 and (pixels or broken)):
            yield Looked(which, _embedded(clip, pixels), broken)
            which, pixels, broken = [], [], {}


def look_at_all(
    clip: Clip,
    count: int,
    open: Callable[[int], Image],
    batch: int = BATCH,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[int], Tensor, dict[int, str]]:
    """The same at once: numbers, vectors (N, D), and the broken ones.

    progress: called with how many are done
    """
    which: list[int] = []
    vectors: list[Tensor] = []
    broken: dict[int, str] = {}
    for looked in look(clip, count, open, batch):
        which += looked.which
        vectors.append(looked.vectors)
        broken |= looked.broken
        progress(len(which) + len(broken))
    return which, torch.cat(vectors) if vectors else torch.empty(0, clip.width), broken


def _embedded(clip: Clip, pixels: Sequence[Tensor]) -> Tensor:
    return clip.embed(torch.stack(list(pixels))) if pixels else torch.empty(0, clip.width)


def _ahead(make: Callable[[int], T], items: Sequence[int], most: int) -> Iterator[T]:
    """`make` of every item, in order, up to `most` of them ahead of whoever asks."""
    with ThreadPoolExecutor(min(16, (os.cpu_count() or 1) + 2)) as threads:
        rest = iter(items)
        waiting: deque[Future[T]] = deque(threads.submit(make, i) for i in islice(rest, most))
        try:
            while waiting:
                found = waiting.popleft().result()
                waiting.extend(threads.submit(make, i) for i in islice(rest, 1))
                yield found
        finally:
            for left in waiting:
                left.cancel()
