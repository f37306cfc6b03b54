"""Super-resolution from the command line: train, enlarge, measure; and what is refused."""

import json

import numpy as np
import pytest
import tiny
from PIL import Image

from suffuse.networks.perceptual import FeatureConfig, FeatureNet
from suffuse.networks.pixel import SR3Config, sr3
from suffuse.systems.metadata import read_parameters
from suffuse.weights.parts import Defaults, Info
from suffuse.weights.perceptual import save_features
from suffuse.weights.pixel import Enlarging, PixelModel
from suffuse.weights.save import save_pixel

CONFIG = SR3Config(
    width=8, channels=(8, 16), blocks=1, attends=(False, False), mid_attention=False, groups=4
)
ON_CPU = ("--device", "cpu")


def upscaler(folder, factor):
    """A model of random numbers, trained at 16 pixels."""
    net = sr3(CONFIG).eval()
    tiny.randomise(net, factor)
    scheduler = {"_class_name": "DDIMScheduler", "clip_sample": True, "beta_end": 0.02}
    info, about = Info("tiny", "test"), Enlarging(factor)
    size, steps = (16, 16), Defaults(steps=2)
    save_pixel(
        PixelModel(net, CONFIG, info, None, scheduler, size, (), steps, about),
        folder / f"x{factor}",
    )


@pytest.fixture
def folder(tmp_path):
    """Upscalers, pictures of several kinds, a feature network."""
    upscaler(tmp_path, 2)
    upscaler(tmp_path, 4)
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (7, 11, 4), np.uint8), "RGBA")
    colours.convert("RGB").save(tmp_path / "a.png")
    colours.save(tmp_path / "clear.png")
    colours.convert("L").save(tmp_path / "grey.png")
    (tmp_path / "data").mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(
            tmp_path / f"data/{i}.png"
        )
    return tmp_path


def test_train_and_measure(run, tmp_path):
    net = FeatureNet(FeatureConfig(5, (8, 16), groups=4))
    tiny.randomise(net, 1)
    save_features(net, tmp_path / "net.safetensors")
    status, out, err = run("train", "sr3", "-o", "sr", "--preset", "toy", "--steps", "2")
    assert status == 0 and out == "sr/model\n", err

    measure = ("evaluate", "upscale", "--model", "sr/model", "--n", "3", "--objects", "8", *ON_CPU)
    more = ("--features", "net.safetensors", "--draws", "2", "--sheet", "sheet.png")
    status, out, err = run(*measure, *more, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert (found["pictures"], found["factor"], found["steps"]) == (3, 2, 2)
    for name in ("one_draw", "mean_of_draws", "bicubic"):
        assert found[name]["psnr"] > 15 and 0 < found[name]["ssim"] <= 1
        assert found[name]["consistency"] < 0.01 and found[name]["distance"] >= 0
    with Image.open(tmp_path / "sheet.png") as sheet:  # bicubic, a draw, the mean, the reference
        assert sheet.size == (4 * 128, 3 * 128)
    status, out, err = run(*measure)
    assert status == 0 and "bicubic" in out and "PSNR" in out and err == ""
    assert "Suffuse's own feature network (features.safetensors)" in " ".join(out.split())


def test_pictures_of_any_size_and_kind(folder, run):
    """Names and metadata are those of `generate`; a seed is a picture, whatever else is asked."""
    pictures = ("a.png", "clear.png", "grey.png")
    status, out, err = run("upscale", *pictures, "-m", "x2", "--seed", "7", *ON_CPU)
    assert status == 0, err
    assert out.splitlines() == [
        "outputs/00001-7-a.png  22 x 14  seed 7",
        "outputs/00002-8-clear.png  22 x 14  seed 8",
        "outputs/00003-9-grey.png  22 x 14  seed 9",
    ]
    modes = {}
    for path in sorted((folder / "outputs").iterdir()):
        with Image.open(path) as made:
            assert made.size == (22, 14)
            modes[path.stem.split("-")[-1]] = made.mode
    assert modes == {"a": "RGB", "clear": "RGBA", "grey": "L"}
    said = read_parameters(folder / "outputs/00001-7-a.png")
    assert said.request["steps"] == 2 and said.request["image"]["path"] == "a.png"
    assert said.origin.source == "x2" and said.parameters.fields["Size"] == "22x14"

    # Smaller tiles, other models: the same command, another picture.
    few = ("--steps", "1", "--tile", "8", "--overlap", "2", "--batch", "2", *ON_CPU)
    status, out, err = run("upscale", "a.png", "-m", "x2", "-m", "x4", "-o", "big.png", *few)
    assert status == 0 and out.startswith("big.png  88 x 56  seed "), err
    assert read_parameters(folder / "big.png").origin.name == "x2 + x4"
    with Image.open(folder / "big.png") as made:
        assert made.size == (88, 56)

    # What `generate` does with any model, it does with this one; --like makes the picture again.
    status, out, err = run("generate", "--like", "outputs/00001-7-a.png", "-o", "same.png", *ON_CPU)
    assert status == 0, err
    first, again = (np.asarray(Image.open(folder / p)).astype(int)
                    for p in ("outputs/00001-7-a.png", "same.png"))  # fmt: skip
    assert np.abs(first - again).max() <= 1


def test_folders_are_measured_at_the_models_size(folder, run):
    measure = ("evaluate", "upscale", "--model", "x4", "--data", "data", *ON_CPU)
    status, out, err = run(*measure, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["pictures"] == 3 and found["prepared"]["size"] == 16
    assert "mean_of_draws" not in found


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("none.png", "-m", "x2"), "there is no image file 'none.png'"),
        (("a.png", "-m", "nowhere"), "nowhere: there is no such file or folder"),
        (("a.png", "-m", "data"), "data: is no upscaler, which `suffuse train sr3` makes"),
        (("a.png", "-m", "x2", "-o", "clear.png"), "'clear.png' is already there"),
        (("a.png", "-m", "x2", "--tile", "9"), "a tile of x2 has 2 pixels or more, divisible by 2"),
    ],
)
def test_one_line_and_nothing_written(args, message, folder, refusal):
    before = sorted(folder.iterdir())
    assert refusal("upscale", *args).startswith(message)
    assert [path for path in sorted(folder.iterdir()) if path.name != "outputs"] == before
    assert not list((folder / "outputs").glob("*"))
