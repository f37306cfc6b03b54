"""Key maps: where each of our weights lies in somebody else's file, as rows of data.

A row is a pattern of our names, a template of theirs, and what has to be done to the tensor on the
way. In both, `{i}` stands for a number and a final `*` for `weight` or `bias`. Reading and writing
use the same rows: each weight of a module is looked up by our name, so nothing can stay unfilled,
and what is left over in the file is an error with its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from suffuse.errors import SuffuseError


@dataclass(frozen=True)
class Op:
    """What happens to a tensor between a file and a module; `write` undoes `read`."""

    name: str
    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]


SAME = Op("same", lambda w: w, lambda w: w)
# A 1 x 1 convolution (O, I, 1, 1) as the linear layer (O, I) it is; linear weights pass unchanged.
POINTWISE = Op("pointwise", lambda w: w.flatten(1), lambda w: w[:, :, None, None])


@dataclass(frozen=True)
class Row:
    """Our name, their name, and the operation that leads from theirs to ours."""

    ours: str
    theirs: str
    op: Op = SAME


def nest(ours: str, theirs: str, rows: Iterable[Row]) -> list[Row]:
    """The rows of a part, below a prefix on each side; "" for none."""
    return [
        replace(row, ours=_below(ours, row.ours), theirs=_below(theirs, row.theirs)) for row in rows
    ]


def _below(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


@dataclass(frozen=True)
class KeyMap:
    """All rows of a format, and the names that it holds besides weights.

    Where several rows fit one of our names they are spellings of it: any is read, the first is
    written.
    """

    rows: tuple[Row, ...]
    ignore: tuple[str, ...] = ()

    def spellings(self, name: str) -> list[tuple[str, Op]]:
        """Their names for one of ours, each with its operation; empty if no row fits."""
        found = []
        for pattern, row in self._by_outline.get(_outline(name), ()):
            fields = pattern.fullmatch(name)
            if fields:
                found.append((row.theirs.format(**fields.groupdict()), row.op))
        return found

    @cached_property
    def _by_outline(self) -> dict[str, list[tuple[re.Pattern[str], Row]]]:
        """Rows by their pattern with all numbers made 0, so that few are left to try for a name."""
        table: dict[str, list[tuple[re.Pattern[str], Row]]] = {}
        for row in self.rows:
            for plain in _leaves(row):
                key = _outline(_FIELD.sub("0", plain.ours))
                table.setdefault(key, []).append((_pattern(plain.ours), plain))
        return table


_FIELD = re.compile(r"\{(\w+)\}")


def _outline(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def _leaves(row: Row) -> list[Row]:
    """A row that ends in `*` as one row for each leaf."""
    if not row.ours.endswith(".*"):
        return [row]
    return [
        replace(row, ours=row.ours[:-1] + leaf, theirs=row.theirs[:-1] + leaf)
        for leaf in ("weight", "bias")
    ]


def _pattern(ours: str) -> re.Pattern[str]:
    literal = _FIELD.split(ours)  # text, field, text, field, … text
    parts = [f"(?P<{s}>\\d+)" if i % 2 else re.escape(s) for i, s in enumerate(literal)]
    return re.compile("".join(parts))


class Weights(Protocol):
    """What is read here of a `TensorFile`: tensors by name that stay on disk until they are used."""

    def __iter__(self) -> Iterator[str]: ...
    def __contains__(self, name: object) -> bool: ...
    def __getitem__(self, name: str) -> Tensor: ...
    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor: ...
    def dtype(self, name: str) -> torch.dtype: ...


Found = dict[str, tuple[str, Op]]


def locate(keys: KeyMap, ours: Iterable[str], file: Collection[str], where: str) -> Found:
    """Where each of our weights lies: our name -> (name in the file, operation).

    `where` names the file in errors. Raises SuffuseError when a weight of ours is not in the file,
    or the file holds one that no row leads to.
    """
    found: Found = {}
    missing: list[str] = []
    for name in ours:
        spellings = keys.spellings(name)
        present = [s for s in spellings if s[0] in file]
        if present:
            found[name] = present[0]
        else:
            missing.append(spellings[0][0] if spellings else name)
    used = {theirs for theirs, _ in found.values()} | set(keys.ignore)
    extra = [name for name in file if name not in used]
    if missing or extra:
        faults = [_list("is missing", "are missing", missing), _list("unknown", "unknown", extra)]
        raise SuffuseError(
            f"{where}: {' and '.join(f for f in faults if f)}; "
            "the file is incomplete, or not of the kind its configuration says"
        )
    return found
