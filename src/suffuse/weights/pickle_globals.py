"""The globals that a checkpoint may name, and what each of them is taken to mean.

Three kinds: plain data (dtypes, storage types), builders of plain data (tensors, numpy scalars),
and stubs for the classes that trainers leave in their checkpoints. Nothing here is imported on
the word of a file. Everything that is not listed is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from suffuse.weights.pickle_machine import Builder, Machine, Stateful, Stub
from suffuse.weights.tensorfile import contiguous, span


@dataclass(frozen=True)
class StorageType:
    """`torch.FloatStorage` and the like; an untyped storage counts bytes."""

    dtype: torch.dtype


@dataclass(frozen=True)
class Storage:
    """A storage the pickle refers to: `numel` elements of `dtype`, beginning at element `first` of
    the record `key`."""

    key: str
    dtype: torch.dtype
    numel: int
    first: int = 0


@dataclass(frozen=True)
class PickledTensor:
    """A strided view of a storage, in elements of `dtype`: a tensor without its numbers."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _is_sizes(value: Any) -> bool:
    return type(value) is tuple and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _tensor_v2(m: Machine, args: tuple[Any, ...]) -> PickledTensor:
    """`torch._utils._rebuild_tensor_v2(storage, offset, size, stride, grad, hooks, metadata)`;
    the first version has only the first four."""
    storage, offset, shape, stride = args[:4]
    if len(args) > 6 and args[6]:  # a lazily conjugated or negated view
        m.bad("a tensor with a pending operation")
    if not isinstance(storage, Storage):
        m.bad("a tensor without a storage")
    return _tensor(m, storage, storage.dtype, offset, shape, stride)


def _tensor_v3(m: Machine, args: tuple[Any, ...]) -> PickledTensor:
    """`_rebuild_tensor_v3`: as v2 with an untyped storage and the dtype beside it."""
    storage, offset, shape, stride, _, _, dtype = args[:7]
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        m.bad("a tensor without a storage")
    return _tensor(m, storage, dtype, offset, shape, stride)


def _tensor(
    m: Machine, storage: Storage, dtype: torch.dtype, offset: Any, shape: Any, stride: Any
) -> PickledTensor:
    if not (type(offset) is int and offset >= 0 and _is_sizes(shape) and _is_sizes(stride)):
        m.bad("a tensor with impossible sizes")
    if len(shape) != len(stride):
        m.bad("a tensor with more strides than sizes")
    room = storage.numel * storage.dtype.itemsize
    if (offset + span(shape, stride)) * dtype.itemsize > room and 0 not in shape:
        m.bad("a tensor larger than its storage")
    return PickledTensor(storage, dtype, offset, shape, stride)


def _parameter(m: Machine, args: tuple[Any, ...]) -> PickledTensor:
    """`_rebuild_parameter(data, requires_grad, hooks)`, with or without a state: the data."""
    if not args or not isinstance(args[0], PickledTensor):
        m.bad("a parameter without a tensor")
    return args[0]


def _ordered_dict(m: Machine, args: tuple[Any, ...]) -> dict[Any, Any]:
    """`collections.OrderedDict([pairs])`; every dict keeps its order."""
    pairs = args[0] if args else []
    if isinstance(pairs, dict):
        pairs = list(pairs.items())
    if len(args) > 1 or not isinstance(pairs, (list, tuple)):
        m.bad("a dictionary of something else than pairs")
    m.charge(len(pairs))
    return m.pairs([part for key, value in pairs for part in (key, value)])


def _size(m: Machine, args: tuple[Any, ...]) -> tuple[int, ...]:
    sizes = tuple(args[0]) if args else ()
    m.charge(len(sizes))
    if not all(type(n) is int for n in sizes):
        m.bad("a torch.Size of something else than integers")
    return sizes


def _device(m: Machine, args: tuple[Any, ...]) -> str:
    return ":".join(str(a)[:16] for a in args[:2] if isinstance(a, (str, int)))


def _encode(m: Machine, args: tuple[Any, ...]) -> bytes:
    """`_codecs.encode(text, "latin1")`: how protocol 2 writes bytes."""
    string, *encoding = args
    if not isinstance(string, str) or encoding not in ([], ["latin1"], ["latin-1"], ["utf-8"]):
        m.bad("an encoding that does not stand for bytes")
    m.charge(len(string))
    return string.encode(encoding[0] if encoding else "utf-8")


class _Dtype(Stateful):
    """A numpy dtype of plain numbers; its state holds the byte order."""

    def __init__(self, m: Machine, code: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[biufcSU?][0-9]{0,2}", code):
            m.bad("a numpy type that is not a number")
        self.value = np.dtype(code)

    def set_state(self, machine: Machine, state: Any) -> None:
        order = state[1] if type(state) is tuple and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            machine.bad("a numpy type without a byte order")
        self.value = self.value.newbyteorder(order)


class NumpyArray(Stateful):
    """A numpy array whose numbers come as its state: (version, shape, dtype, fortran, bytes)."""

    def __init__(self) -> None:
        self.value = np.zeros(0)

    def set_state(self, machine: Machine, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not (_is_sizes(shape) and isinstance(dtype, _Dtype) and isinstance(raw, bytes)):
            machine.bad("a numpy array of something else than numbers")
        expected = span(shape, contiguous(shape)) * dtype.value.itemsize
        if len(shape) > 32 or expected != len(raw):
            machine.bad("a numpy array of another size than its numbers")
        self.value = np.frombuffer(raw, dtype.value).reshape(shape, order="F" if fortran else "C")


def _scalar(m: Machine, args: tuple[Any, ...]) -> Any:
    """`numpy.core.multiarray.scalar(dtype, bytes)` as a Python number."""
    dtype, raw = args
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
        m.bad("a numpy scalar of something else than a number")
    if len(raw) != dtype.value.itemsize:
        m.bad("a numpy scalar of another size than its number")
    return np.frombuffer(raw, dtype.value, count=1)[0].item() if raw else ""


_NDARRAY = Stub("numpy.ndarray")


def _reconstruct(m: Machine, args: tuple[Any, ...]) -> NumpyArray:
    """`numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")`: an array waiting for its state."""
    if len(args) != 3 or args[0] != _NDARRAY:
        m.bad("a numpy array of another class")
    return NumpyArray()


def _storage_types() -> dict[tuple[str, str], StorageType]:
    names = {
        "Double": torch.float64, "Float": torch.float32, "Half": torch.float16,
        "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32,
        "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
        "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
    }  # fmt: skip
    modules = ("torch", "torch.cuda")
    table = {(m, f"{n}Storage"): StorageType(d) for n, d in names.items() for m in modules}
    table["torch.storage", "UntypedStorage"] = StorageType(torch.uint8)
    table["torch", "UntypedStorage"] = StorageType(torch.uint8)
    return table


_DTYPES = (
    "float64", "double", "float32", "float", "float16", "half", "bfloat16", "complex64", "cfloat",
    "complex128", "cdouble", "int64", "long", "int32", "int", "int16", "short", "int8", "uint8",
    "uint16", "uint32", "uint64", "bool", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu",
)  # fmt: skip

_BUILDERS = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor_v2,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "_codecs.encode": _encode,
    "numpy.dtype": lambda m, args: _Dtype(m, args[0]),
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
}

# Whole packages whose classes trainers leave in checkpoints.
_STUB_PACKAGES = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf")

# Single names that those packages' objects refer to (omegaconf records types), or that hold
# parameters (textual inversion). They too are stand-ins: a stub named like `dict` builds nothing.
_PYTHON_TYPES = (
    "dict", "list", "tuple", "set", "frozenset", "int", "long", "float", "complex", "bool", "str",
    "unicode",
)  # fmt: skip
_STUBS = {
    "argparse.Namespace",
    "typing.Any",
    "collections.defaultdict",
    "collections.Counter",
    "torch.nn.modules.container.ParameterDict",
    "torch.nn.modules.container.ParameterList",
    "torch.torch_version.TorchVersion",
    *(f"pathlib.{n}" for n in ("Path", "PosixPath", "PurePosixPath", "WindowsPath")),
    *(f"{module}.{n}" for module in ("builtins", "__builtin__") for n in _PYTHON_TYPES),
}


def _table() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = dict(_storage_types())
    table.update({("torch", name): getattr(torch, name) for name in _DTYPES})
    for path, build in _BUILDERS.items():
        module, _, name = path.rpartition(".")
        table[module, name] = Builder(path, build)
    for path in _STUBS:
        module, _, name = path.rpartition(".")
        table[module, name] = Stub(path)
    table["numpy", "ndarray"] = _NDARRAY
    return table


_TABLE = _table()


def find_global(module: str, name: str) -> Any:
    """What a checkpoint's global means here, or None if it has no place in one."""
    if any(module == p or module.startswith(p + ".") for p in _STUB_PACKAGES):
        return Stub(f"{module}.{name}")
    return _TABLE.get((module, name))


def find_in_torchscript(module: str, name: str) -> Any:
    """As `find_global`, for a TorchScript archive: its compiled modules are stand-ins too."""
    if module == "__torch__" or module.startswith("__torch__."):
        return Stub(f"{module}.{name}")
    if module == "torch.jit._pickle":  # tags of typed lists and dictionaries
        return Stub(f"{module}.{name}")
    return find_global(module, name)
