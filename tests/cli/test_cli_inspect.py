"""`suffuse inspect` on pictures, ours and the web UI's, and on files that are neither."""

import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from suffuse.systems.metadata import Origin, describe, write_png
from suffuse.systems.request import Request

PROMPT = "빨간 사과, [bold]red[/bold] " + "long " * 60


@pytest.fixture
def ours(tmp_path):
    request = Request(PROMPT.strip(), "x", 20, 7, sampler="euler_a", seed=5, width=8, height=8)
    about = describe(request, Origin("emoji", None, "ab" * 32, "auto")).for_image(5, (8, 8))
    path = tmp_path / "ours.png"
    write_png(Image.new("RGB", (8, 8)), path, about)
    return path


def test_ours_as_json(ours, run):
    status, out, _ = run("inspect", ours, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["prompt"] == found["request"]["prompt"] == PROMPT.strip()
    assert (found["request"]["seed"], found["model"]["name"]) == (5, "emoji")
    assert found["parameters"]["Sampler"] == "Euler a"


def test_ours_as_a_table_that_breaks_no_line(ours, run):
    status, out, err = run("inspect", ours)
    assert (status, err) == (0, "")
    assert any(PROMPT.strip() in line for line in out.splitlines())
    assert "Euler a" in out and "\x1b" not in out


def test_the_web_uis(tmp_path, run):
    info = PngInfo()
    info.add_text("parameters", "a cat\nNegative prompt: dogs\nSteps: 20, Seed: 3, Size: 8x8")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    status, out, _ = run("inspect", "a.png", "--json")
    assert status == 0
    assert json.loads(out) == {
        "prompt": "a cat",
        "negative": "dogs",
        "parameters": {"Steps": "20", "Seed": "3", "Size": "8x8"},
    }


def test_nothing_to_say(tmp_path, refusal):
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "carries no generation parameters" in refusal("inspect", "bare.png")
    assert "not a picture" in refusal("inspect", "cut.png")
    assert "there is no file or folder 'none'" in refusal("inspect", "none")


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      "])
def test_not_a_checkpoint(content, refusal, tmp_path):
    pytest.importorskip("suffuse.weights.inspect")
    (tmp_path / "x.safetensors").write_bytes(content)
    assert "x.safetensors" in refusal("inspect", "x.safetensors")
