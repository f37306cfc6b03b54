"""Key maps: where each of our weights lies in somebody else's file, as rows of data.

A row is a pattern of our names, a template of theirs, and what has to be done to the tensor on the
way. In both, `{i}` stands for a number and a final `*` for `weight` or `bias`. Reading and writing
use the same rows: each weight of a module is looked up by our name, so nothing can stay unfilled,
and what is left over in the file is an error with its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from suffuse.errors import SuffuseError
from suffuse.weights.tensorfile import TensorFile, show


@dataclass(frozen=True)
class Op:
    """What happens to a tensor between a file and a module; `write` undoes `read`.

    piece: which part of the file's tensor this is, where several of ours lie in it, end to end
    """

    name: str
    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]
    piece: int | None = None


SAME = Op("same", lambda w: w, lambda w: w)
# A 1 x 1 convolution (O, I, 1, 1) as the linear layer (O, I) it is; linear weights pass unchanged.
POINTWISE = Op("pointwise", lambda w: w.flatten(1), lambda w: w[:, :, None, None])
# The same of a convolution (O, I, 1) along a sequence.
SEQUENCE = Op("sequence", lambda w: w.flatten(1), lambda w: w[:, :, None])
TRANSPOSED = Op("transposed", lambda w: w.t().contiguous(), lambda w: w.t())


def chain(first: Op, second: Op) -> Op:
    """One operation after the other, as reading has them."""
    return Op(
        f"{first.name}, {second.name}",
        lambda w: second.read(first.read(w)),
        lambda w: first.write(second.write(w)),
    )


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
    """All rows of a format, and what it holds that no picture needs.

    Where several rows fit one of our names they are spellings of it: any is read, the first is
    written. A name in `ignore` that ends in `*` stands for everything below it.
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

    def ignores(self, name: str) -> bool:
        return any(name.startswith(i[:-1]) if i.endswith("*") else name == i for i in self.ignore)

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


Found = dict[str, tuple[str, Op]]


def locate(keys: KeyMap, ours: Iterable[str], file: TensorFile, below: str = "") -> Found:
    """Where each of our weights lies: our name -> (name in the file, operation).

    `below` is the prefix of this module's names in the file; what lies elsewhere is not looked at.
    Raises SuffuseError when one of our weights is not there, or when there is one that no row
    leads to.
    """
    found: Found = {}
    missing: list[str] = []
    for name in ours:
        spellings = [(below + theirs, op) for theirs, op in keys.spellings(name)]
        present = [s for s in spellings if s[0] in file]
        if present:
            found[name] = present[0]
        else:
            missing.append(spellings[0][0] if spellings else name)
    used = {theirs for theirs, _ in found.values()}
    inside = [name for name in file if name.startswith(below) and name not in used]
    unknown = [name for name in inside if not keys.ignores(name[len(below) :])]
    complain(file, missing, unknown)
    return found


def complain(file: TensorFile, missing: list[str], unknown: list[str]) -> None:
    """Raise SuffuseError if there is a missing or an unknown weight."""
    if missing or unknown:
        faults = " and ".join(_faults("missing", missing) + _faults("unknown", unknown))
        raise SuffuseError(
            f"{file.path}: {faults}; the file is damaged, or not what its configuration says"
        )


def _faults(what: str, names: list[str]) -> list[str]:
    """["2 weights are missing ('a', 'b')"], or nothing."""
    if not names:
        return []
    count = f"{len(names)} weights are" if len(names) > 1 else "1 weight is"
    return [f"{count} {what} ({some(names)})"]


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names of a list from a file, for one line."""
    names = list(names)
    return ", ".join(map(show, names[:most])) + (", …" if len(names) > most else "")


def fill(
    module: nn.Module,
    keys: KeyMap,
    file: TensorFile,
    *,
    below: str = "",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Put the file's weights into a module built on the meta device, strictly.

    A weight that has the wanted dtype already stays on the memory map; any other is read and
    converted alone, so that the peak is the module and one tensor. Raises SuffuseError naming a
    weight that is missing, unknown or of another shape.
    """
    empty = module.state_dict()
    found = locate(keys, empty, file, below)
    weights = {}
    for name, (theirs, op) in found.items():
        if file.dtype(theirs).is_floating_point != empty[name].dtype.is_floating_point:
            raise SuffuseError(
                f"{file.path}: {show(theirs)} holds {file.dtype(theirs)}, which are no weights here"
            )
        weight = _read(file, theirs, torch.device(device), dtype)
        try:
            weight = op.read(weight)
        except (RuntimeError, IndexError):  # too few dimensions, or numbers that do not divide
            fits = False
        else:
            fits = weight.shape == empty[name].shape
        if not fits:
            raise SuffuseError(
                f"{file.path}: {show(theirs)} has the shape {tuple(file.shape(theirs))}, "
                f"its configuration asks for {tuple(empty[name].shape)}"
            )
        weights[name] = weight
    module.load_state_dict(weights, assign=True)


def _read(file: TensorFile, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    if device.type == "cpu" and file.dtype(name) != dtype:
        return file.read(name, dtype)
    # To another device in the file's precision, converted there; counters stay whole numbers.
    there = file[name].to(device)
    return (there.to(dtype) if there.is_floating_point() else there).contiguous()


def export(module: nn.Module, keys: KeyMap, dtype: torch.dtype) -> dict[str, Tensor]:
    """A module's weights by the names and in the shapes of a format, on the CPU.

    Raises SuffuseError for a weight that no row names, or that `dtype` cannot hold.
    """
    weights: dict[str, Tensor] = {}
    pieces: dict[str, dict[int, Tensor]] = {}
    for name, weight in module.state_dict().items():
        spellings = keys.spellings(name)
        if not spellings:
            raise SuffuseError(f"cannot save {name!r}: the format has no place for it")
        theirs, op = spellings[0]
        kept = dtype if weight.is_floating_point() else weight.dtype  # a count stays one
        saved = op.write(weight.detach().to("cpu", kept)).contiguous()
        if not bool(torch.isfinite(saved).all()):
            raise SuffuseError(
                f"cannot save {theirs!r} as {dtype}: it holds numbers beyond its range, or NaN; "
                "save with another dtype"
            )
        if op.piece is None:
            weights[theirs] = saved
        else:
            pieces.setdefault(theirs, {})[op.piece] = saved
    for theirs, found in pieces.items():
        weights[theirs] = torch.cat([found[i] for i in sorted(found)])
    return weights
