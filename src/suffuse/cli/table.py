"""Tables, for people: nested values in two columns, and rows under headings."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from suffuse.cli.console import one_line, say

if TYPE_CHECKING:
    from rich.table import Table


def show(values: Mapping[str, Any]) -> None:
    """Print `values` with a heading for each nested part; empty values are left out.

    On a terminal long values are wrapped in their column; elsewhere nothing is ever broken.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for name, value in _rows(values):
        table.add_row(Text(name), Text(one_line(value)))
    _print(table)


def grid(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; the first two columns are never broken."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, no_wrap=place < 2, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(str(cell))) for cell in row))
    _print(table)


def _print(table: Table) -> None:
    from rich.console import Console

    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 1_000_000
    text = io.StringIO()
    Console(file=text, width=width, force_terminal=terminal).print(table)
    say("\n".join(line.rstrip() for line in text.getvalue().strip("\n").split("\n")))


def _rows(values: Mapping[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        label = indent + str(name).replace("_", " ")
        if isinstance(value, Mapping):
            if value:
                yield label, ""
                yield from _rows(value, indent + "  ")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            yield label, ""
            for item in value:
                title, *rest = item.items()
                yield f"{indent}  {title[1]}", ""
                yield from _rows(dict(rest), indent + "    ")
        elif isinstance(value, (list, tuple)):
            if value:
                yield label, ", ".join(map(_plain, value))
        elif value is not None and value != "":
            yield label, _SHOWN.get(str(name), _plain)(value)


def _size(count: int) -> str:
    """Bytes as people and shops count them, in powers of a thousand."""
    for unit, power in (("GB", 3), ("MB", 2), ("kB", 1)):
        if count >= 1000**power:
            return f"{count / 1000**power:.1f} {unit}"
    return f"{count} bytes"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 100_000 and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


_SHOWN: Mapping[str, Callable[[Any], str]] = {"seed": str, "bytes": _size}
