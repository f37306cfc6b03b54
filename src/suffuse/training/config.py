"""A file that changes fields of a preset: TOML, YAML or JSON; `weights.fields` checks them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from suffuse.errors import SuffuseError


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
