"""Safetensors, shards, variants and folders, and how much memory opening them takes."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load as reference_load
from safetensors.torch import save, save_file

from suffuse.errors import SuffuseError
from suffuse.weights.containers import choose_weights, find_weights, open_tensors

TENSORS = {
    "float": torch.arange(6.0).reshape(2, 3),
    "half": torch.arange(4).half(),
    "bf16": torch.arange(4).bfloat16(),
    "f8": torch.arange(3).to(torch.float8_e4m3fn),
    "f8b": torch.arange(3).to(torch.float8_e5m2),
    "int": torch.arange(3),
    "byte": torch.arange(3).byte(),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(1.5),
    "empty": torch.empty(0, 4),
    "double": torch.ones(2, dtype=torch.float64),
}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit for bit, NaNs included."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    raw = torch.uint8
    return torch.equal(a.contiguous().reshape(-1).view(raw), b.contiguous().reshape(-1).view(raw))


def raw_file(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file around a header of our choosing."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt", "modelspec.title": "x"})
    got = open_tensors(path)
    assert set(got) == set(TENSORS)
    assert got.container == "safetensors"
    assert got.metadata["modelspec.title"] == "x"
    for name, want in TENSORS.items():
        assert got.shape(name) == tuple(want.shape)
        assert got.dtype(name) == want.dtype
        assert got.nbytes(name) == want.nbytes
        assert same(got[name], want)
        assert same(got.read(name), want)


def test_read_converts_numbers_and_leaves_integers(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path)
    got = open_tensors(path)
    assert got.read("half", torch.float32).dtype == torch.float32
    assert got.read("int", torch.float32).dtype == torch.int64
    assert torch.equal(got.read("f8", torch.bfloat16), torch.arange(3).bfloat16())
    big = torch.randn(3, 700_001).half()  # longer than the reader's staging buffer
    save_file({"big": big}, path)
    assert torch.equal(open_tensors(path).read("big", torch.float32), big.float())


def test_within_removes_a_prefix(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"vae.a": torch.ones(1), "unet.b": torch.zeros(2)}, path)
    inside = open_tensors(path).within("unet.")
    assert list(inside) == ["b"]
    assert same(inside["b"], torch.zeros(2))


def test_the_file_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3)}, path)
    before = path.read_bytes()
    path.chmod(0o444)
    open_tensors(path)["a"].zero_()
    assert path.read_bytes() == before


def test_a_file_that_changed_meanwhile_is_not_mixed_up(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3)}, path)
    got = open_tensors(path)
    other = tmp_path / "y.safetensors"
    save_file({"b": torch.zeros(7)}, other)
    other.replace(path)
    with pytest.raises(SuffuseError, match="changed while it was open"):
        got.read("a")
    assert got["a"].tolist() == [1, 1, 1]  # the map still shows the file that was opened


def row(begin: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    shape = [(end - begin) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "header, says",
    [
        ({"a": row(0, 8), "b": row(4, 16)}, "'b' overlaps the tensor before it"),
        ({"a": row(0, 8), "b": row(12, 16)}, "'b' leaves a gap"),
        ({"a": row(0, 12)}, "describes 12 bytes of numbers and the file has 16"),
        ({"a": row(0, 20)}, "cut short"),
        ({"a": row(0, 10**18)}, "cut short"),
        ({"a": row(8, 4, [1])}, "damaged"),
        ({"a": row(-4, 12, [4])}, "damaged"),
        ({"a": row(0, 16, [5])}, "'a'"),
        ({"a": row(0, 16, [3])}, r"shape \(3,\) cannot fill 16 bytes"),
        ({"a": row(0, 16, [2**40, 2**40])}, "'a'"),
        ({"a": row(0, 16, [-4])}, "impossible shape"),
        ({"a": row(0, 16, [-2, -2])}, "impossible shape"),
        ({"a": row(0, 16, [4.0])}, "row of 'a'"),
        ({"a": row(0, 16, [4], "F4")}, "'F4', which is not supported"),
        ({"a": {"dtype": "F32"}}, "row of 'a'"),
        ({"a": {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]}}, "row of 'a'"),
        ({"a": 3}, "row of 'a'"),
        ({"a\x1b[31m\n": 3}, r"row of 'a\\x1b\[31m\\n'"),
        ({"__metadata__": 3, "a": row(0, 16)}, "__metadata__"),
        ({"__metadata__": {"x": {}}, "a": row(0, 16)}, "__metadata__"),
        (b'{"a": 1, "a": 2}', "a name occurs twice"),
        (b'{"a": ', "not valid JSON"),
        (b'{"a": \xff\xfe}', "not valid JSON"),
        (b"{" + b'"a":{' * 100_000, "not valid JSON"),
        (b'{"a":' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b"[1, 2]", "not a JSON object"),
    ],
)
def test_corrupt_headers(tmp_path: Path, header: Any, says: str) -> None:
    path = raw_file(tmp_path / "x.safetensors", header, bytes(16))
    with pytest.raises(SuffuseError, match=says) as caught:
        open_tensors(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()


def test_header_lengths(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for length in (17, 10**9, 2**63, 2**64 - 1):
        with pytest.raises(SuffuseError, match="bytes long in a file of"):
            open_tensors(raw_file(path, {"a": 1}, length=length))
    for short in (b"\0", b"12345678", b"123456789"):
        path.write_bytes(short)
        with pytest.raises(SuffuseError, match="too short"):
            open_tensors(path)


@pytest.mark.parametrize(
    "data, says",
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"GGUF\x03\0\0\0" + bytes(100), "a GGUF file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG picture"),
        (b"hello, world, this is no checkpoint", "is not a checkpoint"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(data)
    with pytest.raises(SuffuseError, match=says):
        open_tensors(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SuffuseError, match="there is no such file"):
        open_tensors(tmp_path / "x.safetensors")
    with pytest.raises(SuffuseError, match=r"has no weights \(it holds nothing\)"):
        open_tensors(tmp_path)
    with pytest.raises(SuffuseError, match="no such folder"):
        find_weights(tmp_path / "unet")


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "x.ckpt")
    torch.save({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    assert open_tensors(tmp_path / "x.ckpt").container == "safetensors"
    assert open_tensors(tmp_path / "x.safetensors").container == "torch zip"


# Damage


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    data = save({"a": torch.arange(3.0), "b": torch.arange(4)})
    for n in range(len(data)):
        path.write_bytes(data[:n])
        with pytest.raises(SuffuseError):
            open_tensors(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    tail=st.binary(max_size=9),
)
def test_random_damage_is_judged_as_the_reference_does(
    tmp_path: Path, damage: list[tuple[float, int]], tail: bytes
) -> None:
    """Whatever happens to the bytes, a file is refused in one line or gives the numbers that the
    reference implementation reads from it."""
    data = bytearray(save({"a": torch.arange(3.0), "b": torch.ones(2, 2).half()}) + tail)
    for where, byte in damage:
        data[int(where * (len(data) - 1))] = byte
    path = tmp_path / "x.safetensors"
    path.write_bytes(bytes(data))
    try:
        want: dict[str, torch.Tensor] | None = reference_load(bytes(data))
    except (SafetensorError, KeyError, UnicodeDecodeError):
        want = None
    try:
        got = open_tensors(path)
    except SuffuseError as error:
        assert str(error).isprintable()
        return
    assert want is not None, "opened what the reference implementation refuses"
    assert set(got) == set(want)
    for name, tensor in want.items():
        assert same(got[name], tensor)


# Shards, variants, folders


def sharded(folder: Path, stem: str, suffix: str, index: str) -> dict[str, torch.Tensor]:
    """A two-shard set as libraries write it."""
    parts = {
        f"{stem}-00001-of-00002.{suffix}": {"a": torch.arange(3.0), "b": torch.ones(2)},
        f"{stem}-00002-of-00002.{suffix}": {"c": torch.zeros(4)},
    }
    for name, tensors in parts.items():
        if suffix == "safetensors":
            save_file(tensors, folder / name)
        else:
            torch.save(tensors, folder / name)
    weight_map = {key: name for name, tensors in parts.items() for key in tensors}
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return {key: t for tensors in parts.values() for key, t in tensors.items()}


@pytest.mark.parametrize(
    "stem, suffix, index, variant",
    [
        ("diffusion_pytorch_model", "safetensors", "diffusion_pytorch_model.safetensors.index.json",
         None),
        ("diffusion_pytorch_model.fp16", "safetensors",
         "diffusion_pytorch_model.safetensors.index.fp16.json", "fp16"),
        ("model.fp16", "safetensors", "model.fp16.safetensors.index.json", "fp16"),
        ("pytorch_model", "bin", "pytorch_model.bin.index.json", None),
    ],
)  # fmt: skip
def test_sharded_sets(
    tmp_path: Path, stem: str, suffix: str, index: str, variant: str | None
) -> None:
    want = sharded(tmp_path, stem, suffix, index)
    assert find_weights(tmp_path, variant=variant) == tmp_path / index
    assert find_weights(tmp_path) == tmp_path / index  # the only one there
    for path in (tmp_path, tmp_path / index):
        got = open_tensors(path)
        assert "2 shards" in got.container
        assert set(got) == set(want)
        assert all(same(got[k], want[k]) for k in want)


def test_incomplete_sharded_sets(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    sharded(tmp_path, "model", "safetensors", index.name)
    whole = json.loads(index.read_text())

    def refused(weight_map: Any, says: str) -> None:
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(SuffuseError, match=says):
            open_tensors(index)

    refused({**whole["weight_map"], "d": "model-00002-of-00002.safetensors"}, "lacks 'd'")
    for elsewhere in ("../x.safetensors", "/etc/passwd", "..", "a\\b", "", 3):
        refused({"a": elsewhere}, "refused, it names the shard|is missing")
    refused({"a": index.name}, "as a shard")
    refused({}, "has no weight_map")
    refused([1], "has no weight_map")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    refused(whole["weight_map"], "this shard is missing")
    index.write_text("{")
    with pytest.raises(SuffuseError, match="is not an index"):
        open_tensors(index)


D = "diffusion_pytorch_model"


@pytest.mark.parametrize(
    "names, stem, variant, want",
    [
        ([f"{D}.bin", f"{D}.safetensors"], D, None, f"{D}.safetensors"),
        ([f"{D}.bin"], D, None, f"{D}.bin"),
        ([f"{D}.bin", f"{D}.fp16.safetensors"], D, None, f"{D}.fp16.safetensors"),
        ([f"{D}.safetensors", f"{D}.fp16.safetensors"], D, None, f"{D}.safetensors"),
        ([f"{D}.safetensors", f"{D}.fp16.safetensors"], D, "fp16", f"{D}.fp16.safetensors"),
        ([f"{D}.safetensors"], D, "fp16", f"{D}.safetensors"),
        ([f"{D}.safetensors"], D, "non_ema", None),
        ([f"{D}.non_ema.safetensors"], D, None, None),
        ([f"{D}.safetensors", f"{D}.non_ema.bin"], D, "non_ema", f"{D}.non_ema.bin"),
        (["model.safetensors", "pytorch_model.bin"], "model", None, "model.safetensors"),
        (["pytorch_model.bin"], "model", None, "pytorch_model.bin"),
        (["pytorch_model.fp16.bin"], "model", "fp16", "pytorch_model.fp16.bin"),
        (["model.safetensors"], D, None, None),
        (["model.onnx", "config.json", "flax_model.msgpack"], None, None, None),
    ],
)
def test_which_file_is_chosen(
    names: list[str], stem: str | None, variant: str | None, want: str | None
) -> None:
    assert choose_weights(names, stem, variant) == want


def test_a_missing_variant_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(SuffuseError, match=r"variant 'non_ema' \(it holds model\.safetensors\)"):
        find_weights(tmp_path, variant="non_ema")


# Memory

_MEASURE = """
import resource, sys, torch
from suffuse.weights.containers import open_tensors
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
file = open_tensors(sys.argv[1])
opened, start = resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
dtype = getattr(torch, sys.argv[2])
kept = [file[n] for n in file] if dtype == file.dtype("0") else [file.read(n, dtype) for n in file]
mapped = resident()
total = sum(t.sum().item() for t in kept)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(opened, start, mapped, peak, sum(t.nbytes for t in kept))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts resident pages in /proc")
@pytest.mark.parametrize(
    "kind, dtype", [("safetensors", "float16"), ("zip", "float32"), ("legacy", "float32")]
)
def test_memory_stays_near_the_weights(tmp_path: Path, kind: str, dtype: str) -> None:
    """A half-precision file opened in its own precision costs its pages, and in single precision
    its converted tensors: never both, never twice. Mapped tensors cost nothing until used."""
    tensors = {str(i): torch.zeros(1024, 1024).half() for i in range(32)}  # 64 MiB
    path = tmp_path / "x"
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=kind == "zip")
    out = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path), dtype],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    opened, start, mapped, peak, weights = map(int, out.split())
    assert peak - start < 1.3 * weights
    if dtype == "float16":
        assert mapped - opened < 0.1 * weights
