"""The opcodes of pickle protocols 0 to 5, as steps of a `Machine`.

The list is that of the standard library's `pickletools`. Extension codes, text persistent ids and
out-of-band buffers are left out: torch writes none of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from suffuse.weights.pickle_machine import Machine
from suffuse.weights.tensorfile import show


def load(machine: Machine) -> Any:
    """The next object of the machine's stream.

    Raises SuffuseError for a damaged stream and for anything that is not plain data.
    """
    machine.reset()
    try:
        while not machine.done:
            code = machine.take(1)[0]
            step = _STEPS.get(code)
            if step is None:
                machine.bad(f"unknown opcode {code}")
            step(machine)
        return machine.stack.pop()
    except (IndexError, KeyError, ValueError, TypeError, struct.error) as problem:
        machine.bad(show(f"{type(problem).__name__}: {problem}"))


def text(raw: bytes) -> str:
    """A pickled string; Python 2 wrote bytes, in UTF-8 or an 8-bit code page."""
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


Step = Callable[[Machine], None]


def _push(make: Callable[[Machine], Any]) -> Step:
    def step(m: Machine) -> None:
        value = make(m)  # first: it may replace the stack
        m.stack.append(value)

    return step


def _binary(layout: str, convert: Callable[[bytes], Any]) -> Step:
    """Push `convert` of a byte string whose length comes first."""
    return _push(lambda m: convert(m.take(m.number(layout))))


def _tuple(n: int) -> Step:
    def step(m: Machine) -> None:
        if len(m.stack) < n:
            m.bad("a tuple of more than there is")
        m.stack[-n:] = [tuple(m.stack[-n:])]

    return step


def _integer(m: Machine) -> int | bool:
    line = m.line()
    if line in (b"00", b"01"):  # protocol 0 writes booleans like this
        return line == b"01"
    return int(line.rstrip(b"L"))


def _quoted(m: Machine) -> str:
    line = m.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        m.bad("a string without quotes")
    return text(line[1:-1].decode("unicode_escape").encode("latin-1", "ignore"))


def _global(m: Machine) -> Any:
    return m.lookup(text(m.line()), text(m.line()))


def _stack_global(m: Machine) -> Any:
    name, module = m.stack.pop(), m.stack.pop()
    if not (isinstance(module, str) and isinstance(name, str)):
        m.bad("a global without a name")
    return m.lookup(module, name)


def _reduce(m: Machine) -> Any:
    args, function = m.stack.pop(), m.stack.pop()
    return m.call(function, args)


def _new_ex(m: Machine) -> Any:
    keywords, args, function = m.stack.pop(), m.stack.pop(), m.stack.pop()
    if keywords:
        m.bad("a call with keywords")
    return m.call(function, args)


def _inst(m: Machine) -> Any:
    function = _global(m)
    return m.call(function, tuple(m.to_mark()))


def _obj(m: Machine) -> Any:
    top = m.to_mark()
    return m.call(top[0], tuple(top[1:]))


def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set_items([key, value])


def _append_one(m: Machine) -> None:
    value = m.stack.pop()
    m.append([value])


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.to_mark()


def _long(raw: bytes) -> int:
    return int.from_bytes(raw, "little", signed=True)


_STEPS: dict[int, Step] = {
    ord("("): Machine.mark,
    ord("."): Machine.finish,
    ord("0"): _pop,
    ord("1"): lambda m: m.to_mark().clear(),
    ord("2"): _push(lambda m: m.stack[-1]),
    ord("F"): _push(lambda m: float(m.line())),
    ord("I"): _push(_integer),
    ord("L"): _push(_integer),
    ord("J"): _push(lambda m: m.number("<i")),
    ord("K"): _push(lambda m: m.number("<B")),
    ord("M"): _push(lambda m: m.number("<H")),
    ord("N"): _push(lambda m: None),
    ord("G"): _push(lambda m: m.number(">d")),
    0x88: _push(lambda m: True),
    0x89: _push(lambda m: False),
    0x8A: _binary("<B", _long),
    0x8B: _binary("<i", _long),
    ord("S"): _push(_quoted),
    ord("T"): _binary("<i", text),
    ord("U"): _binary("<B", text),
    ord("V"): _push(lambda m: m.line().decode("raw_unicode_escape")),
    ord("X"): _binary("<I", text),
    0x8C: _binary("<B", text),
    0x8D: _binary("<Q", text),
    ord("B"): _binary("<I", bytes),
    ord("C"): _binary("<B", bytes),
    0x8E: _binary("<Q", bytes),
    0x96: _binary("<Q", bytes),
    ord("c"): _push(_global),
    0x93: _push(_stack_global),
    ord("R"): _push(_reduce),
    ord("b"): Machine.build,
    ord("i"): _push(_inst),
    ord("o"): _push(_obj),
    0x81: _push(_reduce),  # cls.__new__(cls, *args) and cls(*args) are one for inert things
    0x92: _push(_new_ex),
    ord("Q"): _push(lambda m: m.persistent_id(m.stack.pop())),
    ord("d"): _push(lambda m: m.pairs(m.to_mark())),
    ord("}"): _push(lambda m: {}),
    ord("s"): _set_item,
    ord("u"): lambda m: m.set_items(m.to_mark()),
    ord("l"): _push(lambda m: m.to_mark()),
    ord("]"): _push(lambda m: []),
    ord("a"): _append_one,
    ord("e"): lambda m: m.append(m.to_mark()),
    0x8F: _push(lambda m: set()),
    0x90: lambda m: m.append(m.to_mark()),
    0x91: _push(lambda m: frozenset(m.key(v) for v in m.to_mark())),
    ord("t"): _push(lambda m: tuple(m.to_mark())),
    ord(")"): _push(lambda m: ()),
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    ord("p"): lambda m: m.keep(int(m.line())),
    ord("q"): lambda m: m.keep(m.number("<B")),
    ord("r"): lambda m: m.keep(m.number("<I")),
    ord("g"): lambda m: m.recall(int(m.line())),
    ord("h"): lambda m: m.recall(m.number("<B")),
    ord("j"): lambda m: m.recall(m.number("<I")),
    0x94: Machine.memoize,
    0x80: lambda m: None if m.take(1)[0] <= 5 else m.bad("a newer protocol"),
    0x95: lambda m: m.skip(8),  # a frame's length only helps buffered readers
}
