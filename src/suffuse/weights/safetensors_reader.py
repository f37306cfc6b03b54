"""The safetensors container: 8 bytes of length, a JSON header, then the numbers.

The header is checked as the format's specification asks (no overlap, no hole, nothing out of
range), so that a file which opens here opens everywhere, and the numbers are left where they are.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import torch

from suffuse.errors import SuffuseError
from suffuse.weights.tensorfile import Entry, Source, TensorFile, entry, show

_MAX_HEADER = 100_000_000  # bytes; the limit of the reference implementation

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}


def is_safetensors(source: Source) -> bool:
    """Whether the file begins like one: a length that fits, then a JSON object."""
    return source.size >= 10 and source.map[8:9] == b"{" and _length(source) <= source.size - 8


def read_safetensors(source: Source) -> TensorFile:
    """Every tensor of the file, from its header alone. Raises SuffuseError if that is not sound."""
    header, data = _header(source)
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        _bad(source, "its __metadata__ is not a list of strings")
    spans: list[tuple[int, int, str]] = []
    entries: dict[str, Entry] = {}
    for name, row in header.items():
        begin, end, entries[name] = _row(source, name, row, data)
        spans.append((begin, end, name))
    _check_spans(source, spans, source.size - data)
    return TensorFile(source.path, "safetensors", entries, dict(metadata))


def _length(source: Source) -> int:
    return int.from_bytes(source.map[:8], "little")


def _header(source: Source) -> tuple[dict[str, Any], int]:
    """The parsed JSON object and the byte at which the numbers begin."""
    if source.size < 10:
        _bad(source, "it is too short to hold one")
    length = _length(source)
    if length > _MAX_HEADER or 8 + length > source.size:
        _bad(source, f"it would be {length} bytes long in a file of {source.size}")
    try:
        header = json.loads(source.map[8 : 8 + length], object_pairs_hook=_unique)
    except (ValueError, RecursionError) as problem:
        _bad(source, f"it is not valid JSON ({show(str(problem))})")
    if not isinstance(header, dict):
        _bad(source, "it is not a JSON object")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name occurs twice")
    return made


def _row(source: Source, name: str, row: Any, data: int) -> tuple[int, int, Entry]:
    """One header row as (first byte, byte after the last, entry); bytes count from the data."""
    try:
        code, shape, (begin, end) = row["dtype"], tuple(row["shape"]), row["data_offsets"]
        sound = isinstance(code, str) and all(type(n) is int for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        _bad(source, f"the row of {show(name)} is not dtype, shape and data_offsets")
    if code not in DTYPES:
        raise SuffuseError(
            f"{source.path}: {show(name)} has the number format {show(code)}, which is not "
            f"supported; convert the file to one of {', '.join(DTYPES)}"
        )
    if not 0 <= begin <= end or data + end > source.size:
        raise SuffuseError(
            f"{source.path}: {show(name)} should lie at bytes {begin} to {end} of the data, and "
            f"the file has {source.size - data}; it is damaged or cut short, download it again"
        )
    made = entry(source, name, data + begin, end - begin, DTYPES[code], shape)
    if made.nbytes != end - begin:
        _bad(source, f"{show(name)} of shape {show(shape)} cannot fill {end - begin} bytes")
    return begin, end, made


def _check_spans(source: Source, spans: list[tuple[int, int, str]], size: int) -> None:
    """Tensors must cover the data exactly: an overlap or a gap means the header is not its own."""
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            _bad(source, f"{show(name)} {'overlaps' if begin < at else 'leaves a gap after'} "
                 "the tensor before it")  # fmt: skip
        at = end
    if at != size:
        _bad(source, f"it describes {at} bytes of numbers and the file has {size}")


def _bad(source: Source, what: str) -> NoReturn:
    raise SuffuseError(
        f"{source.path}: the safetensors header is corrupt: {what}; copy or download it again"
    )
