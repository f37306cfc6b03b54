"""A stream of pictures that can only be read in order: tars and Hub data sets, where they are.

The order is still a function of the seed. The shards of an epoch are shuffled, then read in blocks,
and each block is shuffled: nothing is drawn from a buffer whose contents would be lost at a stop.
A position, which is where a block begins, only saves reading again what came before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from suffuse.data.decode import BrokenPicture
from suffuse.data.folder import PATIENCE, draw
from suffuse.data.preprocess import Preprocess
from suffuse.data.stream import Broken, Examples
from suffuse.data.table import Columns, Row
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from datasets import IterableDataset

BLOCK = 1024  # encoded pictures held in memory, by each worker process
_SHARDS, _BLOCK, _ROW = 3, 4, 5  # what a random generator is for
_AT_ONCE = 16  # rows asked of the library at a time


class Sequence:
    """Rows in order, shard by shard."""

    def __init__(self, rows: IterableDataset, columns: Columns, where: str) -> None:
        self._rows, self._columns, self.where = rows, columns, where
        self.identity = f"{where} {columns} {rows.num_shards} shards"

    @property
    def shards(self) -> int:
        return self._rows.num_shards

    def read(self, shard: int) -> Iterator[Row]:
        """The rows of one shard. Raises SuffuseError where it can no longer be read."""
        rows, index = self._rows.shard(num_shards=self.shards, index=shard), 0
        try:
            # Not `iter(rows)`: in a worker process of torch that deals the rows out among workers.
            for some in rows.iter(_AT_ONCE):
                for values in zip(*some.values()):
                    place = f"picture {index} of shard {shard}"
                    yield self._columns.row(dict(zip(some, values)), place)
                    index += 1
        except (OSError, ValueError, RuntimeError) as error:
            why = " ".join(str(error).split())[:300] or type(error).__name__
            raise SuffuseError(f"cannot read on in {self.where}: {why}") from error


@dataclass(frozen=True)
class Position:
    """Where a block begins."""

    seed: int
    epoch: int = 0
    start: int = 0  # the number of its first picture, counted from the start of the run
    block: int = 0  # its number in the epoch
    shard: int = 0  # its place in the order of the epoch's shards
    row: int = 0  # within that shard


class _Block(NamedTuple):
    at: Position
    rows: list[Row]  # shuffled
    after: Position

    def holds(self, place: int) -> bool:
        return self.at.start <= place < self.after.start


class _Reader:
    """Reads on from a position, block by block."""

    def __init__(self, sequence: Sequence, size: int, at: Position) -> None:
        self.sequence, self.size = sequence, size
        self._walk: Iterator[tuple[Row, int, int]] | None = None  # goes on where the block ends
        self.block = self._read(at)

    def reaches(self, place: int, seed: int) -> bool:
        return self.block.at.seed == seed and self.block.at.start <= place

    def find(self, place: int) -> _Block:
        """The block that the picture number `place` of the run is in."""
        while not self.block.holds(place):
            self.block = self._read(self.block.after)
        return self.block

    def _read(self, at: Position) -> _Block:
        """The block that begins at `at`: the next of the walk under way, or of a new one."""
        if self._walk is None:
            self._walk = self._walked(at)
        walked = list(islice(self._walk, self.size))
        rows = [row for row, _, _ in walked]
        if not rows and not at.block:
            raise SuffuseError(f"{self.sequence.where} holds no pictures")
        start = at.start + len(rows)
        if len(rows) < self.size:
            self._walk, after = None, Position(at.seed, at.epoch + 1, start)
        else:
            _, shard, row = walked[-1]
            after = replace(at, start=start, block=at.block + 1, shard=shard, row=row)
        rng = np.random.default_rng((at.seed, at.epoch, at.block, _BLOCK))
        return _Block(at, [rows[i] for i in rng.permutation(len(rows))], after)

    def _walked(self, at: Position) -> Iterator[tuple[Row, int, int]]:
        """Rows of an epoch, each with the place of the next: a shard and a row of it."""
        rng = np.random.default_rng((at.seed, at.epoch, _SHARDS))
        order, skip = rng.permutation(self.sequence.shards), at.row
        for shard in range(at.shard, len(order)):
            rows = enumerate(self.sequence.read(int(order[shard])), 1)
            yield from ((row, shard, index) for index, row in islice(rows, skip, None))
            skip = 0


class SequenceStream:
    """`sequence`, shuffled in blocks, brought to size by `preprocess`, over and over.

    Every process reads all of the sequence and decodes its own rows alone: reading costs little
    beside decoding. A picture that cannot be read is replaced by the next of its block.
    """

    def __init__(self, sequence: Sequence, preprocess: Preprocess, block: int = BLOCK) -> None:
        if preprocess.buckets is not None:
            raise SuffuseError(f"{sequence.where}: buckets cannot be streamed; leave out streaming")
        self.sequence, self.preprocess, self.size = sequence, preprocess, block
        self.broken = Broken()
        self._known: Position | None = None
        self._reader: _Reader | None = None
        self._aside: _Reader | None = None  # for a look back that must not lose the place

    @property
    def identity(self) -> str:
        """Two streams of one identity give the same pictures."""
        return f"{self.sequence.identity} {self.preprocess} block {self.size}"

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Examples:
        wanted = range(step * size, (step + 1) * size)[rows or slice(None)]
        found = [self._example(self._find(place, seed), place) for place in wanted]
        side = self.preprocess.size
        pictures = np.empty((len(found), side, side, 3), np.uint8)
        for i, (pixels, _) in enumerate(found):
            pictures[i] = pixels
        return Examples(pictures, [caption for _, caption in found])

    def position(self) -> dict[str, int] | None:
        """For `seek`: plain numbers, or None before the first batch."""
        at = self._place()
        return None if at is None else asdict(at)

    def seek(self, position: dict[str, int]) -> None:
        """Spares reading what comes before `position`. Batches are the same without it."""
        self._known, self._reader = Position(**position), None

    def tell(self) -> dict[str, Any]:
        return {"broken": self.broken.tell(), "position": self.position()}

    def hear(self, told: dict[str, Any]) -> None:
        self.broken.hear(told["broken"])
        if told["position"] is not None:
            self.seek(told["position"])

    def __getstate__(self) -> dict[str, Any]:
        # What is being read cannot travel to another process, which reads on its own.
        return {**self.__dict__, "_known": self._place(), "_reader": None, "_aside": None}

    def _place(self) -> Position | None:
        return self._known if self._reader is None else self._reader.block.at

    def _find(self, place: int, seed: int) -> _Block:
        """The block that the picture number `place` of the run is in."""
        for reader in (self._reader, self._aside):
            if reader is not None and reader.reaches(place, seed):
                return reader.find(place)
        at = self._known or Position(seed)
        if self._reader is None and at.seed == seed and at.start <= place:
            self._reader = _Reader(self.sequence, self.size, at)
            return self._reader.find(place)
        self._aside = _Reader(self.sequence, self.size, Position(seed))
        return self._aside.find(place)

    def _example(self, block: _Block, place: int) -> tuple[np.ndarray, str]:
        first = place - block.at.start
        side = self.preprocess.size
        for i in range(min(PATIENCE, len(block.rows))):
            row = block.rows[(first + i) % len(block.rows)]
            seed = (block.at.seed, block.at.epoch, place, i, _ROW)
            try:
                return draw(row, self.preprocess, seed, (side, side))
            except BrokenPicture as error:
                self.broken.add(row.name, str(error))
        raise SuffuseError(
            f"no picture could be read about number {place} of {self.sequence.where}, the last was "
            f"{row.name}: is this the right column?"
        )
