"""Aspect-ratio buckets: a few shapes of about one area, so that little of a picture is cropped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from suffuse.errors import SuffuseError


@dataclass(frozen=True)
class Buckets:
    """Which shapes a batch may have.

    step: both sides are multiples of it; 64 suits an autoencoder of factor 8 and a U-Net that
        halves three times
    ratio: the longest side over the shortest, at most
    """

    step: int = 64
    ratio: float = 2.0

    def __post_init__(self) -> None:
        if self.step < 1:
            raise SuffuseError(f"the step of buckets must be at least 1, not {self.step}")
        if not 1 <= self.ratio < math.inf:
            raise SuffuseError(f"the ratio of buckets must be 1 or more, not {self.ratio}")

    def shapes(self, size: int) -> tuple[tuple[int, int], ...]:
        """Every (width, height) in pixels with an area of at most `size` squared, narrowest first.

        Raises SuffuseError where `size` is no multiple of the step.
        """
        return _shapes(self, size)

    def choose(self, width: int, height: int, size: int) -> tuple[int, int]:
        """The shape whose ratio is nearest to that of a picture, by its logarithm."""
        ratio = math.log(width / height)
        return min(self.shapes(size), key=lambda s: (abs(math.log(s[0] / s[1]) - ratio), s))


@lru_cache(maxsize=64)
def _shapes(buckets: Buckets, size: int) -> tuple[tuple[int, int], ...]:
    if size < 1 or size % buckets.step:
        raise SuffuseError(f"with buckets, size must be a multiple of {buckets.step}, not {size}")
    tallest: dict[int, int] = {}  # of shapes that are equally high the widest wastes least
    for width in range(buckets.step, size + 1, buckets.step):
        height = size * size // width // buckets.step * buckets.step
        if height <= width * buckets.ratio:
            tallest[height] = width
    narrow = {(width, height) for height, width in tallest.items()}
    return tuple(sorted(narrow | {(height, width) for width, height in narrow}))
