"""Checks of single values that people give, each with a message that names it."""

from __future__ import annotations

import math
import operator
from typing import Any

from suffuse.errors import SuffuseError


def text(name: str, value: Any) -> None:
    """Raises SuffuseError if `value` is not text that can be written down."""
    if not isinstance(value, str):
        raise SuffuseError(f"{name} must be text, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SuffuseError(f"{name} is not valid Unicode text: write it in UTF-8") from None


def whole(name: str, value: Any, least: int, optional: bool, most: int | None = None) -> int | None:
    """A whole number from `least` up, to `most`; None where it is `optional`.

    Raises SuffuseError.
    """
    if value is None and optional:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        found = operator.index(value)
    except TypeError:
        raise SuffuseError(f"{name} must be a whole number, not {value!r}") from None
    if found < least:
        raise SuffuseError(f"{name} must be at least {least}, not {found}")
    if most is not None and found > most:
        raise SuffuseError(f"{name} must be at most {most}, not {found}")
    return found


def interval(name: str, value: Any) -> tuple[float, float] | None:
    """Two numbers, the first the smaller, or both in one text as "LOW,HIGH"; None stays None.

    Raises SuffuseError.
    """
    if value is None:
        return None
    try:
        low, high = map(float, value.split(",") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        raise SuffuseError(f"{name} must be two numbers LOW,HIGH, not {value!r}") from None
    if not 0 <= low < high < math.inf:
        raise SuffuseError(f"{name} needs 0 <= LOW < HIGH, not {low:g},{high:g}")
    return low, high


def number(
    name: str, value: Any, least: float, most: float = math.inf, optional: bool = False
) -> float | None:
    """A finite number from `least` to `most`; None where it is `optional`. Raises SuffuseError."""
    if value is None and optional:
        return None
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise SuffuseError(f"{name} must be a number, not {value!r}") from None
    if not (math.isfinite(found) and least <= found <= most):
        bounds = f"{least:g} or more" if most == math.inf else f"between {least:g} and {most:g}"
        raise SuffuseError(f"{name} must be {bounds}, not {found:g}")
    return found
