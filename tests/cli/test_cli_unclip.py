"""`suffuse generate` with an unCLIP folder."""

from __future__ import annotations

from pathlib import Path

import karlo_tiny
import pytest
import sight
from PIL import Image

from suffuse.systems.metadata import read_parameters


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("karlo")
    karlo_tiny.karlo().save_pretrained(made)
    return made


def test_generate_draws_with_it(run, folder, tmp_path):
    asked = ["two dogs", "--model", folder, "--seed", 3, "--steps", 3, "--device", "cpu"]
    ended = run("generate", *asked, "-o", "dogs.png", "--film", "film.png")
    assert ended.status == 0, ended.err
    with Image.open(tmp_path / "dogs.png") as picture:
        assert picture.size == (16, 16)
    assert read_parameters(tmp_path / "dogs.png").to_request().steps == 3
    with Image.open(tmp_path / "film.png") as film:
        assert film.size[1] == 16


def test_what_it_cannot_do_is_one_line(run, folder, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "dogs.png")
    ended = run("generate", "a", "--image", "dogs.png", "--model", folder)
    assert ended.status == 2
    assert "has no image encoder, so it cannot vary an image" in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert not list(tmp_path.glob("outputs/*"))


def test_a_decoder_of_pixels_is_trained_and_varies(run, tmp_path):
    sight.saved(tmp_path / "clip")
    asked = ["train", "decoder", "-o", "run", "--preset", "toy-pixels"]
    ended = run(*asked, "--clip", "clip", "--steps", 1)
    assert ended.status == 0, ended.err
    sight.picture(1).save(tmp_path / "blobs.png")
    ended = run("generate", "--image", "blobs.png", "--model", "run/model", "-o", "other.png")
    assert ended.status == 0, ended.err
    with Image.open(tmp_path / "other.png") as picture:
        assert picture.size == (16, 16)


def test_options_of_the_other_decoder_are_refused(run, tmp_path):
    for preset, given in (("toy-pixels", ["--model", "x"]), ("toy", ["--upsampler", "x"])):
        ended = run("train", "decoder", "-o", "run", "--preset", preset, *given)
        assert ended.status == 2
        assert f"{given[0]} is not for the preset {preset}" in " ".join(ended.err.split())
    assert not (tmp_path / "run").exists()
