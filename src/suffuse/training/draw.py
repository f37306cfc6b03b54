"""The randomness of a step, the same on one process or many.

Every process draws the noise of the whole batch and takes the rows of its share. Drawing is cheap
beside a step, and it is what makes two processes with half the batch give the losses of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Draw(torch.Generator):
    """A generator that knows which `rows` of a batch of `total` it draws for."""

    rows: slice
    total: int

    def __new__(cls, *_: Any) -> Draw:
        return super().__new__(cls)

    def __init__(self, seed: int, rows: slice, total: int):
        self.manual_seed(seed)
        self.rows, self.total = rows, total


def share(generator: torch.Generator, count: int) -> tuple[int, slice]:
    """The size of the whole batch and the `count` rows of it that are drawn for."""
    if not isinstance(generator, Draw):
        return count, slice(0, count)
    if generator.rows.stop - generator.rows.start != count:
        raise ValueError(f"noise for {count} images of a share of {generator.rows}")
    return generator.total, generator.rows


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Gaussian noise (B, ...), float32, on the CPU."""
    total, rows = share(generator, shape[0])
    return torch.randn((total, *shape[1:]), generator=generator)[rows]


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1), (B, ...), float32, on the CPU."""
    total, rows = share(generator, shape[0])
    return torch.rand((total, *shape[1:]), generator=generator)[rows]
