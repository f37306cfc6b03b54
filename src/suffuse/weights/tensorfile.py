"""A checkpoint seen as a mapping from names to tensors that stay on disk until they are used.

Every container (safetensors, torch's two pickle formats, shards) comes down to the same thing: a
name, and a rectangle of numbers somewhere in a file. `Entry` is that; the readers make entries out
of headers alone, and only `TensorFile` touches the numbers.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from suffuse.errors import SuffuseError

# A view may be larger than the bytes below it (expanded buffers), but a kilobyte that claims to be
# a terabyte is an attack on memory: beyond this many extra bytes it is refused.
_EXPANSION_LIMIT = 16 * 2**20
_STAGING = 2**20  # bytes read at a time when numbers are converted
_MAX_DIMS = 64  # torch's own limit


class Source:
    """One file on disk, mapped copy-on-write: pages are read when touched, never written back."""

    def __init__(self, path: Path) -> None:
        """Map `path`. Raises SuffuseError when it is missing, empty or unreadable."""
        self.path = path
        try:
            with open(path, "rb") as f:
                self._stamp = _stamp(f.fileno())
                self.size = os.fstat(f.fileno()).st_size
                if self.size == 0:
                    raise SuffuseError(f"{path}: the file is empty; copy or download it again")
                self.map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
        except FileNotFoundError:
            raise SuffuseError(f"{path}: there is no such file") from None
        except (OSError, ValueError) as problem:
            raise SuffuseError(f"{path}: cannot be read ({_reason(problem)})") from None

    def view(self, start: int, count: int, dtype: torch.dtype) -> Tensor:
        """`count` numbers from byte `start`, as (count,) on the mapping itself."""
        if start % dtype.itemsize:  # kernels may assume natural alignment
            return self.copy(start, count, dtype)
        return torch.frombuffer(self.map, dtype=dtype, count=count, offset=start)

    def copy(
        self, start: int, count: int, dtype: torch.dtype, to: torch.dtype | None = None
    ) -> Tensor:
        """The same numbers as (count,) in fresh memory, converted to `to` on the way.

        Reading through the mapping would keep the file's pages resident beside the copy, and a
        half-precision file opened in float32 would then cost one and a half times its weights.
        """
        made = torch.empty(count, dtype=to or dtype)
        try:
            with open(self.path, "rb") as f:
                if _stamp(f.fileno()) != self._stamp:
                    raise SuffuseError(f"{self.path}: changed while it was open; load it again")
                f.seek(start)
                if made.dtype == dtype:
                    self._fill(f, made.view(torch.uint8).numpy().data)
                    return made
                staging = bytearray(min(_STAGING, count * dtype.itemsize))
                step = len(staging) // dtype.itemsize
                for at in range(0, count, step):
                    n = min(step, count - at)
                    self._fill(f, memoryview(staging)[: n * dtype.itemsize])
                    made[at : at + n] = torch.frombuffer(staging, dtype=dtype, count=n)
        except OSError as problem:
            raise SuffuseError(f"{self.path}: cannot be read ({_reason(problem)})") from None
        return made

    def _fill(self, f: BufferedReader, buffer: memoryview) -> None:
        if f.readinto(buffer) != len(buffer):
            raise SuffuseError(f"{self.path}: ends early; copy or download it again")


@dataclass(frozen=True)
class Entry:
    """A strided rectangle of numbers; element 0 at byte `start`, strides in elements."""

    source: Source
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    @property
    def span(self) -> int:
        """Elements from the first to the last one used, both included; 0 for an empty tensor."""
        return span(self.shape, self.stride)


def span(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """How many elements of storage a strided view of this shape reaches over."""
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(shape, stride))


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def entry(
    source: Source,
    name: str,
    start: int,
    room: int,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    stride: tuple[int, ...] | None = None,
) -> Entry:
    """An `Entry`, checked against the `room` bytes that its storage has from `start` on.

    Raises SuffuseError naming the tensor when it reaches outside them or outside the file.
    """
    stride = contiguous(shape) if stride is None else stride
    made = Entry(source, start, dtype, shape, stride)
    if len(shape) > _MAX_DIMS or min((*shape, *stride, start, room), default=0) < 0:
        raise SuffuseError(f"{source.path}: {show(name)} has an impossible shape {show(shape)}")
    if made.span * dtype.itemsize > room or start + made.span * dtype.itemsize > source.size:
        raise SuffuseError(
            f"{source.path}: {show(name)} reaches beyond its data; "
            "the file is damaged or cut short, copy or download it again"
        )
    if made.nbytes > room + _EXPANSION_LIMIT or max((*shape, *stride), default=0) >= 2**63:
        raise SuffuseError(f"{source.path}: {show(name)} claims more numbers than the file holds")
    return made


@dataclass(frozen=True)
class TensorFile(Mapping[str, Tensor]):
    """Tensors by name, in file order. `file[name]` is mapped; nothing is read before it is used.

    `container` says how the file is packed ("safetensors", "torch zip", "torch legacy",
    "TorchScript"), `metadata` holds safetensors' `__metadata__` or the plain numbers and strings
    stored beside a torch file's weights, `envelope` the names that were unwrapped on the way in.
    """

    path: Path
    container: str
    entries: dict[str, Entry]
    metadata: dict[str, object] = field(default_factory=dict)
    envelope: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> Tensor:
        """The tensor on the memory map, views and shared storage as they were saved.

        Writing to it copies the pages written (the file never changes).
        """
        e = self.entries[name]
        if e.count == 0:
            return torch.empty(e.shape, dtype=e.dtype)
        return e.source.view(e.start, e.span, e.dtype).as_strided(e.shape, e.stride)

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """The tensor in fresh memory, contiguous; floating-point tensors converted to `dtype`.

        Beside the result this takes a megabyte (for a view with gaps: the span of the view).
        """
        e = self.entries[name]
        to = dtype if e.dtype.is_floating_point else None
        if e.count == 0:
            return torch.empty(e.shape, dtype=to or e.dtype)
        if e.stride == contiguous(e.shape):
            return e.source.copy(e.start, e.count, e.dtype, to).view(e.shape)
        strided = e.source.copy(e.start, e.span, e.dtype).as_strided(e.shape, e.stride)
        return strided.to(to or e.dtype).contiguous()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self.entries[name].dtype

    def nbytes(self, name: str) -> int:
        """Bytes the tensor takes in its own precision."""
        return self.entries[name].nbytes

    def within(self, prefix: str) -> TensorFile:
        """The tensors whose names start with `prefix`, with it removed."""
        cut = len(prefix)
        inside = {k[cut:]: e for k, e in self.entries.items() if k.startswith(prefix)}
        return TensorFile(self.path, self.container, inside, self.metadata, self.envelope)


def show(thing: object, limit: int = 100) -> str:
    """A value from an untrusted file, fit for one line of an error message."""
    text = repr(thing)  # escapes control characters
    return text if len(text) <= limit else text[:limit] + "…"


def _stamp(fd: int) -> tuple[int, int, int]:
    s = os.fstat(fd)
    return s.st_ino, s.st_size, s.st_mtime_ns


def _reason(problem: Exception) -> str:
    return getattr(problem, "strerror", None) or str(problem)
