"""Where a model is looked for: paths, the Hub's cache, the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

import suffuse
from suffuse.errors import SuffuseError
from suffuse.weights import load
from suffuse.weights.load import BUNDLED_NAMES, locate_source, open_parts
from suffuse.weights.parts import Place

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_the_package_without_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "BUNDLED", tmp_path)
    with pytest.raises(SuffuseError, match="no bundled model"):
        open_parts()


def test_no_source_means_the_bundled_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.pipeline().save_pretrained(tmp_path / "emoji")
    monkeypatch.setattr(load, "BUNDLED", tmp_path / "emoji")
    assert open_parts().info.name == "emoji"


@pytest.mark.parametrize(
    "source",
    [
        "nowhere",
        "./nowhere/model",
        "/nowhere/model.safetensors",
        "models/model.ckpt",
        "~/nowhere-at-all",
        "x" * 5000,
        "nul\0byte",
    ],
)
def test_what_is_not_there_and_no_hub_name(source: str) -> None:
    with pytest.raises(SuffuseError, match="no such file or folder"):
        open_parts(source)


def test_a_mistyped_name_in_an_existing_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the form of a Hub name, but nobody should wait for the network to hear of a typo."""
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    with pytest.raises(SuffuseError, match="models/emojy: there is no such file"):
        open_parts("models/emojy")


def test_from_the_hubs_cache(tmp_path: Path) -> None:
    """Offline, by name, in a process of its own: the library reads its environment on import."""
    repository = tmp_path / "home" / "hub" / "models--some--model"
    tiny.pipeline().save_pretrained(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    code = """if True:
        from suffuse.errors import SuffuseError
        from suffuse.weights.load import open_parts
        parts = open_parts("some/model")
        print(parts.info.name, float(parts.unet.stem.weight.sum()))
        try:
            open_parts("some/other")
        except SuffuseError as problem:
            print(problem)
        """
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    found, other = run.stdout.strip().split("\n")
    name, total = found.split()
    here = open_parts(repository / "snapshots" / COMMIT)
    assert name == "model"
    assert float(total) == pytest.approx(float(here.unet.stem.weight.sum()))
    assert other.startswith("some/other: ")


def test_models_are_made_without_torchs_compiler(tmp_path: Path) -> None:
    """Filling modules on the meta device would import it, and take longer than all the rest."""
    tiny.pipeline().save_pretrained(tmp_path)
    code = """if True:
        import sys
        from suffuse.weights.load import open_parts
        parts = open_parts(sys.argv[1])
        assert not any(p.is_meta for p in parts.unet.parameters())
        print([m for m in ("torch._inductor", "torch._dynamo", "sympy.core") if m in sys.modules])
        """
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device(tmp_path: Path) -> None:
    tiny.pipeline().save_pretrained(tmp_path)
    parts = open_parts(tmp_path, device="cuda", dtype=torch.bfloat16)
    for network in (parts.unet, parts.autoencoder, parts.text):
        for p in network.parameters():
            assert (p.device.type, p.dtype) == ("cuda", torch.bfloat16)


def test_models_inside_the_package_have_names() -> None:
    for name, folder in BUNDLED_NAMES.items():
        assert locate_source(name, Place()) == (folder, name)
    assert suffuse.load("suffuse-unclip", device="cpu").info.name == "suffuse-unclip"
