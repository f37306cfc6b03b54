"""A file that changes fields of a preset: TOML, YAML or JSON, checked field by field."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from suffuse.errors import SuffuseError

T = TypeVar("T")


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in the file. Raises SuffuseError if it cannot be read or is none."""
    readers: dict[str, Callable[[str], Any]] = {
        ".toml": _toml,
        ".yaml": _yaml,
        ".yml": _yaml,
        ".json": json.loads,
    }
    if path.suffix.lower() not in readers:
        raise SuffuseError(f"{path}: a config is a .toml, .yaml or .json file")
    try:
        values = readers[path.suffix.lower()](path.read_text("utf-8"))
    except OSError as error:
        raise SuffuseError(f"cannot read the config {path}: {error.strerror}") from error
    except Exception as error:  # every reader has its own
        raise SuffuseError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise SuffuseError(f"{path}: it names no fields of a preset")
    return values


def _toml(text: str) -> Any:
    from importlib import import_module

    return import_module("tomllib" if sys.version_info >= (3, 11) else "tomli").loads(text)


def _yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


READERS: dict[str, Callable[[str], Any]] = {
    ".toml": _toml,
    ".yaml": _yaml,
    ".yml": _yaml,
    ".json": json.loads,
}


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
