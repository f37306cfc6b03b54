"""`suffuse evaluate images` and `reconstruction`: what they answer and what they refuse."""

import json
import os

import numpy as np
import pytest
import tiny
from PIL import Image

from suffuse.networks.perceptual import FeatureConfig, FeatureNet
from suffuse.weights.clip import open_clip_parts, save_clip
from suffuse.weights.parts import Hints
from suffuse.weights.perceptual import save_features

CLIP = tiny.TOKENIZER.parents[2] / "clip" / "openai_vit" / "archive.pt"


@pytest.fixture
def folder(tmp_path):
    """Two folders of pictures, an empty one, statistics, and a feature network."""
    rng = np.random.default_rng(0)
    for name, count in (("made", 5), ("real", 6)):
        (tmp_path / name).mkdir()
        for i in range(count):
            small = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
            small.resize((18, 16)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "known.npz", mu=np.zeros(16), sigma=np.eye(16))
    net = FeatureNet(FeatureConfig(5, (8, 16), groups=4))
    tiny.randomise(net, 1)
    save_features(net, tmp_path / "net.safetensors")
    return tmp_path


IMAGES = ("evaluate", "images", "--features", "net.safetensors", "--device", "cpu")
SETS = ("--generated", "made", "--reference", "real")
RECONSTRUCTION = ("evaluate", "reconstruction", "--autoencoder", "none", "--data")


def test_images_as_a_table_and_as_json(folder, run):
    (folder / "made" / "broken.png").write_text("no")
    for name, caption in {"0": "a red apple", "3": "two dogs " * 60}.items():
        (folder / "made" / f"{name}.txt").write_text(caption)
    save_clip(open_clip_parts(CLIP, hints=Hints(tokenizer=tiny.TOKENIZER)), folder / "clip")
    keep = ("--json", "out.json", "--save-statistics", "real.npz", "--clip", "clip")
    status, out, err = run(*IMAGES, *SETS, *keep)
    assert status == 0, err
    assert "skipped 1 broken picture: broken.png" in err and "wrote out.json" in err
    rows = {
        words[0]: words[1] for line in out.splitlines() if len(words := line.split(None, 1)) == 2
    }
    found = json.loads((folder / "out.json").read_text())
    assert rows["FID"] == f"{found['fid']:.3f}" and rows["recall"] == f"{found['recall']:.3f}"
    assert "own feature network (net.safetensors)" in rows["network"]
    assert found["pictures"] == {"generated": 5, "reference": 6}
    assert found["clip"]["pictures"] == 2 and 0 <= found["clip"]["score"] <= 100
    assert "CLIP score" in out and f"{found['clip']['score']:.3f} (clip)" in out
    assert "a text is longer than the 75 tokens" in err
    # What was kept stands for the folder.
    again = ("--generated", "made", "--reference", "real.npz", "--json")
    status, out, err = run(*IMAGES, *again)
    assert status == 0, err
    kept = json.loads(out)
    assert kept["fid"] == pytest.approx(found["fid"]) and kept["sfid"] == pytest.approx(
        found["sfid"]
    )
    assert kept["precision"] is None and "need the reference pictures" in " ".join(kept["notes"])


def test_reconstruction_in_json(folder, model, run):
    by = ("--features", "net.safetensors", "--perceptual", "net.safetensors", "--device", "cpu")
    given = ("--autoencoder", model, "--data", "real", "--size", "16", "--n", "4")
    status, out, err = run("evaluate", "reconstruction", *given, *by, "--json", "-")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["pictures"] == 4 and found["prepared"]["size"] == 16
    assert found["psnr"] > 0 and found["rfid"] > 0 and found["lpips"] > 0 and found["ssim"] < 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((*IMAGES, *SETS, "--n", "0"), "n must be at least 1, not 0"),
        ((*IMAGES, *SETS, "--json", "known.npz"), "'known.npz' is already there: add --overwrite"),
        ((*IMAGES, *SETS, "--json", "no/a.json"), "cannot write 'no/a.json': there is no folder"),
        ((*IMAGES, *SETS, "--save-statistics", "a.npy"), "statistics are an .npz: name 'a.npy'"),
        ((*IMAGES, "--generated", "empty", "--reference", "real"), "'empty' holds no pictures"),
        ((*IMAGES, "--generated", "known.npz", "--reference", "real"), "'known.npz' holds no pic"),
        ((*IMAGES, *SETS, "--clip", str(CLIP)), f"{CLIP}: the text encoder knows 634 tokens"),
        ((*RECONSTRUCTION, "emoji", "--size", "64"), "emoji scenes have one size"),
        ((*RECONSTRUCTION, "real"), "none: there is no such file or folder"),
    ],
)
def test_refuses(args, message, folder, refusal):
    before = sorted(os.listdir(folder))
    assert refusal(*args).startswith(message)
    assert sorted(os.listdir(folder)) == before
