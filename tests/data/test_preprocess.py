"""Sizes, crops and filters, beside torch's and pillow's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch.nn.functional import interpolate

from suffuse.data.buckets import Buckets
from suffuse.data.preprocess import Preprocess
from suffuse.errors import SuffuseError


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def by_torch(image: Image.Image, size: tuple[int, int], mode: str, antialias: bool) -> np.ndarray:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    small = interpolate(pixels, size=size, mode=mode, align_corners=False, antialias=antialias)
    return small[0].permute(1, 2, 0).clamp(0, 255).numpy()


@pytest.mark.parametrize(
    ("name", "antialias"), [("bilinear", True), ("bicubic", True), ("bilinear", False)]
)
def test_resizing_is_torchs(name, antialias) -> None:
    image = noise(90, 70)
    made = Preprocess(32, name, antialias, crop="stretch").apply(image, rng())
    want = by_torch(image, (32, 32), name, antialias)
    assert np.abs(made - want).max() <= 1.01  # pillow rounds after each direction


def test_the_center_is_what_pillow_fits() -> None:
    image = noise(96, 64)
    made = Preprocess(32, "bicubic").apply(image, rng())
    whole = image.resize((48, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(made, np.asarray(whole)[:, 8:40])


def test_halving_first_is_averaging() -> None:
    image = noise(128, 96)
    made = Preprocess(32, halve=True).apply(image, rng())
    half = np.asarray(image.reduce(2))  # 64 x 48: less than twice 32
    want = Image.fromarray(half).resize((43, 32), Image.Resampling.BICUBIC)
    assert np.abs(made.astype(int) - np.asarray(want)[:, 5:37]).max() <= 2
    plain = Preprocess(32).apply(image, rng())
    assert np.abs(made.astype(int) - plain).max() > 2  # the name of the method matters


def test_a_random_crop_is_a_window_of_the_whole_and_depends_on_the_generator() -> None:
    image = noise(40, 20)
    crops = [
        Preprocess(20, crop="random").apply(image, np.random.default_rng(i)) for i in range(30)
    ]
    windows = [np.asarray(image)[:, x : x + 20] for x in range(21)]
    places = {next(x for x, w in enumerate(windows) if (w == crop).all()) for crop in crops}
    assert len(places) > 8
    again = Preprocess(20, crop="random").apply(image, np.random.default_rng(3))
    np.testing.assert_array_equal(again, crops[3])


def test_flips_are_as_frequent_as_asked() -> None:
    image = noise(16, 16)
    mirrored = np.asarray(ImageOps.mirror(image))
    generator, flipped = rng(), 0
    for _ in range(200):
        made = Preprocess(16, flip=0.25).apply(image, generator)
        flipped += bool((made == mirrored).all())
    assert 30 <= flipped <= 70


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["center", "random", "stretch"]))
@settings(max_examples=40, deadline=None)
def test_every_picture_gets_its_shape(width, height, crop) -> None:
    for how in (Preprocess(32, crop=crop), Preprocess(32, crop=crop, buckets=Buckets(8))):
        shape = how.shape(width, height)
        assert how.apply(Image.new("RGB", (width, height)), rng()).shape == (*shape[::-1], 3)


@pytest.mark.parametrize("buckets", [None, Buckets(32, 3.0)])
def test_it_is_kept_with_the_model(buckets, tmp_path) -> None:
    how = Preprocess(64, "lanczos", crop="random", flip=0.5, buckets=buckets)
    assert Preprocess.load(tmp_path) is None
    how.save(tmp_path)
    assert Preprocess.load(tmp_path) == how
    assert [path.name for path in tmp_path.iterdir()] == ["preprocessing.json"]
    values = json.loads((tmp_path / "preprocessing.json").read_text())
    assert values["filter"] == "lanczos"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read"),
        ("[]", "does not hold a preprocessing"),
        ('{"size": 64, "zoom": 2}', "has no zoom"),
        ('{"size": 0}', "size must be at least 1 pixel, not 0"),
        ('{"filter": "sinc"}', "unknown filter 'sinc'"),
        ('{"buckets": {"width": 2}}', "not as it should be"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message, tmp_path) -> None:
    (tmp_path / "preprocessing.json").write_text(text)
    with pytest.raises(SuffuseError, match=message):
        Preprocess.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "left"}, "unknown crop 'left'"),
        ({"flip": 2.0}, "flip must be between 0 and 1"),
        ({"antialias": False}, "without antialias the filter is bilinear, not bicubic"),
        ({"size": 100, "buckets": Buckets(64)}, "size must be a multiple of 64, not 100"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message) -> None:
    with pytest.raises(SuffuseError, match=message):
        Preprocess(**options)
