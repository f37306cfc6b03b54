"""A machine that runs pickles without running anything else.

Python's own unpickler imports and calls what the file names. This one is an interpreter of the
pickle opcodes over plain data: a global is only ever looked up in a table that the caller gives,
and what the table does not hold is refused before it could be called. Memory and time are linear
in the size of the file: numbers that a file merely claims (memo slots, sizes) allocate nothing.

This file holds the machine's state and what it may do; `pickle_opcodes` runs it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from suffuse.errors import SuffuseError
from suffuse.weights.tensorfile import show

_PLAIN = (str, int, float, bytes, type(None))


@dataclass(frozen=True)
class Stub:
    """The inert stand-in of a class or function: it keeps its name and can be a dictionary key."""

    name: str


@dataclass(eq=False)
class Inert:
    """What calling a `Stub` leaves: everything the file said about the object, nothing done."""

    stub: Stub
    args: Any = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Builder:
    """A function of ours that rebuilds plain data: the only kind of thing that is ever called."""

    name: str
    build: Callable[[Machine, tuple[Any, ...]], Any]


class Stateful:
    """Data of ours that takes a pickled state (numpy's dtype and array, for example)."""

    def set_state(self, machine: Machine, state: Any) -> None:
        raise NotImplementedError


class Machine:
    """The state of reading pickles from `data`: a position, a stack with marks, a memo.

    `find(module, name)` gives the meaning of a global or None to refuse it; `persistent(id)` the
    meaning of a persistent id (torch's storages). `where` begins every error message.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        where: str,
        find: Callable[[str, str], Any],
        persistent: Callable[[Machine, Any], Any],
    ) -> None:
        self.data = data
        self.where = where
        self.at = 0
        self._find = find
        self._persistent = persistent
        self._copied = 0
        self.reset()

    def reset(self) -> None:
        """Forget the last pickle; the position stays, for the next one of the stream."""
        self.stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks below each open mark
        self._memo: dict[int, Any] = {}
        self.done = False

    def bad(self, why: str) -> NoReturn:
        """Raise the error of a damaged stream."""
        raise SuffuseError(
            f"{self.where}: the pickle is damaged at byte {self.at} ({why}); "
            "copy or download the file again"
        )

    def charge(self, amount: int) -> None:
        """Account for `amount` units (bytes, elements) copied out of something already read.

        Copying again and again what is stored once takes memory that the file does not show; a few
        times what was read so far is more than any honest file needs.
        """
        self._copied += amount
        if self._copied > 2**20 + 4 * self.at:
            raise SuffuseError(f"{self.where}: refused, the pickle swells far beyond its own size")

    # Reading

    def take(self, n: int) -> bytes:
        end = self.at + n
        if n < 0 or end > len(self.data):
            self.bad("it ends early")
        piece = bytes(self.data[self.at : end])
        self.at = end
        return piece

    def skip(self, n: int) -> None:
        self.take(n)

    def number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def line(self) -> bytes:
        """Up to the next newline, which is consumed."""
        pieces = []
        while True:
            piece = bytes(self.data[self.at : self.at + 4096])
            cut = piece.find(b"\n")
            if cut >= 0:
                pieces.append(piece[:cut])
                self.at += cut + 1
                return b"".join(pieces)
            if not piece:
                self.bad("it ends early")
            pieces.append(piece)
            self.at += len(piece)

    # The stack

    def to_mark(self) -> list[Any]:
        """Everything above the last mark, which goes."""
        top, self.stack = self.stack, self._outer.pop()
        return top

    def mark(self) -> None:
        self._outer.append(self.stack)
        self.stack = []

    def keep(self, slot: int) -> None:
        self._memo[slot] = self.stack[-1]

    def recall(self, slot: int) -> None:
        self.stack.append(self._memo[slot])

    def memoize(self) -> None:
        self.keep(len(self._memo))

    def finish(self) -> None:
        self.done = True

    # Globals and objects

    def lookup(self, module: str, name: str) -> Any:
        found = self._find(module, name)
        if found is None:
            raise SuffuseError(
                f"{self.where}: refused, it names {show(module + '.' + name)}, which no weights "
                "need and a harmful file could call; nothing in it was executed. "
                "Use a .safetensors version of this checkpoint"
            )
        return found

    def call(self, function: Any, args: Any) -> Any:
        if type(args) is not tuple:
            self.bad("arguments that are not a tuple")
        if isinstance(function, Stub):
            return Inert(function, args)
        if isinstance(function, Builder):
            return function.build(self, args)
        self.bad("a call of something that is not a function")

    def persistent_id(self, saved: Any) -> Any:
        return self._persistent(self, saved)

    def build(self) -> None:
        """BUILD: hand an object its state, if it is one of ours; attributes of plain data go."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif isinstance(target, Stateful):
            target.set_state(self, state)
        elif type(target) is not dict:  # state dicts carry `_metadata`, which nothing here needs
            self.bad("a state for something that takes none")

    # Containers

    def key(self, key: Any) -> Any:
        """A dictionary key or set member, if hashing it is harmless and quick."""
        flat = key if type(key) is tuple and len(key) <= 64 else (key,)
        for k in flat:
            if not isinstance(k, (*_PLAIN, Stub, Inert)):  # Inert hashes by identity
                self.bad("a dictionary key that is not plain")
            if isinstance(k, int) and abs(k) >= 2**63:  # multiples of 2**61 - 1 all collide
                self.bad("a dictionary key that is too large")
        return key

    def pairs(self, flat: list[Any]) -> dict[Any, Any]:
        if len(flat) % 2:
            self.bad("a key without a value")
        return {self.key(k): v for k, v in zip(flat[::2], flat[1::2])}

    def set_items(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.items.extend(self.pairs(flat).items())
        elif type(target) is dict:
            target.update(self.pairs(flat))
        else:
            self.bad("items for something that is not a dictionary")

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.items.extend(values)
        elif type(target) is list:
            target.extend(values)
        elif type(target) is set:
            target.update(self.key(v) for v in values)
        else:
            self.bad("members for something that is not a list")
