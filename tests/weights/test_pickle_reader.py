"""torch files are read as data: real ones give their tensors, harmful ones run nothing."""

from __future__ import annotations

import argparse
import io
import os
import pathlib
import pickle
import struct
import sys
import time
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from suffuse.errors import SuffuseError
from suffuse.weights.containers import open_tensors

GOLDEN = Path(__file__).parents[1] / "parity" / "ldm" / "lightning_pickle"


def write_zip(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """A zip-format checkpoint around a pickle of our choosing."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for key, raw in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", raw)
    return path


def tensor_pickle(
    *, kind: str = "FloatStorage", numel: int = 4, offset: int = 0, size: Any = (4,),
    stride: Any = (1,), key: str = "0",
) -> bytes:  # fmt: skip
    """`{"w": tensor}` as torch writes it, with sizes of our choosing."""
    body = io.BytesIO()

    def plain(value: Any) -> bytes:
        body.seek(0)
        body.truncate()
        pickle.Pickler(body, protocol=2).dump(value)
        return body.getvalue()[2:-1]

    storage = (
        b"(" + plain("storage") + b"ctorch\n" + kind.encode() + b"\n" + plain(key) + plain("cpu")
        + plain(numel) + b"tQ"
    )  # fmt: skip
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + plain(offset) + plain(size)
        + plain(stride) + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip
    return b"\x80\x02}" + plain("w") + tensor + b"s."


# Real files


@pytest.mark.parametrize(
    "name", ["lightning.ckpt", "lightning_legacy_format.ckpt", "plain_legacy_format.pt"]
)
def test_golden_tensors(name: str) -> None:
    want = load_file(GOLDEN / "io.safetensors")
    got = open_tensors(GOLDEN / name)
    for key, tensor in want.items():
        key = key.removeprefix("out.")
        assert got[key].dtype == tensor.dtype
        assert torch.equal(got[key], tensor), key
        assert torch.equal(got.read(key), tensor), key
        assert got.shape(key) == tuple(tensor.shape)


def test_golden_lightning_keeps_numbers_beside_the_weights() -> None:
    for name in ("lightning.ckpt", "lightning_legacy_format.ckpt"):
        got = open_tensors(GOLDEN / name)
        assert got.envelope == ("state_dict",)
        assert got.metadata["global_step"] == 99


def test_golden_parameter() -> None:
    got = open_tensors(GOLDEN / "parameter.pt")
    assert torch.equal(got[""], torch.load(GOLDEN / "parameter.pt", weights_only=True))


@pytest.mark.parametrize("name", ["refuse_eval.ckpt", "refuse_eval.pkl"])
def test_golden_eval_is_refused_by_name(name: str) -> None:
    with pytest.raises(SuffuseError, match=r"refused, it names '(__builtin__|builtins)\.eval'"):
        open_tensors(GOLDEN / name)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_saves(tmp_path: Path, zipped: bool, protocol: int) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    saved = {
        "base": base, "slice": base[1:3, ::2], "transposed": base.t(), "row": base[2],
        "half": torch.randn(3, 5).half(), "bf16": torch.randn(7).bfloat16(),
        "double": torch.randn(2, 2, dtype=torch.float64), "ints": torch.arange(5),
        "bytes": torch.arange(5, dtype=torch.uint8), "bools": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5), "empty": torch.empty(0, 3),
        "expanded": torch.ones(1).expand(9),
        "u16": torch.arange(3).to(torch.uint16), "f8": torch.ones(3).to(torch.float8_e4m3fn),
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }  # fmt: skip
    path = tmp_path / "x.pt"
    torch.save(saved, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    got = open_tensors(path)
    assert list(got) == list(saved)
    for key, want in saved.items():
        assert got.dtype(key) == want.dtype
        assert got[key].stride() == want.stride(), key
        for have in (got[key], got.read(key)):
            assert torch.equal(have.to(torch.float64), want.detach().to(torch.float64)), key
    assert got["row"].data_ptr() == got["base"].data_ptr() + 12 * 4 or not zipped


def test_tensors_lie_on_the_map_until_written(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(1000), "b": torch.zeros(3)}, path)
    before = path.read_bytes()
    got = open_tensors(path)
    first, again = got["a"], got["a"]
    assert first.data_ptr() == again.data_ptr()  # the same page, not a copy
    first.mul_(3)
    assert again[0] == 3
    assert got.read("a")[0] == 1  # `read` goes to the file
    assert path.read_bytes() == before


def test_envelopes(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    a, b = torch.ones(2), torch.zeros(3)

    def keys(saved: Any, inside: tuple[str, ...] | None = None) -> list[str]:
        torch.save(saved, path)
        return sorted(open_tensors(path, inside))

    optimizer = {"state": {0: {"exp_avg": a}}, "param_groups": [{"lr": 1e-4}]}
    assert keys({"w": a}) == ["w"]
    assert keys({"state_dict": {"w": a}, "optimizer_states": [optimizer]}) == ["w"]
    assert keys({"model": {"w": a}, "step": 3, "optimizer": optimizer}) == ["w"]
    assert keys({"model": {"w": a}, "ema": {"w": b}, "opt": optimizer}) == ["ema.w", "model.w"]
    assert keys({"model": {"w": a}, "ema": {"w": b}}, ("ema",)) == ["w"]
    assert keys({"model": {"w": a}, "ema": [a, b]}) == ["ema.0", "ema.1", "model.w"]
    assert keys((a, b)) == ["0", "1"]
    with pytest.raises(SuffuseError, match="has no 'teacher', only 'model'"):
        keys({"model": {"w": a}}, ("teacher",))
    with pytest.raises(SuffuseError, match="holds no weights, only 'epoch'"):
        keys({"epoch": 3})


def fake_classes(monkeypatch: pytest.MonkeyPatch, **named: str) -> dict[str, type]:
    """Classes that pickle under the names of libraries that are not installed."""
    made = {}
    for key, path in named.items():
        module, _, name = path.rpartition(".")
        parts = module.split(".")
        for n in range(1, len(parts) + 1):  # the packages above it as well
            if (above := ".".join(parts[:n])) not in sys.modules:
                monkeypatch.setitem(sys.modules, above, types.ModuleType(above))
        cls = type(name, (), {"__module__": module, "__qualname__": name})
        monkeypatch.setattr(sys.modules[module], name, cls, raising=False)
        made[key] = cls
    return made


@pytest.mark.parametrize("zipped", [True, False])
def test_trainers_leftovers_are_inert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    c = fake_classes(
        monkeypatch,
        config="omegaconf.dictconfig.DictConfig",
        meta="omegaconf.base.ContainerMetadata",
        callback="pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        newer="lightning.pytorch.callbacks.EarlyStopping",
    )
    config = c["config"]()
    config.__dict__.update(_content={"lr": 1e-4}, _metadata=c["meta"](), _parent=config)
    config._metadata.__dict__.update(ref_type=Any, object_type=dict)
    saved = {
        "state_dict": {"w": torch.arange(3.0)},
        "callbacks": {c["callback"]: {"best": np.float64(0.5)}, c["newer"]: {"n": 1}},
        "hyper_parameters": config,
        "args": argparse.Namespace(where=pathlib.PurePosixPath("/x"), seed=3),
        "best": np.float32(0.25),
        "noise": np.arange(6, dtype=np.int16).reshape(2, 3),
    }
    path = tmp_path / "x.ckpt"
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    got = open_tensors(path)
    assert torch.equal(got["w"], torch.arange(3.0))
    assert got.metadata["best"] == 0.25


def test_textual_inversion_parameter_dict(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    vectors = torch.randn(2, 8)
    torch.save(
        {
            "string_to_token": {"*": torch.tensor(265)},
            "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)}),
            "name": "cat",
        },
        path,
    )
    got = open_tensors(path)
    assert torch.equal(got["string_to_param.*"], vectors)
    assert got.metadata["name"] == "cat"


def test_python_2_strings(tmp_path: Path) -> None:
    """Files of 2018 have byte strings for names: opcode U."""
    pickled = tensor_pickle().replace(b"X\x01\x00\x00\x00w", b"U\x01w")
    path = write_zip(tmp_path / "x.pt", pickled, {"0": np.arange(4, dtype="<f4").tobytes()})
    assert open_tensors(path)["w"].tolist() == [0, 1, 2, 3]


def test_torchscript_archive_is_taken_apart(tmp_path: Path) -> None:
    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = torch.nn.Parameter(torch.randn(3, 2))
            self.layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
            self.register_buffer("scale", torch.tensor(3.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x @ self.proj) * self.scale

    tower = Tower().eval()
    path = tmp_path / "tower.pt"
    torch.jit.save(torch.jit.trace(tower, torch.randn(1, 3)), path)
    got = open_tensors(path)
    assert got.container == "TorchScript"
    assert set(got) == set(tower.state_dict())
    for key, want in tower.state_dict().items():
        assert torch.equal(got[key], want), key


# Harmful files


class Call:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


def saved_with(path: Path, thing: Any, zipped: bool) -> Path:
    torch.save({"w": torch.ones(3), "x": thing}, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_calls_are_refused_before_they_happen(tmp_path: Path, zipped: bool) -> None:
    mark = tmp_path / "executed"
    harmful = {
        f"{os.name}.system": Call(os.system, f"touch {mark}"),
        "__builtin__.exec": Call(exec, f"open({str(mark)!r}, 'w')"),
        "__builtin__.getattr": Call(getattr, Call(__import__, "os"), "system"),
        "__builtin__.__import__": Call(__import__, "os"),
        "torch.serialization.load": Call(torch.load, str(GOLDEN / "refuse_eval.ckpt")),
        "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, b"x"),
        "torch.jit._serialization.load": Call(torch.jit.load, "x"),
        "torch.hub.load": Call(torch.hub.load, "x", "y"),
        "_codecs.lookup": Call(__import__("_codecs").lookup, "x"),
        "numpy.fromfile": Call(np.fromfile, "x"),
        "torch.nn.modules.linear.Linear": torch.nn.Linear(1, 1),
        "functools.partial": Call(__import__("functools").partial, print),
    }
    for name, thing in harmful.items():
        path = saved_with(tmp_path / "x.ckpt", thing, zipped)
        with pytest.raises(SuffuseError, match="refused, it names") as caught:
            open_tensors(path)
        message = str(caught.value)
        module, _, last = name.rpartition(".")
        assert f".{last}'" in message, message
        assert module.split(".")[-1] in message
        assert "\n" not in message
        assert not mark.exists()


def stack_global(module: str, name: str, protocol: bytes = b"\x80\x04") -> bytes:
    def short(s: str) -> bytes:
        return b"\x8c" + bytes([len(s)]) + s.encode()

    return protocol + short(module) + short(name) + b"\x93."


@pytest.mark.parametrize(
    "module, name",
    [
        ("collections", "OrderedDict.fromkeys"),  # a dotted name walks attributes
        ("collections", "OrderedDict.__init__.__globals__"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("pytorch_lightningx", "run"),  # a prefix is not a package
        ("omegaconf_evil", "run"),
        ("lightningx.a", "b"),
        ("numpy.core.multiarray", "fromstring"),
        ("argparse", "ArgumentParser"),
        ("", ""),
        ("torch", "load"),
        ("torch", "FakeStorage"),
        ("\x1b[31mred", "\nline"),
    ],
)
def test_near_misses_of_the_allow_list(tmp_path: Path, module: str, name: str) -> None:
    path = write_zip(tmp_path / "x.pt", stack_global(module, name))
    with pytest.raises(SuffuseError, match="refused, it names") as caught:
        open_tensors(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "pickled",
    [
        # what is allowed, called with odd arguments
        b"cnumpy.core.multiarray\n_reconstruct\n(ctorch\nfloat16\nI0\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\ndict\n(I0\ntS'b'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(I1\nI2\ntR.",
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
        b"cnumpy\ndtype\n(S'f8,f8'\nI0\nI1\ntR.",
        b"ccollections\nOrderedDict\n(I5\ntR.",
        b"ccollections\nOrderedDict\n((I1\nI2\nI3\ntttR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'idna'\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(I0\nI0\n(I1\nt(I1\ntI00\nNtR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"ctorch._utils\n_rebuild_parameter\n(I1\nI00\nNtR.",
        b"ctorch\nSize\n(S'ab'\ntR.",
        b"I1\n)R.",  # calls a number
        b"ctorch\nfloat16\n)R.",
        b"ctorch\nFloatStorage\n)R.",
        b"(S'storage'\nctorch\nFloatStorage\nI0\nS'cpu'\nI4\ntQ.",
        b"(S'module'\nN(tQ.",
        b"I1\n}b.",  # a state for a number
        b"}]I1\ns.",  # a list as a key
        b"}((I1\nt(I2\ntttI1\ns.",  # nested tuples as a key
        b"I1\nI2\na.",
        b"]I1\nI2\ns.",
        b"0.", b".", b"t.", b"(", b"\x85.", b"h\x07.", b"P1\n.", b"\x82\x01.", b"\x97.", b"~.",
        b"X\xff\xff\xff\xff", b"\x8d" + b"\xff" * 8, b"\x8b\xff\xff\xff\x7f", b"\x80\x09N.",
        b"Inine\n.", b"I" + b"9" * 10_000 + b"\n.", b"Fx\n.", b"Sx\n.", b"c", b"ca\n", b"",
    ],
)  # fmt: skip
def test_malformed_pickles_give_one_line(tmp_path: Path, pickled: bytes) -> None:
    for data in (pickled, b"\x80\x02" + pickled):
        with pytest.raises(SuffuseError) as caught:
            open_tensors(write_zip(tmp_path / "x.pt", data))
        assert str(caught.value).isprintable()
        (tmp_path / "raw.pt").write_bytes(b"\x80\x02" + data)
        with pytest.raises(SuffuseError):
            open_tensors(tmp_path / "raw.pt")


@pytest.mark.parametrize(
    "sizes",
    [
        {"numel": 10**15},  # a storage larger than the file
        {"numel": 10**15, "size": (10**15,)},
        {"numel": 2**62, "size": (2**62,), "kind": "ByteStorage"},
        {"size": (5,)},  # a view larger than its storage
        {"offset": 1},
        {"offset": -1},
        {"offset": 10**30},
        {"size": (2, 3), "stride": (3, 1)},
        {"size": (4,), "stride": (-1,)},
        {"size": (-4,)},
        {"size": (4,), "stride": (1, 1)},
        {"size": (10**12,), "stride": (0,)},  # one number said to be a terabyte
        {"size": (1,) * 100, "stride": (1,) * 100},
        {"size": (2.0,)},
        {"size": [4]},
        {"size": (2**64,), "stride": (0,)},
        {"key": "../../etc/passwd"},
        {"key": "1"},  # no such storage
    ],
)
def test_tensors_beyond_their_bytes(tmp_path: Path, sizes: dict[str, Any]) -> None:
    path = write_zip(tmp_path / "x.pt", tensor_pickle(**sizes), {"0": bytes(16)})
    with pytest.raises(SuffuseError) as caught:
        open_tensors(path)
    assert str(caught.value).startswith(str(path))


def test_bombs_stay_small(tmp_path: Path) -> None:
    """Claims of size, nesting and repetition cost no more than the bytes they are made of."""
    depth = 200_000
    nested = b"]" * depth + b"a" * (depth - 1) + b"."
    tuples = b")" + b"\x85" * depth + b"."
    as_key = b"})" + b"\x85" * depth + b"I1\ns."
    memo = b"Nr\xff\xff\xff\xff."  # slot four billion
    laughs = b")q\x00" + b"h\x00h\x00\x86q\x00" * 1000 + b"."
    word = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\x00"
    encode = b"]" + word + b"(" + b"c_codecs\nencode\nh\x00S'latin1'\n\x86R" * 10_000 + b"e."
    colliding = b"}(" + b"".join(
        b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(1, 20_000)
    ) + b"u."  # fmt: skip
    for bomb in (nested, tuples, as_key, memo, laughs, encode, colliding):
        start = time.perf_counter()
        with pytest.raises(SuffuseError):
            open_tensors(write_zip(tmp_path / "x.pt", b"\x80\x02" + bomb))
        assert time.perf_counter() - start < 30


def test_an_object_that_holds_itself(tmp_path: Path) -> None:
    saved: dict[str, Any] = {"w": torch.ones(2), "list": []}
    saved["self"] = saved
    saved["list"].append(saved["list"])
    torch.save(saved, tmp_path / "x.pt")
    assert list(open_tensors(tmp_path / "x.pt")) == ["w"]


def test_a_compressed_description_is_not_unpacked_without_bound(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(80 * 2**20))
    with pytest.raises(SuffuseError, match="would unpack to"):
        open_tensors(path)


def test_zip_oddities(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(SuffuseError, match=r"no data\.pkl"):
        open_tensors(path)
    good = tensor_pickle()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", good)
        archive.writestr("archive/data/0", bytes(16))
    with pytest.raises(SuffuseError, match="compressed"):
        open_tensors(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", good)
        archive.writestr("archive/byteorder", "big")
        archive.writestr("archive/data/0", bytes(16))
    with pytest.raises(SuffuseError, match="big-endian"):
        open_tensors(path)
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data.pkl", good)
        archive.writestr("archive/data.pkl", good)
    with pytest.raises(SuffuseError, match="twice"):
        open_tensors(path)


# Damage


def samples() -> list[tuple[str, dict[str, torch.Tensor]]]:
    base = torch.arange(24.0).reshape(4, 6)
    return [
        ("zip", {"base": base, "t": base.t(), "n": torch.arange(5)}),
        ("legacy", {"base": base}),
    ]


def check_damaged(path: Path, data: bytes) -> None:
    """A damaged file is refused in one line, or it gives tensors of sound shapes."""
    path.write_bytes(data)
    try:
        got = open_tensors(path)
        for name in got:
            assert got[name].shape == got.read(name).shape == got.shape(name)
    except SuffuseError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("zipped", [True, False])
def test_every_truncation_is_refused(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save(samples()[0][1], path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    for n in range(0, len(data), 3):
        path.write_bytes(data[:n])
        with pytest.raises(SuffuseError):
            open_tensors(path)


@pytest.mark.parametrize("zipped", [True, False])
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_random_damage(tmp_path: Path, zipped: bool, damage: list[tuple[float, int]]) -> None:
    path = tmp_path / "good.pt"
    if not path.exists():
        torch.save(samples()[0][1], path, _use_new_zipfile_serialization=zipped)
    data = bytearray(path.read_bytes())
    for where, byte in damage:
        data[int(where * (len(data) - 1))] = byte
    check_damaged(tmp_path / "bad.pt", bytes(data))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pickled=st.lists(
        st.one_of(
            st.sampled_from(
                [
                    b"(", b"t", b"}", b"]", b")", b"s", b"u", b"a", b"e", b"R", b"b", b"Q", b"0",
                    b"2", b"N", b"K\x01", b"q\x00", b"h\x00", b"\x81", b"\x85", b"\x86", b"\x87",
                    b"\x8f", b"\x90", b"\x91", b"X\x01\x00\x00\x00w", b"U\x07storage",
                    b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
                    b"ccollections\nOrderedDict\n", b"cnumpy\ndtype\n", b"U\x02f4",
                    b"cnumpy._core.multiarray\nscalar\n", b"comegaconf\nX\n", b"ctorch\nSize\n",
                    b"cnumpy._core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n",
                ]
            ),
            st.binary(min_size=1, max_size=3),
        ),
        max_size=40,
    )
)  # fmt: skip
def test_random_pickles(tmp_path: Path, pickled: list[bytes]) -> None:
    """Any string of opcodes ends in tensors or in one line, never in another exception."""
    data = b"\x80\x02" + b"".join(pickled) + b"."
    check_damaged(
        write_zip(tmp_path / "x.pt", data, {"w": bytes(16)}), (tmp_path / "x.pt").read_bytes()
    )


def test_a_storage_flipped_is_the_same_flip_in_the_tensor(tmp_path: Path) -> None:
    """Numbers have no checksum of their own here: what is on disk is what is read, bit for bit."""
    path = tmp_path / "x.pt"
    torch.save({"w": torch.zeros(64)}, path)
    data = bytearray(path.read_bytes())
    at = open_tensors(path).entries["w"].start
    data[at + 3] = 0x3F  # 0.5 in little-endian float32 is 00 00 00 3f
    path.write_bytes(data)
    assert open_tensors(path)["w"][0] == 0.5
