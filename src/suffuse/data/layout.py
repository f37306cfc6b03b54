"""Where things stand: squares (x, y, size) in pixels, never overlapping.

A thing stands at its usual place or some strides of 32 pixels off it. A U-Net that halves 16 x 16
latents twice sees the world in such strides: what it has learnt of a thing at one place holds at
the next, where a finer lattice would be learnt place by place.
"""

from __future__ import annotations

import numpy as np

KINDS = ("single", "many", "pair", "row")
RELATIONS = ("left", "right", "above", "below")
SIZES = ("small", "normal", "big")
SIZE_WEIGHTS = (0.2, 0.6, 0.2)

# Cells of 8 pixels; a scene has 16 x 16 of them.
_CELL = 8
_ACROSS = 16
_STRIDE = 4
_SINGLE = {"small": 5, "normal": 8, "big": 12}
_HALF = 8  # of a scene; also the size of all but small, big and rows
_ROW = 5

Square = tuple[int, int, int]


def sizes() -> tuple[int, ...]:
    """Every size in pixels that a sprite is drawn at, ascending."""
    return tuple(sorted({_CELL * n for n in (*_SINGLE.values(), _HALF, _ROW)}))


def single(rng: np.random.Generator, size: str, wander: int) -> list[Square]:
    """One square; a big one leaves no room and stands in the middle."""
    cells = _SINGLE[size]
    return [_square(_place(rng, cells, wander), _place(rng, cells, wander), cells)]


def pair(rng: np.random.Generator, relation: str, wander: int) -> list[Square]:
    """Two squares; the first stands left of, right of, above or below the second.

    Across they differ by one stride at most, so that the relation is plain.
    """
    along = [0, _HALF]
    if relation in ("right", "below"):
        along.reverse()
    first = _place(rng, _HALF, wander)
    second = int(np.clip(first + _STRIDE * rng.integers(-1, 2), 0, _HALF)) if wander else first
    across = [first, second]
    if relation in ("left", "right"):
        return [_square(x, y, _HALF) for x, y in zip(along, across)]
    return [_square(x, y, _HALF) for x, y in zip(across, along)]


def many(rng: np.random.Generator, count: int, wander: int) -> list[Square]:
    """Two squares side by side, three as a triangle, four as a square."""
    if count == 2:
        return pair(rng, "left", wander)
    low = [_square(x, _HALF, _HALF) for x in (0, _HALF)]
    if count == 3:
        return [_square(_HALF // 2, 0, _HALF), *low]
    return [_square(x, 0, _HALF) for x in (0, _HALF)] + low


def row(rng: np.random.Generator, wander: int) -> list[Square]:
    """Three squares from left to right at one height."""
    height = _place(rng, _ROW, wander)
    return [_square(i * _ROW, height, _ROW) for i in range(3)]


def _place(rng: np.random.Generator, cells: int, wander: int) -> int:
    """The middle, or a place up to `wander` strides off it that is inside the scene."""
    room = _ACROSS - cells
    middle = room // 2
    reach = min(wander, middle // _STRIDE)
    return middle + _STRIDE * int(rng.integers(-reach, reach + 1))


def _square(x: int, y: int, cells: int) -> Square:
    return x * _CELL, y * _CELL, cells * _CELL
