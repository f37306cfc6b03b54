"""Boxes with a label each, as grounded models take them (GLIGEN, 2301.07093).

Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from suffuse.errors import SuffuseError
from suffuse.systems.checks import number, text

_SIDES = ("x0", "y0", "x1", "y1")


class Box(NamedTuple):
    """What is to stand where: shares of the picture's width and height, from its top left."""

    label: str
    x0: float  # in [0, 1], as all sides; x0 < x1
    y0: float  # y0 < y1
    x1: float
    y1: float

    def __str__(self) -> str:
        """As `box` reads it."""
        return f"{self.label}:{','.join(map(repr, self[1:]))}"


def boxes(given: Any) -> tuple[Box, ...] | None:
    """The boxes of a request; None and an empty list are none. Raises SuffuseError."""
    if given is None:
        return None
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise SuffuseError(f"boxes must be a list of [label, x0, y0, x1, y1], not {given!r}")
    return tuple(map(box, given)) or None


def box(given: Any) -> Box:
    """`LABEL:X0,Y0,X1,Y1`, those five in a list, or a mapping of their names.

    Raises SuffuseError.
    """
    parts: Any = given
    if isinstance(given, str):
        before, _, after = given.rpartition(":")
        parts = [before, *map(_number, after.split(","))]
    elif isinstance(given, Mapping):
        if set(given) != {"label", *_SIDES}:
            raise SuffuseError(f"a box has label, x0, y0, x1 and y1, not {', '.join(given)}")
        parts = [given[name] for name in ("label", *_SIDES)]
    if not isinstance(parts, (list, tuple)) or len(parts) != 5:
        raise SuffuseError(f"a box is LABEL:X0,Y0,X1,Y1, not {given!r}")
    label, *sides = parts
    text("the label of a box", label)
    if not label.strip():
        raise SuffuseError("a box needs a label: say what is to stand in it")
    x0, y0, x1, y1 = (
        number(f"{name} of the box {label!r}", side, 0.0, 1.0) or 0.0
        for name, side in zip(_SIDES, sides)
    )
    if not (x0 < x1 and y0 < y1):
        raise SuffuseError(f"the box {label!r} is empty: it needs x0 < x1 and y0 < y1")
    return Box(label, x0, y0, x1, y1)


def refuse(given: tuple[Box, ...] | None, name: str) -> None:
    """For a model that cannot heed boxes. Raises SuffuseError if there are any."""
    if given:
        raise SuffuseError(f"boxes are for grounded models; {name} takes none")


def _number(word: str) -> Any:
    """The number that a word is; itself where it is none, which is then refused by name."""
    return float(word) if re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", word) else word
