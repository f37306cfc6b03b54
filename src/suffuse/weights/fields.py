"""Fields of a JSON configuration, read strictly: what is not built is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

from suffuse.errors import SuffuseError
from suffuse.weights.tensorfile import show

Json = Mapping[str, Any]
T = TypeVar("T")


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


def real(raw: Json, field: str, default: float, where: str) -> float:
    """A finite number above 0."""
    value = raw.get(field, default)
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        refuse(raw, field, where)
    return float(value)


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


# ---- our own configurations, which are dataclasses -----------------------------------------------


def configured(preset: T, values: Mapping[str, Any], where: str) -> T:
    """The dataclass `preset` with the fields that `values` names changed, however deep.

    where: the file, for messages. Raises SuffuseError naming the field.
    """
    return _changed(preset, values, where, "")


def _changed(base: Any, values: Mapping[str, Any], where: str, path: str) -> Any:
    known = {field.name for field in fields(base)}
    hints = get_type_hints(type(base))
    changes = {}
    for name, value in values.items():
        field = f"{path}{name}"
        if name not in known:
            kinds = ", ".join(sorted(known))
            raise SuffuseError(f"{where}: there is no field {field}: choose one of {kinds}")
        changes[name] = _value(getattr(base, name), hints[name], value, where, field)
    try:
        return replace(base, **changes)
    except SuffuseError as error:  # what the class itself refuses
        raise SuffuseError(f"{where}: {path.rstrip('.') or 'preset'}: {error}") from error


def _value(now: Any, hint: Any, value: Any, where: str, field: str) -> Any:
    if isinstance(value, Mapping):
        if is_dataclass(now):
            return _changed(now, value, where, f"{field}.")
        if isinstance(now, Mapping):
            return {**now, **value}
        for kind in get_args(hint):  # None so far, a configuration by its type
            if isinstance(kind, type) and is_dataclass(kind) and not _needed(kind):
                return _changed(kind(), value, where, f"{field}.")
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        inner = "".join(f"[{place}]" for place in first["loc"] if isinstance(place, int))
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise SuffuseError(f"{where}: {field}{inner}: {message}, not {value!r}") from error


def _needed(kind: Any) -> list[str]:
    """The fields that have no default."""
    return [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]


def plain(value: Any) -> Any:
    """A configuration as values that JSON has."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
