"""Hub names: which files are needed, the cache, and a Hub that runs on this machine."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from suffuse.errors import SuffuseError
from suffuse.weights.containers import open_tensors
from suffuse.weights.hub import fetch, is_hub_name, needed_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = save({"w": torch.arange(3.0)})
D = "diffusion_pytorch_model"

# What a published Stable Diffusion repository holds: everything three times over.
REPOSITORY = {
    "README.md": b"#",
    "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}',
    "v1-5-pruned.ckpt": b"x",
    "v1-5-pruned.safetensors": WEIGHTS,
    "unet/config.json": b'{"_class_name": "UNet2DConditionModel"}',
    f"unet/{D}.safetensors": WEIGHTS,
    f"unet/{D}.fp16.safetensors": WEIGHTS,
    f"unet/{D}.non_ema.safetensors": WEIGHTS,
    f"unet/{D}.bin": b"x",
    "unet/model.onnx": b"x",
    "vae/config.json": b"{}",
    f"vae/{D}.safetensors": WEIGHTS,
    f"vae/{D}.bin": b"x",
    "text_encoder/config.json": b"{}",
    "text_encoder/model.fp16.safetensors": WEIGHTS,
    "text_encoder/model.safetensors": WEIGHTS,
    "text_encoder/pytorch_model.bin": b"x",
    "text_encoder/flax_model.msgpack": b"x",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"#version: 0.2",
    "scheduler/scheduler_config.json": b"{}",
    "safety_checker/config.json": b"{}",
    "safety_checker/model.safetensors": WEIGHTS,
}
SMALL = [
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json",
    "tokenizer/merges.txt", "tokenizer/vocab.json", "unet/config.json", "vae/config.json",
]  # fmt: skip


@pytest.mark.parametrize(
    "name, is_one",
    [
        ("org/name", True),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", True),
        ("org/name/file.safetensors", True),
        ("org/name/sub/file.ckpt", True),
        ("name", False),
        ("models/anything.safetensors", False),
        ("./name/x", False),
        ("../name", False),
        ("/etc/passwd", False),
        ("org/name/", False),
        ("org/../x.ckpt", False),
        ("https://huggingface.co/org/name", False),
        ("a b/c", False),
    ],
)
def test_names(name: str, is_one: bool) -> None:
    assert is_hub_name(name) == is_one


def test_one_set_of_weights_a_folder() -> None:
    assert needed_files(REPOSITORY) == sorted(
        [*SMALL, f"unet/{D}.safetensors", f"vae/{D}.safetensors", "text_encoder/model.safetensors"],
        key=lambda f: f.rpartition("/")[::2],
    )
    half = needed_files(REPOSITORY, "fp16")
    assert f"unet/{D}.fp16.safetensors" in half and f"unet/{D}.safetensors" not in half
    assert "text_encoder/model.fp16.safetensors" in half
    assert f"vae/{D}.safetensors" in half  # it has no other
    other = needed_files(REPOSITORY, "non_ema")
    assert f"unet/{D}.non_ema.safetensors" in other and f"vae/{D}.safetensors" in other


def test_pickles_only_where_there_is_nothing_else() -> None:
    files = [f for f in REPOSITORY if not f.endswith("safetensors")]
    needed = needed_files(files)
    assert "text_encoder/pytorch_model.bin" in needed and f"unet/{D}.bin" in needed
    assert not any(f.endswith((".ckpt", ".onnx", ".msgpack", ".md")) for f in needed)


def test_shards_come_with_their_index() -> None:
    shards = [f"{D}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    half = [f"{D}.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    plain_index, half_index = f"{D}.safetensors.index.json", f"{D}.safetensors.index.fp16.json"
    files = ["config.json", *shards, *half, plain_index, half_index, f"{D}.bin.index.json"]
    assert needed_files(files) == sorted(["config.json", plain_index, *shards])
    assert needed_files(files, "fp16") == sorted(["config.json", half_index, *half])


def test_single_file_repositories() -> None:
    assert needed_files(["README.md", "a.ckpt", "a.safetensors"]) == ["a.safetensors"]
    assert needed_files(["a.ckpt"]) == ["a.ckpt"]
    assert needed_files(["README.md", "x.json"]) == []
    with pytest.raises(SuffuseError, match=r"several checkpoints \(a\.safetensors, b\.safet"):
        needed_files(["a.safetensors", "b.safetensors"])


# The cache


def fill_cache(home: Path, files: dict[str, bytes], name: str = "org/name") -> Path:
    """A cache as huggingface_hub lays it out: refs, blobs, and snapshots of links to them."""
    root = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    (root / "blobs").mkdir()
    for i, (file, content) in enumerate(files.items()):
        blob = root / "blobs" / f"{i:040x}"
        blob.write_bytes(content)
        path = snapshot / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(blob, path.parent))
    return snapshot


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no connection."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_offline_from_the_cache(offline: Path) -> None:
    cached = {f: c for f, c in REPOSITORY.items() if f in needed_files(REPOSITORY)}
    snapshot = fill_cache(offline, cached)
    assert fetch("org/name") == snapshot
    assert fetch("org/name", variant="fp16") == snapshot
    assert open_tensors(snapshot / "unet")["w"].tolist() == [0, 1, 2]
    fill_cache(offline, {"a.safetensors": WEIGHTS}, "org/single")
    assert open_tensors(fetch("org/single/a.safetensors"))["w"].tolist() == [0, 1, 2]


def test_offline_and_not_cached(offline: Path) -> None:
    for name in ("org/other", "org/other/a.safetensors"):
        with pytest.raises(SuffuseError, match=r"offline.*, and it is not in the cache") as caught:
            fetch(name)
        assert str(caught.value).startswith(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(SuffuseError, match="neither a path that exists nor a Hub name"):
        fetch("nonsense")


def test_offline_and_half_cached(offline: Path) -> None:
    cached = {f: REPOSITORY[f] for f in SMALL} | {f"unet/{D}.safetensors": WEIGHTS}
    fill_cache(offline, cached)
    with pytest.raises(
        SuffuseError, match=r"cached copy has no weights for its (vae|text_encoder)"
    ):
        fetch("org/name")


# A Hub on this machine


class Hub(http.server.BaseHTTPRequestHandler):
    """The four requests that huggingface_hub makes of a repository."""

    protocol_version = "HTTP/1.1"
    fetched: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/name/tree/"):
            tree = [
                {"type": "file", "path": f, "size": len(c), "oid": f"{i:040x}"}
                for i, (f, c) in enumerate(REPOSITORY.items())
            ]
            self._answer(json.dumps(tree).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/api/models/org/name"):
            info = {
                "id": "org/name",
                "sha": COMMIT,
                "siblings": [{"rfilename": f} for f in REPOSITORY],
            }
            self._answer(json.dumps(info).encode(), {"Content-Type": "application/json"})
        elif path.startswith(f"/org/name/resolve/{COMMIT}/"):
            file = path.removeprefix(f"/org/name/resolve/{COMMIT}/")
            if self.command == "GET":
                self.fetched.append(file)
            tag = f'"{list(REPOSITORY).index(file):040x}"'
            self._answer(REPOSITORY[file], {"ETag": tag, "X-Repo-Commit": COMMIT})
        else:
            self._answer(b"", {"X-Error-Code": "RepoNotFound"}, 404)

    def _answer(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """Its address, and the list of files fetched from it."""
    fetched: list[str] = []
    handler = type("TestHub", (Hub,), {"fetched": fetched})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", fetched
    server.shutdown()
    server.server_close()


_FETCH = """
import sys
from suffuse.errors import SuffuseError
from suffuse.weights import hub
assert "huggingface_hub" not in sys.modules, "imported before it was used"
for name in sys.argv[1:]:
    try:
        print(hub.fetch(name))
    except SuffuseError as error:
        print(error)
"""


def test_download_then_offline(tmp_path: Path, hub: tuple[str, list[str]]) -> None:
    address, fetched = hub

    def run(*names: str, offline: bool) -> list[str]:
        env = {
            **os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "NO_PROXY": "*",
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "1" if offline else "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", _FETCH, *names], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    folder, missing = run("org/name", "org/none", offline=False)
    assert missing.startswith("org/none: the Hub knows no such public model")
    assert sorted(fetched) == sorted(needed_files(REPOSITORY))
    assert open_tensors(Path(folder) / "unet")["w"].tolist() == [0, 1, 2]
    count = len(fetched)
    assert run("org/name", offline=True) == [folder]
    assert len(fetched) == count


def test_an_unclip_of_ours_is_whole() -> None:
    lora = "pytorch_lora_weights.safetensors"
    latent = ["model_index.json", lora, "suffuse.json", f"image_projection/{D}.safetensors"]
    assert sorted(needed_files([*latent, "README.md"])) == sorted(latent)
    below = [f"upsamplers/1/unet/{D}.safetensors", "upsamplers/1/unet/config.json"]
    pixels = ["model_index.json", f"decoder/{D}.safetensors", "upsamplers/1/suffuse.json", *below]
    assert sorted(needed_files([*pixels, "deep/er/x.safetensors", lora])) == sorted(pixels)
