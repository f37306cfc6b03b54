"""What the commands that measure share: options, and how scores are told.

People get a table, programs JSON.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from suffuse.cli.console import note, say
from suffuse.errors import SuffuseError

JSON = "--json"
STDOUT = "-"

AsJson = Annotated[
    str | None,
    typer.Option(
        JSON, metavar="[FILE]", help="Write JSON to a file too; alone or with -, print it instead."
    ),
]
Overwrite = Annotated[bool, typer.Option(help="Replace files that are already there.")]

Features = Annotated[
    str | None,
    typer.Option(help="File or Hub name of the network to compare by; else our own."),
]
PortName = Annotated[
    str, typer.Option(help="Show Inception pictures like pytorch-fid, tensorflow or clean-fid.")
]
Batch = Annotated[int, typer.Option(help="Pictures at a time.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda …")]


class ReportCommand(TyperCommand):
    """A command whose `--json` may stand alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given: list[str] = []
        for word, after in zip(args, [*args[1:], "--"]):
            alone = word == JSON and after.startswith("-") and after != STDOUT
            given += [word, STDOUT] if alone else [word]
        return super().parse_args(ctx, given)


def check_new(path: str | Path | None, overwrite: bool) -> None:
    """Refuses a file that could not be written later. None and "-" are no files.

    Raises SuffuseError.
    """
    if path is None or path == STDOUT:
        return
    path = Path(path)
    if path.is_dir() or (path.exists() and not overwrite):
        why = "is a folder" if path.is_dir() else "is already there: add --overwrite"
        raise SuffuseError(f"'{path}' {why}, or give another name")
    if not path.parent.is_dir():
        raise SuffuseError(f"cannot write '{path}': there is no folder '{path.parent}'")
    if not os.access(path.parent, os.W_OK):
        raise SuffuseError(f"cannot write in '{path.parent}': permission denied")


def at_least_one(**numbers: int | None) -> None:
    """Refuses numbers that are 0 or less. Raises SuffuseError naming the first."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise SuffuseError(f"{name} must be at least 1, not {number}")


def not_negative(seed: int) -> None:
    """Raises SuffuseError for a seed below 0."""
    if seed < 0:
        raise SuffuseError(f"seed must be 0 or more, not {seed}")


def check_sheet(path: Path | None) -> None:
    """Raises SuffuseError for the name of another kind of file."""
    if path is not None and path.suffix.lower() != ".png":
        raise SuffuseError(f"sheets are written as PNG: name '{path}' something.png")


def number(value: float | None, ending: str = "", digits: int = 3) -> str | None:
    """A score as the table has it; None stays None, and is left out there."""
    return None if value is None else f"{value:.{digits}f}{ending}"


def tell(shown: Mapping[str, Any], values: Mapping[str, Any], as_json: str | None) -> None:
    """Prints the table `shown`, or writes `values` where `--json` says. Raises SuffuseError."""
    if as_json != STDOUT:
        from suffuse.cli.table import show

        show(shown)
    dump(values, as_json)


def dump(values: Mapping[str, Any], as_json: str | None) -> None:
    """Writes `values` where `--json` says; nothing where it is not given. Raises SuffuseError."""
    text = json.dumps(_plain(values), ensure_ascii=False)
    if as_json == STDOUT:
        say(text)
    elif as_json is not None:
        write(Path(as_json), text + "\n")
        note(f"wrote {as_json}")


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all. Raises SuffuseError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise SuffuseError(f"cannot write '{path}': {error.strerror}") from None


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
