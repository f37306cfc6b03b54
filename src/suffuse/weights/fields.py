"""Fields of a JSON configuration, read strictly: what is not built is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from suffuse.errors import SuffuseError
from suffuse.weights.tensorfile import show

Json = Mapping[str, Any]


def check_class(raw: Json, field: str, known: tuple[str, ...], where: str) -> None:
    """Refuse a class that is not among the known ones."""
    if raw.get(field) not in known:
        refuse(raw, field, where)


def honour(raw: Json, fixed: Json, read: set[str], where: str) -> None:
    """Refuse any field that asks for what is not built, an unheard-of one included."""
    for field, value in raw.items():
        if field.startswith("_") or field in read:
            continue
        if value != fixed.get(field, value if value in (None, False) else None):
            refuse(raw, field, where)


def refuse(raw: Json, field: str, where: str) -> NoReturn:
    """Raise SuffuseError naming the field and its value; `where` names the file."""
    raise SuffuseError(f"{where}: {field} = {show(raw.get(field))} is not supported")


def as_list(value: Any) -> list[Any]:
    """A list as it is, None as an empty one, anything else as its only entry."""
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def number(raw: Json, field: str, default: int, where: str) -> int:
    """A whole number from 1 up (0 for token ids)."""
    value = raw.get(field, default)
    if type(value) is not int or value < (0 if field.endswith("_id") else 1):
        refuse(raw, field, where)
    return value


def numbers(raw: Json, field: str, default: tuple[int, ...], where: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, at least one."""
    value = raw.get(field, default)
    if not value or not all(type(n) is int and n > 0 for n in as_list(value)):
        refuse(raw, field, where)
    return tuple(as_list(value))


def each(raw: Json, field: str, default: int, levels: int, where: str) -> tuple[int, ...]:
    """One number for each level, written as a list or once for all."""
    values = numbers(raw, field, (default,), where)
    if not isinstance(raw.get(field), (list, tuple)):
        values *= levels
    if len(values) != levels:
        refuse(raw, field, where)
    return values


def same(raw: Json, field: str, default: int, levels: int, where: str) -> int:
    """A number that must be the same at every level."""
    values = set(each(raw, field, default, levels, where))
    if len(values) != 1:
        refuse(raw, field, where)
    return values.pop()
