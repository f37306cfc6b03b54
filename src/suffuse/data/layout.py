"""Where things stand: squares (x, y, size) in pixels, on a lattice of 8, never overlapping."""

from __future__ import annotations

import numpy as np

KINDS = ("single", "many", "pair", "row")
RELATIONS = ("left", "right", "above", "below")
SIZES = ("small", "normal", "big")
SIZE_WEIGHTS = (0.2, 0.6, 0.2)

# Cells of 8 pixels; a scene has 16 x 16 of them.
_CELL = 8
_ACROSS = 16
_SINGLE = {"small": 5, "normal": 9, "big": 12}
_PAIR = 7
_MANY = {2: 7, 3: 6, 4: 6}
_ROW = 5

Square = tuple[int, int, int]


def sizes() -> tuple[int, ...]:
    """Every size in pixels that a sprite is drawn at, ascending."""
    return tuple(sorted({_CELL * n for n in (*_SINGLE.values(), _PAIR, *_MANY.values(), _ROW)}))


def single(rng: np.random.Generator, size: str, wander: int) -> list[Square]:
    """One square about the middle; a small one wanders twice as far."""
    cells = _SINGLE[size]
    steps = 2 * wander if size == "small" else wander
    return [_square(_near_middle(rng, cells, steps), _near_middle(rng, cells, steps), cells)]


def pair(rng: np.random.Generator, relation: str, wander: int) -> list[Square]:
    """Two squares; the first stands left of, right of, above or below the second."""
    along = [_within(rng, 0, 8, _PAIR, wander), _within(rng, 8, 16, _PAIR, wander)]
    across = [_near_middle(rng, _PAIR, wander) for _ in range(2)]
    if relation in ("right", "below"):
        along.reverse()
    if relation in ("left", "right"):
        return [_square(x, y, _PAIR) for x, y in zip(along, across)]
    return [_square(x, y, _PAIR) for x, y in zip(across, along)]


def many(rng: np.random.Generator, count: int, wander: int) -> list[Square]:
    """Two squares side by side, three as a triangle, four as a square."""
    if count == 2:
        return pair(rng, "left", wander)
    cells = _MANY[count]
    tops = [(0, 8), (8, 16)]
    squares = [
        _square(_within(rng, *x, cells, wander), _within(rng, *y, cells, wander), cells)
        for y in tops
        for x in tops
    ]
    if count == 4:
        return squares
    top = _square(_near_middle(rng, cells, wander), _within(rng, 0, 8, cells, wander), cells)
    return [top, *squares[2:]]


def row(rng: np.random.Generator, wander: int) -> list[Square]:
    """Three squares from left to right at nearly one height."""
    height = _near_middle(rng, _ROW, wander)
    # Three squares of five cells leave one cell: it opens before one of them or at the end.
    gap = int(rng.integers(4))
    return [_square(i * _ROW + (i >= gap), height, _ROW) for i in range(3)]


def _near_middle(rng: np.random.Generator, cells: int, steps: int) -> int:
    """A start on the lattice within `steps` of the middle, inside the scene."""
    room = _ACROSS - cells
    low, high = room // 2 - steps, (room + 1) // 2 + steps
    return int(rng.integers(max(low, 0), min(high, room) + 1))


def _within(rng: np.random.Generator, start: int, end: int, cells: int, steps: int) -> int:
    """A start within [start, end - cells], at most `steps` from the side nearest the middle."""
    room = end - start - cells
    slack = min(room, max(steps, 1))
    low = start + room - slack if start == 0 else start
    return int(rng.integers(low, low + slack + 1))


def _square(x: int, y: int, cells: int) -> Square:
    return x * _CELL, y * _CELL, cells * _CELL
