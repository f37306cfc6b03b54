"""Files written by `torch.save`, in both of its formats, and TorchScript archives.

Since torch 1.6 a checkpoint is an uncompressed zip: `name/data.pkl` describes the objects and
`name/data/KEY` holds each storage. Before, it was a stream: four pickles (magic number, protocol,
system, objects), the list of storage keys, then each storage behind an 8-byte count. Either way
the objects are read by the restricted machine and the storages stay on disk.

TorchScript archives (OpenAI's CLIP) are the zip with compiled modules in place of dictionaries;
their attributes are taken apart and none of their code is run.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import Any, NoReturn

from suffuse.errors import SuffuseError
from suffuse.weights import pickle_opcodes
from suffuse.weights.flatten import flatten
from suffuse.weights.pickle_globals import (
    PickledTensor,
    Storage,
    StorageType,
    find_global,
    find_in_torchscript,
)
from suffuse.weights.pickle_machine import Machine
from suffuse.weights.tensorfile import Entry, Source, TensorFile, entry, show

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the legacy stream
_PROTOCOL = 1001
_MAX_UNPACKED = 64 * 2**20  # bytes; compressed descriptions (TorchScript) are far smaller
_ZIP_PROBLEMS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, IndexError, ValueError,
    NotImplementedError, RuntimeError, OverflowError, OSError,
)  # fmt: skip

# Where each record begins, and how many bytes it has.
Records = dict[str, tuple[int, int]]


def is_zip(source: Source) -> bool:
    return source.map[:4] == b"PK\x03\x04"


def is_pickle(source: Source) -> bool:
    return source.size > 2 and source.map[0] == 0x80 and source.map[1] <= 5


def read_zip(source: Source, inside: tuple[str, ...] | None = None) -> TensorFile:
    """The tensors of a zip-format checkpoint. Raises SuffuseError; see `flatten` for `inside`."""
    try:
        with zipfile.ZipFile(source.path) as archive:
            root = _root(source, archive)
            described = _describe(source, archive, f"{root}data.pkl")
            records = _records(source, archive, f"{root}data/")
            scripted = f"{root}constants.pkl" in archive.namelist()
            order = archive.read(f"{root}byteorder") if f"{root}byteorder" in archive.NameToInfo \
                else b"little"  # fmt: skip
    except _ZIP_PROBLEMS as problem:
        raise SuffuseError(
            f"{source.path}: the zip archive is damaged ({show(str(problem))}); "
            "copy or download it again"
        ) from None
    if order != b"little":
        raise SuffuseError(f"{source.path}: was written big-endian; save it again on a PC")
    find = find_in_torchscript if scripted else find_global
    machine = Machine(described, str(source.path), find, _Storages())
    objects = pickle_opcodes.load(machine)
    kind = "TorchScript" if scripted else "torch zip"
    return _tensor_file(source, kind, objects, records, inside)


def read_stream(source: Source, inside: tuple[str, ...] | None = None) -> TensorFile:
    """The tensors of a legacy checkpoint. Raises SuffuseError; see `flatten` for `inside`."""
    storages = _Storages()
    machine = Machine(memoryview(source.map), str(source.path), find_global, storages)
    if pickle_opcodes.load(machine) != _MAGIC:
        raise SuffuseError(
            f"{source.path}: is a pickle, but not a checkpoint that torch.save wrote; "
            "save its state dict as .safetensors"
        )
    if pickle_opcodes.load(machine) != _PROTOCOL:
        machine.bad("an unknown version of the format")
    system = pickle_opcodes.load(machine)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise SuffuseError(f"{source.path}: was written big-endian; save it again on a PC")
    objects = pickle_opcodes.load(machine)
    keys = pickle_opcodes.load(machine)
    records = _stream_records(machine, keys, storages.itemsize)
    return _tensor_file(source, "torch legacy", objects, records, inside)


class _Storages:
    """The meaning of persistent ids: `("storage", type, key, location, numel[, view])`."""

    def __init__(self) -> None:
        self.itemsize: dict[str, int] = {}

    def __call__(self, m: Machine, saved: Any) -> Storage:
        if type(saved) is not tuple or len(saved) not in (5, 6) or saved[0] != "storage":
            m.bad("a reference to something else than a storage")
        _, kind, key, _, numel, *view = saved
        if not (isinstance(kind, StorageType) and isinstance(key, str)):
            m.bad("a storage without a type or a key")
        if type(numel) is not int or not 0 <= numel < 2**63:
            m.bad("a storage of an impossible size")
        self.itemsize.setdefault(key, kind.dtype.itemsize)
        if not view or view[0] is None:
            return Storage(key, kind.dtype, numel)
        _, first, count = view[0]  # legacy: a storage that is a piece of another one
        if not (type(first) is int and type(count) is int and 0 <= first <= first + count <= numel):
            m.bad("a storage view outside its storage")
        return Storage(key, kind.dtype, count, first)


def _root(source: Source, archive: zipfile.ZipFile) -> str:
    """The folder inside the archive that holds data.pkl, with its slash."""
    names = archive.namelist()
    roots = [n[: -len("data.pkl")] for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
    roots = [r for r in roots if r.count("/") <= 1]
    if len(set(names)) != len(names):
        _refuse(source, "the zip archive holds the same name twice")
    if len(roots) != 1:
        _refuse(source, "is a zip archive but not a checkpoint: it has no data.pkl; unpack it")
    return roots[0]


def _describe(source: Source, archive: zipfile.ZipFile, name: str) -> bytes:
    """The pickle that describes the objects, its checksum verified."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED and info.file_size > _MAX_UNPACKED:
        _refuse(source, f"its description would unpack to {info.file_size} bytes")
    if info.compress_type == zipfile.ZIP_STORED and info.file_size > source.size:
        _refuse(source, "its description is larger than the file; download it again")
    return archive.read(name)


def _records(source: Source, archive: zipfile.ZipFile, folder: str) -> Records:
    """Where each storage's bytes lie; zip entries that are stored uncompressed need no copy."""
    records: Records = {}
    for info in archive.infolist():
        if not info.filename.startswith(folder) or info.is_dir():
            continue
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            _refuse(source, "its weights are compressed or encrypted; save it again with torch")
        # The local header repeats the name and has an extra field of its own length (padding that
        # torch aligns storages with), so only it knows where the bytes begin.
        local = source.map[info.header_offset : info.header_offset + 30]
        if len(local) < 30 or local[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"no entry where {info.filename} should begin")
        name, extra = struct.unpack("<HH", local[26:30])
        start = info.header_offset + 30 + name + extra
        if start + info.file_size > source.size:
            raise zipfile.BadZipFile(f"{info.filename} reaches beyond the end of the file")
        records[info.filename[len(folder) :]] = (start, info.file_size)
    return records


def _stream_records(m: Machine, keys: Any, itemsize: dict[str, int]) -> Records:
    """Walk the storages behind the pickles: an 8-byte count, then the numbers."""
    if type(keys) is not list or not all(isinstance(k, str) for k in keys):
        m.bad("a list of storages that is none")
    records: Records = {}
    for key in keys:
        if key not in itemsize or key in records:
            m.bad("a storage that nothing refers to")
        size = m.number("<q") * itemsize[key]
        if size < 0 or m.at + size > len(m.data):
            m.bad("the storages end early")
        records[key] = (m.at, size)
        m.at += size
    return records


def _tensor_file(
    source: Source,
    container: str,
    objects: Any,
    records: Records,
    inside: tuple[str, ...] | None,
) -> TensorFile:
    found = flatten(objects, str(source.path), inside)
    entries = {name: _entry(source, name, t, records) for name, t in found.tensors.items()}
    return TensorFile(source.path, container, entries, found.metadata, found.envelope)


def _entry(source: Source, name: str, tensor: PickledTensor, records: Records) -> Entry:
    storage = tensor.storage
    if storage.key not in records:
        _refuse(source, f"the numbers of {show(name)} are missing; copy or download it again")
    start, size = records[storage.key]
    if (storage.first + storage.numel) * storage.dtype.itemsize > size:
        _refuse(source, f"the storage of {show(name)} is cut short; copy or download it again")
    skip = storage.first * storage.dtype.itemsize + tensor.offset * tensor.dtype.itemsize
    skip = min(skip, size)  # an empty tensor may lie anywhere
    return entry(source, name, start + skip, size - skip, tensor.dtype, tensor.shape, tensor.stride)


def _refuse(source: Source, why: str) -> NoReturn:
    raise SuffuseError(f"{source.path}: {why}")
