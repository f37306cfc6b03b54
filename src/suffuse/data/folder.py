"""A stream of pictures that can be picked by number: a folder, parquet, tars, a Hub data set.

Every epoch goes through all pictures in an order of its own, a permutation seeded by (seed, epoch).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from suffuse.data.decode import BrokenPicture
from suffuse.data.preprocess import Preprocess
from suffuse.data.stream import Broken, Examples
from suffuse.data.table import Row, Table
from suffuse.errors import SuffuseError

PATIENCE = 64  # broken pictures in a row before the whole source is taken to be broken
_ANOTHER, _ROW = 1, 2  # what a random generator is for: no two draw the same numbers
Shape = tuple[int, int]  # (width, height)
Epoch = tuple[list[tuple[Shape, int]], dict[Shape, np.ndarray]]


class Pick(NamedTuple):
    """A picture of a batch: its number, the epoch, and those that may stand in for it."""

    row: int
    epoch: int
    others: np.ndarray


class FolderStream:
    """`table` in a new order each epoch, brought to size by `preprocess`.

    With buckets, the pictures of a batch have one shape; the header of every file is read once, at
    the start. A picture that cannot be read is replaced by another, drawn by (seed, epoch, number),
    so that nothing depends on what was read before.
    """

    def __init__(
        self,
        table: Table,
        preprocess: Preprocess,
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.table, self.preprocess = table, preprocess
        self.broken = Broken()
        self._pools: dict[Shape, np.ndarray] | None = None
        self._epochs: dict[tuple[int, int, int], Epoch] = {}  # the last two that were asked for
        if preprocess.buckets is not None:
            self._pools = self._sorted(progress)

    @property
    def identity(self) -> str:
        """Two streams of one identity give the same pictures."""
        return f"{self.table.identity} {self.preprocess}"

    def __len__(self) -> int:
        """How many pictures there are, the broken ones included."""
        return len(self.table)

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Examples:
        shape, picks = self._picks(step, size, seed)
        found = [self._example(pick, shape, seed) for pick in picks[rows or slice(None)]]
        width, height = shape
        pictures = np.empty((len(found), height, width, 3), np.uint8)
        for i, (pixels, _) in enumerate(found):
            pictures[i] = pixels
        return Examples(pictures, [caption for _, caption in found])

    def tell(self) -> dict[str, Any]:
        return {"broken": self.broken.tell()}

    def hear(self, told: dict[str, Any]) -> None:
        self.broken.hear(told["broken"])

    def _picks(self, step: int, size: int, seed: int) -> tuple[Shape, list[Pick]]:
        """The pictures of a step, and the shape that all of them get."""
        if self._pools is not None:
            return self._bucketed(self._pools, step, size, seed)
        count, shape = len(self.table), (self.preprocess.size, self.preprocess.size)
        everything = _everything(count)
        places = range(step * size, (step + 1) * size)
        at = [divmod(place, count) for place in places]
        return shape, [Pick(int(_order(count, seed, e)[p]), e, everything) for e, p in at]

    def _bucketed(
        self, pools: dict[Shape, np.ndarray], step: int, size: int, seed: int
    ) -> tuple[Shape, list[Pick]]:
        """Batches of one bucket each, in shuffled order; a bucket's last is filled from its front.

        So every picture is seen in every epoch, a few of them twice.
        """
        epoch, place = divmod(step, sum(-(-len(pool) // size) for pool in pools.values()))
        key = seed, epoch, size
        if key not in self._epochs:
            self._epochs = {**dict([*self._epochs.items()][-1:]), key: _shuffle(pools, *key)}
        batches, orders = self._epochs[key]
        shape, start = batches[place]
        order = orders[shape]
        chosen = [int(order[i % len(order)]) for i in range(start, start + size)]
        return shape, [Pick(row, epoch, pools[shape]) for row in chosen]

    def _example(self, pick: Pick, shape: Shape, seed: int) -> tuple[np.ndarray, str]:
        rng, row = np.random.default_rng((seed, pick.epoch, pick.row, _ANOTHER)), pick.row
        for _ in range(PATIENCE):
            stored = self.table.row(row)
            try:
                return draw(stored, self.preprocess, (seed, pick.epoch, row, _ROW), shape)
            except BrokenPicture as error:
                self.broken.add(stored.name, str(error))
            row = int(pick.others[rng.integers(len(pick.others))])
        raise SuffuseError(
            f"{PATIENCE} pictures in a row could not be read, the last {stored.name}: "
            f"`suffuse data check` says what is wrong with {self.table.where}"
        )

    def _sorted(self, progress: Callable[[int, int], None]) -> dict[Shape, np.ndarray]:
        """The numbers of the pictures of each shape."""

        def shape_of(index: int) -> Shape | None:
            row = self.table.row(index)
            try:
                return self.preprocess.shape(*row.size())
            except BrokenPicture as error:
                self.broken.add(row.name, str(error))
                return None

        pools: dict[Shape, list[int]] = {}
        with ThreadPoolExecutor() as threads:
            for start in range(0, len(self.table), 1024):
                some = range(start, min(start + 1024, len(self.table)))
                for index, shape in zip(some, threads.map(shape_of, some)):
                    if shape is not None:
                        pools.setdefault(shape, []).append(index)
                progress(some.stop, len(self.table))
        if not pools:
            raise SuffuseError(f"none of the pictures of {self.table.where} can be read")
        return {shape: np.array(pools[shape]) for shape in sorted(pools)}


def draw(
    row: Row, preprocess: Preprocess, seed: tuple[int, ...], shape: Shape
) -> tuple[np.ndarray, str]:
    """Pixels (H, W, 3) uint8 of `shape`, and one of the captions. Raises BrokenPicture."""
    rng = np.random.default_rng(seed)
    caption = row.captions[int(rng.integers(len(row.captions)))] if row.captions else ""
    return preprocess.apply(row.picture(), rng, shape), caption


@lru_cache(maxsize=1)
def _everything(count: int) -> np.ndarray:
    return np.arange(count)


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of `count` numbers, another one every epoch."""
    return np.random.default_rng((seed, epoch, count)).permutation(count)


def _shuffle(pools: dict[Shape, np.ndarray], seed: int, epoch: int, size: int) -> Epoch:
    """The batches of an epoch, each a shape and where it begins; the order within each shape."""
    orders = {
        shape: np.random.default_rng((seed, epoch, *shape)).permutation(pool)
        for shape, pool in pools.items()
    }
    batches = [(shape, i) for shape, pool in pools.items() for i in range(0, len(pool), size)]
    order = np.random.default_rng((seed, epoch, len(batches))).permutation(len(batches))
    return [batches[i] for i in order], orders
