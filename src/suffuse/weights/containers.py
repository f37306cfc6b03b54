"""Open any file of weights by its content, and find the right one in a folder.

`open_tensors` reads safetensors, torch's two formats, sharded sets and folders; `find_weights`
says which file of a folder a component's weights are in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from suffuse.errors import SuffuseError
from suffuse.weights.safetensors_reader import is_safetensors, read_safetensors
from suffuse.weights.tensorfile import Entry, Source, TensorFile, show
from suffuse.weights.torch_reader import is_pickle, is_zip, read_stream, read_zip

# The names libraries save under: diffusers' models, transformers' models, older transformers,
# open_clip.
STEMS = (
    "diffusion_pytorch_model", "model", "pytorch_model",
    "open_clip_model", "open_clip_pytorch_model",
)  # fmt: skip

# Variants that differ in precision only, so that one can stand in for another; `non_ema` cannot.
_PRECISIONS = ("fp16", "bf16", "fp32")

_FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer, not the weights themselves; run `git lfs pull`",
    b"<!DOCTYPE": "a web page, not a checkpoint; download the file itself",
    b"<html": "a web page, not a checkpoint; download the file itself",
    b"GGUF": "a GGUF file, which is not supported; use the .safetensors version",
    b"\x89HDF": "an HDF5 file, which is not supported; use the .safetensors version",
    b"\x89PNG": "a PNG picture, not a checkpoint",
    b"\xff\xd8\xff": "a JPEG picture, not a checkpoint",
}


def open_tensors(path: str | PathLike[str], inside: tuple[str, ...] | None = None) -> TensorFile:
    """The tensors of a checkpoint, by name, still on disk.

    `path` is a safetensors or torch file whatever it is called, the index of a sharded set, or a
    folder that holds one of these under a usual name. `inside` picks an envelope of a torch file
    (see `flatten`). Raises SuffuseError with one clear line for anything else.
    """
    path = Path(path)
    if path.is_dir():
        return open_tensors(find_weights(path), inside)
    source = Source(path)
    if is_safetensors(source):
        return read_safetensors(source)
    if is_zip(source):
        return read_zip(source, inside)
    if is_pickle(source):
        return read_stream(source, inside)
    if is_index(path):
        return _open_shards(path)
    for magic, what in _FOREIGN.items():
        if source.map[: len(magic)] == magic:
            raise SuffuseError(f"{path}: is {what}")
    if path.suffix == ".safetensors":
        return read_safetensors(source)  # raises, saying what is wrong with the header
    raise SuffuseError(
        f"{path}: is not a checkpoint (safetensors, .ckpt, .pt and .bin are read; "
        f"this begins with {show(source.map[:8])})"
    )


def is_index(path: Path) -> bool:
    """Whether the name is that of a sharded set's index."""
    return re.fullmatch(r".+\.index(\.[\w-]+)?\.json", path.name) is not None


def find_weights(
    folder: str | PathLike[str], stem: str | None = None, variant: str | None = None
) -> Path:
    """The file, or the index of shards, that holds a component's weights.

    Safetensors come before pickles; the plain file before its variants. `variant` asks for
    another one ("fp16", "non_ema"); a precision that is not there is replaced by another, any
    other variant must exist. `stem` restricts the search to one of `STEMS`.
    Raises SuffuseError naming the files that are there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SuffuseError(f"{folder}: there is no such folder")
    names = sorted(p.name for p in folder.iterdir())
    chosen = choose_weights(names, stem, variant)
    if chosen is None:
        what = f"weights of the variant {show(variant)}" if variant else "weights"
        seen = ", ".join(names[:8]) or "nothing"
        raise SuffuseError(f"{folder}: has no {what} (it holds {seen})")
    return folder / chosen


def choose_weights(
    names: Iterable[str], stem: str | None = None, variant: str | None = None
) -> str | None:
    """The file name `find_weights` would choose among `names`, or None."""
    names = set(names)
    stems = STEMS if stem is None else (stem, "pytorch_model") if stem == "model" else (stem,)
    order: list[str | None] = [variant]
    if variant is None or variant in _PRECISIONS:
        order += [None, *_PRECISIONS]
    for suffix in ("safetensors", "bin"):
        for wanted in order:
            for s in stems:
                for name in _spellings(s, suffix, wanted):
                    if name in names:
                        return name
    return None


def _spellings(stem: str, suffix: str, variant: str | None) -> tuple[str, ...]:
    """Whole, then sharded: libraries have put the variant before and after `index`."""
    if variant is None:
        return f"{stem}.{suffix}", f"{stem}.{suffix}.index.json"
    return (
        f"{stem}.{variant}.{suffix}",
        f"{stem}.{suffix}.index.{variant}.json",
        f"{stem}.{variant}.{suffix}.index.json",
    )


def read_index(path: Path) -> dict[str, str]:
    """Tensor name -> shard file name, from an index. Raises SuffuseError if it is not one."""
    try:
        weights = json.loads(path.read_bytes())["weight_map"]
        sound = isinstance(weights, dict) and bool(weights)
    except OSError as problem:
        raise SuffuseError(f"{path}: cannot be read ({problem.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise SuffuseError(f"{path}: is not an index of shards: it has no weight_map")
    for shard in weights.values():
        # A shard lies beside its index; a path would reach into the rest of the disk.
        if not isinstance(shard, str) or Path(shard).name != shard or "\\" in shard:
            raise SuffuseError(f"{path}: refused, it names the shard {show(shard)} elsewhere")
    return weights


def _open_shards(path: Path) -> TensorFile:
    weights = read_index(path)
    shards: dict[str, TensorFile] = {}
    for shard in dict.fromkeys(weights.values()):
        if not (path.parent / shard).is_file():
            raise SuffuseError(f"{path.parent / shard}: this shard is missing; download it again")
        if is_index(Path(shard)):
            raise SuffuseError(f"{path}: names the index {show(shard)} as a shard")
        shards[shard] = open_tensors(path.parent / shard)
    entries: dict[str, Entry] = {}
    for name, shard in weights.items():
        if name not in shards[shard]:
            raise SuffuseError(f"{path.parent / shard}: lacks {show(name)}, which the index names")
        entries[name] = shards[shard].entries[name]
    container = f"{next(iter(shards.values())).container}, {len(shards)} shards"
    return TensorFile(path, container, entries, {"index": path.name})
